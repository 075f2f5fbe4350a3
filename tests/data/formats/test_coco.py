"""COCO JSON: boxes, polygons and run lengths as boxes, several files, ids that must exist."""

from __future__ import annotations

import json

import pytest

from gastrovl.core.errors import SourceError
from gastrovl.data.formats.coco import Options, read
from gastrovl.data.images import list_images

IMAGES = [{"id": 7, "file_name": "a.png", "width": 10, "height": 4}]
CATEGORIES = [{"id": 3, "name": "polyp"}]


def content(*annotations, **changes):
    entries = [{"id": n, "image_id": 7, "category_id": 3, **one} for n, one in enumerate(annotations)]
    return {"images": IMAGES, "categories": CATEGORIES, "annotations": entries, **changes}


@pytest.fixture
def read_coco(tmp_path, draw):
    """Annotations of a.png, 10 x 4 px, by COCO files of the given contents."""

    def run(*contents, **options):
        draw(tmp_path / "images/a.png", size_wh=(10, 4))
        names = [f"{n}.json" for n in range(len(contents))]
        for name, one in zip(names, contents, strict=True):
            (tmp_path / name).write_text(json.dumps(one), encoding="utf-8")
        images = list_images(tmp_path, ["images/*.png"], max_px=10_000)
        return list(read(tmp_path, Options(**{"files": names, **options}), images))

    return run


def test_a_box_is_corner_and_size_in_pixels(read_coco):
    (found,) = read_coco(content({"bbox": [1, 1, 4, 2]}))
    assert (found.label, found.box.xyxy) == ("polyp", (0.1, 0.25, 0.5, 0.75))
    assert found.where.endswith("0.json (annotations[0])")


def test_a_box_beside_its_polygon_is_one_annotation(read_coco):
    (found,) = read_coco(content({"bbox": [1, 1, 4, 2], "segmentation": [[1, 1, 5, 1, 5, 3]]}))
    assert found.box.xyxy == (0.1, 0.25, 0.5, 0.75)


def test_polygons_without_a_box_span_one(read_coco):
    (found,) = read_coco(content({"segmentation": [[1, 1, 2, 1, 2, 2], [4, 2, 5, 2, 5, 3]]}))
    assert found.box.xyxy == (0.1, 0.25, 0.5, 0.75)


# A mask of 4 rows and 10 columns whose columns 1 and 2 are marked in rows 1 and 2: down the columns, 5 unmarked pixels,
# 2 marked, 2 unmarked, 2 marked, 29 unmarked.
BLOCK = (0.1, 0.25, 0.3, 0.75)


def test_plain_run_lengths_go_down_the_columns(read_coco):
    (found,) = read_coco(content({"segmentation": {"size": [4, 10], "counts": [5, 2, 2, 2, 29]}}))
    assert found.box.xyxy == BLOCK


def test_compressed_run_lengths_are_unpacked(read_coco):
    # pycocotools 2.0: mask.frPyObjects({"size": [4, 10], "counts": [5, 2, 2, 2, 29]}, 4, 10)["counts"] == b"5220k0"
    (found,) = read_coco(content({"segmentation": {"size": [4, 10], "counts": "5220k0"}}))
    assert found.box.xyxy == BLOCK


def test_a_run_that_turns_a_column_reaches_top_and_bottom(read_coco):
    (found,) = read_coco(content({"segmentation": {"size": [4, 10], "counts": [6, 4, 30]}}))
    assert found.box.xyxy == (0.1, 0, 0.3, 1)


@pytest.mark.parametrize("counts", [[5, 2, 2], [5, -2, 37], "52", "5220k", "~~", 7, None])
def test_run_lengths_that_do_not_fill_the_mask_are_refused(read_coco, counts):
    with pytest.raises(SourceError, match=r"0\.json \(annotations\[0\]\): "):
        read_coco(content({"segmentation": {"size": [4, 10], "counts": counts}}))


def test_a_mask_with_swapped_axes_is_refused(read_coco):
    with pytest.raises(SourceError, match=r"mask of \(height, width\) \[10, 4\], but .* \(10, 4\)"):
        read_coco(content({"segmentation": {"size": [10, 4], "counts": [5, 2, 33]}}))


def test_each_file_may_be_a_split(read_coco):
    found = read_coco(
        content({"bbox": [1, 1, 4, 2]}),
        content({"bbox": [2, 1, 4, 2]}),
        files={"training": "0.json", "validation": "1.json"},
    )
    assert [a.split for a in found] == ["training", "validation"]


def test_crowds_are_left_out_when_asked(read_coco):
    crowd = content({"bbox": [1, 1, 4, 2], "iscrowd": 1})
    assert len(read_coco(crowd)) == 1
    assert read_coco(crowd, crowd="skip") == []


def test_another_size_than_stated_is_refused_and_swapped_axes_are_named(read_coco):
    with pytest.raises(SourceError, match=r"images\[0\].*4x10 px with width and height swapped, but .*a\.png has 10x4"):
        read_coco(content(images=[{"id": 7, "file_name": "a.png", "width": 4, "height": 10}]))


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"bbox": [1, 1, -4, 2]}, "width -4 and height 2"),
        ({"bbox": [8, 1, 4, 2]}, "leaves the image of 10x4"),
        ({"bbox": [1, 1, 4]}, "expected 4 finite numbers"),
        ({"bbox": [1, 1, float("nan"), 2]}, "expected 4 finite numbers"),
        ({"bbox": [1, 1, 4, 2], "image_id": 8}, "image_id is 8, which the file does not list"),
        ({"bbox": [1, 1, 4, 2], "category_id": [3]}, r"category_id is \[3\]"),
        ({}, "neither `bbox` nor `segmentation`"),
        ({"segmentation": [[1, 1, 2]]}, "at least three points"),
    ],
)
def test_a_wrong_entry_is_named(read_coco, entry, message):
    with pytest.raises(SourceError, match=rf"0\.json \(annotations\[0\]\): .*{message}"):
        read_coco(content(entry))


def test_clip_keeps_the_part_inside(read_coco):
    (found,) = read_coco(content({"bbox": [-5, -5, 8, 7]}), outside="clip")
    assert found.box.xyxy == (0, 0, 0.3, 0.5)
    with pytest.raises(SourceError, match="lies outside the image"):
        read_coco(content({"bbox": [-5, -5, 4, 4]}), outside="clip")


def test_a_double_id_is_refused(read_coco):
    with pytest.raises(SourceError, match=r"categories\[1\]\): found id 3, expected an id of its own"):
        read_coco(content(categories=CATEGORIES * 2))


def test_a_path_in_another_folder_is_not_taken_for_the_image(tmp_path, draw):
    draw(tmp_path / "images/train/a.png", size_wh=(10, 4))
    (tmp_path / "c.json").write_text(
        json.dumps(content({"bbox": [1, 1, 4, 2]}, images=[{"id": 7, "file_name": "val/a.png"}]))
    )
    images = list_images(tmp_path, ["images/**/*.png"], max_px=10_000)
    assert list(read(tmp_path, Options(files=("c.json",)), images)) == []
    assert "c.json (images[0]) names it" in images.broken[0].reason
