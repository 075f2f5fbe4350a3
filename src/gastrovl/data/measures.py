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
from gastrovl.core.types import Box
from gastrovl.data.overlays import BLACK, GRID, TEXT_SIDE, corner_square, green_map, text_boxes

OVEREXPOSED = 250  # all channels at or above


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
        text: Cells that look like burned-in text.
        square, map: A black corner square, a green position map.
    """

    brightness: float
    black: float
    overexposed: float
    sharpness: float
    bars: tuple[float, float, float, float]
    text: tuple[Box, ...]
    square: Box | None
    map: Box | None

    def faults(self, options: FaultOptions) -> tuple[Fault, ...]:
        """What is wrong with the frame."""
        left, top, right, bottom = self.bars
        found = {
            Fault.DARK: self.brightness < options.dark_brightness,
            Fault.OVEREXPOSED: self.overexposed >= options.overexposed_share,
            Fault.BLURRED: self.sharpness < options.blurred_sharpness,
            Fault.LETTERBOXED: max(left + right, top + bottom) >= options.letterbox_share,
            Fault.TEXT: bool(self.text),
            Fault.CORNER_SQUARE: self.square is not None,
            Fault.GREEN_MAP: self.map is not None,
        }
        return tuple(fault for fault, is_there in found.items() if is_there)

    def to_mask(self, options: FaultOptions) -> tuple[Box, ...]:
        """Places to paint over."""
        places = {
            Fault.TEXT: self.text,
            Fault.CORNER_SQUARE: (self.square,) if self.square else (),
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
            "text_cells": len(self.text),
            "corner_square": _numbers(self.square),
            "green_map": _numbers(self.map),
        }


def measure(pixels: Image.Image) -> Measures:
    """Measure an RGB frame."""
    factor = max(1, round(max(pixels.size) / TEXT_SIDE))
    copy = pixels.reduce(factor) if factor > 1 else pixels
    thumbnail = np.asarray(copy.reduce(max(1, min(copy.size) // (2 * GRID))).resize((GRID, GRID), Image.Resampling.BOX))
    high, low = thumbnail.max(axis=2), thumbnail.min(axis=2)
    black = high < BLACK
    lit = thumbnail[~black]
    return Measures(
        brightness=float(lit.mean()) / 255 if len(lit) else 0.0,
        black=float(black.mean()),
        overexposed=float((low >= OVEREXPOSED).mean()),
        sharpness=_sharpness(copy),
        bars=_bars(black),
        text=text_boxes(copy),
        square=corner_square(thumbnail),
        map=green_map(thumbnail),
    )


def _sharpness(copy: Image.Image) -> float:
    width, height = copy.size
    centre = copy.crop((width // 4, height // 4, width - width // 4, height - height // 4)).getchannel("G")
    grey = np.asarray(centre).astype(np.int16)
    if min(grey.shape) < 3:
        return 0.0
    around = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:]
    return float((4 * grey[1:-1, 1:-1] - around).std())


def _bars(black: np.ndarray[Any, np.dtype[np.bool_]]) -> tuple[float, float, float, float]:
    columns, rows = np.flatnonzero(~black.all(axis=0)), np.flatnonzero(~black.all(axis=1))
    if not len(columns):
        return (1.0, 1.0, 0.0, 0.0)
    return (
        int(columns[0]) / GRID,
        int(rows[0]) / GRID,
        (GRID - 1 - int(columns[-1])) / GRID,
        (GRID - 1 - int(rows[-1])) / GRID,
    )


def _numbers(box: Box | None) -> list[float] | None:
    return [round(number, 4) for number in (box.x0, box.y0, box.x1, box.y1)] if box else None
