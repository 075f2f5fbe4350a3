"""Boxes survive their text form to half a bin; anything but boxes is refused with one type of error."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gastrovl.core import boxtext, geometry
from gastrovl.core.errors import BoxTextError, GeometryError
from gastrovl.core.types import Box

BIN = 1 / 999


@st.composite
def boxes(draw: st.DrawFn, side: float) -> Box:
    x0 = draw(st.floats(0, 1 - side))
    y0 = draw(st.floats(0, 1 - side))
    return Box(x0=x0, y0=y0, x1=draw(st.floats(x0 + side, 1)), y1=draw(st.floats(y0 + side, 1)))


def test_a_box_is_four_bins_of_three_digits():
    # 0.1 x 999 = 99.9 -> 100, 0.25 x 999 = 249.75 -> 250, 0.5 x 999 = 499.5 -> 500
    assert boxtext.encode_box(Box(x0=0.0, y0=0.1, x1=0.25, y1=0.5)) == "[000,100,250,500]"


def test_the_whole_image_hits_the_first_and_last_bin():
    assert boxtext.encode_box(Box(x0=0, y0=0, x1=1, y1=1)) == "[000,000,999,999]"
    assert boxtext.decode_box("[000,000,999,999]") == Box(x0=0, y0=0, x1=1, y1=1)


def test_every_bin_stands_for_itself():
    assert [boxtext.to_bin(boxtext.from_bin(value)) for value in range(1000)] == list(range(1000))


@given(boxes(side=BIN))
def test_a_round_trip_moves_no_edge_by_more_than_half_a_bin(box):
    decoded = boxtext.decode_box(boxtext.encode_box(box))
    assert decoded.xyxy == pytest.approx(box.xyxy, abs=BIN / 2 + 1e-12)


@given(boxes(side=1e-7))
def test_a_thin_box_stays_a_box_within_one_bin(box):
    decoded = boxtext.decode_box(boxtext.encode_box(box))
    assert decoded.xyxy == pytest.approx(box.xyxy, abs=BIN + 1e-12)


@pytest.mark.parametrize(
    ("box", "text"),
    [
        (Box(x0=0.0, y0=0.0, x1=1e-6, y1=1e-6), "[000,000,001,001]"),
        (Box(x0=1 - 1e-6, y0=1 - 1e-6, x1=1.0, y1=1.0), "[998,998,999,999]"),
    ],
)
def test_a_box_within_one_bin_is_widened_inside_the_image(box, text):
    assert boxtext.encode_box(box) == text


@given(st.lists(boxes(side=2 * BIN), max_size=4))
def test_all_boxes_come_back(found):
    decoded = boxtext.decode_boxes(boxtext.encode_boxes(found))
    assert sorted(boxtext.encode_box(box) for box in decoded) == sorted(boxtext.encode_box(box) for box in found)


def test_the_largest_box_is_written_first_and_ties_from_the_left():
    small_right = Box(x0=900 / 999, y0=0.0, x1=1.0, y1=99 / 999)
    small_left = Box(x0=0.0, y0=0.0, x1=99 / 999, y1=99 / 999)
    large = Box(x0=0.0, y0=0.0, x1=1.0, y1=1.0)
    text = boxtext.encode_boxes([small_right, small_left, large])
    assert text == "[000,000,999,999] [000,000,099,099] [900,000,999,099]"


def test_no_box_is_written_as_absent_and_read_back():
    assert boxtext.encode_boxes([]) == "absent"
    assert boxtext.decode_boxes(" Absent\n") == ()


@pytest.mark.parametrize("text", ["[1,2,3,4]", " [ 001, 002 ,003,004 ] ", "[001,002,003,004]\n"])
def test_spaces_and_missing_zeros_are_read(text):
    assert boxtext.decode_box(text).xyxy == (1 / 999, 2 / 999, 3 / 999, 4 / 999)


@pytest.mark.parametrize("separator", [" ", ", ", "; ", "\n", ""])
def test_boxes_may_be_separated_by_space_or_punctuation(separator):
    assert len(boxtext.decode_boxes(f"[0,0,9,9]{separator}[5,5,20,20]")) == 2


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "holds no box"),
        ("upper left quadrant", "holds no box"),
        ("[000,100,250", "holds no box"),  # truncated
        ("[0.1,0.2,0.3,0.4]", "holds no box"),  # fractions
        ("[1,2,3]", "holds no box"),
        ("{<10><20><30><40>}", "holds no box"),  # another project's form
        ("[٠,٠,٩,٩]", "holds no box"),  # other digits
        ("[000,000,999,999] [000,", r"holds '\[000,' besides boxes"),  # the second is cut off
        ("A polyp at [0,0,9,9]", "holds 'A polyp at' besides boxes"),
        ("absent [0,0,9,9]", "holds 'absent' besides boxes"),
        ("[500,0,400,9]", "reversed or empty box"),  # swapped
        ("[5,5,5,9]", "reversed or empty box"),
        ("[0,0,1000,9]", r"outside 0-999: \[0, 0, 1000, 9\]"),
        ("[-1,0,10,9]", "outside 0-999"),
        ("[" + "9" * 5000 + ",1,2,3]", "coordinate of 5000 digits"),
    ],
)
def test_a_malformed_reply_is_refused_with_its_reason(text, complaint):
    with pytest.raises(BoxTextError, match=complaint):
        boxtext.decode_boxes(text)


@given(st.text() | st.text(alphabet="[]{}<>-0123456789,; absent"))
def test_no_text_raises_anything_but_a_box_text_error(text):
    try:
        found = boxtext.decode_boxes(text)
    except BoxTextError:
        return
    assert all(isinstance(box, Box) for box in found)


def test_a_long_reply_is_shortened_in_the_message():
    with pytest.raises(BoxTextError) as raised:
        boxtext.decode_boxes("prose " * 1000)
    assert len(str(raised.value)) < 300


def test_one_box_is_not_two():
    with pytest.raises(BoxTextError, match="holds 2 boxes; expected exactly one"):
        boxtext.decode_box("[0,0,9,9] [5,5,20,20]")


def test_every_box_in_a_sentence_is_moved():
    text = boxtext.map_boxes("What is at [000,000,999,500], not at [000,500,999,999]?", geometry.flip_vertical)
    # 500 -> 1 - 500/999 = 499/999
    assert text == "What is at [000,499,999,999], not at [000,000,999,499]?"


def test_a_sentence_without_boxes_is_left_as_it_is():
    assert boxtext.map_boxes("What is this? [sic]", geometry.flip_vertical) == "What is this? [sic]"


def test_a_box_that_leaves_the_image_takes_the_sentence_with_it():
    assert boxtext.map_boxes("[000,000,100,100] and [500,500,600,600]", lambda box: box if box.x0 else None) is None


@given(boxes(side=2 * BIN))
def test_moving_nowhere_changes_nothing(box):
    text = f"Name the region {boxtext.encode_box(box)}."
    assert boxtext.map_boxes(text, lambda same: same) == text


def test_coloninst_writes_raw_pixels():
    assert boxtext.encode_coloninst(Box(x0=0.25, y0=0.5, x1=0.75, y1=1.0), (640, 480)) == "{<160><240><480><480>}"


@given(st.data(), st.integers(2, 4000), st.integers(2, 4000))
def test_whole_pixel_edges_survive_the_coloninst_form(data, width, height):
    x0 = data.draw(st.integers(0, width - 1))
    y0 = data.draw(st.integers(0, height - 1))
    x1 = data.draw(st.integers(x0 + 1, width))
    y1 = data.draw(st.integers(y0 + 1, height))
    text = f"{{<{x0}><{y0}><{x1}><{y1}>}}"
    (box,) = boxtext.decode_coloninst(text, (width, height))
    assert boxtext.encode_coloninst(box, (width, height)) == text


@given(boxes(side=1e-7), st.tuples(st.integers(1, 4000), st.integers(1, 4000)))
def test_any_box_survives_the_coloninst_form_to_a_pixel(box, size_wh):
    (decoded,) = boxtext.decode_coloninst(boxtext.encode_coloninst(box, size_wh), size_wh)
    pixels = geometry.to_pixels(box, size_wh)
    assert geometry.to_pixels(decoded, size_wh) == pytest.approx(pixels, abs=1 + 1e-6)


def test_several_coloninst_boxes_are_read_from_prose():
    found = boxtext.decode_coloninst("at {<0><0><10><10>} and {<10><10><20><20>}", (20, 20))
    assert found == (Box(x0=0, y0=0, x1=0.5, y1=0.5), Box(x0=0.5, y0=0.5, x1=1, y1=1))


@pytest.mark.parametrize("text", ["", "[0,0,9,9]", "{<0><0><10>}", "{<0><0><" + "9" * 5000 + "><1>}"])
def test_a_text_without_coloninst_boxes_is_refused(text):
    with pytest.raises(BoxTextError):
        boxtext.decode_coloninst(text, (20, 20))


def test_a_coloninst_box_of_another_image_is_refused():
    with pytest.raises(GeometryError, match="leaves the image of 20x20 px"):
        boxtext.decode_coloninst("{<0><0><30><30>}", (20, 20))


def test_pixels_are_written_from_the_exact_box_and_not_from_its_bins():
    box = Box(x0=0.5, y0=0.25, x1=0.75, y1=1.0)
    text = f"Look at {boxtext.encode_box(box)}, then at [000,000,999,999]."
    # 4000 x 0.5 = 2000 exactly, while the bin of 0.5 is 500 of 999: 2002 px
    assert (
        boxtext.into_coloninst(text, [box], (4000, 400))
        == "Look at {<2000><100><3000><400>}, then at {<0><0><4000><400>}."
    )
    assert boxtext.into_coloninst(text, [], (4000, 400)).startswith("Look at {<2002><100>")


def test_pixels_in_a_text_become_bins_and_boxes():
    text, boxes = boxtext.from_coloninst("At {<10><0><20><10>}; {<0><0><5><5>}?", (20, 10))
    assert text == "At [500,000,999,999]; [000,000,250,500]?"  # 0.5 and 0.25 of 999, rounded half up
    assert [box.xyxy for box in boxes] == [(0.5, 0, 1, 1), (0, 0, 0.25, 0.5)]


def test_a_text_without_boxes_stays_as_it_is():
    assert boxtext.from_coloninst("{<1><2><3>} [1,2]", (20, 10)) == ("{<1><2><3>} [1,2]", ())
    assert boxtext.into_coloninst("no box {<1><2><3><4>}", [], (20, 10)) == "no box {<1><2><3><4>}"
