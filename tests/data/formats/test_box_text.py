"""EDD2020's own rows: x1 y1 x2 y2 class, in pixels."""

from __future__ import annotations

import pytest

from gastrovl.core.errors import SourceError
from gastrovl.core.types import Box
from gastrovl.data.formats.box_text import Options, read
from gastrovl.data.images import list_images


@pytest.fixture
def read_rows(tmp_path, draw):
    """Annotations of one 100 x 50 px image whose box file holds `text`."""

    def run(text, box_order="xyxy"):
        draw(tmp_path / "images/a.png", size_wh=(100, 50))
        (tmp_path / "bbox").mkdir(exist_ok=True)
        (tmp_path / "bbox/a.txt").write_text(text, encoding="utf-8")
        images = list_images(tmp_path, ["images/*.png"], max_px=10_000)
        return list(read(tmp_path, Options(folder="bbox", box_order=box_order), images)), images

    return run


def test_corners_in_pixels_become_fractions(read_rows):
    found, _ = read_rows("10 5 60 45 BE\n0 0 100 50 early cancer\n")
    assert [(a.label, a.box) for a in found] == [
        ("BE", Box(x0=0.1, y0=0.1, x1=0.6, y1=0.9)),
        ("early cancer", Box(x0=0, y0=0, x1=1, y1=1)),
    ]


def test_corner_and_size_need_the_order_xywh(read_rows):
    found, _ = read_rows("10 5 50 40 BE", box_order="xywh")
    assert found[0].box == Box(x0=0.1, y0=0.1, x1=0.6, y1=0.9)


def test_blank_lines_are_skipped_and_counted(read_rows):
    found, _ = read_rows("\n10 5 60 45 BE\n")
    assert found[0].where.endswith("a.txt:2")


def test_a_reversed_box_names_file_line_and_remedy(read_rows):
    with pytest.raises(SourceError, match=r"a\.txt:2: box 60 5 10 45 is reversed .* x0 < x1 .*`box_order: xywh`"):
        read_rows("10 5 60 45 BE\n60 5 10 45 BE\n")


def test_a_size_read_as_a_corner_names_the_other_order(read_rows):
    with pytest.raises(SourceError, match=r"a\.txt:1: box 80 5 30 40 is reversed .*`box_order: xywh`"):
        read_rows("80 5 30 40 BE")


def test_a_corner_read_as_a_size_leaves_the_image(read_rows):
    with pytest.raises(SourceError, match=r"a\.txt:1: box 60 5 90 45 leaves the image of 100x50 px.*`box_order: xyxy`"):
        read_rows("60 5 90 45 BE", box_order="xywh")


def test_a_negative_size_is_refused(read_rows):
    with pytest.raises(SourceError, match=r"a\.txt:1: box 10 5 -4 45 has width -4 .* expected both above 0"):
        read_rows("10 5 -4 45 BE", box_order="xywh")


def test_a_number_that_is_not_finite_is_refused(read_rows):
    with pytest.raises(SourceError, match=r"a\.txt:1: box nan 5 60 45 has a number that is not finite"):
        read_rows("nan 5 60 45 BE")


@pytest.mark.parametrize("row", ["10 5 60 45", "10 5 60 BE extra", "BE 10 5 60 45"])
def test_a_row_of_another_shape_names_its_line(read_rows, row):
    with pytest.raises(SourceError, match=r"a\.txt:1: found .*expected (four pixel numbers|4 numbers)"):
        read_rows(row)


def test_a_missing_image_is_noted_with_the_line_that_names_it(read_rows, tmp_path):
    (tmp_path / "bbox").mkdir()
    (tmp_path / "bbox/gone.txt").write_text("1 1 5 5 BE\n", encoding="utf-8")
    found, images = read_rows("")
    assert found == []
    (missing,) = images.broken
    assert missing.path.endswith("gone")
    assert "missing" in missing.reason
    assert "gone.txt:1" in missing.reason


def test_a_missing_folder_is_named(tmp_path, draw):
    draw(tmp_path / "images/a.png")
    images = list_images(tmp_path, ["images/*.png"], max_px=10_000)
    with pytest.raises(SourceError, match=r"bbox: no such folder"):
        list(read(tmp_path, Options(folder="bbox"), images))


def test_text_of_another_encoding_is_refused(tmp_path, draw):
    draw(tmp_path / "images/a.png")
    (tmp_path / "bbox").mkdir()
    (tmp_path / "bbox/a.txt").write_bytes(b"1 1 5 5 \xff\xfe\n")
    images = list_images(tmp_path, ["images/*.png"], max_px=10_000)
    with pytest.raises(SourceError, match=r"a\.txt:1: not UTF-8"):
        list(read(tmp_path, Options(folder="bbox"), images))
