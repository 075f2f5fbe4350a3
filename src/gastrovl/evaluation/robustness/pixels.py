"""A picture to an array of light and back, and what both kinds of corruption need to know about it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

Pixels = NDArray[np.float32]
_GAMMA = 2.2  # of a display; near enough to sRGB for changing how much light there is
_SEEN = 0.06  # darker than this is the black around the field of view
_COARSE = 64  # px of the longer side of the map from which places are drawn


def to_pixels(image: Image.Image) -> Pixels:
    """RGB in [0, 1], (height, width, 3)."""
    return np.asarray(image.convert("RGB"), dtype=np.float32) / np.float32(255)


def to_image(pixels: Pixels) -> Image.Image:
    """The picture of an array; values outside [0, 1] are clipped."""
    return Image.fromarray((np.clip(pixels, 0, 1) * 255 + 0.5).astype(np.uint8))


def to_light(pixels: Pixels) -> Pixels:
    """Amount of light that a display would give for each value."""
    light: Pixels = np.power(pixels, np.float32(_GAMMA))
    return light


def from_light(light: Pixels) -> Pixels:
    """Values for amounts of light; more than full light is clipped, as a sensor does it."""
    pixels: Pixels = np.power(np.clip(light, 0, 1), np.float32(1 / _GAMMA))
    return pixels


def short_side(image: Image.Image) -> int:
    """Length of the shorter side in px: sizes of corruptions are shares of it, so that a level means the same at any
    resolution."""
    return min(image.size)


def draw_places(
    image: Image.Image, count: int, generator: np.random.Generator, *, brightness: float
) -> NDArray[np.float64]:
    """Random places inside the field of view, as fractions (x, y), (count, 2).

    Args:
        brightness: Power of the brightness with which a place is drawn; 0 draws evenly over the field.
    """
    coarse = image.convert("L")
    coarse.thumbnail((_COARSE, _COARSE), Image.Resampling.BOX)
    values = np.asarray(coarse, dtype=np.float64) / 255
    weights = np.where(values > _SEEN, values**brightness, 0.0).ravel()
    if weights.sum() == 0:  # a black image has no field; then anywhere
        weights = np.ones_like(weights)
    cells = generator.choice(len(weights), size=count, p=weights / weights.sum())
    rows, columns = np.divmod(cells, values.shape[1])
    jitter = generator.random((count, 2))
    return np.stack([(columns + jitter[:, 0]) / values.shape[1], (rows + jitter[:, 1]) / values.shape[0]], axis=1)


def field_of_view(image: Image.Image) -> Pixels:
    """Where mucosa is seen and not the black around it, with a soft rim, (height, width) in [0, 1]."""
    coarse = image.convert("L")
    coarse.thumbnail((_COARSE, _COARSE), Image.Resampling.BOX)
    lit = coarse.point([255 * (value > 255 * _SEEN) for value in range(256)])
    closed = lit.filter(ImageFilter.MaxFilter(5)).filter(ImageFilter.MinFilter(5))  # dark folds belong to the field
    if not np.asarray(closed).any():
        return np.ones((image.height, image.width), dtype=np.float32)
    return np.asarray(closed.resize(image.size, Image.Resampling.BILINEAR), dtype=np.float32) / np.float32(255)


def blend(pixels: Pixels, colour: Pixels | tuple[float, float, float], cover: Pixels) -> Pixels:
    """`colour` over `pixels` where `cover`, (height, width) in [0, 1], says so."""
    over = np.asarray(colour, dtype=np.float32)
    mixed: Pixels = pixels + (over - pixels) * cover[..., None]
    return mixed
