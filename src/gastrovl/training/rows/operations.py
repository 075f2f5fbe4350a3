"""Further random changes of a training view, by name: where a box goes, and what the pixels become.

A new one is a frozen dataclass with what `Operation` lists and a function that draws it, made known by `register`; then
`augment: {operations: {name: probability}}` uses it. Words that name a place or side are dropped where it moves them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gastrovl.core import geometry
from gastrovl.core.errors import ConfigError
from gastrovl.core.types import Box

Pixels = NDArray[np.uint8]


class Operation(Protocol):
    """A change of a square image."""

    @property
    def moves_boxes(self) -> bool:
        """Whether anything changes its place."""
        ...

    @property
    def keeps_left(self) -> bool:
        """Whether what lay further left still does."""
        ...

    @property
    def keeps_up(self) -> bool:
        """Whether what lay further up still does."""
        ...

    def move(self, box: Box) -> Box | None:
        """Where a box goes; None when it leaves the image."""
        ...

    def render(self, pixels: Pixels) -> Pixels:
        """The changed image, both (side, side, 3) uint8."""
        ...


Draw = Callable[[np.random.Generator, Sequence[Box]], Operation]  # from randomness and the boxes, which it has to keep
OPERATIONS: dict[str, Draw] = {}


def register(name: str, draw: Draw) -> None:
    """Make an operation known to `augment.operations`.

    Raises:
        ConfigError: The name is taken.
    """
    if name in OPERATIONS:
        raise ConfigError(f"the augmentation {name!r} is registered already; choose another name")
    OPERATIONS[name] = draw


@dataclass(frozen=True)
class QuarterTurn:
    """The image turned to the left, once to three times: an endoscope has no upright."""

    times: int
    moves_boxes: bool = True
    keeps_left: bool = False
    keeps_up: bool = False

    def move(self, box: Box) -> Box:
        """A box in the turned image."""
        for _ in range(self.times):
            box = Box(x0=box.y0, y0=1 - box.x1, x1=box.y1, y1=1 - box.x0)
        return box

    def render(self, pixels: Pixels) -> Pixels:
        """The turned image."""
        return np.ascontiguousarray(np.rot90(pixels, self.times))


@dataclass(frozen=True)
class Letterbox:
    """The whole image inside a window of a black square, smaller and of another aspect, as other systems frame theirs.

    It is the one change that makes lesions smaller; windows make them larger.
    """

    window: Box
    moves_boxes: bool = True
    keeps_left: bool = True
    keeps_up: bool = True

    def move(self, box: Box) -> Box:
        """A box inside the window."""
        width, height = self.window.x1 - self.window.x0, self.window.y1 - self.window.y0
        return geometry.clip(
            self.window.x0 + box.x0 * width,
            self.window.y0 + box.y0 * height,
            self.window.x0 + box.x1 * width,
            self.window.y0 + box.y1 * height,
        )

    def render(self, pixels: Pixels) -> Pixels:
        """The image inside the window, whose edges are rounded to whole pixels."""
        side = pixels.shape[0]
        x0, y0, x1, y1 = geometry.to_whole_pixels(self.window, (side, side))
        small = Image.fromarray(pixels).resize((x1 - x0, y1 - y0), Image.Resampling.BILINEAR)
        framed = np.zeros_like(pixels)
        framed[y0:y1, x0:x1] = np.asarray(small)
        return framed


@dataclass(frozen=True)
class Highlights:
    """White reflections of the light on wet mucosa; each is (centre x, centre y, radius x, radius y) in fractions."""

    spots: tuple[tuple[float, float, float, float], ...]
    moves_boxes: bool = False
    keeps_left: bool = True
    keeps_up: bool = True

    def move(self, box: Box) -> Box:
        """The box itself."""
        return box

    def render(self, pixels: Pixels) -> Pixels:
        """The image with white ellipses that fade over the outer half of their radius."""
        middles = (np.arange(pixels.shape[0]) + 0.5) / pixels.shape[0]
        share = np.zeros(pixels.shape[:2])
        for x, y, radius_x, radius_y in self.spots:
            distance = np.hypot((middles[None, :] - x) / radius_x, (middles[:, None] - y) / radius_y)
            share = np.maximum(share, np.clip(2 - 2 * distance, 0, 1))
        lit = pixels + share[..., None] * (255.0 - pixels)
        return lit.round().astype(np.uint8)


@dataclass(frozen=True)
class NarrowBand:
    """White light turned to about what narrow-band imaging shows: brown mucosa, dark vessels, cyan far away.

    The processor of such an endoscope lights with 415 and 540 nm, and shows 540 nm as red and 415 nm as green and blue
    (Gono et al., Journal of Biomedical Optics 9:568, 2004). The camera's green and blue stand in for the two.

    Attributes:
        share: Of the new colours, in [0, 1]; the rest stays white light.
        gains: Of red, green and blue afterwards.
    """

    share: float
    gains: tuple[float, float, float]
    moves_boxes: bool = False
    keeps_left: bool = True
    keeps_up: bool = True

    def move(self, box: Box) -> Box:
        """The box itself."""
        return box

    def render(self, pixels: Pixels) -> Pixels:
        """The recoloured image."""
        banded = pixels[..., [1, 2, 2]] * np.asarray(self.gains)
        return ((1 - self.share) * pixels + self.share * banded).clip(0, 255).round().astype(np.uint8)


def _draw_turn(rng: np.random.Generator, boxes: Sequence[Box]) -> QuarterTurn:
    del boxes
    return QuarterTurn(int(rng.integers(1, 4)))


def _draw_letterbox(rng: np.random.Generator, boxes: Sequence[Box]) -> Letterbox:
    del boxes
    width, height = rng.uniform(0.6, 1.0, size=2)
    x0, y0 = rng.random() * (1 - width), rng.random() * (1 - height)
    return Letterbox(Box(x0=x0, y0=y0, x1=min(x0 + width, 1.0), y1=min(y0 + height, 1.0)))


def _draw_highlights(rng: np.random.Generator, boxes: Sequence[Box]) -> Highlights:
    """Two to eight spots; none is wider than a third of the narrowest box, so that nothing asked about is hidden."""
    narrowest = min((side for box in boxes for side in (box.x1 - box.x0, box.y1 - box.y0)), default=1.0)
    largest = min(0.03, narrowest / 6)
    count = int(rng.integers(2, 9))
    places, radii = rng.random((count, 2)), rng.uniform(0.3 * largest, largest, size=(count, 2))
    spots = np.concatenate([places, radii], axis=1).tolist()
    return Highlights(tuple((x, y, radius_x, radius_y) for x, y, radius_x, radius_y in spots))


def _draw_narrow_band(rng: np.random.Generator, boxes: Sequence[Box]) -> NarrowBand:
    del boxes
    red, green, blue = rng.uniform((1.0, 0.9, 0.9), (1.4, 1.3, 1.3)).tolist()
    return NarrowBand(float(rng.uniform(0.6, 1.0)), (red, green, blue))


register("turn", _draw_turn)
register("letterbox", _draw_letterbox)
register("highlights", _draw_highlights)
register("narrow_band", _draw_narrow_band)
