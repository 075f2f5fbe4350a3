"""A source's published files to a folder: resumed, checked, unpacked, and only after its licence was accepted.

The only module that opens a connection. A file grows under `.downloads/` and takes its name when it is whole; what is
there is written down in `fetched.json`, so that an interrupted fetch goes on and a finished one does nothing.
"""

from __future__ import annotations

import http.client
import json
import re
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import IO, Any

from gastrovl import __version__
from gastrovl.core.errors import DownloadError
from gastrovl.core.files import sha256_file, write_text
from gastrovl.data.source import Download, SourceDescription, check_url
from gastrovl.data.unpack import unpack

RECORD = "fetched.json"
WORK = ".downloads"
CHUNK = 2**18
TIMEOUT_S = 60.0
RETRIED = (408, 425, 429, 500, 502, 503, 504)
Progress = Callable[[str, int, int], None]  # (what, bytes done, bytes in all)


@dataclass(frozen=True)
class _Reply:
    """An open answer: the stream, where in the file it begins, the whole size if told, and what identifies the file."""

    stream: IO[bytes]
    start: int
    total: int | None
    identity: dict[str, str]


def fetch_source(
    description: SourceDescription,
    folder: Path,
    *,
    accepted_licence_of: str,
    progress: Progress | None = None,
    attempts: int = 5,
    keeps_archives: bool = False,
    wait: Callable[[float], None] = time.sleep,
) -> list[Path]:
    """Get all files of a source; run again, it goes on where it stopped.

    Args:
        accepted_licence_of: The source's name again: its licence has been read and accepted.
        attempts: How often a connection that breaks is taken up again before giving up.
        keeps_archives: Keep archives in `.downloads/` after unpacking.
        wait: Called with seconds between attempts.

    Returns:
        The files and folders that are there now, in the order of the description.

    Raises:
        DownloadError: The licence was not accepted, there is nothing to fetch, the network or the publisher failed, a
            file is not what was promised, or something else stands in its place.
    """
    if accepted_licence_of != description.name:
        raise DownloadError(
            f"{description.name}: its licence was not accepted ({description.licence}); read it, then pass "
            f"--accept-licence {description.name}"
        )
    if not description.downloads:
        raise DownloadError(f"{description.name}: nothing can be fetched. {description.by_hand or description.url}")
    show = progress or _silent
    folder.mkdir(parents=True, exist_ok=True)
    return [_fetch(item, description, folder, show, attempts, keeps_archives, wait) for item in description.downloads]


def _fetch(
    item: Download,
    description: SourceDescription,
    folder: Path,
    show: Progress,
    attempts: int,
    keeps_archives: bool,
    wait: Callable[[float], None],
) -> Path:
    target = folder / item.to
    record = _read_record(folder, description)
    if item.to in record["files"] and target.exists():
        return target
    partial = folder / WORK / f"{item.to.replace('/', '__')}.partial"
    whole, facts_file = partial.with_suffix(".whole"), partial.with_suffix(".whole.json")
    facts = _read_json(facts_file)
    if target.exists() and not facts.pop("placing", None):
        raise DownloadError(
            f"{target}: is there already and was not fetched by gastrovl; move it away, or choose another -o"
        )
    if not target.exists():
        partial.parent.mkdir(parents=True, exist_ok=True)
        if not whole.exists() or not facts:
            identity = _download(item, partial, show, attempts, wait)
            facts = {"url": item.url, "bytes": partial.stat().st_size, "sha256": _check(item, partial), **identity}
            write_text(facts_file, json.dumps(facts))
            partial.replace(whole)
            _notes_of(partial).unlink(missing_ok=True)
        _place(whole, facts_file, facts, item, target, show)
    record["files"][item.to] = facts
    write_text(folder / RECORD, json.dumps(record, indent=2) + "\n")
    if not keeps_archives:
        whole.unlink(missing_ok=True)
    facts_file.unlink(missing_ok=True)
    return target


def _place(whole: Path, facts_file: Path, facts: dict[str, Any], item: Download, target: Path, show: Progress) -> None:
    """Give the file or the unpacked folder its name in one step, after a note that it is ours."""
    ready = whole
    if item.unpack != "none":
        ready = whole.with_suffix(".unpacked")
        _unpack_beside(whole, item, ready, show)
    target.parent.mkdir(parents=True, exist_ok=True)
    write_text(facts_file, json.dumps({**facts, "placing": True}))
    ready.replace(target)


def _unpack_beside(archive: Path, item: Download, folder: Path, show: Progress) -> None:
    """Unpack to a folder that vanishes again when something is wrong."""
    shutil.rmtree(folder, ignore_errors=True)  # left by a fetch that was killed
    folder.mkdir()

    def step(written: int) -> None:
        show(f"unpacking {item.file} (bytes)", written, max(written, archive.stat().st_size))

    try:
        unpack(archive, "zip" if item.unpack == "zip" else "tar", folder, strip=item.strip, progress=step)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _download(
    item: Download, partial: Path, show: Progress, attempts: int, wait: Callable[[float], None]
) -> dict[str, str]:
    """Let `partial` grow until it is whole; what identifies the file at the publisher's."""
    for attempt in range(1, attempts + 1):
        try:
            return _continue(item, partial, show)
        except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError) as error:
            if isinstance(error, urllib.error.HTTPError):
                if error.code == 416:  # more on disk than the publisher has: not the same file any more
                    partial.unlink(missing_ok=True)
                elif error.code not in RETRIED:
                    raise DownloadError(
                        f"{item.url}: the server answers {error.code} {error.reason}; look at the publisher's page"
                    ) from error
            if attempt == attempts:
                raise DownloadError(
                    f"{item.url}: broke off {attempts} times, the last time with {error}; run the same command again, "
                    "it goes on where it stopped"
                ) from error
            wait(min(60.0, 2.0**attempt))
    raise AssertionError("attempts is at least 1")


