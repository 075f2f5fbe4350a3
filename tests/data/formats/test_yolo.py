"""YOLO rows: class index, centre and size in fractions."""

from __future__ import annotations

import pytest

from gastrovl.core.errors import SourceError
from gastrovl.data.formats.yolo import Options, read
from gastrovl.data.images import list_images


@pytest.fixture
def read_rows(tmp_path, draw):
    """Annotations of one image whose YOLO file holds `text`; the classes are BE and HGD."""

    def run(text):
        draw(tmp_path / "images/a.png")
        (tmp_path / "labels").mkdir()
        (tmp_path / "labels/a.txt").write_text(text, encoding="utf-8")
        (tmp_path / "classes.txt").write_text("BE\nHGD\n\n", encoding="utf-8")
        images = list_images(tmp_path, ["images/*.png"], max_px=10_000)
        return list(read(tmp_path, Options(folder="labels", classes="classes.txt"), images))

    return run


def test_centre_and_size_become_corners(read_rows):
    (found,) = read_rows("1 0.5 0.25 0.5 0.25\n")
    assert found.label == "HGD"
    assert found.box.xyxy == (0.25, 0.125, 0.75, 0.375)


def test_an_edge_pushed_out_by_rounding_is_clipped(read_rows):
    (found,) = read_rows("0 0.5 0.5 1.002 1\n")
    assert found.box.xyxy == (0, 0, 1, 1)


def test_a_class_beyond_the_list_names_line_and_list(read_rows):
    with pytest.raises(
        SourceError, match=r"a\.txt:1: found class '2', expected an index from 0 to 1 into .*classes\.txt"
    ):
        read_rows("2 0.5 0.5 0.2 0.2")


def test_pixels_are_refused_with_the_right_format(read_rows):
    with pytest.raises(SourceError, match=r"a\.txt:1: box 120 80 40 30 leaves the image.*`format: box_text`"):
        read_rows("0 120 80 40 30")


@pytest.mark.parametrize("size", ["0 0.2", "-0.1 0.2", "0.2 nan"])
def test_a_size_that_is_no_size_is_refused(read_rows, size):
    with pytest.raises(SourceError, match=r"a\.txt:1: box .* has width .* expected both above 0"):
        read_rows(f"0 0.5 0.5 {size}")


def test_a_row_with_a_confidence_is_refused(read_rows):
    with pytest.raises(SourceError, match=r"a\.txt:2: found '0 0.5 0.5 0.2 0.2 0.9', expected `class x-centre"):
        read_rows("0 0.5 0.5 0.2 0.2\n0 0.5 0.5 0.2 0.2 0.9\n")


def test_a_missing_class_list_is_named(tmp_path, draw):
    draw(tmp_path / "images/a.png")
    images = list_images(tmp_path, ["images/*.png"], max_px=10_000)
    with pytest.raises(SourceError, match=r"classes\.txt: no such file"):
        list(read(tmp_path, Options(folder="labels", classes="classes.txt"), images))
