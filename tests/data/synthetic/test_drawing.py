"""One drawn frame: boxes tight around what was drawn, labels of the taxonomy, equal seeds give equal pictures."""

import numpy as np
import pytest

from gastrovl.clinical.taxonomy import Taxonomy
from gastrovl.core.errors import LabelError
from gastrovl.core.geometry import iou, to_pixels
from gastrovl.data.synthetic import LESIONS, SITES, draw_image
from gastrovl.data.synthetic.camera import draw_camera, seen

SITE_OF = {lesion: site for site, lesions in SITES.items() for lesion in lesions}
SHADOW_PX = 16  # a polyp throws a shadow on the mucosa around it; all else ends at the box


def changed_pixels(lesion: str, seed: int):
    """The box of a lesion in pixels, and where the frame differs clearly from the same frame without it."""
    drawn = draw_image(np.random.default_rng(seed), SITE_OF[lesion], [lesion])
    bare = draw_image(np.random.default_rng(seed), SITE_OF[lesion])
    height, width = drawn.pixels.shape[:2]
    box_px = tuple(round(edge) for edge in to_pixels(drawn.lesions[0][1], (width, height)))
    return box_px, np.abs(drawn.pixels.astype(int) - bare.pixels).max(axis=2) > 30


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("lesion", LESIONS)
def test_a_box_is_tight_around_what_the_lesion_changed(lesion, seed):
    box_px, is_changed = changed_pixels(lesion, seed)
    rows, columns = np.flatnonzero(is_changed.any(axis=1)), np.flatnonzero(is_changed.any(axis=0))
    changed_px = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
    outwards = np.array(
        [box_px[0] - changed_px[0], box_px[1] - changed_px[1], changed_px[2] - box_px[2], changed_px[3] - box_px[3]]
    )
    assert outwards.min() >= -8  # the change reaches every side of the box
    assert outwards.max() <= (SHADOW_PX if lesion == "gastric_polyp" else 8)


@pytest.mark.parametrize("lesion", LESIONS)
def test_a_lesion_can_be_told_from_the_mucosa_around_it(lesion):
    (x0, y0, x1, y1), is_changed = changed_pixels(lesion, seed=11)
    assert is_changed[y0:y1, x0:x1].mean() > 0.25


def test_a_lesion_leaves_the_rest_of_the_frame_as_it_was():
    (x0, y0, x1, y1), is_changed = changed_pixels("esophagitis", seed=3)
    inside = is_changed[y0:y1, x0:x1].sum()
    assert is_changed.sum() - inside < 0.05 * inside


def test_equal_generators_draw_equal_frames():
    first, second = (draw_image(np.random.default_rng(5), "antrum", ["gastric_polyp"]) for _ in range(2))
    assert np.array_equal(first.pixels, second.pixels)
    assert first.lesions == second.lesions


def test_other_generators_draw_other_frames():
    first, second = (draw_image(np.random.default_rng(seed), "antrum", size_wh=(96, 80)) for seed in (1, 2))
    assert np.abs(first.pixels.astype(int) - second.pixels).mean() > 5


@pytest.mark.parametrize("size_wh", [(320, 288), (128, 128), (90, 140), (640, 480)])
def test_a_frame_has_the_size_that_was_asked_for(size_wh):
    drawn = draw_image(np.random.default_rng(1), "pylorus", size_wh=size_wh)
    assert drawn.pixels.shape == (size_wh[1], size_wh[0], 3)
    assert drawn.pixels.dtype == np.uint8


def test_two_lesions_keep_clear_of_each_other():
    for seed in range(15):
        drawn = draw_image(np.random.default_rng(seed), "z_line", ["esophagitis", "esophageal_varices"], (120, 100))
        (_, first), (_, second) = drawn.lesions
        assert iou(first, second) == 0


def test_the_same_lesion_twice_has_two_boxes():
    drawn = draw_image(np.random.default_rng(2), "antrum", ["gastric_ulcer", "gastric_ulcer"])
    assert [term for term, _ in drawn.lesions] == ["gastric_ulcer", "gastric_ulcer"]
    assert drawn.lesions[0][1] != drawn.lesions[1][1]


def test_lesions_lie_inside_the_black_frame():
    for seed in range(12):
        rng = np.random.default_rng(seed)
        camera = draw_camera(rng)
        drawn = draw_image(rng, "pylorus", ["gastric_ulcer"], camera=camera)
        x0, y0, x1, y1 = (round(edge) for edge in to_pixels(drawn.lesions[0][1], camera.size_wh))
        assert seen(camera)[y0:y1, x0:x1].mean() > 0.85  # a corner of the box may pass under the rim, the lesion not


@pytest.mark.parametrize("site", SITES)
def test_every_label_is_a_term_of_the_taxonomy(site):
    taxonomy = Taxonomy.load()
    for lesions in ([], [SITES[site][0]]):
        drawn = draw_image(np.random.default_rng(4), site, lesions, (96, 96))
        assert all(taxonomy[term].level == 3 for term in (drawn.site, *(term for term, _ in drawn.lesions)))


def test_only_a_bare_esophagus_is_called_normal():
    bare = draw_image(np.random.default_rng(4), "esophagus", (), (96, 96))
    ill = draw_image(np.random.default_rng(4), "esophagus", ["esophagitis"], (96, 96))
    assert (bare.site, ill.site) == ("normal_esophagus", "lower_esophagus")


def test_an_unknown_site_is_refused():
    with pytest.raises(LabelError, match=r"'colon' cannot be drawn; choose one of esophagus"):
        draw_image(np.random.default_rng(1), "colon")


def test_an_unknown_lesion_is_refused():
    with pytest.raises(LabelError, match=r"'gastritis' cannot be drawn"):
        draw_image(np.random.default_rng(1), "antrum", ["gastritis"])
