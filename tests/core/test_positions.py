"""Where a box lies in words, and which words a mirror makes wrong."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gastrovl.core.geometry import flip_horizontal, flip_vertical
from gastrovl.core.positions import PHRASES, mentions_position, position_phrase, share_word
from gastrovl.core.types import Box


def box_around(x: float, y: float, side: float = 0.1) -> Box:
    return Box(x0=x - side / 2, y0=y - side / 2, x1=x + side / 2, y1=y + side / 2)


@pytest.mark.parametrize(
    ("centre", "phrase"),
    [
        ((0.2, 0.2), "at the upper left"),
        ((0.5, 0.2), "at the top"),
        ((0.8, 0.2), "at the upper right"),
        ((0.2, 0.5), "at the left"),
        ((0.5, 0.5), "in the centre"),
        ((0.8, 0.5), "at the right"),
        ((0.2, 0.8), "at the lower left"),
        ((0.5, 0.8), "at the bottom"),
        ((0.8, 0.8), "at the lower right"),
    ],
)
def test_the_centre_of_a_box_decides_its_phrase(centre, phrase):
    assert position_phrase(box_around(*centre)) == phrase


def test_a_box_in_the_last_corner_still_has_a_phrase():
    assert position_phrase(Box(x0=0.9999999999999999, y0=0.9999999999999999, x1=1.0, y1=1.0)) == "at the lower right"


@pytest.mark.parametrize(("side", "word"), [(0.2, "small"), (0.3, "medium"), (0.4, "large")])  # 4 %, 9 %, 16 %
def test_the_share_of_the_view_decides_the_size_word(side, word):
    assert share_word(box_around(0.5, 0.5, side)) == word


@given(st.floats(0.1, 0.9), st.floats(0.1, 0.9))
def test_a_mirror_never_changes_a_text_that_mentions_no_position(x, y):
    box = box_around(x, y)
    phrase = position_phrase(box)
    if not mentions_position(f"Antrum with gastric polyp {phrase}."):
        near_an_edge_between_thirds = min(abs(c - t) for c in (x, y) for t in (1 / 3, 2 / 3)) < 1e-9
        assert near_an_edge_between_thirds or position_phrase(flip_horizontal(box)) == phrase
        assert near_an_edge_between_thirds or position_phrase(flip_vertical(box)) == phrase


def test_every_phrase_but_the_centre_counts_as_a_position():
    found = {phrase for row in PHRASES for phrase in row if mentions_position(f"Gastric ulcer {phrase} of the image.")}
    assert found == {phrase for row in PHRASES for phrase in row} - {"in the centre"}


@pytest.mark.parametrize(
    "text",
    [
        "A polyp on the left side.",
        "In the top right corner.",
        "The lower half of the view.",
        "Upper part of the image.",
    ],
)
def test_a_side_in_other_words_is_a_position_too(text):
    assert mentions_position(text)


@pytest.mark.parametrize(
    "text", ["View of lower esophagus.", "Middle-upper body, antegrade.", "Lower gastrointestinal tract.", "normal"]
)
def test_anatomy_is_no_position_in_the_image(text):
    assert not mentions_position(text)
