"""Masks to boxes: a box a component, or one hull."""

from __future__ import annotations

import time

import numpy as np
import pytest
from PIL import Image

from gastrovl.core.errors import SourceError
from gastrovl.data.formats.masks import Options, component_boxes, read
from gastrovl.data.images import list_images


def mask_of(*rows):
    return np.array([[character == "#" for character in row] for row in rows])


@pytest.fixture
def read_masks(tmp_path, draw):
    """Annotations of img_1.png, 10 x 4 px, by the mask called `name`."""

    def run(name, mask, **options):
        draw(tmp_path / "images/img_1.png", size_wh=(10, 4))
        (tmp_path / "masks").mkdir()
        Image.fromarray(mask).save(tmp_path / "masks" / name)
        images = list_images(tmp_path, ["images/*.png"], max_px=10_000)
        return list(read(tmp_path, Options(folder="masks", **options), images))

    return run


TWO = mask_of(
    "##........",
    "##........",
    ".......###",
    "..........",
)


def test_each_component_gets_a_box(read_masks):
    found = read_masks("img_1_BE.png", TWO)
    assert [(a.label, a.box.xyxy) for a in found] == [("BE", (0, 0, 0.2, 0.5)), ("BE", (0.7, 0.5, 1, 0.75))]


def test_a_hull_covers_all_components(read_masks):
    (found,) = read_masks("img_1_BE.png", TWO, boxes="hull")
    assert found.box.xyxy == (0, 0, 1, 0.75)


def test_with_one_label_given_the_whole_name_is_the_image(read_masks):
    found = read_masks("img_1.png", TWO, label="polyp")
    assert {a.label for a in found} == {"polyp"}


def test_pixels_that_touch_at_a_corner_are_one_component():
    assert len(component_boxes(mask_of("#..", ".#.", "..#"))) == 1
    assert len(component_boxes(mask_of("..#", ".#.", "#.."))) == 1


def test_pixels_one_apart_are_two_components():
    assert len(component_boxes(mask_of("#.#"))) == 2


def test_arms_that_meet_further_down_are_one_component():
    (box,) = component_boxes(mask_of("#...#", "#...#", "#####"))
    assert box.xyxy == (0, 0, 1, 1)


def test_specks_are_left_out_but_never_the_largest():
    speckled = mask_of("####......", "####......", "..........", ".........#")
    assert len(component_boxes(speckled, min_area=0.05)) == 1  # the speck covers 1 of 40 pixels
    assert len(component_boxes(speckled, min_area=0.5)) == 1  # the block covers 8 of 40, and is all there is


def test_an_empty_mask_has_no_components():
    assert component_boxes(mask_of("...", "...")) == []


def test_an_empty_mask_file_is_refused(read_masks):
    with pytest.raises(SourceError, match=r"img_1_BE\.png: no pixel above 127"):
        read_masks("img_1_BE.png", np.zeros((4, 10), dtype=bool))


def test_a_mask_of_another_size_is_refused(read_masks):
    with pytest.raises(SourceError, match=r"mask .*img_1_BE\.png: is 20x8 px, but .*img_1\.png"):
        read_masks("img_1_BE.png", np.ones((8, 20), dtype=bool))


def test_a_name_without_a_class_is_refused(read_masks):
    with pytest.raises(SourceError, match=r"other\.png: found the name 'other\.png', expected STEM_CLASS\.png"):
        read_masks("other.png", TWO)


def test_a_broken_mask_is_refused(tmp_path, draw):
    draw(tmp_path / "images/a.png")
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks/a_BE.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    images = list_images(tmp_path, ["images/*.png"], max_px=10_000)
    with pytest.raises(SourceError, match=r"mask .*a_BE\.png: .*(not an image|broken|cannot be decoded)"):
        list(read(tmp_path, Options(folder="masks"), images))


