"""Boxes to text and back, the one codec that training, inference and evaluation share.

The text form is four integer bins 0-999 of the original image, three digits each, so that every box costs the same
number of tokens: `[045,120,310,400]`; several boxes are separated by one space. Raw pixels (`{<x0><y0><x1><y1>}`, the
form of ColonINST) are for exchange with foreign files only.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence

from gastrovl.core import geometry
from gastrovl.core.errors import BoxTextError
from gastrovl.core.types import Box

BINS = 1000
ABSENT = "absent"
BOX_PATTERN = re.compile(r"\[\s*(-?\d+)\s*,\s*(-?\d+)\s*,\s*(-?\d+)\s*,\s*(-?\d+)\s*\]", re.ASCII)
_COLONINST_PATTERN = re.compile(r"\{<(-?\d+)><(-?\d+)><(-?\d+)><(-?\d+)>\}", re.ASCII)
_MAX_DIGITS = 9  # more than any image needs; int() itself refuses thousands of digits with an error of its own


def to_bin(fraction: float) -> int:
    """The bin 0-999 nearest to a fraction in [0, 1]; 0 and 1 are hit exactly."""
    return math.floor(fraction * (BINS - 1) + 0.5)


def from_bin(value: int) -> float:
    """The fraction that a bin stands for."""
    return value / (BINS - 1)


def encode_box(box: Box) -> str:
    """One box as `[xxx,yyy,xxx,yyy]`; a box thinner than a bin is widened to one bin so that it stays a box."""
    x0, x1 = geometry.on_grid(box.x0, box.x1, BINS - 1)
    y0, y1 = geometry.on_grid(box.y0, box.y1, BINS - 1)
    return f"[{x0:03d},{y0:03d},{x1:03d},{y1:03d}]"


def encode_boxes(boxes: Sequence[Box]) -> str:
    """All boxes, largest first (ties: from the left), or `absent` when there is none."""
    if not boxes:
        return ABSENT
    ordered = sorted(boxes, key=lambda box: (-box.area, box.x0, box.y0, box.x1, box.y1))
    return " ".join(encode_box(box) for box in ordered)


def decode_box(text: str) -> Box:
    """The one box that `text` consists of.

    Raises:
        BoxTextError: `text` is anything but one well-formed box.
    """
    boxes = decode_boxes(text)
    if len(boxes) != 1:
        raise BoxTextError(f"{_short(text)} holds {len(boxes)} boxes; expected exactly one `[x0,y0,x1,y1]`")
    return boxes[0]


def decode_boxes(text: str) -> tuple[Box, ...]:
    """All boxes of a text that holds nothing but boxes; empty for `absent`.

    Raises:
        BoxTextError: There is other text, a number outside 0-999, or a reversed box.
    """
    stripped = text.strip()
    if stripped.lower() == ABSENT:
        return ()
    rest = BOX_PATTERN.sub("", stripped)
    matches = BOX_PATTERN.findall(stripped)
    if not matches:
        raise BoxTextError(f"{_short(text)} holds no box; expected `[x0,y0,x1,y1]` with integers 0-999, or `{ABSENT}`")
    if rest.strip(" ,;\n"):
        raise BoxTextError(f"{_short(text)} holds {_short(rest.strip())} besides boxes; expected boxes only")
    return tuple(_box_of_bins(_integers(match, text), text) for match in matches)


def map_boxes(text: str, move: Callable[[Box], Box | None]) -> str | None:
    """`text` with every box in it moved, or None when `move` returns None for one of them (it left the image).

    Raises:
        BoxTextError: A box of `text` has a number outside 0-999, or is reversed.
    """
    moved: list[Box | None] = []

    def replace(match: re.Match[str]) -> str:
        box = move(_box_of_bins(_integers(match.groups(), text), text))
        moved.append(box)
        return "" if box is None else encode_box(box)

    replaced = BOX_PATTERN.sub(replace, text)
    return None if None in moved else replaced


def encode_coloninst(box: Box, size_wh: tuple[int, int]) -> str:
    """One box as ColonINST writes it: raw pixels of the original image, `{<x0><y0><x1><y1>}`.

    Edges are rounded to whole pixels; a box thinner than one pixel is widened to one so that it stays a box.
    """
    x0, y0, x1, y1 = geometry.to_whole_pixels(box, size_wh)
    return f"{{<{x0}><{y0}><{x1}><{y1}>}}"


def decode_coloninst(text: str, size_wh: tuple[int, int]) -> tuple[Box, ...]:
    """The boxes of a ColonINST answer, given the original size.

    Raises:
        BoxTextError: There is none.
        GeometryError: A box leaves the image or is reversed.
    """
    matches = _COLONINST_PATTERN.findall(text)
    if not matches:
        raise BoxTextError(f"{_short(text)} holds no box; expected raw pixels as `{{<x0><y0><x1><y1>}}`")
    corners = [_integers(match, text) for match in matches]
    return tuple(geometry.from_pixels((x0, y0, x1, y1), size_wh) for x0, y0, x1, y1 in corners)


def into_coloninst(text: str, boxes: Sequence[Box], size_wh: tuple[int, int]) -> str:
    """`text` with every `[x0,y0,x1,y1]` in it as raw pixels `{<x0><y0><x1><y1>}`; all else stays as it is.

    Args:
        boxes: The exact boxes that the text is about; one whose text form stands in `text` is written from its own
            edges, so that it is rounded once. A box that is not among them is read from the text.

    Raises:
        BoxTextError: A box of `text` has a number outside 0-999, or is reversed.
    """
    exact = {encode_box(box): box for box in boxes}

    def replace(match: re.Match[str]) -> str:
        box = exact.get(match.group()) or _box_of_bins(_integers(match.groups(), text), text)
        return encode_coloninst(box, size_wh)

    return BOX_PATTERN.sub(replace, text)


def from_coloninst(text: str, size_wh: tuple[int, int]) -> tuple[str, tuple[Box, ...]]:
    """`text` with every box of raw pixels as `[x0,y0,x1,y1]`, and those boxes in their order.

    Raises:
        BoxTextError: A box has a number that is too long.
        GeometryError: A box leaves the image or is reversed.
    """
    boxes: list[Box] = []

    def replace(match: re.Match[str]) -> str:
        boxes.extend(decode_coloninst(match.group(), size_wh))
        return encode_box(boxes[-1])

    return _COLONINST_PATTERN.sub(replace, text), tuple(boxes)


def _integers(numbers: Sequence[str], text: str) -> list[int]:
    longest = max(numbers, key=len)
    if len(longest) > _MAX_DIGITS:
        raise BoxTextError(f"{_short(text)} has a coordinate of {len(longest)} digits; expected at most {_MAX_DIGITS}")
    return [int(number) for number in numbers]


def _box_of_bins(bins: list[int], text: str) -> Box:
    x0, y0, x1, y1 = bins
    if min(bins) < 0 or max(bins) >= BINS:
        raise BoxTextError(f"{_short(text)} has a coordinate outside 0-{BINS - 1}: {bins}")
    if x0 >= x1 or y0 >= y1:
        raise BoxTextError(f"{_short(text)} has a reversed or empty box {bins}; expected x0 < x1 and y0 < y1")
    return Box(x0=from_bin(x0), y0=from_bin(y0), x1=from_bin(x1), y1=from_bin(y1))


def _short(text: str, limit: int = 120) -> str:
    return repr(text if len(text) <= limit else text[: limit - 3] + "...")
