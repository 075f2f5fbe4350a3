"""Random views of a training image and the same move for every box that is said about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gastrovl.core import geometry
from gastrovl.core.types import Box
from gastrovl.training.config import AugmentConfig
from gastrovl.training.rows.operations import OPERATIONS, Operation

WHOLE = Box(x0=0, y0=0, x1=1, y1=1)
IDENTITY_GAINS = (1.0, 1.0, 1.0)
_TRIES = 8  # random windows, before one that keeps every box whole


@dataclass(frozen=True)
class View:
    """A window of the image, mirrored, recoloured (value * gain, spread around grey by contrast), then operated on."""

    window: Box = WHOLE
    is_mirrored_x: bool = False
    is_mirrored_y: bool = False
    gains: tuple[float, float, float] = IDENTITY_GAINS
    contrast: float = 1.0
    operations: tuple[Operation, ...] = ()

    @property
    def moves_boxes(self) -> bool:
        is_moved = self.is_mirrored_x or self.is_mirrored_y or self.window != WHOLE
        return is_moved or any(operation.moves_boxes for operation in self.operations)

    @property
    def keeps_left(self) -> bool:
        """Whether what lies further left in the image does so in the view."""
        return not self.is_mirrored_x and all(operation.keeps_left for operation in self.operations)

    @property
    def keeps_up(self) -> bool:
        """Whether what lies further up in the image does so in the view."""
        return not self.is_mirrored_y and all(operation.keeps_up for operation in self.operations)

    def move(self, box: Box) -> Box | None:
        """Where `box` stands in this view, or None when it is outside."""
        moved = geometry.into_window(box, self.window)
        if moved is not None and self.is_mirrored_x:
            moved = geometry.flip_horizontal(moved)
        if moved is not None and self.is_mirrored_y:
            moved = geometry.flip_vertical(moved)
        for operation in self.operations:
            moved = moved and operation.move(moved)
        return moved

    def render(self, square: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
        """The view of a square image, (side, side, 3) uint8."""
        height, width = square.shape[:2]
        corners = geometry.to_pixels(self.window, (width, height))
        image = Image.fromarray(square).resize((side, side), Image.Resampling.BILINEAR, box=corners)
        pixels = np.asarray(image)
        if self.is_mirrored_x:
            pixels = pixels[:, ::-1]
        if self.is_mirrored_y:
            pixels = pixels[::-1]
        if self.gains != IDENTITY_GAINS or self.contrast != 1.0:
            table = np.arange(256, dtype=np.float32)[:, None] * np.asarray(self.gains, dtype=np.float32)
            table = np.clip((table - 110.0) * self.contrast + 110.0, 0, 255).astype(np.uint8)
            pixels = np.stack([table[:, channel][pixels[..., channel]] for channel in range(3)], axis=-1)
        for operation in self.operations:
            pixels = operation.render(pixels)
        return np.ascontiguousarray(pixels)


def draw_view(rng: np.random.Generator, boxes: Sequence[Box], config: AugmentConfig) -> View:
    """A random view that keeps `config.least_kept` of every one of `boxes` along each side."""
    side = rng.uniform(config.smallest_crop, 1.0) if config.smallest_crop < 1 else 1.0
    x0, x1 = _window(rng, side, [(box.x0, box.x1) for box in boxes], config.least_kept)
    y0, y1 = _window(rng, side, [(box.y0, box.y1) for box in boxes], config.least_kept)
    brightness = rng.uniform(1 - config.colour, 1 + config.colour)
    gains = brightness * rng.uniform(1 - config.colour / 2, 1 + config.colour / 2, size=3)
    flips = rng.random(2) < 0.5 if config.flip else (False, False)
    view = View(
        window=Box(x0=x0, y0=y0, x1=x1, y1=y1),
        is_mirrored_x=bool(flips[0]),
        is_mirrored_y=bool(flips[1]),
        gains=(float(gains[0]), float(gains[1]), float(gains[2])),
        contrast=float(rng.uniform(1 - config.colour, 1 + config.colour)),
    )
    for name, probability in config.operations.items():
        if rng.random() < probability:
            there = [moved for box in boxes if (moved := view.move(box))]
            view = replace(view, operations=(*view.operations, OPERATIONS[name](rng, there)))
    return view


def _window(
    rng: np.random.Generator, side: float, extents: Sequence[tuple[float, float]], least: float
) -> tuple[float, float]:
    """One axis of a window of length `side`, or as long as it takes to keep the share `least` of each extent."""
    if side == 1.0:
        return 0.0, 1.0
    if not extents:
        start = rng.uniform(0.0, 1.0 - side)
        return start, start + side
    if least < 1.0:
        for start in rng.uniform(0.0, 1.0 - side, size=_TRIES):
            kept = (min(high, start + side) - max(low, start) for low, high in extents)
            if all(share >= least * (high - low) for share, (low, high) in zip(kept, extents, strict=True)):
                return float(start), float(start + side)
    low, high = min(low for low, _ in extents), max(high for _, high in extents)
    side = max(side, high - low)
    start = rng.uniform(max(0.0, high - side), min(low, 1.0 - side) + 1e-12)
    return max(0.0, start), min(1.0, start + side)
