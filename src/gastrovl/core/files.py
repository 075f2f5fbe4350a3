"""Files that are either whole or absent: atomic writes, whole output folders, hashes."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gastrovl.core.errors import OutputError

LOCK = ".lock"
_OUR_MANIFEST_KEYS = {"stage", "version", "created", "config"}


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary sibling that takes the name `path` when the block ends well, and vanishes when it does not.

    Raises:
        OutputError: `path` is a folder, or its folder cannot be made or written to.
    """
    path = Path(path)
    if path.is_dir():
        raise OutputError(f"{path} is a folder; expected the name of a file to write. Choose another output")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=path.suffix, dir=path.parent)
    except OSError as error:
        raise _cannot_write(path, error) from error
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file atomically.

    Raises:
        OutputError: As in `atomic_path`.
    """
    with atomic_path(Path(path)) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextmanager
def whole_folder(path: Path, *, is_replaced: bool = False) -> Iterator[Path]:
    """A temporary folder that becomes `path` when the block ends well; nothing is left behind when it does not.

    A folder that is replaced stays as it was until the new one is whole.

    Raises:
        OutputError: `path` exists and is not an empty folder, and `is_replaced` is False or it was not made by us; or
            the place cannot be written to.
    """
    named, path = path, _free_place(path, is_replaced=is_replaced)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    except OSError as error:
        raise _cannot_write(named, error) from error
    try:
        temporary.chmod(0o755)
        yield temporary
        _take_place(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def resumed_folder(path: Path, *, is_replaced: bool = False) -> Iterator[Path]:
    """The folder `.NAME.partial` beside `path`, which becomes `path` when the block ends well.

    However the block ends otherwise, also by the death of the process, what it wrote stays there for the next call; a
    folder in which no file was written vanishes. Only one process at a time has it.

    Raises:
        OutputError: As in `whole_folder`, or another process is writing the same folder.
    """
    named, path = path, _free_place(path, is_replaced=is_replaced)
    partial = partial_folder(path)
    try:
        partial.mkdir(parents=True, exist_ok=True)
        lock = os.open(partial / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise _cannot_write(named, error) from error
    try:
        lock_handle(lock, f"{named}: another process is writing it (in {partial}); wait for it, or choose another -o")
        try:
            yield partial
            (partial / LOCK).unlink()
            _take_place(partial, path)
        finally:
            if partial.is_dir() and not any(one.is_file() for one in partial.rglob("*") if one.name != LOCK):
                shutil.rmtree(partial, ignore_errors=True)
    finally:
        os.close(lock)


def partial_folder(path: Path) -> Path:
    """Where `resumed_folder` keeps what is not whole yet."""
    path = Path(path).resolve()
    return path.with_name(f".{path.name}.partial")


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's bytes, lower-case hex."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def lock_handle(handle: int, complaint: str) -> None:
    """Take an open file for this process; the system lets go of it when the process ends, however it ends.

    Raises:
        OutputError: Another process has it.
    """
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise OutputError(complaint) from error


def _free_place(named: Path, *, is_replaced: bool) -> Path:
    """The folder that `named` means, a link followed, when it may be written."""
    path = Path(named).resolve()
    if path.exists() and not path.is_dir():
        raise OutputError(f"{named} is a file; expected a folder that does not exist yet. Choose another -o")
    is_filled = path.is_dir() and any(path.iterdir())
    if is_filled and not is_replaced:
        raise OutputError(f"{named} already holds files; choose another -o, or pass --overwrite to replace the folder")
    if is_filled and not _is_ours(path):
        raise OutputError(
            f"{named} was not written by gastrovl (it holds no manifest.json of ours), so it is not replaced; "
            "choose another -o"
        )
    return path


def _take_place(temporary: Path, path: Path) -> None:
    """Rename `temporary` to `path`; an old folder there is set aside first and deleted last."""
    if not path.exists():
        temporary.rename(path)
        return
    aside = Path(tempfile.mkdtemp(prefix=f".{path.name}.old.", dir=path.parent))
    path.replace(aside)  # onto an empty folder
    try:
        temporary.rename(path)
    except OSError:
        aside.rename(path)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def _is_ours(folder: Path) -> bool:
    """Whether the folder's manifest is one of ours; programs of many kinds call a file manifest.json."""
    try:
        content = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(content, dict) and content.keys() >= _OUR_MANIFEST_KEYS


def _cannot_write(path: Path, error: OSError) -> OutputError:
    return OutputError(
        f"{path} cannot be written: {error.strerror or error}; choose another output, or mend its folder"
    )
