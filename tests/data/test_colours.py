"""Colour histograms of pictures whose colours are in sight."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw

from gastrovl.data.colours import colour_histogram, overlap

RED = (200, 0, 0)  # hue 0, saturation 255, brightness 200
BLUE = (0, 0, 96)  # hue 170, saturation 255, brightness 96


def test_one_colour_fills_one_bin_of_hue_saturation_and_brightness():
    histogram = colour_histogram(Image.new("RGB", (64, 64), BLUE))
    assert histogram.dtype == np.uint8
    assert np.flatnonzero(histogram).tolist() == [170 // 8, 32 + 255 // 8, 64 + 96 // 8]
    assert set(histogram[histogram > 0].tolist()) == {255}


def test_only_the_central_three_quarters_count():
    picture = Image.new("RGB", (64, 64), BLUE)
    ImageDraw.Draw(picture).rectangle((8, 8, 55, 55), fill=RED)
    assert np.array_equal(colour_histogram(picture), colour_histogram(Image.new("RGB", (64, 64), RED)))


def test_the_overlap_is_the_share_that_both_have():
    red, blue = (colour_histogram(Image.new("RGB", (64, 64), colour)) for colour in (RED, BLUE))
    half = Image.new("RGB", (64, 64), RED)
    ImageDraw.Draw(half).rectangle((32, 0, 63, 63), fill=BLUE)
    assert overlap(red, red) == 1
    assert overlap(red, blue) == pytest.approx(1 / 3)  # equally saturated, of other hue and brightness
    assert overlap(colour_histogram(half), red) == pytest.approx((0.5 + 1 + 0.5) / 3, abs=0.005)


@pytest.mark.parametrize("size_wh", [(1, 1), (3, 200), (64, 64), (97, 31)])
def test_the_shares_of_every_picture_sum_to_255(size_wh):
    noise = np.random.default_rng(3).integers(0, 256, (size_wh[1], size_wh[0], 3), dtype=np.uint8)
    histogram = colour_histogram(Image.fromarray(noise)).reshape(3, 32)
    assert histogram.sum(axis=1).tolist() == [255, 255, 255]
