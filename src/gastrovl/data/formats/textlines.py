"""Annotation files to text, rows, JSON and splits: found inside the source's folder only."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gastrovl.core.errors import SourceError

MAX_BYTES = 2_000_000_000  # of one annotation file, which is read whole
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")  # halves of a character; alone they cannot be written
Files = tuple[str, ...] | dict[str, str]


def inside(root: Path, name: str | Path) -> Path:
    """The path called `name` below `root`; links are followed, and must not lead out.

    Raises:
        SourceError: It leads out of `root`, or is no path at all.
    """
    return require_inside(root, Path(root, name))


def require_inside(root: Path, path: Path) -> Path:
    """`path` as it is, given that it lies below `root` when links are followed.

    Raises:
        SourceError: As in `inside`.
    """
    try:
        is_inside = path.resolve().is_relative_to(Path(root).resolve())
    except (OSError, ValueError, RuntimeError) as error:  # a loop of links, a null byte, a name too long
        raise SourceError(f"{str(path)!r}: not a path that can be followed ({error}); correct the name") from error
    if not is_inside:
        raise SourceError(
            f"{path}: leads out of {root}; expected a file inside the source's folder, and no link to another place. "
            "Copy the file into the folder, or set `root` to a folder that holds both"
        )
    return path


def require_file(root: Path, name: str) -> Path:
    """The file called `name` below `root`.

    Raises:
        SourceError: It is no file, or leads out of `root`.
    """
    path = inside(root, name)
    if not path.is_file():
        raise SourceError(
            f"{path}: no such file; expected it by the source description. Check `root` in the config, and that the "
            "download is complete"
        )
    return path


def require_folder(root: Path, name: str) -> Path:
    """The folder called `name` below `root`.

    Raises:
        SourceError: It is no folder, or leads out of `root`.
    """
    path = inside(root, name)
    if not path.is_dir():
        raise SourceError(
            f"{path}: no such folder; expected it by the source description. Check `root` in the config, and that the "
            "download is complete"
        )
    return path


def files_below(root: Path, folder: str, *suffixes: str) -> list[tuple[Path, str]]:
    """(path, name without suffix, relative to `folder`) of the files that end in one of `suffixes`, sorted by name.

    Raises:
        SourceError: The folder is missing, or it or a file in it leads out of `root`.
    """
    base = require_folder(root, folder)
    found = []
    for path in sorted(base.rglob("*")):
        if path.suffix.lower() in suffixes and path.is_file():
            found.append((require_inside(root, path), path.relative_to(base).with_suffix("").as_posix()))
    return found


def split_files(root: Path, files: Files) -> Iterator[tuple[Path, str | None]]:
    """(path, the source's word for its split) of each file of a list, or of a mapping from split to file.

    Raises:
        SourceError: As in `require_file`.
    """
    named = files.items() if isinstance(files, dict) else ((None, name) for name in files)
    for word, name in named:
        yield require_file(root, name), word


def read_bytes(path: Path) -> bytes:
    """The bytes of an annotation file.

    Raises:
        SourceError: The file cannot be read, or is larger than MAX_BYTES.
    """
    try:
        if (size := path.stat().st_size) > MAX_BYTES:
            raise SourceError(f"{path}: {size:,} bytes; expected at most {MAX_BYTES:,}. Cut it into several files")
        return path.read_bytes()
    except OSError as error:
        raise SourceError(f"{path}: cannot be read ({error.strerror or error}); check its permissions") from error


def read_utf8(path: Path) -> str:
    """The text of an annotation file, without a byte order mark.

    Raises:
        SourceError: The file cannot be read or is not UTF-8 text.
    """
    content = read_bytes(path)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise SourceError(
            f"{path}:{line}: not UTF-8 text ({error.reason}); expected an annotation file. Save it as UTF-8"
        ) from error


def parse_json(text: str, where: str) -> Any:
    """The value of a JSON text; `where` opens every message.

    Raises:
        SourceError: It is not JSON, is nested too deeply, or has a number too long to read.
    """
    try:
        content = json.loads(text)
        if _SURROGATE.search(text):
            json.dumps(content, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise SourceError(f"{where}: half a character ({error.reason}); correct the escape") from error
    except json.JSONDecodeError as error:
        raise SourceError(
            f"{where}:{error.lineno}: not valid JSON ({error.msg}); copy the file again from the source"
        ) from error
    except (ValueError, RecursionError) as error:
        raise SourceError(f"{where}: not JSON that can be read ({error}); copy the file again") from error
    return content


def read_json(path: Path) -> Any:
    """The value of a JSON file.

    Raises:
        SourceError: As in `read_utf8` and `parse_json`.
    """
    return parse_json(read_utf8(path), str(path))


def numbered_rows(path: Path) -> Iterator[tuple[str, str]]:
    """("file:line", row) of every row that is not blank.

    Raises:
        SourceError: The file cannot be read or is not UTF-8 text.
    """
    for number, row in enumerate(read_utf8(path).splitlines(), start=1):
        if row.strip():
            yield f"{path}:{number}", row.strip()
