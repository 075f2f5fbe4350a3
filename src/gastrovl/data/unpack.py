"""A downloaded archive to a folder: regular files only, inside that folder only, and no more than the archive can hold.

Archives come from the network, so nothing they say is believed: names are checked before anything is written (no "..",
no absolute path, no drive), links and devices are refused, and sizes are counted while bytes are written.
"""

from __future__ import annotations

import gzip
import lzma
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Literal

from gastrovl.core.errors import DownloadError

MAX_RATIO = 100  # unpacked bytes a byte of archive; images hardly shrink, and a bomb is made of thousands
FREE_BYTES = 64 * 2**20  # what any archive may unfold to
MAX_FILES = 5_000_000
MAX_DEPTH = 32
MAX_NAME_BYTES = 255
CHUNK = 2**20
BROKEN = (
    zipfile.BadZipFile,
    tarfile.TarError,
    gzip.BadGzipFile,
    lzma.LZMAError,
    zlib.error,
    EOFError,
    NotImplementedError,  # a compression that Python does not know
    struct.error,
    ValueError,  # UnicodeError among others: numbers and names that cannot be read
    OverflowError,
    OSError,  # bz2 says so of broken data; so does a full disk
)
LITTER = ("__MACOSX", ".DS_Store", "Thumbs.db")  # left by file managers; left out


@dataclass(frozen=True)
class _Member:
    """A regular file of an archive: its name there, and how to read it."""

    name: str
    open: Callable[[], IO[bytes] | None]


def unpack(
    archive: Path,
    kind: Literal["zip", "tar"],
    folder: Path,
    *,
    strip: int = 0,
    progress: Callable[[int], None] | None = None,
) -> int:
    """Unpack `archive` into the empty `folder` and count the files.

    Args:
        strip: Leading folders of every name that are left out.
        progress: Called with the bytes written so far.

    Raises:
        DownloadError: The archive is broken, encrypted, holds a link, a device, a name that leaves the folder or a name
            twice, or unfolds to more than its size allows. What was written till then stays: clear `folder`.
    """
    limit = max(FREE_BYTES, MAX_RATIO * archive.stat().st_size)
    written, seen = 0, set()
    try:
        for member in _zip_members(archive) if kind == "zip" else _tar_members(archive):
            place = safe_place(member.name, archive, strip)
            if place is None:
                continue
            if str(place).casefold() in seen:
                raise _refused(archive, member.name, "stands there twice (capitals aside)")
            seen.add(str(place).casefold())
            if len(seen) > MAX_FILES:
                raise _refused(archive, member.name, f"is one of more than {MAX_FILES:,} files")
            target = folder / place
            target.parent.mkdir(parents=True, exist_ok=True)
            written = _copy(member, target, written, limit, archive)
            if progress:
                progress(written)
    except DownloadError:
        raise
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        raise DownloadError(
            f"{archive}: holds a file and a folder of one name ({error.filename}); refused. Tell the publisher"
        ) from error
    except BROKEN as error:
        raise DownloadError(
            f"{archive}: is no whole {kind} archive, or the disk is full ({error}); delete it and fetch again"
        ) from error
    if not seen:
        raise DownloadError(
            f"{archive}: holds no file below {strip} folders; correct `strip` in the source description"
        )
    return len(seen)


def safe_place(name: str, archive: Path, strip: int) -> PurePosixPath | None:
    """Where a member goes below the output folder; None for litter.

    Raises:
        DownloadError: The name is absolute, climbs with "..", has a drive or a NUL, is too long or too deep, or not
            below `strip`.
    """
    parts = name.replace("\\", "/").split("/")
    if not name or name.startswith(("/", "\\")) or "\0" in name or ":" in parts[0]:
        raise _refused(archive, name, "is no relative path")
    if ".." in parts:
        raise _refused(archive, name, "leaves the folder it is unpacked to")
    kept = [part for part in parts if part not in ("", ".")]
    if any(part in LITTER or part.startswith("._") for part in kept):
        return None
    if any(len(part.encode("utf-8", "replace")) > MAX_NAME_BYTES for part in kept):
        raise _refused(archive, name, f"has a part of more than {MAX_NAME_BYTES} bytes")
    if not strip < len(kept) <= MAX_DEPTH:
        raise _refused(archive, name, f"lies in {len(kept) - 1} folders, expected {strip} to {MAX_DEPTH - 1}")
    return PurePosixPath(*kept[strip:])


def _zip_members(archive: Path) -> Iterator[_Member]:
    with zipfile.ZipFile(archive) as opened:
        for info in opened.infolist():
            mode = info.external_attr >> 16
            if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise _refused(archive, info.filename, "is a link or a device")
            if info.flag_bits & 0x1:
                raise _refused(archive, info.filename, "is encrypted")
            if not info.filename.endswith("/"):  # a folder; is_dir() fails on an empty name
                yield _Member(info.filename, lambda info=info: opened.open(info))  # type: ignore[misc]


def _tar_members(archive: Path) -> Iterator[_Member]:
    with tarfile.open(archive, "r:*") as opened:
        for info in opened:
            if info.isdir():
                continue
            if not info.isreg():
                raise _refused(archive, info.name, "is a link or a device")
            yield _Member(info.name, lambda info=info: opened.extractfile(info))  # type: ignore[misc]


def _copy(member: _Member, target: Path, written: int, limit: int, archive: Path) -> int:
    stream = member.open()
    if stream is None:
        raise _refused(archive, member.name, "cannot be read")
    with stream, target.open("xb") as out:
        while block := stream.read(CHUNK):
            written += len(block)
            if written > limit:
                raise _refused(archive, member.name, f"unfolds the archive beyond {limit:,} bytes, as bombs do")
            out.write(block)
    return written


def _refused(archive: Path, name: str, why: str) -> DownloadError:
    return DownloadError(
        f"{archive}: member {name[:200]!r} {why}; refused. Tell the publisher, or unpack it by hand if you trust it"
    )
