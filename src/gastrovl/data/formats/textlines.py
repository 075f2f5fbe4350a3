"""Annotation files to numbered rows, with one error for a folder or file that is not there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from gastrovl.core.errors import SourceError


def require_file(path: Path) -> Path:
    """`path`, when it is a file.

    Raises:
        SourceError: It is not.
    """
    if not path.is_file():
        raise SourceError(
            f"{path}: no such file; expected it by the source description. Check `root` in the config, and that the "
            "download is complete"
        )
    return path


def require_folder(path: Path) -> Path:
    """`path`, when it is a folder.

    Raises:
        SourceError: It is not.
    """
    if not path.is_dir():
        raise SourceError(
            f"{path}: no such folder; expected it by the source description. Check `root` in the config, and that the "
            "download is complete"
        )
    return path


def read_utf8(path: Path) -> str:
    """The text of an annotation file, without a byte order mark.

    Raises:
        SourceError: The file is not UTF-8 text.
    """
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = path.read_bytes()[: error.start].count(b"\n") + 1
        raise SourceError(
            f"{path}:{line}: not UTF-8 text ({error.reason}); expected an annotation file. Save it as UTF-8"
        ) from error


def numbered_rows(path: Path) -> Iterator[tuple[str, str]]:
    """("file:line", row) of every row that is not blank.

    Raises:
        SourceError: The file is not UTF-8 text.
    """
    for number, row in enumerate(read_utf8(path).splitlines(), start=1):
        if row.strip():
            yield f"{path}:{number}", row.strip()
