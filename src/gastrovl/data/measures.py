"""A decoded frame to a few numbers about its quality, and to what of it a build should report, leave out or paint over.

All of it is measured on two small copies, one of about 576 px and one of 64 x 64: it costs little beside decoding.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal

import numpy as np
from PIL import Image
from pydantic import Field

from gastrovl.core.config import Config
from gastrovl.core.sharpness import sharpness
from gastrovl.core.types import Box
from gastrovl.data.overlays import (
    BLACK,
    CELL_HW,
    GRID,
    TEXT_SIDE,
    Mask,
    Pixels,
    corner_square,
    green_map,
    plane,
    text_boxes,
    text_cells,
)

OVEREXPOSED = 250  # all channels at or above
DRAFT_SIDE = 550  # px of the longer side that a frame decoded at reduced size keeps at least
SAMPLES = (4, 2)  # of the copy, across and down, that make a pixel of the thumbnail


class Fault(StrEnum):
    """What can be wrong with a frame that decodes."""

    DARK = "dark"
    OVEREXPOSED = "overexposed"
    BLURRED = "blurred"
    LETTERBOXED = "letterboxed"
    TEXT = "text"
    CORNER_SQUARE = "corner_square"
    GREEN_MAP = "green_map"


Action = Literal["report", "exclude"]
MaskAction = Literal["report", "exclude", "mask"]


class FaultOptions(Config):
    """What a build does about each fault, and where each begins.

    Attributes:
        dark to green_map: "report" writes it down, "exclude" leaves the image out, "mask" paints over the place in the
            stored copy.
        inpaint: Paint with what surrounds the place (diffusion); false paints one colour, the mean of its surroundings.
        dark_brightness: Mean brightness below which a frame is dark, 0 to 1; black borders are not counted.
        overexposed_share: Share of blown-out pixels from which it is overexposed.
        blurred_sharpness: Sharpness below which it is blurred (`Measures.sharpness`).
        letterbox_share: Share of width or height, both sides together, that black bars take.
    """

    dark: Action = "report"
    overexposed: Action = "report"
    blurred: Action = "report"
    letterboxed: Action = "report"
    text: MaskAction = "report"
    corner_square: MaskAction = "report"
    green_map: MaskAction = "report"
    inpaint: bool = False
    dark_brightness: float = Field(default=0.12, ge=0, le=1)
    overexposed_share: float = Field(default=0.2, gt=0, le=1)
    blurred_sharpness: float = Field(default=2.0, ge=0)
    letterbox_share: float = Field(default=0.3, gt=0, le=1)

    @property
    def masks(self) -> bool:
        """Whether any fault is painted over, so that pixels are needed at full size."""
        return any(self.action(fault) == "mask" for fault in Fault)

    def action(self, fault: Fault) -> MaskAction:
        """What is done about `fault`."""
        action: MaskAction = getattr(self, fault.value)
        return action


@dataclass(frozen=True)
class Measures:
    """Numbers about one frame; shares are of its pixels.

    Attributes:
        brightness: Mean of what is not black, 0 to 1.
        black, overexposed: Shares of black and of blown-out pixels.
        sharpness: Standard deviation of the Laplacian of brightness (0-255) in the central half of a copy of about 576
            px (variance of the Laplacian: Pech-Pacheco et al., ICPR 2000).
        bars: Black bars as shares of width or height: left, top, right, bottom.
        cells: (row, column) of cells that look like burned-in text, on a copy of the size `copy_wh`.
        square, map: A black corner square, a green position map.
    """

    brightness: float
    black: float
    overexposed: float
    sharpness: float
    bars: tuple[float, float, float, float]
    cells: tuple[tuple[int, int], ...]
    copy_wh: tuple[int, int]
    square: Box | None
    map: Box | None

    @property
    def text(self) -> tuple[Box, ...]:
        """Places that look like burned-in text."""
        return text_boxes(self.cells, self.copy_wh)

    def faults(self, options: FaultOptions) -> tuple[Fault, ...]:
        """What is wrong with the frame."""
        left, top, right, bottom = self.bars
        found = {
            Fault.DARK: self.brightness < options.dark_brightness,
            Fault.OVEREXPOSED: self.overexposed >= options.overexposed_share,
            Fault.BLURRED: self.sharpness < options.blurred_sharpness,
            Fault.LETTERBOXED: max(left + right, top + bottom) >= options.letterbox_share,
            Fault.TEXT: bool(self.cells),
            Fault.CORNER_SQUARE: self.square is not None,
            Fault.GREEN_MAP: self.map is not None,
        }
        return tuple(fault for fault, is_there in found.items() if is_there)

    def to_mask(self, options: FaultOptions) -> tuple[Box, ...]:
        """Places to paint over, a little larger than what was found: letters go on beside it, edges are not sharp."""
        width, height = self.copy_wh
        tall, wide = CELL_HW
        places = {
            Fault.TEXT: tuple(_grown(box, wide / width, tall / 2 / height) for box in self.text),
            Fault.CORNER_SQUARE: (_grown(self.square, 1 / GRID, 1 / GRID),) if self.square else (),
            Fault.GREEN_MAP: (self.map,) if self.map else (),
        }
        return tuple(box for fault, boxes in places.items() if options.action(fault) == "mask" for box in boxes)

    def row(self) -> dict[str, Any]:
        """The measures as part of a line of quality.jsonl."""
        return {
            "brightness": round(self.brightness, 4),
            "black": round(self.black, 4),
            "overexposed": round(self.overexposed, 4),
            "sharpness": round(self.sharpness, 3),
            "bars": [round(share, 4) for share in self.bars],
            "text_cells": len(self.cells),
            "corner_square": _numbers(self.square),
            "green_map": _numbers(self.map),
        }


@dataclass(frozen=True)
class SmallCopies:
    """What is measured of a frame; made once, for all who look at it.

    Attributes:
        copy: RGB, about 576 px on its longer side (the frame itself where it is not much larger).
        channels: Green and blue of it, (height, width) each, read-only; of mucosa they are the darker ones.
        thumbnail: RGB, 64 x 64, whatever the shape of the frame; each pixel the mean of its place in the frame.
    """

    copy: Image.Image
    channels: tuple[Pixels, Pixels]
    thumbnail: Image.Image


def small_copies(pixels: Image.Image) -> SmallCopies:
    """The two copies of an RGB frame."""
    factor = max(1, round(max(pixels.size) / TEXT_SIDE))
    copy = pixels.reduce(factor) if factor > 1 else pixels
    return SmallCopies(copy, (plane(copy, "G"), plane(copy, "B")), _thumbnail(copy))


def draft_size(size_wh: tuple[int, int]) -> tuple[int, int] | None:
    """The size to ask of `Image.draft` before a JPEG is decoded to be looked at, or None to decode it as it is.

    A JPEG decoder can leave out high frequencies and give 1/2, 1/4 or 1/8 of the width and height, in a part of the
    time; the longer side stays at least DRAFT_SIDE. Every coded byte is still read, so a truncated file still fails.
    """
    factor = max((factor for factor in (1, 2, 4, 8) if max(size_wh) >= factor * DRAFT_SIDE), default=1)
    width, height = size_wh
    return (width // factor, height // factor) if factor > 1 and min(size_wh) >= factor else None


def measure(pixels: Image.Image | SmallCopies) -> Measures:
    """Measure an RGB frame, or the small copies of it."""
    copies = pixels if isinstance(pixels, SmallCopies) else small_copies(pixels)
    small = tuple(plane(copies.thumbnail, name) for name in "RGB")
    high, low = np.maximum(np.maximum(*small[:2]), small[2]), np.minimum(np.minimum(*small[:2]), small[2])
    black = high < BLACK
    lit = GRID * GRID - int(np.count_nonzero(black))
    is_lit = (~black).reshape(-1).astype(np.float32)
    light = sum(float(np.dot(channel.reshape(-1).astype(np.float32), is_lit)) for channel in small)
    return Measures(
        brightness=light / (3 * 255 * lit) if lit else 0.0,
        black=1 - lit / (GRID * GRID),
        overexposed=int(np.count_nonzero(low >= OVEREXPOSED)) / (GRID * GRID),
        sharpness=sharpness(copies.channels[0]),
        bars=_bars(black),
        cells=text_cells(*copies.channels),
        copy_wh=copies.copy.size,
        square=corner_square(high),
        map=green_map(*small),
    )


def _thumbnail(copy: Image.Image) -> Image.Image:
    """Means over 64 x 64 places, of eight samples each where there are more: their neighbours say the same."""
    (across, down), (width, height) = SAMPLES, copy.size
    if width < across * GRID or height < down * GRID:
        return copy.resize((GRID, GRID), Image.Resampling.BOX)
    return copy.resize((across * GRID, down * GRID), Image.Resampling.NEAREST).reduce(SAMPLES)


def _bars(black: Mask) -> tuple[float, float, float, float]:
    columns, rows = np.flatnonzero(~black.all(axis=0)), np.flatnonzero(~black.all(axis=1))
    if not len(columns):
        return (1.0, 1.0, 0.0, 0.0)
    return (
        int(columns[0]) / GRID,
        int(rows[0]) / GRID,
        (GRID - 1 - int(columns[-1])) / GRID,
        (GRID - 1 - int(rows[-1])) / GRID,
    )


def _grown(box: Box, x: float, y: float) -> Box:
    return Box(x0=max(0, box.x0 - x), y0=max(0, box.y0 - y), x1=min(1, box.x1 + x), y1=min(1, box.y1 + y))


def _numbers(box: Box | None) -> list[float] | None:
    return [round(number, 4) for number in (box.x0, box.y0, box.x1, box.y1)] if box else None
