"""Tiny pictures, each seed another pattern so that no two look alike, and a watch on the files that are opened."""

from __future__ import annotations

import ctypes
import os
import struct
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

Draw = Callable[..., Path]
Watch = Callable[..., AbstractContextManager[list[str]]]
READS = ("open", "os.listdir", "os.scandir")  # events of the interpreter whose first argument is a path
IN_ACCESS, IN_OPEN = 0x1, 0x20  # inotify(7)

_opened: list[str] | None = None


def _note(event: str, arguments: tuple[Any, ...]) -> None:
    if _opened is not None and event in READS and isinstance(arguments[0], str | bytes | os.PathLike):
        _opened.append(os.fsdecode(arguments[0]))


sys.addaudithook(_note)  # the interpreter itself reports every file that is opened, by whatever library in Python


class _Inotify:
    """What the kernel reports of some folders: opens by libraries in C too, which the interpreter does not see."""

    def __init__(self, folders: tuple[Path, ...]) -> None:
        self._folders: dict[int, Path] = {}
        self._file = -1
        if not sys.platform.startswith("linux"):
            return
        libc = ctypes.CDLL(None)
        self._file = libc.inotify_init1(os.O_NONBLOCK)
        for folder in folders:
            self._folders[libc.inotify_add_watch(self._file, os.fsencode(folder), IN_ACCESS | IN_OPEN)] = folder

    def close(self) -> Iterator[str]:
        """The paths that were opened or read since."""
        if self._file < 0:
            return
        try:
            content = os.read(self._file, 2**20)
        except BlockingIOError:
            content = b""
        os.close(self._file)
        while content:
            watch, _, _, length = struct.unpack_from("iIII", content)
            yield str(self._folders[watch] / os.fsdecode(content[16 : 16 + length].rstrip(b"\0")))
            content = content[16 + length :]


@pytest.fixture(scope="session")
def watched() -> Watch:
    """`with watched(folder, ...) as opened` collects the paths opened or listed meanwhile, complete when it ends.

    Whatever Python opens is seen; what libraries in C open by themselves is seen directly in the given folders.
    """

    @contextmanager
    def watch(*folders: Path) -> Iterator[list[str]]:
        global _opened
        kernel = _Inotify(folders)
        _opened = found = []
        try:
            yield found
        finally:
            _opened = None
            found.extend(kernel.close())

    return watch


@pytest.fixture
def draw() -> Draw:
    """`draw(path, seed=0, size_wh=(64, 48))` writes a picture of coloured blocks."""

    def write(path: Path, seed: int = 0, size_wh: tuple[int, int] = (64, 48)) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        blocks = np.random.default_rng(seed).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(blocks).resize(size_wh, Image.Resampling.BILINEAR).save(path)
        return path

    return write


@pytest.fixture
def bomb() -> Draw:
    """`bomb(path)` writes a PNG of a few bytes whose header claims 50,000 x 50,000 px."""

    def write(path: Path) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        header = _chunk(b"IHDR", struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0))
        data = _chunk(b"IDAT", zlib.compress(b"\0" * 1000))
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + data + _chunk(b"IEND", b""))
        return path

    return write


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
