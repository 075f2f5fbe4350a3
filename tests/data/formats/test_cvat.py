"""CVAT for images 1.1: shapes, tags, attributes and splits."""

from __future__ import annotations

import pytest

from gastrovl.core.errors import SourceError
from gastrovl.data.formats.cvat import Options, read
from gastrovl.data.images import list_images


@pytest.fixture
def read_cvat(tmp_path, draw):
    """Annotations of a.png, 100 x 50 px, by the shapes inside its <image>."""

    def run(shapes, around="{}", **options):
        draw(tmp_path / "images/a.png", size_wh=(100, 50))
        image = f'<image id="0" name="a.png" subset="Train" width="100" height="50">\n{shapes}\n</image>'
        inside = f"<version>1.1</version>{around.format(image)}"
        text = f'<?xml version="1.0" encoding="utf-8"?>\n<annotations>{inside}</annotations>'
        (tmp_path / "annotations.xml").write_text(text, encoding="utf-8")
        images = list_images(tmp_path, ["images/*.png"], max_px=10_000)
        return list(read(tmp_path, Options(**options), images))

    return run


BOX = '<box label="polyp" occluded="0" xtl="10.0" ytl="5.0" xbr="60.0" ybr="45.0"{}>{}</box>'


@pytest.mark.parametrize(
    "shape",
    [
        BOX.format("", ""),
        '<polygon label="polyp" points="10.0,5.0;60.0,20;30,45"/>',
        '<ellipse label="polyp" cx="35" cy="25" rx="25" ry="20"/>',
        '<mask label="polyp" rle="2000" left="10" top="5" width="50" height="40"/>',
    ],
)
def test_every_shape_with_an_area_becomes_its_box(read_cvat, shape):
    (found,) = read_cvat(shape)
    assert (found.label, found.box.xyxy, found.split) == ("polyp", (0.1, 0.1, 0.6, 0.9), None)
    assert found.where.endswith("annotations.xml:3")


def test_a_tag_is_a_label_of_the_whole_image(read_cvat):
    (found,) = read_cvat('<tag label="antrum" source="manual"></tag>')
    assert (found.label, found.box) == ("antrum", None)


def test_undeclared_attributes_are_read_as_label_and_patient(read_cvat):
    shape = BOX.format("", '<attribute name="paris">Is</attribute><attribute name="patient">P7</attribute>')
    (found,) = read_cvat(shape, attribute="paris", group="patient")
    assert (found.label, found.group) == ("Is", "P7")
    with pytest.raises(SourceError, match=r"no value for the attribute 'nice'"):
        read_cvat(shape, attribute="nice")


def test_the_subset_may_be_the_split(read_cvat):
    (found,) = read_cvat(BOX.format("", ""), subset_is_split=True)
    assert found.split == "Train"


def test_lines_are_refused_or_left_out_when_asked(read_cvat):
    line = '<polyline label="z" points="1,1;5,5"/>'
    with pytest.raises(SourceError, match=r"xml:3: found a shape of kind 'polyline'.*`skip_shapes`"):
        read_cvat(line)
    assert read_cvat(line, skip_shapes=["polyline"]) == []


def test_tracks_of_a_video_are_refused_with_the_right_export(read_cvat):
    with pytest.raises(SourceError, match=r"Export the task as 'CVAT for images 1\.1'"):
        read_cvat("", around='{}<track id="0" label="polyp"></track>')


@pytest.mark.parametrize(
    "shape",
    [
        BOX.format(' rotation="30"', ""),
        '<polygon label="polyp" points="10,5;60"/>',
        '<polygon label="polyp" points=""/>',
        '<mask label="polyp" left="10" top="5" width="-3" height="40"/>',
        '<ellipse label="polyp" cx="35" cy="25" rx="inf" ry="20"/>',
        '<box xtl="1" ytl="2" xbr="3" ybr="4"/>',
    ],
)
def test_a_wrong_shape_names_its_line(read_cvat, shape):
    with pytest.raises(SourceError, match=r"annotations\.xml:3: "):
        read_cvat(shape)
