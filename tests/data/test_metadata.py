"""Metadata is cut out and the coded pixels stay as they were."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from gastrovl.core.errors import ImageError
from gastrovl.data.metadata import without_metadata

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


def test_a_jpeg_loses_segments_that_no_decoder_needs_whatever_their_marker(picture):
    plain = encoded(picture, "JPEG")
    jfxx = segment(0xE0, b"JFXX\0\x10" + NAME)  # an extension with a thumbnail
    full = plain[:2] + jfxx + segment(0xF7, NAME) + segment(0xEF, NAME) + plain[2:]
    stripped, removed = without_metadata(full, "a.jpg")
    assert stripped == plain
    assert removed == ("APP0", "marker F7", "APP15")


def test_a_multi_picture_jpeg_keeps_its_first_picture_only(picture):
    out = io.BytesIO()
    second = Image.new("RGB", (64, 48), (1, 200, 3))
    picture.save(out, "MPO", save_all=True, append_images=[second])
    stripped, removed = without_metadata(out.getvalue(), "a.jpg")
    assert set(removed) >= {"APP2", "trailer"}
    assert stripped.count(b"\xff\xd8") == 1
    assert np.array_equal(pixels(stripped), pixels(out.getvalue()))


def test_a_png_loses_compressed_texts_private_chunks_and_an_animation(picture):
    texts = PngImagePlugin.PngInfo()
    texts.add_text("Patient", NAME.decode() * 9, zip=True)
    full = encoded(picture, "PNG", pnginfo=texts, save_all=True, append_images=[Image.new("RGB", (64, 48))])
    kind = b"paTi"
    private = struct.pack(">I", len(NAME)) + kind + NAME + struct.pack(">I", zlib.crc32(kind + NAME))
    full = full[:33] + private + full[33:]
    stripped, removed = without_metadata(full, "a.png")
    assert {"zTXt", "paTi", "acTL", "fcTL", "fdAT"} <= set(removed)
    assert NAME not in stripped
    assert np.array_equal(pixels(stripped), np.asarray(picture))


def test_a_webp_loses_what_follows_it_and_chunks_inside_of_its_frames(picture):
    plain = encoded(picture, "WEBP", lossless=True)
    assert without_metadata(plain, "a.webp") == (plain, ())
    assert without_metadata(plain + NAME, "a.webp") == (plain, ("trailer",))
    moving = encoded(picture, "WEBP", lossless=True, save_all=True, append_images=[Image.new("RGB", (64, 48))])
    at = moving.index(b"ANMF")
    size = int.from_bytes(moving[at + 4 : at + 8], "little")
    note = b"NOTE" + struct.pack("<I", len(NAME)) + NAME + b"\0" * (len(NAME) % 2)
    frame = moving[at + 8 : at + 8 + size] + note
    full = moving[:at] + b"ANMF" + struct.pack("<I", len(frame)) + frame + moving[at + 8 + size + size % 2 :]
    full = b"RIFF" + struct.pack("<I", len(full) - 8) + full[8:]
    stripped, removed = without_metadata(full, "a.webp")
    assert (stripped, removed) == (moving, ("NOTE",))


@pytest.mark.parametrize("big", [False, True])
def test_tiffs_of_either_kind_lose_their_tags(picture, big):
    full = encoded(picture, "TIFF", description=NAME.decode(), big_tiff=big)
    stripped, removed = without_metadata(full, "a.tif")
    assert removed == ("TIFF tags",)
    assert NAME not in stripped
    assert np.array_equal(pixels(stripped), pixels(full))


def test_a_bitmap_is_kept_as_it_is_unless_more_than_pixels_is_in_it(picture):
    plain = encoded(picture, "BMP")
    assert without_metadata(plain, "a.bmp") == (plain, ())
    stripped, removed = without_metadata(plain + NAME, "a.bmp")
    assert (stripped, removed) == (plain, ("all: encoded anew",))


def test_a_gif_by_another_name_loses_its_comment(picture):
    full = encoded(picture, "GIF", comment=NAME)
    assert NAME in full
    stripped, removed = without_metadata(full, "a.png")
    assert removed == ("all: encoded anew",)
    assert NAME not in stripped
    assert np.array_equal(pixels(stripped), pixels(full))


def test_what_is_no_image_is_refused():
    with pytest.raises(ImageError, match=r"a\.png: metadata cannot be cut out"):
        without_metadata(b"JANE ROE, no image", "a.png")


@pytest.mark.parametrize("cut", [30, 200, 700])
def test_a_broken_structure_is_named(picture, cut):
    with pytest.raises(ImageError, match=r"a\.jpg: metadata cannot be cut out"):
        without_metadata(encoded(picture, "JPEG", comment=NAME)[:cut], "a.jpg")
