"""HyperKvasir's bounding-boxes.json."""

from __future__ import annotations

import json

import pytest

from gastrovl.core.errors import SourceError
from gastrovl.data.formats.json_boxes import Options, read
from gastrovl.data.images import list_images


def entry(width=100, height=50, **box):
    corners = {"xmin": 10, "ymin": 5, "xmax": 60, "ymax": 45, **box}
    return {"height": height, "width": width, "bbox": [{"label": "polyp", **corners}]}


@pytest.fixture
def read_json(tmp_path, draw):
    """Annotations of the image polyp/a.png, 100 x 50 px, by the JSON `text`."""

    def run(text):
        draw(tmp_path / "images/polyp/a.png", size_wh=(100, 50))
        (tmp_path / "boxes.json").write_text(text, encoding="utf-8")
        images = list_images(tmp_path, ["images/**/*.png"], max_px=10_000)
        return list(read(tmp_path, Options(file="boxes.json"), images)), images

    return run


def test_an_entry_finds_its_image_in_a_class_folder(read_json):
    (found,), _ = read_json(json.dumps({"a": entry()}))
    assert (found.image.name, found.label, found.box.xyxy) == ("polyp/a.png", "polyp", (0.1, 0.1, 0.6, 0.9))


def test_a_reversed_box_names_its_line(read_json):
    text = json.dumps({"a": entry(xmax=5)}, indent=1)
    with pytest.raises(SourceError, match=r"boxes\.json:2 \(entry 'a'\): box 10 5 5 45 is reversed"):
        read_json(text)


def test_another_image_size_than_stated_is_refused(read_json):
    with pytest.raises(SourceError, match=r"states an image of 200x100 px, but .*a\.png has 100x50"):
        read_json(json.dumps({"a": entry(width=200, height=100)}))


def test_an_entry_without_corners_shows_what_is_expected(read_json):
    with pytest.raises(SourceError, match=r"expected height, width and bbox: .*xmin.*KeyError"):
        read_json(json.dumps({"a": {"height": 50, "width": 100, "bbox": [{"label": "polyp", "x": 1}]}}))


def test_half_a_json_file_names_the_line_it_breaks_at(read_json):
    with pytest.raises(SourceError, match=r"boxes\.json:3: not valid JSON"):
        read_json('{\n"a": {"height": 50,\n')


def test_a_list_is_refused(read_json):
    with pytest.raises(SourceError, match=r"found a list, expected an object"):
        read_json("[]")


def test_a_missing_image_is_noted(read_json):
    found, images = read_json(json.dumps({"gone": entry()}))
    assert found == []
    assert "entry 'gone'" in images.broken[0].reason
