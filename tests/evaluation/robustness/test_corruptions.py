"""Corruptions on drawn frames: the same for ever, of the same size, and worse with each level."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from gastrovl.core.errors import ConfigError
from gastrovl.core.types import Box
from gastrovl.data.synthetic.drawn_set import draw_frame
from gastrovl.evaluation.robustness import objects
from gastrovl.evaluation.robustness.corruptions import CORRUPTIONS, LEVELS, corrupt, generator_of
from gastrovl.evaluation.robustness.pixels import field_of_view, to_pixels

SIZE = (256, 224)


@pytest.fixture(scope="module")
def frames():
    """Three drawn frames, each of another examination."""
    return [Image.fromarray(draw_frame(11, index).pixels).resize(SIZE) for index in (0, 8, 21)]


def change(one, other):
    return float(np.abs(np.asarray(one, dtype=float) - np.asarray(other, dtype=float)).mean())


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_every_level_changes_a_frame_more_than_the_one_below(name, frames):
    for number, frame in enumerate(frames):
        changes = [change(frame, corrupt(frame, name, level, key=f"frame {number}")) for level in LEVELS]
        assert [0, *changes] == sorted({0, *changes}), f"{changes} do not rise"


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_corrupted_frame_keeps_its_size_and_depends_on_its_key_alone(name, frames):
    first, again = (corrupt(frames[0], name, 4, key="a") for _ in range(2))
    assert (first.size, first.mode) == (SIZE, "RGB")
    assert first.tobytes() == again.tobytes()


@pytest.mark.parametrize("name", ["motion_blur", "glare", "bubbles", "text_overlay", "instrument", "noise"])
def test_two_images_or_two_seeds_are_not_corrupted_alike(name, frames):
    variants = {
        corrupt(frames[0], name, 4, key=key, seed=seed).tobytes() for key, seed in (("a", 0), ("b", 0), ("a", 1))
    }
    assert len(variants) == 3


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_the_extremes_survive_every_corruption(name):
    for frame in (Image.new("RGB", (64, 48)), Image.new("RGB", (64, 48), "white"), Image.new("L", (33, 70), 90)):
        assert corrupt(frame, name, 5, key="a").size == frame.size


@pytest.mark.parametrize("name", ["motion_blur", "defocus"])
def test_blur_leaves_a_bright_spot_where_it_is(name):
    """No geometry changes: the centre of mass of a spot stays within a pixel."""
    frame = Image.new("RGB", (200, 160))
    frame.paste((255, 255, 255), (118, 58, 123, 63))  # centre (120, 60)
    for level in LEVELS:
        light = np.asarray(corrupt(frame, name, level, key="a").convert("L"), dtype=float) ** 2.2
        y, x = np.mgrid[0:160, 0:200]
        assert abs((x * light).sum() / light.sum() - 120) <= 1
        assert abs((y * light).sum() / light.sum() - 60) <= 1


def test_a_blurred_edge_is_as_wide_as_the_level_says():
    """Defocus of level 5 has a radius of 2.2 % of the shorter side: 0.022 * 200 = 4.4 px, touching 5 on a side."""
    frame = Image.new("RGB", (300, 200))
    frame.paste((255, 255, 255), (150, 0, 300, 200))
    row = np.asarray(corrupt(frame, "defocus", 5, key="a"))[100, :, 0]
    changed = np.flatnonzero((row > 0) & (row < 255))
    assert (changed.min(), changed.max()) == (145, 154)


def test_a_short_stroke_leaves_no_gap():
    """Level 1 of 320 px is a stroke of 3.84 px: a dot becomes a line of touching pixels, not two ghosts of itself."""
    frame = Image.new("RGB", (320, 320))
    frame.putpixel((160, 160), (255, 255, 255))
    for key in "abcdefgh":
        lit = np.argwhere(np.asarray(corrupt(frame, "motion_blur", 1, key=key))[..., 0] > 0)
        ordered = lit[np.argsort(lit[:, 0] * 1000 + lit[:, 1])] if np.ptp(lit[:, 0]) else lit
        steps = np.abs(np.diff(ordered, axis=0)).max(axis=1)
        assert len(lit) >= 3
        assert steps.max() == 1


def test_under_exposure_multiplies_light_by_its_gain():
    """Level 2 leaves 0.35 of the light; a value v of a display of gamma 2.2 becomes v * 0.35 ** (1 / 2.2)."""
    dark = corrupt(Image.new("RGB", (32, 32), (200, 200, 200)), "under_exposure", 2, key="a")
    assert dark.getpixel((5, 5))[0] == pytest.approx(200 * 0.35 ** (1 / 2.2), abs=1)


@pytest.mark.parametrize("name", ["glare", "bubbles"])
def test_foam_and_glare_stay_off_the_black_around_the_field(name):
    frame = Image.new("RGB", (240, 240))
    frame.paste((190, 110, 90), (60, 60, 180, 180))
    changed = np.asarray(corrupt(frame, name, 5, key="a"))
    assert changed[:40].max() <= 1
    assert change(frame, changed) > 1


def test_the_field_of_view_is_found_and_dark_folds_belong_to_it():
    frame = Image.new("RGB", (240, 240))
    frame.paste((190, 110, 90), (60, 60, 180, 180))
    frame.paste((0, 0, 0), (118, 118, 124, 124))
    field = field_of_view(frame)
    assert (field[20, 20], field[120, 120], field[100, 90]) == (0, 1, 1)


@pytest.mark.parametrize("box", [(0.4, 0.4, 0.6, 0.6), (0.02, 0.02, 0.98, 0.98), (0.0, 0.45, 1.0, 0.55)])
def test_an_instrument_hides_at_most_a_quarter_of_a_box(box, frames):
    x0, y0, x1, y1 = box
    boxes = [Box(x0=x0, y0=y0, x1=x1, y1=y1)]
    for key in "abcdef":
        for level in LEVELS:
            changed = corrupt(frames[0], "instrument", level, key=key, boxes=boxes)
            hidden = np.abs(to_pixels(changed) - to_pixels(frames[0])).max(axis=-1) > 0.02
            part = hidden[int(y0 * SIZE[1]) : int(y1 * SIZE[1]), int(x0 * SIZE[0]) : int(x1 * SIZE[0])]
            assert part.mean() <= objects.MOST_COVERED + 0.03  # antialiased edges count in part


def test_burned_in_text_is_written_and_fits_a_narrow_frame():
    for size in ((400, 300), (90, 120)):
        frame = Image.new("RGB", size, (120, 60, 50))
        changed = np.asarray(objects.burned_in(frame, "SUSPICIOUS AREA", generator_of("a", "text", 0)), dtype=int)
        rows, columns = np.nonzero(np.abs(changed - (120, 60, 50)).max(axis=-1) > 60)
        assert len(rows) > 40
        assert columns.min() > 0
        assert columns.max() < size[0] - 1


def test_an_unknown_corruption_or_level_is_named_with_what_there_is():
    frame = Image.new("RGB", (16, 16))
    with pytest.raises(ConfigError, match="'fog' does not exist; expected some of motion_blur, defocus"):
        corrupt(frame, "fog", 1, key="a")
    with pytest.raises(ConfigError, match=r"level 6 does not exist; expected some of 1 .* to 5"):
        corrupt(frame, "glare", 6, key="a")
