"""An image file to the same file without what it says besides the picture: EXIF, XMP, comments, profiles, thumbnails.

JPEG, PNG and WebP are cut at the level of their segments and chunks: the coded pixels stay byte for byte the same. Only
what a decoder needs is kept; everything else goes, known or not. What else decodes (TIFF, a BMP with more than its
pixels, a GIF by another name) is written anew without loss. Removing the orientation tag changes nothing here: boxes
and models use the pixels as stored (`rotated_by_exif` in quality.json lists such files).
"""

from __future__ import annotations

import io
import re
import struct

from PIL import Image

from gastrovl.core.errors import ImageError
from gastrovl.data.images import DECODING_ERRORS

TIFFS = (b"II*\0", b"MM\0*", b"II\0*", b"MM*\0", b"II+\0", b"MM\0+")  # + is BigTIFF; Pillow reads all of them
PNG = b"\x89PNG\r\n\x1a\n"
PNG_KEPT = (b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"gAMA", b"cHRM", b"sRGB", b"sBIT", b"pHYs")
JPEG_JFIF, JPEG_ADOBE = 0xE0, 0xEE
JPEG_KEPT = frozenset({*range(0xC0, 0xD0), *range(0xDB, 0xE0)} - {0xC8})  # frames, tables, restart interval, lines
WEBP_KEPT = (b"VP8 ", b"VP8L", b"ALPH", b"ANIM")
BMP_HEADER = 40  # bytes of a BITMAPINFOHEADER; longer ones may point at a profile
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
        elif content[:4] in TIFFS:
            return _anew(content, "TIFF"), ("TIFF tags",)
        elif content.startswith(b"BM"):
            return (content, ()) if _is_bare_bmp(content) else (_anew(content, "BMP"), ("all: encoded anew",))
        else:
            return _anew(content, "PNG"), ("all: encoded anew",)
    except (IndexError, ValueError, struct.error) as error:
        raise ImageError(
            f"{where}: metadata cannot be cut out ({error}); save the image anew as PNG, or set "
            "`images.strip_metadata: false` in the config"
        ) from error
    return (b"".join(kept), tuple(dict.fromkeys(removed))) if removed else (content, ())


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
            removed.append(_jpeg_name(marker))
        at = end


def _is_needed(marker: int, segment: bytes) -> bool:
    if marker == JPEG_JFIF:
        return segment[4:9] == b"JFIF\0"
    if marker == JPEG_ADOBE:
        return segment[4:9] == b"Adobe" and len(segment) == 16
    return marker in JPEG_KEPT


def _jpeg_name(marker: int) -> str:
    if 0xE0 <= marker <= 0xEF:
        return f"APP{marker - 0xE0}"
    return "COM" if marker == 0xFE else f"marker {marker:02X}"


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
    last = 8 + int.from_bytes(content[4:8], "little")
    body, removed = _webp_chunks(content, 12, min(len(content), last))
    if last < len(content):
        removed.append("trailer")
    size = 4 + sum(len(chunk) for chunk in body)
    return [b"RIFF", size.to_bytes(4, "little"), b"WEBP", *body], removed


def _webp_chunks(content: bytes, at: int, last: int) -> tuple[list[bytes], list[str]]:
    body: list[bytes] = []
    removed: list[str] = []
    while at + 8 <= last:
        kind, size = content[at : at + 4], int.from_bytes(content[at + 4 : at + 8], "little")
        end = at + 8 + size
        if end > len(content):
            raise ValueError(f"chunk at byte {at} is longer than the file")
        chunk = content[at:end] + b"\0" * (size % 2)
        if kind == b"VP8X":
            body.append(chunk[:8] + bytes([chunk[8] & ~0b00101100]) + chunk[9:])
        elif kind == b"ANMF":  # a frame of an animation: 16 bytes about it, then chunks
            inner, more = _webp_chunks(content, at + 24, end)
            frame = content[at + 8 : at + 24] + b"".join(inner)
            body.append(kind + len(frame).to_bytes(4, "little") + frame)
            removed += more
        elif kind in WEBP_KEPT:
            body.append(chunk)
        else:
            removed.append(kind.decode("latin-1").strip())
        at = end + size % 2
    return body, removed


def _is_bare_bmp(content: bytes) -> bool:
    """Whether an uncompressed bitmap ends with its pixels and its header is too short to point at a profile."""
    start, header, width, height = struct.unpack_from("<IIii", content, 10)
    bits, compression = struct.unpack_from("<HI", content, 28)
    row = (abs(width) * bits + 31) // 32 * 4
    is_plain = header == BMP_HEADER and compression == 0
    return bool(is_plain and start <= 54 + 4 * 256 and len(content) == start + row * abs(height))


def _anew(content: bytes, kind: str) -> bytes:
    out = io.BytesIO()
    try:
        with Image.open(io.BytesIO(content)) as opened:
            bare = Image.frombytes(opened.mode, opened.size, opened.tobytes())
            if opened.mode == "P":
                bare.putpalette(opened.getpalette() or [])
        bare.save(out, kind, **({"compression": "tiff_deflate"} if kind == "TIFF" else {}))
    except DECODING_ERRORS as error:
        raise ValueError(str(error)) from error
    return out.getvalue()
