"""Further changes of a view: boxes go where the pixels go, words about sides are dropped where they must be."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gastrovl.core import geometry
from gastrovl.core.errors import ConfigError
from gastrovl.core.types import Box
from gastrovl.training.config import AugmentConfig
from gastrovl.training.rows.augment import View, draw_view
from gastrovl.training.rows.operations import OPERATIONS, Highlights, Letterbox, NarrowBand, QuarterTurn, register

SIDE = 120


def square_with(box, colour=(255, 40, 40), side=SIDE):
    """Grey, with a red rectangle."""
    square = np.full((side, side, 3), 100, dtype=np.uint8)
    x0, y0, x1, y1 = (round(edge) for edge in geometry.to_pixels(box, (side, side)))
    square[y0:y1, x0:x1] = colour
    return square


def red_of(pixels):
    """The box around what is red and not white."""
    return geometry.from_mask(pixels[..., 0].astype(int) - pixels[..., 1] > 75)


@st.composite
def boxes(draw):
    """Boxes of a tenth or more, on whole pixels."""
    x0, y0 = (draw(st.integers(0, SIDE - 12)) for _ in range(2))
    width, height = draw(st.integers(12, SIDE - x0)), draw(st.integers(12, SIDE - y0))
    return Box(x0=x0 / SIDE, y0=y0 / SIDE, x1=(x0 + width) / SIDE, y1=(y0 + height) / SIDE)


@given(box=boxes(), seed=st.integers(0, 1000), name=st.sampled_from(sorted(OPERATIONS)))
def test_a_box_is_found_where_the_operation_says_it_went(box, seed, name):
    operation = OPERATIONS[name](np.random.default_rng(seed), [box])

    tolerance = 0.0 if name == "turn" else 2 / SIDE if name == "letterbox" else 1e-9
    if name not in ("highlights", "narrow_band"):  # which may lie on an edge, or leave no red
        found = red_of(operation.render(square_with(box)))
        assert found.xyxy == pytest.approx(operation.move(box).xyxy, abs=tolerance + 1e-9)
    else:
        assert operation.move(box) == box


@given(box=boxes(), seed=st.integers(0, 1000))
def test_a_box_is_found_where_a_view_of_all_changes_says_it_went(box, seed):
    config = AugmentConfig(smallest_crop=0.4, colour=0.0, operations={"turn": 0.7, "letterbox": 0.7})
    view = draw_view(np.random.default_rng(seed), [box], config)

    found = red_of(view.render(square_with(box), SIDE))

    assert found.xyxy == pytest.approx(view.move(box).xyxy, abs=4 / SIDE)


def test_a_quarter_turn_to_the_left_is_as_worked_by_hand():
    # the top left corner goes to the bottom left
    assert QuarterTurn(1).move(Box(x0=0.0, y0=0.0, x1=0.25, y1=0.5)).xyxy == (0.0, 0.75, 0.5, 1.0)
    assert QuarterTurn(2).move(Box(x0=0.0, y0=0.0, x1=0.25, y1=0.5)).xyxy == (0.75, 0.5, 1.0, 1.0)
    pixels = np.arange(4, dtype=np.uint8).reshape(2, 2, 1).repeat(3, axis=2)  # rows 0 1 and 2 3
    assert QuarterTurn(1).render(pixels)[..., 0].tolist() == [[1, 3], [0, 2]]


def test_a_letterbox_is_black_around_the_image():
    white = np.full((8, 8, 3), 255, dtype=np.uint8)
    operation = Letterbox(Box(x0=0.25, y0=0.0, x1=0.75, y1=0.5))

    framed = operation.render(white)

    assert framed[0:4, 2:6].min() == 255
    assert framed.astype(int).sum() == 255 * 3 * 4 * 4
    assert operation.move(Box(x0=0.5, y0=0.5, x1=1.0, y1=1.0)).xyxy == (0.5, 0.25, 0.75, 0.5)


def test_highlights_are_white_in_the_middle_and_nothing_outside():
    dark = np.full((100, 100, 3), 50, dtype=np.uint8)

    lit = Highlights(((0.5, 0.5, 0.1, 0.2),)).render(dark)

    assert lit[50, 50].tolist() == [255, 255, 255]
    changed = geometry.from_mask((lit != 50).any(axis=2))
    assert changed.xyxy == pytest.approx((0.4, 0.3, 0.6, 0.7), abs=0.02)


@pytest.mark.parametrize("seed", range(20))
def test_no_highlight_hides_a_box(seed):
    box = Box(x0=0.4, y0=0.4, x1=0.46, y1=0.5)

    drawn = OPERATIONS["highlights"](np.random.default_rng(seed), [box])

    assert 2 <= len(drawn.spots) <= 8
    assert max(radius for _, _, *radii in drawn.spots for radius in radii) <= 0.06 / 6


def test_sides_stay_true_as_long_as_no_operation_changes_them():
    letterbox = Letterbox(Box(x0=0.1, y0=0.1, x1=0.9, y1=0.9))

    assert View(operations=(letterbox,)).keeps_left
    assert View(operations=(letterbox,)).moves_boxes
    assert not View(operations=(letterbox, QuarterTurn(1))).keeps_up
    assert not View(is_mirrored_x=True, operations=(letterbox,)).keeps_left
    assert not View(operations=(Highlights(()),)).moves_boxes


def test_each_operation_comes_with_its_probability():
    config = AugmentConfig(flip=False, smallest_crop=1.0, colour=0.0, operations={"turn": 0.25, "letterbox": 1.0})
    views = [draw_view(np.random.default_rng(seed), [], config) for seed in range(400)]

    assert all(isinstance(view.operations[-1], Letterbox) for view in views)
    turned = sum(isinstance(view.operations[0], QuarterTurn) for view in views)
    assert turned == pytest.approx(100, abs=30)  # the standard error is sqrt(400 * 0.25 * 0.75), 8.7


def test_an_operation_of_ones_own_is_used_by_its_name(monkeypatch):
    @dataclass(frozen=True)
    class Halve:
        moves_boxes: bool = False
        keeps_left: bool = True
        keeps_up: bool = True

        def move(self, box):
            return box

        def render(self, pixels):
            return pixels // 2

    monkeypatch.delitem(OPERATIONS, "turn")
    register("turn", lambda _rng, _boxes: Halve())
    config = AugmentConfig(flip=False, smallest_crop=1.0, colour=0.0, operations={"turn": 1.0})

    view = draw_view(np.random.default_rng(0), [], config)

    assert view.render(np.full((4, 4, 3), 100, dtype=np.uint8), 4).max() == 50
    with pytest.raises(ConfigError, match="'turn' is registered already"):
        register("turn", lambda _rng, _boxes: Halve())


def test_narrow_band_shows_green_as_red_and_blue_as_the_rest():
    pixels = np.tile(np.array([200, 100, 50], dtype=np.uint8), (4, 4, 1))

    whole = NarrowBand(1.0, (1.5, 1.0, 2.0)).render(pixels)
    half = NarrowBand(0.5, (1.0, 1.0, 1.0)).render(pixels)

    assert whole[0, 0].tolist() == [150, 50, 100]
    assert half[0, 0].tolist() == [150, 75, 50]
    assert not View(operations=(NarrowBand(1.0, (1.0, 1.0, 1.0)),)).moves_boxes
