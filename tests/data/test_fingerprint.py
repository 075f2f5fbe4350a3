"""A fingerprint depends on what a picture shows, not on its size, its black bars or which way it faces."""

from __future__ import annotations

import time
from io import BytesIO

import numpy as np
import pytest
from PIL import Image, ImageOps

from gastrovl.data.fingerprint import (
    CODE_BITS,
    FINGERPRINT_BYTES,
    LAYOUT,
    MIRRORS,
    PLACES,
    THUMB_SIDE,
    fingerprint,
    fingerprint_of_grey,
    small_grey,
    small_grey_of,
)
from gastrovl.data.synthetic import draw_image


@pytest.fixture(scope="module")
def picture():
    return Image.fromarray(
        draw_image(np.random.default_rng(3), "antrum", ("gastric_polyp",), size_wh=(256, 256)).pixels
    )


def wide_codes(print_):
    return print_[LAYOUT.wide].reshape(PLACES, CODE_BITS // 8)


def as_bytes(mask):
    return np.frombuffer(mask.to_bytes(CODE_BITS // 8, "big"), dtype=np.uint8)


def test_a_fingerprint_has_the_length_it_says_and_stays_below_two_kilobytes(picture):
    found = fingerprint(picture)
    assert found.dtype == np.uint8
    assert found.shape == (FINGERPRINT_BYTES,)
    assert FINGERPRINT_BYTES <= 2048


def test_the_same_pixels_give_the_same_fingerprint(picture):
    stream = BytesIO()
    picture.save(stream, "PNG")
    again = Image.open(BytesIO(stream.getvalue())).convert("RGB")
    assert np.array_equal(fingerprint(picture), fingerprint(again))


@pytest.mark.parametrize(("mirror", "turn"), [(1, ImageOps.mirror), (2, ImageOps.flip)])
def test_mirroring_a_picture_flips_a_fixed_set_of_the_bits_of_its_codes(mirror, turn):
    # smooth noise without borders, whose sides are multiples of what is reduced, so that mirroring is exact
    noise = np.random.default_rng(0).integers(60, 250, (16, 16), dtype=np.uint8)
    smooth = Image.fromarray(noise).resize((128, 128), Image.Resampling.BICUBIC)
    whole = wide_codes(fingerprint_of_grey(smooth))[-1]  # the code of the whole content
    turned = wide_codes(fingerprint_of_grey(turn(smooth)))[-1]
    assert np.array_equal(whole ^ as_bytes(MIRRORS[mirror]), turned)


def test_turning_by_180_degrees_is_both_mirrors():
    assert MIRRORS[3] == MIRRORS[1] ^ MIRRORS[2]
    assert MIRRORS[0] == 0


def test_black_bars_leave_the_small_grey_copy_as_it_was(picture):
    square = picture.crop((64, 64, 192, 192))  # the inside of the frame: no dark corner of its own
    barred = ImageOps.expand(square, (20, 0, 12, 30), fill=(0, 0, 0))
    thumbs = [fingerprint(one)[LAYOUT.thumb].astype(int) for one in (square, barred)]
    assert np.abs(thumbs[0] - thumbs[1]).mean() < 2


def test_dark_corners_are_marked_and_dark_places_inside_are_not():
    grey = np.full((128, 128), 150, dtype=np.uint8)
    grey[:32, :32] = 0  # a square in a corner
    grey[64:80, 64:80] = 0  # a lumen
    dark = np.unpackbits(fingerprint_of_grey(Image.fromarray(grey))[LAYOUT.dark]).reshape(THUMB_SIDE, THUMB_SIDE)
    assert dark[:7, :7].all()
    assert not dark[10:, :].any()
    assert not dark[:, 10:].any()


@pytest.mark.parametrize("level", [0, 128, 255])
@pytest.mark.parametrize("size_wh", [(1, 1), (9, 500), (64, 64)])
def test_a_picture_that_shows_nothing_still_has_a_fingerprint(level, size_wh):
    assert fingerprint(Image.new("RGB", size_wh, (level,) * 3)).shape == (FINGERPRINT_BYTES,)


def test_a_fingerprint_costs_little_beside_decoding(picture):
    large = picture.resize((512, 512))
    rounds = []
    for _ in range(5):
        started = time.process_time()
        for _ in range(20):
            fingerprint(large)
        rounds.append((time.process_time() - started) / 20)
    assert min(rounds) < 3e-3  # about 0.4 ms on an idle core; a busy machine may take several times as long


@pytest.mark.parametrize("size_wh", [(100, 90), (256, 256), (300, 280), (640, 512), (1200, 900)])
def test_a_green_channel_at_hand_gives_the_small_copy_of_its_picture(picture, size_wh):
    resized = picture.resize(size_wh)
    green = np.asarray(resized.getchannel("G"))
    assert np.array_equal(np.asarray(small_grey_of(green)), np.asarray(small_grey(resized)))