VALUES = np.array([[0, 0, 1, 1, 0, 2, 0, 1, 1, 0]] * 4, dtype=np.uint8)
EXPECTED = [("polyp", (0.2, 0, 0.4, 1)), ("polyp", (0.7, 0, 0.9, 1)), ("clip", (0.5, 0, 0.6, 1))]


def boxes_of(found):
    return [(a.label, a.box.xyxy) for a in found]


def test_grey_values_are_classes(read_masks):
    assert boxes_of(read_masks("img_1.png", VALUES, classes={1: "polyp", 2: "clip"})) == EXPECTED


def test_palette_indices_are_classes_whatever_their_colours(tmp_path, draw):
    draw(tmp_path / "images/img_1.png", size_wh=(10, 4))
    picture = Image.fromarray(VALUES)
    picture.putpalette([9, 9, 9, 9, 9, 9, 200, 0, 0])  # 0 and 1 look the same
    (tmp_path / "masks").mkdir()
    picture.save(tmp_path / "masks/img_1.png")
    images = list_images(tmp_path, ["images/*.png"], max_px=10_000)
    options = Options(folder="masks", classes={1: "polyp", 2: "clip"})
    assert boxes_of(read(tmp_path, options, images)) == EXPECTED


def test_colours_are_classes(read_masks):
    colours = np.array([[255, 255, 255], [255, 0, 0], [0, 0, 128]], dtype=np.uint8)[VALUES]
    options = {"classes": {"#ff0000": "polyp", "#000080": "clip"}, "background": ["#ffffff"]}
    assert sorted(boxes_of(read_masks("img_1.png", colours, **options))) == sorted(EXPECTED)


def test_two_values_of_one_class_are_one_plane(read_masks):
    found = read_masks("img_1.png", VALUES, classes={1: "polyp", 2: "polyp"}, boxes="hull")
    assert boxes_of(found) == [("polyp", (0.2, 0, 0.9, 1))]


def test_a_value_that_is_no_class_is_refused(read_masks):
    with pytest.raises(SourceError, match=r"img_1\.png: found the values 2, expected those under `classes`"):
        read_masks("img_1.png", VALUES, classes={1: "polyp"})


def test_an_outline_may_count_as_background(read_masks):
    found = read_masks("img_1.png", VALUES, classes={1: "polyp"}, background=[0, 2])
    assert boxes_of(found) == EXPECTED[:2]


def test_a_colour_mask_with_numbered_classes_is_refused(read_masks):
    with pytest.raises(SourceError, match=r"its pixels have 3 channels; expected one value a pixel"):
        read_masks("img_1.png", np.zeros((4, 10, 3), dtype=np.uint8), classes={1: "polyp"})


def test_an_ending_of_mask_names_is_taken_off(read_masks):
    assert len(read_masks("img_1_mask.png", TWO, label="polyp", name_ending="_mask")) == 2


def test_a_name_without_the_ending_is_refused(read_masks):
    with pytest.raises(SourceError, match="does not end in '_mask'"):
        read_masks("img_1.png", TWO, label="polyp", name_ending="_mask")


@pytest.mark.parametrize(
    "options", [{"label": "a", "classes": {1: "a"}}, {"classes": {"red": "a"}}, {"classes": {1: "a", "#000001": "b"}}]
)
def test_contradicting_options_are_refused(options):
    with pytest.raises(ValueError, match="expected"):
        Options(folder="masks", **options)


def test_a_mask_of_noise_takes_seconds_not_minutes():
    mask = np.zeros((150, 2000), dtype=bool)
    mask[::2, ::2] = True  # 75,000 components
    start = time.process_time()
    boxes = component_boxes(mask)
    assert len(boxes) == 75 * 1000
    mask[1::2, 1::2] = True  # all joined by corners
    assert len(component_boxes(mask)) == 1
    assert time.process_time() - start < 8  # 1.5 s on a 2-core CPU; pairs of all runs of two rows would be 150 million
