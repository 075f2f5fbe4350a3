"""Box texts of datasets to the texts that a language model reads and says, and back.

Datasets, predictions and evaluation hold one text form, `[x0,y0,x1,y1]` in bins 0-999 (see `boxtext`). How boxes stand
in the text of a model is a choice of its own: the same digits, raw pixels of the original image (as in ColonGPT, Ji et
al. 2024), or one token for each bin (Pix2Seq, Chen et al., ICLR 2022), in either order of axes and of boxes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from pydantic import Field, model_validator

from gastrovl.core import geometry
from gastrovl.core.boxtext import ABSENT, BINS, BOX_PATTERN, decode_box, encode_box, encode_boxes, map_boxes
from gastrovl.core.config import Config
from gastrovl.core.errors import BoxTextError, GeometryError
from gastrovl.core.types import Box

Kind = Literal["digits", "pixels", "tokens"]
Reading = Literal["mean", "median", "likeliest"]
SizeWH = tuple[int, int]
N = TypeVar("N", int, float)
_MAX_DIGITS = 9  # as in boxtext: more than any image needs


class BoxCodingConfig(Config):
    """How boxes are written in what a model reads and says; the default is the text form of datasets.

    Attributes:
        kind: `digits`: `[045,120,310,400]`, bins 0-999. `pixels`: `{<29><77><198><256>}`, edges in whole pixels of the
            original image, though the model sees a square. `tokens`: `<loc045><loc120><loc310><loc400>`, one token of
            the vocabulary for each of `bins`.
        order: Of the four numbers: x0, y0, x1, y1 or y0, x0, y1, x1.
        several: Which of several boxes in an answer comes first: the largest, or the one whose left edge lies furthest
            left.
        bins: Of `tokens`: how many an axis has; the first stands for the near edge, the last for the far one.
        sigma: Of `tokens`: an answer's token is learnt as a Gaussian of this width, in bins, around the true edge; 0
            teaches the nearest bin alone.
        reading: Of `tokens`: what a reply takes from the shares that the model gives the bins: their mean, their
            median, both finer than a bin, or the likeliest bin.
    """

    kind: Kind = "digits"
    order: Literal["xyxy", "yxyx"] = "xyxy"
    several: Literal["largest", "left"] = "largest"
    bins: int = Field(default=BINS, ge=64, le=1000)
    sigma: float = Field(default=2.0, ge=0, le=32)
    reading: Reading = "mean"

    @model_validator(mode="after")
    def _only_tokens_have_bins(self) -> BoxCodingConfig:
        fields = type(self).model_fields
        said = [name for name in ("bins", "sigma", "reading") if getattr(self, name) != fields[name].default]
        if said and self.kind != "tokens":
            raise ValueError(f"{', '.join(said)} belong to kind `tokens`; found kind {self.kind!r}")
        return self


@dataclass(frozen=True)
class _Syntax:
    """How four whole numbers are written.

    Attributes:
        pattern: One box; four groups.
        traces: What stands in no text without a box: left over, it is part of a broken one. None where free text may
            hold it.
    """

    pattern: re.Pattern[str]
    write: Callable[[Sequence[int]], str]
    traces: re.Pattern[str] | None
    expected: str


def location_word(number: int) -> str:
    """The word of a bin, `<loc045>`."""
    return f"<loc{number:03d}>"


def _pattern(around: str) -> re.Pattern[str]:
    return re.compile(around, re.ASCII)


SYNTAX: dict[str, _Syntax] = {
    "digits": _Syntax(
        BOX_PATTERN, lambda four: "[" + ",".join(f"{one:03d}" for one in four) + "]", None, "`[x0,y0,x1,y1]`"
    ),
    "pixels": _Syntax(
        _pattern(r"\{" + r"<(-?\d+)>" * 4 + r"\}"),
        lambda four: "{" + "".join(f"<{one}>" for one in four) + "}",
        _pattern(r"\{<|>\}"),
        "raw pixels as `{<x0><y0><x1><y1>}`",
    ),
    "tokens": _Syntax(
        _pattern(r"<loc(\d{3})>" * 4),
        lambda four: "".join(map(location_word, four)),
        _pattern(r"<loc"),
        "four location tokens `<loc000>`",
    ),
}


class BoxCoding:
    """Writes and reads boxes as a config says; x and y stand in a text as `order` has them, boxes here never do."""

    def __init__(self, config: BoxCodingConfig | None = None) -> None:
        self.config = config or BoxCodingConfig()
        self._syntax = SYNTAX[self.config.kind]
        self._places = (0, 1, 2, 3) if self.config.order == "xyxy" else (1, 0, 3, 2)  # its own inverse

    @property
    def is_plain(self) -> bool:
        """Whether texts stay as datasets hold them."""
        return self.config == BoxCodingConfig()

    @property
    def pattern(self) -> re.Pattern[str]:
        """One box in a text of the model."""
        return self._syntax.pattern

    def steps(self, size_wh: SizeWH | None) -> SizeWH:
        """The number of the far edge, across and down.

        Raises:
            GeometryError: Pixels are counted, and the image's size is not given.
        """
        if self.config.kind == "pixels":
            if size_wh is None:
                raise GeometryError("box coding `pixels` counts in the original image; give its size, (width, height)")
            return size_wh
        last = (self.config.bins if self.config.kind == "tokens" else BINS) - 1
        return last, last

    def write_box(self, box: Box, size_wh: SizeWH | None = None) -> str:
        """One box; edges that would meet are parted by one step, so that it stays a box.

        Args:
            size_wh: Of the original image, in pixels; only `pixels` asks for it.
        """
        across, down = self.steps(size_wh)
        x0, x1 = geometry.on_grid(box.x0, box.x1, across)
        y0, y1 = geometry.on_grid(box.y0, box.y1, down)
        return self._syntax.write(self._turned((x0, y0, x1, y1)))

    def places(self, box: Box) -> tuple[float, float, float, float]:
        """The edges of a box in steps of `tokens`, not rounded, in the order of their tokens."""
        across, down = self.steps(None)
        return self._turned((box.x0 * across, box.y0 * down, box.x1 * across, box.y1 * down))

    def read_boxes(
        self, text: str, size_wh: SizeWH | None = None, places: Sequence[float] | None = None
    ) -> tuple[Box, ...]:
        """The boxes of a text that holds nothing but boxes, in their order; none for `absent`.

        Args:
            places: Of `tokens`, the real-valued step of each location token of `text`, where they are known better
                than the tokens say.

        Raises:
            BoxTextError: There is other text, half a box, a number outside the image, or a reversed box.
        """
        stripped = text.strip()
        if stripped.lower() == ABSENT:
            return ()
        boxes, rest = self._found(stripped, size_wh, places)
        if not boxes:
            raise BoxTextError(f"{_short(text)} holds no box; expected {self._syntax.expected}, or `{ABSENT}`")
        if left := "".join(rest).strip(" ,;\n"):
            raise BoxTextError(f"{_short(text)} holds {_short(left)} besides boxes; expected boxes only")
        return boxes

    def encode_text(
        self, text: str, size_wh: SizeWH | None = None, exact: Mapping[str, Box] | None = None, *, sorts: bool = False
    ) -> tuple[str, tuple[Box, ...]]:
        """A dataset's text in this coding, and the boxes in it, in the order in which they are written.

        Args:
            exact: Boxes by their text form, so that each is rounded once; one that is not there is read from `text`.
            sorts: Put the boxes of a text that holds nothing else into the order of `several`.

        Raises:
            BoxTextError: A box of `text` has a number outside 0-999, or is reversed.
            GeometryError: Pixels are counted, and the image's size is not given.
        """
        matches = list(BOX_PATTERN.finditer(text))
        boxes = [(exact or {}).get(match.group()) or decode_box(match.group()) for match in matches]
        if self.is_plain or not matches:
            return text, tuple(boxes)
        rest = BOX_PATTERN.split(text)[:: BOX_PATTERN.groups + 1]
        if sorts and self.config.several == "left" and not "".join(rest).strip():
            boxes.sort(key=lambda box: box.xyxy)
        written = [self.write_box(box, size_wh) for box in boxes]
        return "".join(part for pair in zip(rest, [*written, ""], strict=True) for part in pair), tuple(boxes)

    def decode_text(self, text: str, size_wh: SizeWH | None = None, places: Sequence[float] | None = None) -> str:
        """A text of the model as datasets hold it; what is no box stays as it is.

        Boxes alone stand largest first again where the model was taught another order.

        Raises:
            BoxTextError: A box is broken, reversed or leaves the image, or is written in another coding.
            GeometryError: Pixels are counted, and the image's size is not given.
        """
        if self.is_plain:
            return text
        boxes, rest = self._found(text, size_wh, places)
        if self.config.several != "largest" and len(boxes) > 1 and not "".join(rest).strip(" ,;\n"):
            return encode_boxes(boxes)
        written = [encode_box(box) for box in boxes]
        return "".join(part for pair in zip(rest, [*written, ""], strict=True) for part in pair)

    def _found(
        self, text: str, size_wh: SizeWH | None, places: Sequence[float] | None
    ) -> tuple[tuple[Box, ...], list[str]]:
        """The boxes of a text and the pieces of text around them, one more."""
        pattern, traces = self._syntax.pattern, self._syntax.traces
        rest = pattern.split(text)[:: pattern.groups + 1]
        for piece in rest:
            if traces and traces.search(piece):
                raise BoxTextError(f"{_short(text)} holds part of a box; expected {self._syntax.expected}")
            if self.config.kind != "digits" and BOX_PATTERN.search(piece):
                raise BoxTextError(f"{_short(text)} holds a box in another coding; expected {self._syntax.expected}")
        found = [match.groups() for match in pattern.finditer(text)]
        if places is not None and len(places) != 4 * len(found):
            raise BoxTextError(
                f"{_short(text)} holds {4 * len(found)} location tokens, {len(places)} places are given for them"
            )
        boxes = []
        for number, words in enumerate(found):
            if max(map(len, words)) > _MAX_DIGITS:
                raise BoxTextError(f"{_short(text)} has a coordinate of more than {_MAX_DIGITS} digits")
            four = [float(word) for word in words] if places is None else places[4 * number : 4 * number + 4]
            boxes.append(self._box(four, size_wh, text))
        return tuple(boxes), rest

    def _box(self, written: Sequence[float], size_wh: SizeWH | None, text: str) -> Box:
        (x0, y0, x1, y1), (across, down) = self._turned(written), self.steps(size_wh)
        if min(x0, y0) < 0 or x1 > across or y1 > down:
            raise BoxTextError(f"{_short(text)} has a box that leaves the image, 0-{across} across and 0-{down} down")
        if x0 >= x1 or y0 >= y1:
            raise BoxTextError(f"{_short(text)} has a reversed or empty box; expected x0 < x1 and y0 < y1")
        return Box(x0=x0 / across, y0=y0 / down, x1=x1 / across, y1=y1 / down)

    def _turned(self, four: Sequence[N]) -> tuple[N, N, N, N]:
        first, second, third, fourth = self._places
        return four[first], four[second], four[third], four[fourth]


def exact_boxes(boxes: Iterable[Box], move: Callable[[Box], Box | None]) -> dict[str, Box]:
    """Boxes moved into a view, by the text that `boxtext.map_boxes` makes there of their own text form."""
    found: dict[str, Box] = {}
    for box in boxes:
        moved, text = move(box), map_boxes(encode_box(box), move)
        if moved is not None and text is not None:
            found[text] = moved
    return found


def unread(text: str) -> str:
    """A reply whose boxes cannot be read: the model's own words, which nobody takes for boxes of a dataset's form."""
    return BOX_PATTERN.sub(lambda found: f"[{found.group()}]", text)


def _short(text: str, limit: int = 120) -> str:
    return repr(text if len(text) <= limit else text[: limit - 3] + "...")
