"""Random views: windows keep every box, boxes move with the pixels, colours change and nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from gastrovl.core import geometry
from gastrovl.core.types import Box
from gastrovl.training.config import AugmentConfig
from gastrovl.training.rows.augment import WHOLE, View, draw_view

BOXES = [Box(x0=0.3, y0=0.1, x1=0.5, y1=0.4), Box(x0=0.45, y0=0.2, x1=0.9, y1=0.35)]


def squares_with(box, side=80):
    """Black, white inside `box`."""
    square = np.zeros((side, side, 3), dtype=np.uint8)
    x0, y0, x1, y1 = (round(edge) for edge in geometry.to_pixels(box, (side, side)))
    square[y0:y1, x0:x1] = 255
    return square


def box_of(pixels):
    return geometry.from_mask(pixels[..., 0] > 127)


@pytest.mark.parametrize("seed", range(20))
def test_windows_keep_every_box_whole(seed):
    config = AugmentConfig(flip=False, smallest_crop=0.3, colour=0.2)

    view = draw_view(np.random.default_rng(seed), BOXES, config)

    assert all(view.window.x0 <= b.x0 + 1e-9 and b.x1 <= view.window.x1 + 1e-9 for b in BOXES)
    assert all(view.window.y0 <= b.y0 + 1e-9 and b.y1 <= view.window.y1 + 1e-9 for b in BOXES)
    assert 0.3 - 1e-9 <= view.window.x1 - view.window.x0 <= 1.0


def test_windows_may_cut_boxes_down_to_the_share_to_be_kept():
    large = [Box(x0=0.05, y0=0.0, x1=0.95, y1=1.0)]
    config = AugmentConfig(flip=False, smallest_crop=0.5, least_kept=0.6, colour=0.0)
    views = [draw_view(np.random.default_rng(seed), large, config) for seed in range(60)]
    windows = [view.window for view in views]

    kept_x = [min(w.x1, 0.95) - max(w.x0, 0.05) for w in windows]
    kept_y = [w.y1 - w.y0 for w in windows]

    assert min(kept_x) >= 0.6 * 0.9 - 1e-9
    assert min(kept_y) >= 0.6 - 1e-9
    assert sum(kept < 0.85 for kept in kept_x) > 15
    assert sum(kept < 0.9 for kept in kept_y) > 15
    assert all(view.move(large[0]) is not None for view in views)


@pytest.mark.parametrize("seed", range(20))
def test_a_box_is_found_where_the_view_says_it_went(seed):
    view = draw_view(np.random.default_rng(seed), BOXES[:1], AugmentConfig(smallest_crop=0.3, colour=0.2))

    found = box_of(view.render(squares_with(BOXES[0]), 200))

    moved = view.move(BOXES[0])
    assert found.xyxy == pytest.approx(moved.xyxy, abs=0.02)  # the picture is sampled at one part in 80


def test_a_view_mirrors_as_worked_by_hand():
    view = View(window=Box(x0=0.0, y0=0.0, x1=0.5, y1=1.0), is_mirrored_x=True)

    # x 0.3-0.5 of the image is 0.6-1.0 of its left half, mirrored 0.0-0.4; y stays
    assert view.move(BOXES[0]).xyxy == pytest.approx((0.0, 0.1, 0.4, 0.4))
    assert View(is_mirrored_y=True).move(BOXES[0]).xyxy == pytest.approx((0.3, 0.6, 0.5, 0.9))


def test_a_box_outside_the_window_is_gone():
    assert View(window=Box(x0=0.6, y0=0.0, x1=1.0, y1=1.0)).move(BOXES[0]) is None


def test_without_crop_flip_and_colour_a_view_is_the_image():
    config = AugmentConfig(flip=False, smallest_crop=1.0, colour=0.0)
    square = np.random.default_rng(1).integers(0, 256, (32, 32, 3), dtype=np.uint8)

    view = draw_view(np.random.default_rng(0), BOXES, config)

    assert view.window == WHOLE
    assert not view.moves_boxes
    assert np.array_equal(view.render(square, 32), square)


def test_colours_change_by_gain_and_contrast_around_grey():
    square = np.full((4, 4, 3), 100, dtype=np.uint8)

    pixels = View(gains=(1.2, 1.0, 0.5), contrast=1.5).render(square, 4)

    # red 100 * 1.2 = 120 -> (120 - 110) * 1.5 + 110 = 125; green 100 -> 95; blue 50 -> 20
    assert pixels[0, 0].tolist() == [125, 95, 20]


def test_views_differ_from_draw_to_draw_and_repeat_by_seed():
    config = AugmentConfig(smallest_crop=0.3, colour=0.2)
    rng = np.random.default_rng(0)

    first, second = draw_view(rng, BOXES, config), draw_view(rng, BOXES, config)

    assert first != second
    assert draw_view(np.random.default_rng(0), BOXES, config) == first


def test_mirroring_and_an_image_without_boxes_use_all_four_orientations():
    config = AugmentConfig(smallest_crop=0.5, colour=0.0)
    views = [draw_view(np.random.default_rng(seed), [], config) for seed in range(40)]

    assert {(view.is_mirrored_x, view.is_mirrored_y) for view in views} == {
        (False, False),
        (False, True),
        (True, False),
        (True, True),
    }
