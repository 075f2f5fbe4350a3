"""Tiny pictures, drawn on the spot: each seed another pattern, so that no two of them look alike."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

Draw = Callable[..., Path]


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
