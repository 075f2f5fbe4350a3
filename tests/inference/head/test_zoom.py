"""Boxes to crops and back, by hand: what is looked at again, and when the second look counts."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from gastrovl.core.types import Box
from gastrovl.inference.head.perceiving import Found, Sighting
from gastrovl.inference.head.zoom import Crop, better, crops_of, refined, window_around

NO_MASK = np.zeros((1, 1), dtype=np.float32)
SMALL = Box(x0=0.4, y0=0.2, x1=0.6, y1=0.3)
WINDOW = Box(x0=0.5, y0=0.5, x1=1.0, y1=1.0)


def seen(*found: tuple[Box, float]) -> Sighting:
    return Sighting(0.8 if found else 0.1, tuple(Found(box, expected) for box, expected in found), NO_MASK)


def test_a_small_box_is_looked_at_in_a_window_that_blows_nothing_up_too_much():
    assert window_around(SMALL).xyxy == pytest.approx((0.3, 0.05, 0.7, 0.45))


def test_a_larger_box_has_a_fifth_of_its_longer_side_around_it():
    window = window_around(Box(x0=0.25, y0=0.4, x1=0.75, y1=0.6))

    assert window.xyxy == pytest.approx((0.15, 0.15, 0.85, 0.85))


def test_at_an_edge_the_window_moves_inwards_and_keeps_its_size():
    assert window_around(Box(x0=0.9, y0=0.0, x1=1.0, y1=0.1)).xyxy == pytest.approx((0.6, 0.0, 1.0, 0.4))


def test_what_fills_the_image_is_not_looked_at_again():
    assert window_around(Box(x0=0.1, y0=0.1, x1=0.8, y1=0.3)) is None


def test_every_small_box_of_every_image_gets_a_crop_of_whole_pixels():
    wide = Box(x0=0, y0=0, x1=1, y1=1)
    said = [seen((wide, 0.5), (SMALL, 0.5)), seen(), seen((SMALL, 0.5))]
    images = [Image.new("RGB", (12, 12)), Image.new("RGB", (12, 12)), Image.new("RGB", (100, 200))]

    crops = crops_of(said, images)

    assert [(crop.image, crop.place) for crop in crops] == [(0, 1), (2, 0)]
    assert crops[0].window.xyxy == pytest.approx((4 / 12, 1 / 12, 8 / 12, 5 / 12))  # 3.6, 0.6, 8.4, 5.4 rounded
    assert crops[1].window.xyxy == pytest.approx((0.3, 0.05, 0.7, 0.45))


def test_a_second_look_counts_only_where_it_is_expected_to_fit_better():
    first = Found(Box(x0=0.6, y0=0.6, x1=0.8, y1=0.8), 0.7)
    closer = Box(x0=0.25, y0=0.25, x1=0.5, y1=0.75)

    accepted = better(first, seen((closer, 0.71)), WINDOW)

    assert accepted.box.xyxy == pytest.approx((0.625, 0.625, 0.75, 0.875))
    assert accepted.expected_iou == 0.71
    assert better(first, seen((closer, 0.7)), WINDOW) is first
    assert better(first, seen(), WINDOW) is first


def test_of_several_boxes_in_a_crop_the_one_looked_for_is_meant():
    first = Found(Box(x0=0.5, y0=0.5, x1=0.75, y1=0.75), 0.3)
    other, same = Box(x0=0.6, y0=0.6, x1=1.0, y1=1.0), Box(x0=0.0, y0=0.0, x1=0.4, y1=0.4)

    assert better(first, seen((other, 0.9), (same, 0.5)), WINDOW).box.xyxy == pytest.approx((0.5, 0.5, 0.7, 0.7))
    assert better(first, seen((other, 0.9)), WINDOW) is first


def test_a_crop_changes_its_own_box_alone():
    corner = Box(x0=0.6, y0=0.6, x1=0.8, y1=0.8)
    said = [seen((SMALL, 0.4), (corner, 0.4)), seen()]

    (one, nothing) = refined(said, [Crop(0, 1, WINDOW)], [seen((Box(x0=0, y0=0, x1=0.5, y1=0.5), 0.8))])

    assert [found.box for found in one.found] == [SMALL, Box(x0=0.5, y0=0.5, x1=0.75, y1=0.75)]
    assert one.confidence == pytest.approx(0.8 * (0.4 + 0.8) / 2)
    assert nothing == said[1]


def test_two_boxes_do_not_end_on_one_lesion():
    left, right = Box(x0=0.5, y0=0.5, x1=0.6, y1=0.6), Box(x0=0.6, y0=0.5, x1=0.8, y1=0.7)
    said = [seen((right, 0.5), (left, 0.4))]
    onto_right = Box(x0=0.16, y0=0.0, x1=0.6, y1=0.4)  # 0.58 to 0.8 across and 0.5 to 0.7 down

    (one,) = refined(said, [Crop(0, 1, WINDOW)], [seen((onto_right, 0.9))])

    assert [found.box for found in one.found] == [right, left]