def _continue(item: Download, partial: Path, show: Progress) -> dict[str, str]:
    reply = _open(item, partial)
    _check_room(item, partial, reply)
    step = f"fetching {item.file} (bytes)"
    with reply.stream, partial.open("r+b" if reply.start else "wb") as out:
        out.seek(reply.start)
        out.truncate()
        write_text(_notes_of(partial), json.dumps({"url": item.url, **reply.identity}))
        done = reply.start
        while block := reply.stream.read(CHUNK):
            done += len(block)
            if item.bytes is not None and done > item.bytes:
                raise DownloadError(f"{item.url}: sends more than the {item.bytes:,} bytes it should have; not kept")
            out.write(block)
            show(step, done, max(done, reply.total or item.bytes or 0))
    if reply.total is not None and done < reply.total:
        raise ConnectionError(f"{done:,} of {reply.total:,} bytes")
    return reply.identity


def _open(item: Download, partial: Path) -> _Reply:
    """Ask for the rest of the file if the publisher's is still the one that was begun, else for all of it."""
    have = partial.stat().st_size if partial.exists() else 0
    notes: dict[str, str] = _read_json(_notes_of(partial)) if have else {}
    headers = {"User-Agent": f"gastrovl/{__version__}", "Accept-Encoding": "identity"}
    same = notes.get("etag") or notes.get("last_modified")
    if have and same and notes.get("url") == item.url:
        headers |= {
            "Range": f"bytes={have}-",
            "If-Range": same,
        }  # 206 when unchanged, else 200 with all (RFC 9110 13.1.5)
    opener = urllib.request.build_opener(_SafeRedirects())
    stream = opener.open(urllib.request.Request(item.url, headers=headers), timeout=TIMEOUT_S)
    identity = _identity(stream.headers)
    length = stream.headers.get("Content-Length")
    if stream.status != 206:
        return _Reply(stream, 0, int(length) if length else None, identity)
    match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", stream.headers.get("Content-Range", ""))
    begun = {key: value for key, value in notes.items() if key != "url"}
    if match is None or int(match[1]) != have or any(identity.get(key, value) != value for key, value in begun.items()):
        stream.close()
        partial.unlink()
        raise ConnectionError("the server goes on with another file; starting anew")
    return _Reply(stream, have, None if match[2] == "*" else int(match[2]), {**begun, **identity})


def _identity(headers: Message) -> dict[str, str]:
    """What tells this version of the file from others; a weak ETag does not promise equal bytes."""
    found = {}
    etag, modified = headers.get("ETag", ""), headers.get("Last-Modified", "")
    if etag and not etag.startswith("W/"):
        found["etag"] = etag
    if modified:
        found["last_modified"] = modified
    return found


class _SafeRedirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to https only, and never from elsewhere to this machine."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> urllib.request.Request | None:
        try:
            check_url(newurl)
        except ValueError as error:
            raise DownloadError(f"{req.full_url}: leads to {error}; not followed") from error
        if newurl.startswith("http:") and not req.full_url.startswith("http:"):
            raise DownloadError(f"{req.full_url}: leads from https to {newurl}; not followed")
        return super().redirect_request(req, fp, code, msg, headers, newurl)  # type: ignore[arg-type]


def _check_room(item: Download, partial: Path, reply: _Reply) -> None:
    total = reply.total or item.bytes or 0
    if item.bytes is not None and reply.total is not None and reply.total != item.bytes:
        reply.stream.close()
        raise DownloadError(
            f"{item.url}: has {reply.total:,} bytes, expected {item.bytes:,}; the publisher changed the file. "
            "Check it, then correct `bytes` and `sha256` in the source description"
        )
    needed = (total - reply.start) + (total if item.unpack != "none" else 0)
    free = shutil.disk_usage(partial.parent).free
    if needed > free:
        reply.stream.close()
        raise DownloadError(
            f"{partial.parent}: has {free:,} bytes free, {needed:,} are needed; free space, or choose another -o"
        )


def _check(item: Download, partial: Path) -> str:
    size, digest = partial.stat().st_size, sha256_file(partial)
    wrong = item.bytes is not None and size != item.bytes
    if wrong or (item.sha256 is not None and digest != item.sha256):
        partial.unlink()
        _notes_of(partial).unlink(missing_ok=True)
        found = f"{size:,} bytes" if wrong else f"sha256 {digest}"
        expected = f"{item.bytes:,}" if wrong else item.sha256
        raise DownloadError(
            f"{item.url}: came with {found}, expected {expected}; deleted. Fetch it again; if it comes the same, the "
            "publisher changed the file"
        )
    return digest


def _read_record(folder: Path, description: SourceDescription) -> dict[str, Any]:
    path = folder / RECORD
    if not path.exists():
        return {
            "schema": "gastrovl/fetched/1",
            "source": description.name,
            "licence": description.licence,
            "citation": description.citation,
            "files": {},
        }
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        source, files = record["source"], record["files"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DownloadError(f"{path}: is not ours to go on from ({error}); choose another -o") from error
    if source != description.name or not isinstance(files, dict):
        raise DownloadError(f"{path}: this folder holds {source!r}; choose another -o for {description.name}")
    return dict(record)


def _notes_of(partial: Path) -> Path:
    return partial.with_suffix(".json")


def _read_json(path: Path) -> dict[str, Any]:
    """A note of ours; empty when it is not there or was cut."""
    try:
        notes = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return notes if isinstance(notes, dict) else {}


def _silent(_what: str, _done: int, _total: int) -> None:
    """Report nothing."""
