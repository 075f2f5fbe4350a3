"""What one place of a source says of one image: the common form that every format reader yields."""

from __future__ import annotations

import math
from dataclasses import dataclass

from gastrovl.core import geometry
from gastrovl.core.errors import GeometryError, SourceError
from gastrovl.core.types import Box, Kind, Task
from gastrovl.data.images import ImageFile


@dataclass(frozen=True)
class SourceDialogue:
    """Questions about an image with their answers, in the source's own words.

    Attributes:
        turns: (question, answer), one after the other.
        labels, boxes: What the last answer says, in the source's labels; empty for free text.
        kind: Of a VQA question that this package made, which it is.
    """

    task: Task
    turns: tuple[tuple[str, str], ...]
    labels: tuple[str, ...] = ()
    boxes: tuple[Box, ...] = ()
    kind: Kind | None = None


@dataclass(frozen=True)
class Annotation:
    """One label or dialogue of one image, in the source's own words.

    Attributes:
        image: The image it is about.
        label: The source's label, verbatim; None when it only carries a dialogue, group or split.
        where: "file" or "file:line" it was read from.
        box: Where in the image, or None for the image as a whole.
        group: Patient, exam or video key when the source gives one.
        split: "train", "val" or "test" when the source gives one, in the source's own word.
    """

    image: ImageFile
    label: str | None
    where: str
    box: Box | None = None
    group: str | None = None
    split: str | None = None
    dialogue: SourceDialogue | None = None

    @property
    def labels(self) -> tuple[str, ...]:
        """Every source label in it, those that only a dialogue names included."""
        own = (self.label,) if self.label is not None else ()
        return (*own, *(self.dialogue.labels if self.dialogue else ()))


def box_of_pixels(numbers: tuple[float, ...], box_order: str, size_wh: tuple[int, int], where: str) -> Box:
    """A box from four pixel numbers in the order `xyxy` (corners) or `xywh` (corner and size).

    Raises:
        SourceError: A number is not finite, the box is reversed or empty, or it leaves the image.
    """
    first, second, third, fourth = numbers
    found = " ".join(f"{number:g}" for number in numbers)
    if not all(math.isfinite(number) for number in numbers):
        raise SourceError(f"{where}: box {found} has a number that is not finite; expected pixels. Correct that line")
    corners = (first, second, third, fourth)
    if box_order == "xywh":
        corners = (first, second, first + third, second + fourth)
        if third <= 0 or fourth <= 0:
            raise SourceError(
                f"{where}: box {found} has width {third:g} and height {fourth:g}; expected both above 0 for "
                "(x, y, width, height). If the source stores corners, set `box_order: xyxy` in its description"
            )
    elif third <= first or fourth <= second:
        raise SourceError(
            f"{where}: box {found} is reversed or empty; expected x0 < x1 and y0 < y1 for (x0, y0, x1, y1). "
            "If the source stores (x, y, width, height), set `box_order: xywh` in its description"
        )
    try:
        return geometry.from_pixels(corners, size_wh)
    except GeometryError as error:
        width, height = size_wh
        other = "xyxy" if box_order == "xywh" else "xywh"
        raise SourceError(
            f"{where}: box {found} leaves the image of {width}x{height} px; expected {box_order} inside it. Check that "
            f"the annotation belongs to this image, and whether the source stores {other} (`box_order: {other}`)"
        ) from error


def parse_numbers(texts: list[str], where: str) -> tuple[float, ...]:
    """Texts as numbers.

    Raises:
        SourceError: One of them is no number.
    """
    try:
        return tuple(float(text) for text in texts)
    except ValueError as error:
        raise SourceError(
            f"{where}: found {' '.join(texts)!r}, expected {len(texts)} numbers; correct that line, or check `format` "
            "in the source description"
        ) from error
