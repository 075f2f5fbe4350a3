"""How a model that was never taught our answer texts writes its replies: declared once, then read strictly.

A form names one coordinate scale, one order and one syntax. Nothing is guessed from the numbers of a reply, so a model
cannot be scored by whichever reading suits it.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Literal, Self

from pydantic import Field, model_validator

from gastrovl.core.config import Config


class Scale(StrEnum):
    """What a coordinate counts: pixels, or parts of a side of which the second number is the whole side."""

    PIXELS = "pixels"
    UNIT = "0-1"
    PERCENT = "0-100"
    BINS = "0-999"
    THOUSAND = "0-1000"
    LOC = "0-1024"

    @property
    def full(self) -> float:
        """The number at the far edge; pixels have none of their own."""
        if self is Scale.PIXELS:
            raise ValueError("pixels have no number for the far edge; ask the image")
        return float(self.value.partition("-")[2])


class Order(StrEnum):
    """What the four numbers are; (cx, cy) is the centre."""

    XYXY = "xyxy"
    XYWH = "xywh"
    CXCYWH = "cxcywh"
    YXYX = "yxyx"


class Syntax(StrEnum):
    """How boxes are written.

    LISTS: `[a, b, c, d]`, several behind each other or in one more pair of brackets. NUMBERS: four numbers and nothing
    else. JSON: an object or a list of objects with the box under `key`. TAGS: numbers between `opening` and `closing`.
    LOC: four tokens `<loc0000>`-`<loc1023>` with or without a name behind them; several boxes are parted by ";".
    """

    LISTS = "lists"
    NUMBERS = "numbers"
    JSON = "json"
    TAGS = "tags"
    LOC = "loc"


class BoxForm(Config):
    """How boxes are written.

    Attributes:
        pixels_of: Which image pixels count: the one that was sent (scaled down, perhaps), or the original.
        key: Of JSON, where the four numbers stand (or a list of such boxes).
        opening, closing: Of TAGS.
        names: Of TAGS, what stands around the name of a thing before its box, e.g. ["<ref>", "</ref>"]; it is skipped.
        absent: Whole replies that say the thing is not there; case and a final full stop do not matter.
        empty_is_absent: An empty JSON list, or null in the place of a box, says so as well.
        json_in_fence: The JSON may stand in one Markdown fence.
    """

    scale: Scale = Scale.BINS
    order: Order = Order.XYXY
    syntax: Syntax = Syntax.LISTS
    pixels_of: Literal["sent", "original"] = "sent"
    key: str = "box"
    opening: str = Field(default="<box>", min_length=1)
    closing: str = Field(default="</box>", min_length=1)
    names: tuple[str, str] | None = None
    absent: tuple[str, ...] = ("absent",)
    empty_is_absent: bool = False
    json_in_fence: bool = False

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.syntax is Syntax.LOC) != (self.scale is Scale.LOC):
            raise ValueError(
                f"syntax {self.syntax} with scale {self.scale}; loc tokens count 0-1024, and nothing else does"
            )
        return self


class LabelForm(Config):
    """How labels are written: names of terms or their synonyms, as they stand or in JSON.

    Attributes:
        key: Of JSON, where a name or a list of names stands.
        separator: Between several names that stand as they are.
        prefixes: What may stand before the answer, e.g. "Answer:"; one of them is cut off.
        json_in_fence: The JSON may stand in one Markdown fence.
    """

    syntax: Literal["names", "json"] = "names"
    key: str = "label"
    separator: str = Field(default=";", min_length=1)
    prefixes: tuple[str, ...] = ()
    json_in_fence: bool = False


class TextForm(Config):
    """How free text is written: as it stands, or as a string in JSON under `key`."""

    syntax: Literal["plain", "json"] = "plain"
    key: str = "answer"
    prefixes: tuple[str, ...] = ()
    json_in_fence: bool = False


class ReplyForm(Config):
    """How all replies of a model are written.

    Attributes:
        answer_after: A mark such as "</think>" behind which the answer stands; it must stand in the reply once.
    """

    boxes: BoxForm = BoxForm()
    labels: LabelForm = LabelForm()
    texts: TextForm = TextForm()
    answer_after: str | None = Field(default=None, min_length=1)
