"""A table with one row an image and label."""

from __future__ import annotations

import pytest

from gastrovl.core.errors import SourceError
from gastrovl.data.formats.csv_labels import Options, read
from gastrovl.data.images import list_images


@pytest.fixture
def read_table(tmp_path, draw):
    """Annotations of a.png and b.png, 100 x 50 px, by the table `text`."""

    def run(text, **options):
        draw(tmp_path / "images/a.png", 1, (100, 50))
        draw(tmp_path / "images/b.png", 2, (100, 50))
        (tmp_path / "t.csv").write_text(text, encoding="utf-8")
        images = list_images(tmp_path, ["images/*.png"], max_px=10_000)
        return list(read(tmp_path, Options(file="t.csv", **options), images))

    return run


def test_rows_name_images_with_or_without_suffix(read_table):
    found = read_table("image,label\na.png,antrum\nb,pylorus\na,polyp\n")
    assert [(a.image.name, a.label) for a in found] == [("a.png", "antrum"), ("b.png", "pylorus"), ("a.png", "polyp")]


def test_patient_and_split_columns_are_carried(read_table):
    (found,) = read_table(
        "file;class;patient;set\na;A1;P7;Training\n",
        image="file",
        label="class",
        group="patient",
        split="set",
        delimiter=";",
    )
    assert (found.label, found.group, found.split) == ("A1", "P7", "Training")


def test_several_labels_in_a_cell_are_parted(read_table):
    found = read_table("image,label\na,BE | HGD\n", label_delimiter="|")
    assert [a.label for a in found] == ["BE", "HGD"]


def test_box_columns_become_a_box_and_may_be_empty(read_table):
    found = read_table(
        "image,label,x,y,w,h\na,polyp,10,5,50,40\nb,antrum,,,,\n", box=("x", "y", "w", "h"), box_order="xywh"
    )
    assert found[0].box.xyxy == (0.1, 0.1, 0.6, 0.9)
    assert found[1].box is None


def test_a_missing_column_is_named_with_those_found(read_table):
    with pytest.raises(SourceError, match=r"t\.csv:1: found columns image, class, expected also label"):
        read_table("image,class\na,antrum\n")


def test_an_empty_cell_names_its_line(read_table):
    with pytest.raises(SourceError, match=r"t\.csv:3: column 'label' is empty"):
        read_table("image,label\na,antrum\nb,\n")


def test_a_word_in_a_box_column_names_its_line(read_table):
    with pytest.raises(SourceError, match=r"t\.csv:2: found '10 5 wide 45', expected 4 numbers"):
        read_table("image,label,a,b,c,d\na,polyp,10,5,wide,45\n", box=("a", "b", "c", "d"))


def test_text_of_another_encoding_names_its_line(tmp_path, draw):
    draw(tmp_path / "images/a.png")
    (tmp_path / "t.csv").write_bytes(b"image,label\na,\xe9rosion\n")
    images = list_images(tmp_path, ["images/*.png"], max_px=10_000)
    with pytest.raises(SourceError, match=r"t\.csv:2: not UTF-8"):
        list(read(tmp_path, Options(file="t.csv"), images))


def test_rows_without_a_label_are_refused_unless_they_may_say_nothing(read_table):
    table = "image,label\na.png,antrum\nb.png,\n"
    with pytest.raises(SourceError, match=r"t\.csv:3: column 'label' is empty"):
        read_table(table)
    assert [a.image.name for a in read_table(table, skip_unlabelled=True)] == ["a.png"]
