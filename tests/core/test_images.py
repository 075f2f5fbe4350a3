"""Every way an image file can be broken has its own message, and no bomb is unpacked."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import pytest
from PIL import Image

from gastrovl.core.errors import ImageError
from gastrovl.core.images import open_image


def _png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds no pixels."""
    size = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", size) + _chunk(b"IDAT", b"")


def _chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


@pytest.mark.parametrize(("mode", "suffix"), [("RGB", "jpg"), ("L", "png"), ("RGBA", "png"), ("P", "gif")])
def test_an_image_of_any_mode_is_opened_as_rgb(tmp_path, mode, suffix):
    path = tmp_path / f"frame.{suffix}"
    Image.new(mode, (20, 10)).save(path)
    image = open_image(path)
    assert (image.mode, image.size) == ("RGB", (20, 10))


def test_a_missing_image_is_named(tmp_path):
    with pytest.raises(ImageError, match=r"frame\.jpg: no such image"):
        open_image(tmp_path / "frame.jpg")


def test_an_empty_file_is_called_empty(tmp_path):
    (tmp_path / "frame.jpg").touch()
    with pytest.raises(ImageError, match=r"frame\.jpg: the file is empty \(0 bytes\); copy it again"):
        open_image(tmp_path / "frame.jpg")


def test_a_truncated_jpeg_is_not_opened(tmp_path):
    path = tmp_path / "frame.jpg"
    Image.effect_noise((200, 200), 50).save(path)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(ImageError, match=r"frame\.jpg: cannot be decoded \(.*truncated.*Copy it again"):
        open_image(path)


@pytest.mark.parametrize("content", [b"not an image", b"\xff\xd8\xff", _png_header(10, 10)])
def test_a_file_that_is_no_image_is_not_opened(tmp_path, content):
    path: Path = tmp_path / "frame.jpg"
    path.write_bytes(content)
    with pytest.raises(ImageError, match=r"frame\.jpg: cannot be decoded"):
        open_image(path)


@pytest.mark.parametrize("size_wh", [(50_000, 50_000), (12_000, 10_000)])  # above and below Pillow's own limit
def test_a_bomb_is_refused_unread(tmp_path, size_wh):
    path: Path = tmp_path / "frame.png"
    path.write_bytes(_png_header(*size_wh))
    with pytest.raises(ImageError, match=r"frame\.png: .*refused unread.*Scale it down"):
        open_image(path)
