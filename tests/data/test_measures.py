"""Measures of frames with planted faults; each fault is drawn here, so what must be found is in sight."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from gastrovl.core.geometry import iou
from gastrovl.core.types import Box
from gastrovl.data.masking import paint_over
from gastrovl.data.measures import Fault, FaultOptions, draft_size, measure, small_copies

OPTIONS = FaultOptions()


@pytest.fixture
def frame():
    """A pink, finely textured octagon on black, as an endoscope shows mucosa; 512 x 400 px."""
    rng = np.random.default_rng(4)
    texture = rng.integers(-25, 26, (400, 512, 1)) + rng.integers(-20, 21, (50, 64, 1)).repeat(8, 0).repeat(8, 1)
    pixels = np.clip(np.array([190, 95, 80]) + texture, 30, 245).astype(np.uint8)
    picture = Image.fromarray(pixels)
    aperture = Image.new("L", (512, 400))
    corners = [(60, 0), (452, 0), (511, 60), (511, 340), (452, 399), (60, 399), (0, 340), (0, 60)]
    ImageDraw.Draw(aperture).polygon(corners, fill=255)
    return Image.composite(picture, Image.new("RGB", (512, 400)), aperture)


def faults(picture):
    return measure(picture).faults(OPTIONS)


def test_a_sound_frame_has_no_fault(frame):
    assert faults(frame) == ()


def test_a_black_corner_square_is_found_where_it_is(frame):
    ImageDraw.Draw(frame).rectangle((0, 280, 150, 399), fill=(3, 3, 3))
    assert faults(frame) == (Fault.CORNER_SQUARE,)
    assert iou(measure(frame).square, Box(x0=0, y0=0.7, x1=150 / 512, y1=1)) > 0.85


@pytest.mark.parametrize("corner", [(0, 0), (362, 0), (362, 280)])
def test_a_square_in_any_corner_is_found(frame, corner):
    x, y = corner
    ImageDraw.Draw(frame).rectangle((x, y, x + 149, y + 119), fill=(0, 0, 0))
    assert Fault.CORNER_SQUARE in faults(frame)


def test_a_green_map_is_found_and_green_light_is_none(frame):
    lit = Image.fromarray((np.asarray(frame) * np.array([0.5, 1.1, 1.0])).clip(0, 255).astype(np.uint8))
    assert Fault.GREEN_MAP not in faults(lit)  # narrow-band light: green and blue alike
    ImageDraw.Draw(frame).rectangle((20, 270, 150, 380), fill=(0, 195, 150))
    assert Fault.GREEN_MAP in faults(frame)
    box = measure(frame).map  # a map's frame is taken along: up to three cells of 64 on each side
    for found, planted in zip((box.x0, box.y0), (20 / 512, 270 / 400), strict=True):
        assert planted - 3 / 64 <= found <= planted
    for found, planted in zip((box.x1, box.y1), (150 / 512, 380 / 400), strict=True):
        assert planted <= found <= planted + 3 / 64


@pytest.mark.parametrize("cut", [0.18, 0.24, 0.3])
def test_the_slanted_corners_of_an_octagon_are_no_squares(cut):
    """`cut` is what the aperture cuts off of each side, at 45 degrees of the 64 x 64 copy."""
    picture = Image.new("RGB", (600, 500), (190, 95, 80))
    draw = ImageDraw.Draw(picture)
    x, y = 600 * cut, 500 * cut
    for at_x, at_y in ((0, 0), (599, 0), (0, 499), (599, 499)):
        draw.polygon([(at_x, at_y), (abs(at_x - x), at_y), (at_x, abs(at_y - y))], fill=(0, 0, 0))
    assert measure(picture).square is None


def test_a_square_above_a_lit_rim_is_found(frame):
    draw = ImageDraw.Draw(frame)
    draw.rectangle((0, 270, 150, 399), fill=(0, 0, 0))
    draw.rectangle((0, 388, 511, 399), fill=(120, 110, 100))
    assert Fault.CORNER_SQUARE in measure(frame).faults(OPTIONS)


def test_a_square_beside_a_dark_lumen_is_found_where_it_is(frame):
    draw = ImageDraw.Draw(frame)
    draw.ellipse((0, 150, 320, 440), fill=(18, 14, 12))
    draw.rectangle((0, 280, 150, 399), fill=(2, 2, 2))
    assert iou(measure(frame).square, Box(x0=0, y0=0.7, x1=150 / 512, y1=1)) > 0.85


@pytest.mark.parametrize("at", [(4, 4), (30, 180)])
def test_white_text_is_suspected_on_black_and_on_mucosa(frame, at):
    ImageDraw.Draw(frame).multiline_text(at, "NAME: ROE JANE\nD.O.B.: 02/01/1950\n12:34:56", fill=(255, 255, 255))
    assert Fault.TEXT in faults(frame)
    boxes = measure(frame).text
    x, y = at[0] / 512, at[1] / 400
    assert all(x - 0.08 <= box.x0 and box.x1 <= x + 0.4 and y - 0.03 <= box.y0 <= y + 0.15 for box in boxes)


def test_pink_letters_on_bright_mucosa_are_suspected(frame):
    ImageDraw.Draw(frame).multiline_text((150, 180), "12/04/2012\nCVP:12\n(00:24:59)", fill=(250, 190, 180))
    assert Fault.TEXT in faults(frame)


def test_a_word_at_the_right_edge_is_suspected(frame):
    ImageDraw.Draw(frame).text((462, 200), "JANE ROE", fill=(255, 255, 255))
    assert Fault.TEXT in faults(frame)


def test_masked_text_is_gone(frame):
    place = (200, 180, 290, 220)
    bare = np.asarray(frame.crop(place)).astype(int)
    ImageDraw.Draw(frame).multiline_text((205, 185), "NAME: ROE JANE\n12/04/2012", fill=(255, 255, 255))
    boxes = measure(frame).to_mask(FaultOptions(text="mask"))
    painted = np.asarray(paint_over(frame, boxes, inpaint=True).crop(place)).astype(int)
    assert np.asarray(frame.crop(place)).max() == 255
    assert painted.max() <= bare.max()


def test_the_line_around_a_square_is_masked_with_it(frame):
    ImageDraw.Draw(frame).rectangle((0, 277, 157, 399), fill=(0, 0, 0))
    (box,) = measure(frame).to_mask(FaultOptions(corner_square="mask"))
    assert box.y0 <= 277 / 400
    assert box.x1 >= 158 / 512
    assert (box.x0, box.y1) == (0, 1)


def test_glints_are_no_text(frame):
    draw = ImageDraw.Draw(frame)
    for x, y in np.random.default_rng(1).integers(80, 320, (40, 2)):
        draw.ellipse((x, y, x + 7, y + 4), fill=(255, 250, 250))
    assert Fault.TEXT not in faults(frame)


def test_darkness_overexposure_blur_and_bars_are_found(frame):
    dark = Image.fromarray((np.asarray(frame) * 0.25).astype(np.uint8))
    assert Fault.DARK in measure(dark).faults(FaultOptions(dark_brightness=0.2))
    bright = frame.copy()
    ImageDraw.Draw(bright).rectangle((100, 100, 400, 300), fill=(255, 255, 255))
    assert Fault.OVEREXPOSED in faults(bright)
    assert Fault.BLURRED in faults(frame.filter(ImageFilter.GaussianBlur(6)))
    wide = Image.new("RGB", (900, 400))
    wide.paste(frame, (194, 0))
    assert Fault.LETTERBOXED in faults(wide)
    assert measure(wide).bars[0] == pytest.approx(194 / 900, abs=1.5 / 64)


def test_measures_of_a_large_copy_agree(frame):
    ImageDraw.Draw(frame).rectangle((0, 280, 150, 399), fill=(3, 3, 3))
    large = frame.resize((1536, 1200), Image.Resampling.LANCZOS)
    small, big = measure(frame), measure(large)
    assert big.brightness == pytest.approx(small.brightness, abs=0.02)
    assert big.black == pytest.approx(small.black, abs=0.02)
    assert iou(big.square, small.square) > 0.85


def test_the_copies_can_be_made_once_and_measured(frame):
    copies = small_copies(frame.resize((1536, 1200)))
    assert copies.copy.size == (512, 400)  # 1536 / 576 is nearest to 3
    assert copies.thumbnail.size == (64, 64)
    assert measure(copies) == measure(frame.resize((1536, 1200)))


@pytest.mark.parametrize(
    ("size_wh", "expected"),
    [
        ((1099, 600), None),
        ((1100, 700), (550, 350)),
        ((1440, 1064), (720, 532)),
        ((2200, 5), (550, 1)),
        ((9000, 1), None),
    ],
)
def test_only_large_frames_are_decoded_at_reduced_size(size_wh, expected):
    assert draft_size(size_wh) == expected


@pytest.mark.parametrize("progressive", [False, True])
def test_a_truncated_jpeg_fails_at_reduced_size_too(frame, progressive):
    out = io.BytesIO()
    frame.resize((2048, 1600)).save(out, "JPEG", progressive=progressive)
    with Image.open(io.BytesIO(out.getvalue())) as picture:
        picture.draft("RGB", draft_size(picture.size))
        assert picture.convert("RGB").size == (1024, 800)
    with Image.open(io.BytesIO(out.getvalue()[:-100])) as picture:
        picture.draft("RGB", draft_size(picture.size))
        with pytest.raises(OSError, match="truncated"):
            picture.load()


@pytest.mark.parametrize("size_wh", [(1, 1), (2, 500), (33, 33), (64, 4), (39, 7), (300, 131)])
@pytest.mark.parametrize("colour", [(0, 0, 0), (255, 255, 255), (0, 195, 150)])
def test_any_size_and_colour_can_be_measured(size_wh, colour):
    measures = measure(Image.new("RGB", size_wh, colour))
    assert 0 <= measures.black <= 1
    assert sum(measures.bars) <= 2


@pytest.mark.parametrize("inpaint", [False, True])
def test_only_the_masked_place_is_painted_over(frame, inpaint):
    box = Box(x0=0.4, y0=0.4, x1=0.6, y1=0.6)
    marked = frame.copy()
    ImageDraw.Draw(marked).rectangle((206, 162, 305, 238), fill=(0, 0, 255))
    painted = np.asarray(paint_over(marked, [box], inpaint=inpaint)).astype(int)
    outside = np.ones((400, 512), dtype=bool)
    outside[160:240, 204:308] = False
    assert np.array_equal(painted[outside], np.asarray(marked)[outside])
    inside = painted[165:235, 210:300]
    assert (
        np.abs(inside.mean(axis=(0, 1)) - np.array([190, 95, 80])).max() < 15
    )  # the colour around it; no blue is left


def test_inpainting_follows_a_gradient_and_one_colour_does_not():
    ramp = np.zeros((200, 200, 3), dtype=np.uint8)
    ramp[...] = np.arange(200, dtype=np.uint8)[None, :, None]
    box = Box(x0=0.4, y0=0.4, x1=0.6, y1=0.6)
    inside = (slice(85, 115), slice(85, 115))
    errors = [
        np.abs(np.asarray(paint_over(Image.fromarray(ramp), [box], inpaint=way)).astype(int) - ramp)[inside].mean()
        for way in (False, True)
    ]
    assert errors[1] < 3 < errors[0]


def test_a_picture_masked_wholly_is_black(frame):
    whole = Box(x0=0, y0=0, x1=1, y1=1)
    assert not np.asarray(paint_over(frame, [whole], inpaint=True)).any()
