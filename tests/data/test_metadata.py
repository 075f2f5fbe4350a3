"""Metadata is cut out and the coded pixels stay as they were."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from gastrovl.core.errors import ImageError
from gastrovl.data.metadata import strip_file, without_metadata

NAME = b"JANE ROE 1950-01-02"


@pytest.fixture
def picture():
    blocks = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    return Image.fromarray(blocks).resize((64, 48), Image.Resampling.BILINEAR)


def encoded(picture, kind, **options):
    out = io.BytesIO()
    picture.save(out, kind, **options)
    return out.getvalue()


def pixels(content):
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


def with_exif(picture):
    exif = picture.getexif()
    exif[0x010E] = NAME.decode()  # ImageDescription
    exif[0x0112] = 6  # Orientation
    return exif


def segment(marker, content):
    return bytes([0xFF, marker]) + (len(content) + 2).to_bytes(2, "big") + content


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_loses_exif_xmp_comment_and_profile_and_keeps_every_coded_byte(picture, progressive):
    plain = encoded(picture, "JPEG", quality=80, progressive=progressive)
    full = encoded(picture, "JPEG", quality=80, progressive=progressive, exif=with_exif(picture), comment=NAME)
    xmp = segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + NAME)
    icc = segment(0xE2, b"ICC_PROFILE\0\x01\x01" + NAME)
    full = full[:2] + xmp + icc + segment(0xED, b"Photoshop 3.0\0" + NAME) + full[2:] + NAME
    stripped, removed = without_metadata(full, "a.jpg")
    assert NAME not in stripped
    assert removed == ("APP1", "APP2", "APP13", "COM", "trailer")
    assert stripped == plain  # not one byte of a table or scan differs
    assert np.array_equal(pixels(stripped), pixels(full))


def test_the_adobe_segment_that_says_how_colours_are_coded_stays(picture):
    adobe = segment(0xEE, b"Adobe\0\x64\0\0\0\0\x00")  # transform 0: the three channels are red, green, blue
    full = encoded(picture, "JPEG")
    full = full[:2] + adobe + segment(0xEE, b"Other" + NAME) + full[2:]
    stripped, removed = without_metadata(full, "a.jpg")
    assert removed == ("APP14",)
    assert adobe in stripped
    assert np.array_equal(pixels(stripped), pixels(full))


def test_a_jpeg_without_metadata_is_returned_as_it_is(picture):
    content = encoded(picture, "JPEG")
    assert without_metadata(content, "a.jpg") == (content, ())


def test_a_png_loses_texts_time_exif_and_profile_and_keeps_its_pixels(picture):
    texts = PngImagePlugin.PngInfo()
    texts.add_text("Patient", NAME.decode())
    texts.add_itxt("Note", NAME.decode())
    full = encoded(picture, "PNG", pnginfo=texts, exif=with_exif(picture), icc_profile=NAME)
    kind = b"tIME"
    time = struct.pack(">I", 7) + kind + bytes(7) + struct.pack(">I", zlib.crc32(kind + bytes(7)))
    full = full[:33] + time + full[33:] + NAME
    stripped, removed = without_metadata(full, "a.png")
    assert NAME not in stripped
    assert set(removed) == {"tEXt", "iTXt", "eXIf", "iCCP", "tIME", "trailer"}
    assert stripped == encoded(picture, "PNG")


def test_a_palette_and_its_transparency_stay(picture):
    palette = picture.quantize(16)
    content = encoded(palette, "PNG", transparency=3)
    assert without_metadata(content, "a.png") == (content, ())


def test_a_webp_loses_exif_and_keeps_its_pixels(picture):
    full = encoded(picture, "WEBP", lossless=True, exif=with_exif(picture), xmp=NAME)
    stripped, removed = without_metadata(full, "a.webp")
    assert NAME not in stripped
    assert set(removed) == {"EXIF", "XMP"}
    assert np.array_equal(pixels(stripped), pixels(full))
    assert not Image.open(io.BytesIO(stripped)).getexif()


def test_a_tiff_is_written_anew_without_its_tags(picture):
    full = encoded(picture, "TIFF", description=NAME.decode())
    assert NAME in full
    stripped, _ = without_metadata(full, "a.tif")
    assert NAME not in stripped
    assert np.array_equal(pixels(stripped), pixels(full))


@pytest.mark.parametrize("cut", [30, 200, 700])
def test_a_broken_structure_is_named_and_nothing_is_written(tmp_path, picture, cut):
    (tmp_path / "a.jpg").write_bytes(encoded(picture, "JPEG", comment=NAME)[:cut])
    with pytest.raises(ImageError, match=r"a\.jpg: metadata cannot be cut out"):
        strip_file(tmp_path / "a.jpg", tmp_path / "out.jpg")
    assert not (tmp_path / "out.jpg").exists()
