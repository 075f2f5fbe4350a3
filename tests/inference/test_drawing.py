"""A reply's boxes on its image."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from gastrovl.core.errors import ImageError
from gastrovl.core.images import open_image
from gastrovl.core.types import Box
from gastrovl.inference.drawing import COLOURS, Mark, marked, save_png
from gastrovl.inference.session import Kind, Wish, marks_of
from gastrovl.inference.typed import TextAnswer


@pytest.fixture
def image(tmp_path):
    Image.new("RGB", (200, 100), (20, 20, 20)).save(tmp_path / "a.png")
    return tmp_path / "a.png"


def draw_reply(image, reply, output):
    """As `gastrovl ask` draws the boxes of a free answer; gives how many there are."""
    picture = open_image(image)
    marks = marks_of([(Wish(Kind.SAY, "?"), TextAnswer(reply, 0.5, "end"))])
    save_png(marked(picture, marks), output)
    return len(marks)


def test_every_box_of_a_reply_is_outlined_where_it_lies(image, tmp_path):
    count = draw_reply(image, "[250,200,749,799] [000,000,100,100]", tmp_path / "out.png")

    with Image.open(tmp_path / "out.png") as opened:
        drawn = np.asarray(opened)
    is_line = (drawn == (255, 140, 0)).all(axis=-1)
    assert count == 2
    assert drawn.shape == (100, 200, 3)
    assert is_line[20, 100]  # upper edge of the first box at 200/999 of 100 px
    assert is_line[50, 50]  # its left edge at 250/999 of 200 px
    assert not is_line[50, 100]  # inside
    assert not is_line[95, 100]  # below


@pytest.mark.parametrize("reply", ["gastric polyp", "absent", "[900,0,100,50]", ""])
def test_a_reply_without_boxes_leaves_the_image_as_it_was(image, tmp_path, reply):
    assert draw_reply(image, reply, tmp_path / "out.png") == 0
    with Image.open(tmp_path / "out.png") as drawn, Image.open(image) as original:
        assert np.array_equal(np.asarray(drawn), np.asarray(original))


def test_a_missing_image_leaves_nothing_behind(tmp_path):
    with pytest.raises(ImageError, match="no such image"):
        draw_reply(tmp_path / "none.png", "absent", tmp_path / "out.png")
    assert list(tmp_path.iterdir()) == []


def test_words_stand_on_a_plate_of_their_colour_and_stay_inside():
    picture = Image.new("RGB", (200, 100), (20, 20, 20))

    drawn = np.asarray(marked(picture, [Mark(Box(x0=0.5, y0=0.0, x1=1.0, y1=0.9), "polyp", 1)]))

    is_plate = (drawn == COLOURS[1]).all(axis=-1)
    assert is_plate[2:14, 104:130].mean() > 0.5  # at the upper left of the box, inside where there is no room above
    assert (np.asarray(picture) == 20).all()  # the picture itself stays
