"""The drawing board: a lit, coloured height field on a coarse grid, and the smooth noise that everything is made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Field = NDArray[np.floating[Any]]  # float32 as far as possible: half the time of float64
Colour = tuple[float, float, float]


@dataclass(slots=True)
class Scene:
    """What stands before the camera, on a grid of (rows, columns); one unit of length is half the shorter image side.

    Attributes:
        x, y: Position of each grid point, origin in the image centre, x to the right, y down.
        albedo: Colour of the mucosa, (rows, columns, 3), in [0, 1].
        height: Relief towards the viewer, in units of length.
        light: How much light reaches the point, 0 (far lumen) to about 1.
        gloss: How wet it shines, 0 to 1.
        keep_out: Circles (x, y, radius) that no lesion may cover: lumen, pylorus, scope shaft.
        pole: Where folds and vessels converge; the axis of esophageal lesions points at it.
    """

    x: Field
    y: Field
    albedo: Field
    height: Field
    light: Field
    gloss: Field
    keep_out: list[tuple[float, float, float]]
    pole: tuple[float, float]

    @classmethod
    def empty(cls, size_wh: tuple[int, int], colour: Colour) -> Scene:
        """A flat, evenly lit sheet of one colour on a grid of `size_wh` points."""
        width, height = size_wh
        x, y = (np.broadcast_to(part, (height, width)) for part in positions(size_wh))
        albedo = np.empty((height, width, 3), np.float32)
        albedo[:] = colour
        zeros, ones = np.zeros((height, width), np.float32), np.ones((height, width), np.float32)
        return cls(x, y, albedo, zeros, ones, ones.copy(), [], (0.0, 0.0))

    def paint(self, colour: Colour, alpha: Field) -> None:
        """Lay `colour` over the mucosa, opaque where `alpha` is 1."""
        self.albedo += alpha[..., None] * (np.asarray(colour, np.float32) - self.albedo)


def positions(size_wh: tuple[int, int]) -> tuple[Field, Field]:
    """Scene coordinates of pixel centres: x as a row (1, width), y as a column (height, 1)."""
    unit = np.float32(min(size_wh) / 2)
    x, y = ((np.arange(length, dtype=np.float32) + np.float32(0.5 - length / 2)) / unit for length in size_wh)
    return x[None, :], y[:, None]


def noise(rng: np.random.Generator, shape: tuple[int, int], cells: float) -> Field:
    """Smooth noise with about `cells` bumps along the shorter side; mean 0, mostly within -1..1."""
    rows, columns = shape
    per_cell = min(shape) / cells
    small = rng.standard_normal((max(round(rows / per_cell), 1) + 2, max(round(columns / per_cell), 1) + 2))
    return resize(small.astype(np.float32), (columns, rows)) * np.float32(0.6)


def periodic_noise(rng: np.random.Generator, angle: Field, waves: tuple[int, ...], strength: float) -> Field:
    """Noise that closes on itself around a centre: a sum of `waves` over `angle` in radians."""
    total = np.zeros_like(angle)
    for wave in waves:
        total += np.float32(rng.normal(0, 1) / np.sqrt(wave)) * np.sin(wave * angle + np.float32(rng.uniform(0, 6.3)))
    return np.float32(strength) * total


def resize(field: Field, size_wh: tuple[int, int]) -> Field:
    """A field on another grid, by cubic interpolation."""
    return np.asarray(Image.fromarray(field.astype(np.float32, copy=False)).resize(size_wh, Image.Resampling.BICUBIC))


def smoothstep(low: float, high: float, values: Field) -> Field:
    """0 below `low`, 1 above `high`, smooth between; with low > high it falls instead of rising."""
    t: Field = np.clip((values - np.float32(low)) / np.float32(high - low), 0, 1)
    return t * t * (3 - 2 * t)


def ridge(values: Field, width: float) -> Field:
    """1 where `values` crosses 0, falling to 0 at |values| = width: thin lines out of noise."""
    return smoothstep(width, 0, np.abs(values))


def polar(scene: Scene, centre: tuple[float, float], squeeze: float = 1.0, turn: float = 0.0) -> tuple[Field, Field]:
    """Distance and angle from `centre` in coordinates turned by `turn` radians and stretched across by `squeeze`."""
    along, across = turned(scene, centre, turn)
    across = across * np.float32(squeeze)
    return np.hypot(along, across), np.arctan2(across, along)


def turned(scene: Scene, centre: tuple[float, float], turn: float) -> tuple[Field, Field]:
    """Coordinates (along, across) an axis through `centre` that points `turn` radians clockwise from the right."""
    dx, dy = scene.x - np.float32(centre[0]), scene.y - np.float32(centre[1])
    c, s = np.float32(np.cos(turn)), np.float32(np.sin(turn))
    return c * dx + s * dy, c * dy - s * dx
