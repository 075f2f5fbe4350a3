"""A box to words for where it lies and how much of the view it fills, and whether a text holds such words."""

from __future__ import annotations

import re
from typing import Literal

from gastrovl.core.types import Box

# Rows from top to bottom, columns from left to right; a cell is a ninth of the image.
PHRASES = (
    ("at the upper left", "at the top", "at the upper right"),
    ("at the left", "in the centre", "at the right"),
    ("at the lower left", "at the bottom", "at the lower right"),
)
SMALL_BELOW, LARGE_FROM = 0.05, 0.15  # shares of the image area

_DIRECTED = re.compile(
    "|".join(rf"\b{phrase}\b" for row in PHRASES for phrase in row if phrase != "in the centre"), re.IGNORECASE
)

# What captions by a model say for the same: "on the left side", "in the top right corner", "the lower half".
_SIDES = re.compile(
    r"\b(?:left|right|leftmost|rightmost|topmost|top|bottom)\b|"
    r"\b(?:upper|lower) (?:half|corner|quadrant|side|edge|border)\b|"
    r"\b(?:upper|lower) (?:part|portion|third|area) of the (?:image|view|frame|picture|photograph)\b",
    re.IGNORECASE,
)

_DIRECTIONS = re.compile(
    r"\b(left|right|up|down|upper|lower|top|bottom|above|below|higher|horizontal|vertical|clockwise|o'clock|quadrant|"
    r"leftmost|rightmost|uppermost|lowermost|topmost)\b",
    re.IGNORECASE,
)


def position_phrase(box: Box) -> str:
    """Where the centre of `box` lies, in thirds of the image, e.g. "at the upper left"."""
    column = min(int((box.x0 + box.x1) / 2 * 3), 2)
    row = min(int((box.y0 + box.y1) / 2 * 3), 2)
    return PHRASES[row][column]


def share_word(box: Box) -> Literal["small", "medium", "large"]:
    """How much of the view `box` fills: below 5 %, below 15 %, or more. Says nothing of millimetres."""
    if box.area < SMALL_BELOW:
        return "small"
    return "medium" if box.area < LARGE_FROM else "large"


def mentions_position(text: str) -> bool:
    """Whether `text` names a side of the image, so that it turns wrong when the image is mirrored.

    The phrases of this module count, and other words that can only mean a side: "lower esophagus" is anatomy and stays
    true in a mirror, and so does "in the centre".
    """
    return _DIRECTED.search(text) is not None or _SIDES.search(text) is not None


def names_direction(text: str) -> bool:
    """Whether somebody else's `text` may name or compare sides of the image.

    Wider than `mentions_position`: what is caught in vain ("lower esophagus", "is that right") costs a training turn of
    a moved view, and what is missed teaches something false.
    """
    return _DIRECTIONS.search(text) is not None
