"""Images of strangers: what is whole comes through as from a file, all else is refused, and nothing of it quoted."""

from __future__ import annotations

import base64
import io
import struct
import zlib

import pytest
from PIL import Image

from gastrovl.core.images import open_image
from gastrovl.serving.pictures import decode, from_base64, from_data_url
from gastrovl.serving.refusals import RefusedError

from .conftest import data_url, picture, png


def refusal(work, *arguments) -> RefusedError:
    with pytest.raises(RefusedError) as caught:
        work(*arguments)
    return caught.value


def bomb(width: int, height: int) -> bytes:
    """A PNG of few bytes whose header promises many pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = zlib.compress(b"\0" * (1 << 20), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "BMP", "TIFF"])
def test_an_image_comes_through_as_from_its_file(tmp_path, form):
    path = tmp_path / "image"
    picture().save(path, form)

    found = decode(path.read_bytes(), "image", 1000)

    assert found.mode == "RGB"
    assert found.tobytes() == open_image(path).tobytes()


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1", "CMYK"])
def test_every_mode_becomes_rgb_as_from_its_file(tmp_path, mode):
    path = tmp_path / "image.tiff"
    picture().convert(mode).save(path)

    assert decode(path.read_bytes(), "image", 1000).tobytes() == open_image(path).tobytes()


def test_pixels_are_counted_before_they_are_unfolded():
    assert refusal(decode, bomb(100, 11), "image", 1000).code == "too_many_pixels"


@pytest.mark.parametrize("size", [(10_000, 10_000), (13_000, 13_000), (30_000, 30_000), (2**31 - 1, 2**31 - 1)])
def test_a_decompression_bomb_is_refused_from_its_header(size):
    found = refusal(decode, bomb(*size), "image", 25_000_000)

    assert (found.status, found.code) in [(413, "too_many_pixels"), (400, "invalid_image")]


def test_a_text_chunk_that_unfolds_is_refused():
    content = bytearray(png(picture()))
    text = b"Comment\0\0" + zlib.compress(b"a" * 80_000_000, 9)
    chunk = struct.pack(">I", len(text)) + b"zTXt" + text + struct.pack(">I", zlib.crc32(b"zTXt" + text))
    content[33:33] = chunk

    assert refusal(decode, bytes(content), "image", 1000).code == "invalid_image"


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "BMP", "TIFF"])
def test_an_image_cut_off_anywhere_is_refused_or_read_whole(form):
    stream = io.BytesIO()
    picture().save(stream, form)
    content = stream.getvalue()
    for end in range(0, len(content), max(1, len(content) // 60)):
        try:
            said = decode(content[:end], "image", 1000).size
        except RefusedError as error:
            said = (error.code, "BytesIO" in error.message)
        assert said in [(40, 20), ("invalid_image", False)]


@pytest.mark.parametrize(
    "content", [b"", b"hello", b"%PDF-1.7", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"GIF89a"]
)
def test_what_is_no_image_of_a_known_format_is_refused(content):
    assert refusal(decode, content, "image", 1000).code == "invalid_image"


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/a.png",
        "https://example.org/a.png",
        "file:///etc/passwd",
        "/etc/passwd",
        "ftp://x/y",
        "",
        "DATA",
    ],
)
def test_a_url_that_would_have_to_be_fetched_is_refused(url):
    found = refusal(from_data_url, url, "messages")

    assert (found.status, found.code) == (400, "image_url_not_allowed")
    assert not url or url not in found.message


@pytest.mark.parametrize(
    "url", ["data:text/html;base64,AAAA", "data:image/png,AAAA", "data:image/png;base64,&&&&", "data:"]
)
def test_a_data_url_that_is_no_base64_image_is_refused(url):
    assert refusal(from_data_url, url, "messages").code == "invalid_image"


def test_base64_may_stand_alone_in_lines_or_in_a_data_url():
    content = png(picture())
    plain = base64.encodebytes(content).decode()

    assert from_base64(plain, "image") == content
    assert from_base64(data_url(picture()), "image") == content
    assert refusal(from_base64, "äöü", "image").code == "invalid_image"
    assert refusal(from_base64, "AAAAA", "image").code == "invalid_image"
    assert Image.open(io.BytesIO(content)).size == (40, 20)
