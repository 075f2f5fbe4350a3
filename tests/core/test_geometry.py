"""Box arithmetic: overlaps by hand and as laws, and every transform with its inverse."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gastrovl.core import geometry
from gastrovl.core.errors import GeometryError
from gastrovl.core.types import Box

TINY = 1e-5  # a tenth of a pixel of the widest endoscope
CLOSE = 1e-9


@st.composite
def boxes(draw: st.DrawFn, side: float = TINY) -> Box:
    x0 = draw(st.floats(0, 1 - side))
    y0 = draw(st.floats(0, 1 - side))
    return Box(x0=x0, y0=y0, x1=draw(st.floats(x0 + side, 1)), y1=draw(st.floats(y0 + side, 1)))


corner_boxes = st.builds(lambda x1, y1: Box(x0=0, y0=0, x1=x1, y1=y1), st.floats(1e-150, 1), st.floats(1e-150, 1))
sizes = st.tuples(st.integers(1, 4000), st.integers(1, 4000))


def near(box: Box, tolerance: float = CLOSE) -> object:
    return pytest.approx(box.xyxy, abs=tolerance)


LEFT_HALF = Box(x0=0.0, y0=0.0, x1=0.5, y1=1.0)
TOP_HALF = Box(x0=0.0, y0=0.0, x1=1.0, y1=0.5)
RIGHT_QUARTER = Box(x0=0.75, y0=0.0, x1=1.0, y1=1.0)


def test_iou_of_two_crossing_halves_is_a_third():
    # They share 1/4 of the image and cover 3/4 of it together.
    assert geometry.iou(LEFT_HALF, TOP_HALF) == pytest.approx(1 / 3)


def test_iou_of_boxes_that_only_touch_is_zero():
    assert geometry.iou(LEFT_HALF, Box(x0=0.5, y0=0.0, x1=1.0, y1=1.0)) == 0.0


def test_giou_of_boxes_apart_is_minus_the_share_of_the_gap():
    # Union 3/4, hull 1: 0 - (1 - 3/4) / 1.
    assert geometry.giou(LEFT_HALF, RIGHT_QUARTER) == pytest.approx(-0.25)


@given(boxes(), boxes())
def test_iou_is_symmetric_and_between_zero_and_one(a, b):
    assert geometry.iou(a, b) == geometry.iou(b, a)
    assert 0.0 <= geometry.iou(a, b) <= 1.0


@given(boxes())
def test_a_box_overlaps_itself_wholly(box):
    assert geometry.iou(box, box) == 1.0
    assert geometry.giou(box, box) == pytest.approx(1.0)


@given(boxes(), boxes())
def test_giou_is_symmetric_and_never_above_iou(a, b):
    assert geometry.giou(a, b) == geometry.giou(b, a)
    assert -1.0 <= geometry.giou(a, b) <= geometry.iou(a, b)


@given(corner_boxes, corner_boxes)
def test_the_thinnest_boxes_have_an_overlap_too(a, b):
    assert 0.0 <= geometry.iou(a, b) <= 1.0
    assert geometry.giou(a, b) <= geometry.iou(a, b)


@given(st.lists(boxes(), min_size=1, max_size=5))
def test_a_hull_holds_every_box_and_touches_its_edges(found):
    cover = geometry.hull(tuple(found))
    assert cover.x0 == min(box.x0 for box in found)
    assert cover.y1 == max(box.y1 for box in found)
    assert all(cover.x0 <= box.x0 and box.x1 <= cover.x1 for box in found)


def test_a_hull_of_nothing_is_refused():
    with pytest.raises(GeometryError, match="hull of no boxes"):
        geometry.hull(())


def test_pixel_edges_become_fractions():
    # 160/640, 120/480, 480/640, 480/480
    assert geometry.from_pixels((160, 120, 480, 480), (640, 480)) == Box(x0=0.25, y0=0.25, x1=0.75, y1=1.0)


@given(boxes(), sizes)
def test_pixels_and_back_is_the_same_box(box, size_wh):
    assert geometry.from_pixels(geometry.to_pixels(box, size_wh), size_wh).xyxy == near(box)


def test_a_box_up_to_one_pixel_outside_is_clipped():
    assert geometry.from_pixels((-1, -0.5, 641, 481), (640, 480)) == Box(x0=0, y0=0, x1=1, y1=1)


@pytest.mark.parametrize("corners", [(-2, 0, 10, 10), (0, -2, 10, 10), (0, 0, 642, 10), (0, 0, 10, 482)])
def test_a_box_further_outside_is_refused_with_both_sizes(corners):
    with pytest.raises(GeometryError, match="leaves the image of 640x480 px by more than one pixel"):
        geometry.from_pixels(corners, (640, 480))


@pytest.mark.parametrize("corners", [(-1, 0, 0, 10), (640, 0, 641, 10), (700, 0, 800, 10), (0, -1, 10, -0.5)])
def test_a_box_that_misses_the_image_says_so(corners):
    with pytest.raises(GeometryError, match="lies outside the image of 640x480 px"):
        geometry.from_pixels(corners, (640, 480))


@pytest.mark.parametrize("corners", [(100, 100, 50, 200), (100, 100, 200, 100), (float("nan"), 0, 1, 1)])
def test_a_reversed_pixel_box_names_the_pixels_and_the_likely_cause(corners):
    with pytest.raises(GeometryError, match=r"pixel box \(.*\) is reversed or empty.*box_order: xywh"):
        geometry.from_pixels(corners, (640, 480))


def test_centre_and_size_become_corners():
    assert geometry.from_centre(0.5, 0.5, 0.5, 0.25) == Box(x0=0.25, y0=0.375, x1=0.75, y1=0.625)


def test_a_centre_box_is_clipped_to_the_image():
    assert geometry.from_centre(0.0, 0.0, 0.5, 0.5) == Box(x0=0.0, y0=0.0, x1=0.25, y1=0.25)


def test_clipping_a_box_that_misses_the_image_says_so():
    with pytest.raises(GeometryError, match="lies outside the image"):
        geometry.clip(1.1, 0.0, 1.2, 0.5)


def test_a_mask_gives_the_edges_of_its_pixels():
    mask = np.zeros((10, 20), dtype=np.uint8)
    mask[2:5, 4:10] = 255
    assert geometry.from_mask(mask) == Box(x0=0.2, y0=0.2, x1=0.5, y1=0.5)


def test_a_mask_of_one_pixel_gives_that_pixel():
    mask = np.zeros((4, 4), dtype=bool)
    mask[3, 0] = True
    assert geometry.from_mask(mask) == Box(x0=0.0, y0=0.75, x1=0.25, y1=1.0)


def test_an_empty_mask_is_refused():
    with pytest.raises(GeometryError, match="no pixel set"):
        geometry.from_mask(np.zeros((4, 4)))


def test_a_mask_of_several_planes_is_refused():
    with pytest.raises(GeometryError, match=r"shape \(4, 4, 3\); expected one plane"):
        geometry.from_mask(np.ones((4, 4, 3)))


def test_mirroring_exchanges_the_sides():
    box = Box(x0=0.0, y0=0.125, x1=0.25, y1=0.5)
    assert geometry.flip_horizontal(box) == Box(x0=0.75, y0=0.125, x1=1.0, y1=0.5)
    assert geometry.flip_vertical(box) == Box(x0=0.0, y0=0.5, x1=0.25, y1=0.875)


@given(boxes())
def test_mirroring_twice_changes_nothing(box):
    assert geometry.flip_horizontal(geometry.flip_horizontal(box)).xyxy == near(box)
    assert geometry.flip_vertical(geometry.flip_vertical(box)).xyxy == near(box)


def test_a_crop_of_the_right_half_doubles_the_width():
    right = Box(x0=0.5, y0=0.0, x1=1.0, y1=1.0)
    assert geometry.into_window(Box(x0=0.25, y0=0.0, x1=0.75, y1=0.5), right) == Box(x0=0, y0=0, x1=0.5, y1=0.5)


def test_a_box_outside_the_crop_is_gone():
    assert geometry.into_window(LEFT_HALF, RIGHT_QUARTER) is None
    assert geometry.into_window(LEFT_HALF, Box(x0=0.5, y0=0.0, x1=1.0, y1=1.0)) is None


@given(boxes(), boxes(side=0.01))
def test_out_of_a_window_undoes_into_it(box, window):
    inside = geometry.out_of_window(box, window)
    back = geometry.into_window(inside, window)
    assert back is not None
    assert back.xyxy == near(box)


@given(boxes(side=0.01), boxes(side=0.01))
def test_what_a_window_keeps_lies_where_it_lay(box, window):
    kept = geometry.into_window(box, window)
    if kept is not None and kept.area > CLOSE:
        whole = geometry.out_of_window(kept, window)
        expected = (max(box.x0, window.x0), max(box.y0, window.y0), min(box.x1, window.x1), min(box.y1, window.y1))
        assert whole.xyxy == pytest.approx(expected, abs=CLOSE)


def test_padding_to_a_square_moves_the_box_by_the_border():
    # 400 x 200 pasted at (0, 100) on 400 x 400: y runs from (0 + 100)/400 to (200 + 100)/400.
    whole = Box(x0=0, y0=0, x1=1, y1=1)
    assert geometry.into_padded(whole, (400, 200), (400, 400), (0, 100)) == Box(x0=0, y0=0.25, x1=1, y1=0.75)


def test_whole_pixels_are_the_nearest_and_never_meet():
    assert geometry.to_whole_pixels(Box(x0=0.26, y0=0.5, x1=0.74, y1=1), (10, 4)) == (3, 2, 7, 4)
    assert geometry.to_whole_pixels(Box(x0=0.51, y0=0, x1=0.52, y1=0.01), (10, 4)) == (5, 0, 6, 1)
    assert geometry.to_whole_pixels(Box(x0=0.99, y0=0.99, x1=1, y1=1), (10, 4)) == (9, 3, 10, 4)
