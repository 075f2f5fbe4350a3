"""An image file to the same file without what it says besides the picture: EXIF, XMP, comments, profiles, thumbnails.

JPEG, PNG and WebP are cut at the level of their segments and chunks: the coded pixels stay byte for byte the same. Only
what a decoder needs is kept; everything else goes, known or not. TIFF has no such layout and is written anew, which for
its lossless codings changes no pixel. Removing the orientation tag changes nothing here: boxes and models use the
pixels as stored (`rotated_by_exif` in quality.json lists such files).
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from gastrovl.core.errors import ImageError
from gastrovl.data.images import DECODING_ERRORS

PNG = b"\x89PNG\r\n\x1a\n"
PNG_KEPT = (b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"gAMA", b"cHRM", b"sRGB", b"sBIT", b"pHYs")
JPEG_JFIF, JPEG_ADOBE = 0xE0, 0xEE
_NEXT_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")  # in coded data: no stuffed zero, no restart, no fill byte


def without_metadata(content: bytes, where: str) -> tuple[bytes, tuple[str, ...]]:
    """The file without metadata, and what was removed, e.g. ("APP1", "COM"); the same object when there was none.

    Raises:
        ImageError: The file's structure is broken although its pixels decode.
    """
    try:
        if content.startswith(b"\xff\xd8"):
            kept, removed = _jpeg(content)
        elif content.startswith(PNG):
            kept, removed = _png(content)
        elif content.startswith(b"RIFF") and content[8:12] == b"WEBP":
            kept, removed = _webp(content)
        elif content[:4] in (b"II*\0", b"MM\0*"):
            return _tiff(content), ("TIFF tags",)
        else:  # BMP holds no metadata
            return content, ()
    except (IndexError, ValueError) as error:
        raise ImageError(
            f"{where}: metadata cannot be cut out ({error}); save the image anew as PNG, or set "
            "`images.strip_metadata: false` in the config"
        ) from error
    return (b"".join(kept), tuple(dict.fromkeys(removed))) if removed else (content, ())


def strip_file(source: Path, target: Path) -> tuple[str, ...]:
    """Write `source` without metadata to `target` and say what was removed; without any, nothing is written."""
    kept, removed = without_metadata(source.read_bytes(), str(source))
    if removed:
        target.write_bytes(kept)
    return removed


def _jpeg(content: bytes) -> tuple[list[bytes], list[str]]:
    """Segments of ITU-T T.81, annex B: only JFIF and Adobe of the application ones matter to a decoder."""
    kept, removed = [b"\xff\xd8"], []
    at = 2
    while True:
        if content[at] != 0xFF:
            raise ValueError(f"no marker at byte {at}")
        marker = content[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
            continue
        if marker == 0xD9:
            kept.append(b"\xff\xd9")
            if at + 2 < len(content):
                removed.append("trailer")
            return kept, removed
        length = int.from_bytes(content[at + 2 : at + 4], "big")
        end = at + 2 + length
        if length < 2 or end > len(content):
            raise ValueError(f"segment at byte {at} is longer than the file")
        segment = content[at:end]
        if marker == 0xDA:  # start of scan: coded data follow
            match = _NEXT_MARKER.search(content, end)
            end = match.start() if match else len(content)
            kept.append(content[at:end])
            if match is None:
                raise ValueError("no end of image")
        elif _is_needed(marker, segment):
            if marker == JPEG_JFIF and len(segment) > 18:  # a thumbnail follows the 18 bytes
                segment = b"\xff\xe0\x00\x10" + segment[4:16] + b"\0\0"
                removed.append("JFIF thumbnail")
            kept.append(segment)
        else:
            removed.append("COM" if marker == 0xFE else f"APP{marker - 0xE0}")
        at = end


def _is_needed(marker: int, segment: bytes) -> bool:
    if marker == JPEG_JFIF:
        return segment[4:9] == b"JFIF\0"
    if marker == JPEG_ADOBE:
        return segment[4:9] == b"Adobe" and len(segment) == 16
    return not (0xE0 <= marker <= 0xEF or marker == 0xFE)


def _png(content: bytes) -> tuple[list[bytes], list[str]]:
    """Chunks of the PNG specification (ISO/IEC 15948), clause 11."""
    kept, removed = [PNG], []
    at = len(PNG)
    while at < len(content):
        end = at + 12 + int.from_bytes(content[at : at + 4], "big")
        kind = content[at + 4 : at + 8]
        if end > len(content):
            raise ValueError(f"chunk at byte {at} is longer than the file")
        if kind in PNG_KEPT:
            kept.append(content[at:end])
        else:
            removed.append(kind.decode("latin-1"))
        at = end
        if kind == b"IEND":
            if at < len(content):
                removed.append("trailer")
            return kept, removed
    raise ValueError("no end of image")


def _webp(content: bytes) -> tuple[list[bytes], list[str]]:
    """Chunks of RFC 9649; the flags of VP8X that announce what is removed are cleared."""
    body, removed = [], []
    for kind, chunk in _riff_chunks(content):
        if kind in (b"EXIF", b"XMP ", b"ICCP"):
            removed.append(kind.decode().strip())
        elif kind == b"VP8X":
            body.append(chunk[:8] + bytes([chunk[8] & ~0b00101100]) + chunk[9:])
        elif kind in (b"VP8 ", b"VP8L", b"ALPH", b"ANIM", b"ANMF"):
            body.append(chunk)
        else:
            removed.append(kind.decode("latin-1").strip())
    size = 4 + sum(len(chunk) for chunk in body)
    return [b"RIFF", size.to_bytes(4, "little"), b"WEBP", *body], removed


def _riff_chunks(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    at, last = 12, min(len(content), 8 + int.from_bytes(content[4:8], "little"))
    while at + 8 <= last:
        size = int.from_bytes(content[at + 4 : at + 8], "little")
        end = at + 8 + size + size % 2
        if at + 8 + size > len(content):
            raise ValueError(f"chunk at byte {at} is longer than the file")
        yield content[at : at + 4], content[at : at + 8 + size] + b"\0" * (size % 2)
        at = end


def _tiff(content: bytes) -> bytes:
    out = io.BytesIO()
    try:
        with Image.open(io.BytesIO(content)) as opened:
            bare = Image.frombytes(opened.mode, opened.size, opened.tobytes())
            if opened.mode == "P":
                bare.putpalette(opened.getpalette() or [])
    except DECODING_ERRORS as error:
        raise ValueError(str(error)) from error
    bare.save(out, "TIFF", compression="tiff_deflate")
    return out.getvalue()
