"""LabelMe: shapes of the JSON form, flags, and outlines of the older XML form."""

from __future__ import annotations

import json

import pytest

from gastrovl.core.errors import SourceError
from gastrovl.data.formats.labelme import Options, read
from gastrovl.data.images import list_images


@pytest.fixture
def read_labelme(tmp_path, draw):
    """Annotations of a.png, 100 x 50 px, by the file n.json or n.xml of the given text."""

    def run(text, **options):
        draw(tmp_path / "images/a.png", size_wh=(100, 50))
        (tmp_path / "marks").mkdir(exist_ok=True)
        (tmp_path / f"marks/n.{options.get('kind', 'json')}").write_text(text, encoding="utf-8")
        images = list_images(tmp_path, ["images/*.png"], max_px=10_000)
        return list(read(tmp_path, Options(folder="marks", **options), images))

    return run


def content(*shapes, **changes):
    base = {"version": "5.0", "flags": {}, "imagePath": "..\\images\\a.png", "imageWidth": 100, "imageHeight": 50}
    return json.dumps({**base, "shapes": list(shapes), **changes})


def shape(kind, *points, label="polyp"):
    return {"label": label, "shape_type": kind, "points": list(points)}


@pytest.mark.parametrize(
    "drawn",
    [
        shape("polygon", [10, 5], [60, 20], [30, 45]),
        shape("rectangle", [60, 45], [10, 5]),
        shape("mask", [10, 5], [60, 45]),
        {"label": "polyp", "points": [[10, 5], [60, 20], [30, 45]]},
    ],
)
def test_a_shape_becomes_its_box_whichever_corner_came_first(read_labelme, drawn):
    (found,) = read_labelme(content(drawn))
    assert (found.image.name, found.label, found.box.xyxy) == ("a.png", "polyp", (0.1, 0.1, 0.6, 0.9))


def test_a_circle_is_a_centre_and_a_point_on_its_edge(read_labelme):
    (found,) = read_labelme(content(shape("circle", [50, 25], [53, 29])))  # radius 5 by Pythagoras
    assert found.box.xyxy == (0.45, 0.4, 0.55, 0.6)


def test_flags_that_are_set_are_labels_of_the_image_when_asked(read_labelme):
    flagged = content(flags={"antrum": True, "blurred": False})
    assert read_labelme(flagged) == []
    assert [(a.label, a.box) for a in read_labelme(flagged, flags=True)] == [("antrum", None)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (content(shape("point", [1, 2])), r"shapes\[0\]\): found a shape of kind 'point'"),
        (content(shape("circle", [1, 2])), "found a circle of 1 points, expected 2"),
        (content(shape("polygon", [1, 2], ["a", 3])), "expected 2 finite numbers"),
        (content(shape("polygon", label=" ")), "expected a shape with a label"),
        (content(shape("polygon", [1, 2], [1, 9])), "reversed or empty"),
        (content(imageWidth=50, imageHeight=100), "width and height swapped"),
        (content()[:40], "not valid JSON"),
        ("[]", "found no list `shapes`"),
        ("[" * 100_000, "not JSON that can be read"),
    ],
)
def test_a_wrong_file_is_named(read_labelme, text, message):
    with pytest.raises(SourceError, match=rf"n\.json.*{message}"):
        read_labelme(text)


XML = """<annotation><filename>a.png</filename>
<imagesize><nrows>50</nrows><ncols>100</ncols></imagesize>
<object><name>polyp</name><deleted>{}</deleted>
<polygon><pt><x>10</x><y>5</y></pt><pt><x>60</x><y>20</y></pt><pt><x>30</x><y>45</y></pt></polygon></object>
</annotation>"""


def test_an_outline_of_the_web_tool_becomes_its_box(read_labelme):
    (found,) = read_labelme(XML.format(0), kind="xml")
    assert (found.label, found.box.xyxy) == ("polyp", (0.1, 0.1, 0.6, 0.9))


def test_what_was_deleted_in_the_web_tool_is_left_out(read_labelme):
    assert read_labelme(XML.format(1), kind="xml") == []
