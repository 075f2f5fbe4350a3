"""What light, lens, sensor and encoder do to a whole frame, at five levels; nothing moves, so boxes stay true."""

from __future__ import annotations

import io
import math

import numpy as np
from PIL import Image, ImageFilter

from gastrovl.evaluation.robustness.pixels import Pixels, from_light, short_side, to_image, to_light, to_pixels

# One value for each of the levels 1 to 5. Lengths are shares of the shorter side, gains are factors of light.
_MOTION = (0.012, 0.025, 0.045, 0.07, 0.10)
_SHORT = 25  # px
_DEFOCUS = (0.003, 0.006, 0.010, 0.015, 0.022)
_UNDER = (0.55, 0.35, 0.21, 0.12, 0.06)
_OVER = (1.45, 2.0, 2.8, 4.0, 6.0)
_CAST = (0.25, 0.45, 0.65, 0.85, 1.1)
_JPEG = (30, 18, 11, 7, 4)
_VIGNETTE = (0.45, 0.62, 0.76, 0.88, 0.97)
_NOISE = (0.025, 0.045, 0.075, 0.115, 0.17)
# Gains of red, green and blue: what is seen through bile, through blood, and under a wrong white balance.
TINTS = {
    "bile": (0.95, 0.85, 0.18),
    "blood": (0.95, 0.30, 0.28),
    "cold": (0.55, 0.85, 1.25),
    "warm": (1.20, 0.85, 0.50),
}


def motion_blur(image: Image.Image, level: int, generator: np.random.Generator) -> Image.Image:
    """The mean along a straight stroke in a random direction, as when the tip moves during the exposure."""
    length = max(2.0, _MOTION[level - 1] * short_side(image))
    angle = generator.uniform(0, math.pi)
    # Evenly spaced copies of evenly spaced copies: as many steps as the product, for the price of the sum. Odd numbers,
    # and a single pass over short strokes, because offsets are rounded to whole pixels.
    fine = math.ceil(length if length < _SHORT else math.sqrt(length)) | 1
    coarse = math.ceil(length / fine) | 1
    pixels = _along(to_pixels(image), fine, length / (fine * coarse), angle)
    return to_image(_along(pixels, coarse, length / coarse, angle))


def _along(pixels: Pixels, copies: int, step_px: float, angle: float) -> Pixels:
    """The mean of copies moved by multiples of a step; at the rim the outermost pixels are repeated."""
    moves = [(place - (copies - 1) / 2) * step_px for place in range(copies)]
    offsets = [(round(move * math.cos(angle)), round(move * math.sin(angle))) for move in moves]
    room = max(max(abs(x), abs(y)) for x, y in offsets)
    padded = np.pad(pixels, ((room, room), (room, room), (0, 0)), mode="edge")
    height, width = pixels.shape[:2]
    total = np.zeros_like(pixels)
    for x, y in offsets:
        total += padded[room + y : room + y + height, room + x : room + x + width]
    return total / np.float32(copies)


def defocus(image: Image.Image, level: int, _generator: np.random.Generator) -> Image.Image:
    """The mean over a disc, so that highlights become discs, as a lens out of focus shows them."""
    radius = _DEFOCUS[level - 1] * short_side(image) + 0.5  # a disc of 0 is the pixel itself
    room = math.ceil(radius) + 1
    padded = np.pad(to_light(to_pixels(image)), ((room, room), (room, room), (0, 0)), mode="edge").astype(np.float64)
    sums = np.cumsum(np.pad(padded, ((0, 0), (1, 0), (0, 0))), axis=1)  # sums[:, x] is what lies left of column x
    height, width = image.height, image.width
    total, weight = np.zeros((height, width, 3)), 0.0
    for y in range(-int(radius), int(radius) + 1):
        half = math.sqrt(radius * radius - y * y)  # of the stroke of the disc in this row, in px
        whole = max(0, math.floor(half - 0.5))  # pixels on either side of the middle one that lie inside
        rim = max(0.0, half - 0.5 - whole)  # share of the next ones
        rows, values = sums[room + y : room + y + height], padded[room + y : room + y + height]
        total += rows[:, room + whole + 1 :][:, :width] - rows[:, room - whole :][:, :width]
        total += rim * (values[:, room + whole + 1 :][:, :width] + values[:, room - whole - 1 :][:, :width])
        weight += 2 * whole + 1 + 2 * rim
    return to_image(from_light((total / weight).astype(np.float32)))


def under_exposure(image: Image.Image, level: int, _generator: np.random.Generator) -> Image.Image:
    """Less light everywhere; dark folds vanish first."""
    return to_image(from_light(to_light(to_pixels(image)) * np.float32(_UNDER[level - 1])))


def over_exposure(image: Image.Image, level: int, _generator: np.random.Generator) -> Image.Image:
    """More light everywhere; what was bright burns out and blooms a little over its rim."""
    light = to_light(to_pixels(image)) * np.float32(_OVER[level - 1])
    excess = to_image(np.clip(light - 1, 0, 1)).filter(ImageFilter.GaussianBlur(0.01 * short_side(image)))
    return to_image(from_light(light + to_pixels(excess)))


def colour_cast(image: Image.Image, level: int, generator: np.random.Generator) -> Image.Image:
    """A tint drawn from `TINTS`, the stronger the higher the level."""
    tint = np.array(list(TINTS.values())[int(generator.integers(len(TINTS)))], dtype=np.float32)
    return to_image(from_light(to_light(to_pixels(image)) * tint ** np.float32(_CAST[level - 1])))


def jpeg(image: Image.Image, level: int, _generator: np.random.Generator) -> Image.Image:
    """Encoded with little room, as an exported video frame may be."""
    stream = io.BytesIO()
    image.convert("RGB").save(stream, format="JPEG", quality=_JPEG[level - 1], subsampling="4:2:0")
    stream.seek(0)
    return Image.open(stream).convert("RGB")


def vignette(image: Image.Image, level: int, generator: np.random.Generator) -> Image.Image:
    """Light that falls off towards the rim, from a centre that lies somewhere near the middle."""
    centre_x, centre_y = 0.5 + generator.uniform(-0.08, 0.08, size=2)
    y, x = np.mgrid[0 : image.height, 0 : image.width].astype(np.float32)
    x, y = (x + 0.5) / image.width - np.float32(centre_x), (y + 0.5) / image.height - np.float32(centre_y)
    distance = np.sqrt(x * x + y * y) / np.float32(0.5)  # 1 in the middle of a side
    strength = _VIGNETTE[level - 1]
    begins, ends = 0.75 - 0.6 * strength, 1.55 - 0.45 * strength
    fall = np.clip((distance - np.float32(begins)) / np.float32(ends - begins), 0, 1)
    fall = fall * fall * (3 - 2 * fall)
    return to_image(from_light(to_light(to_pixels(image)) * (1 - np.float32(strength) * fall)[..., None]))


def noise(image: Image.Image, level: int, generator: np.random.Generator) -> Image.Image:
    """Grain of a sensor with little light, stronger in the dark, part of it in colour.

    A grain is 1/480 of the shorter side, but at least a pixel, so that it survives when a model scales the image down.
    """
    grain = max(1.0, short_side(image) / 480)
    size = (math.ceil(image.width / grain), math.ceil(image.height / grain))
    drawn = generator.normal(size=(size[1], size[0], 4)).astype(np.float32)
    layers = [
        np.asarray(Image.fromarray(drawn[..., index]).resize(image.size, Image.Resampling.BICUBIC), dtype=np.float32)
        for index in range(4)
    ]
    pixels = to_pixels(image)
    strength = np.float32(_NOISE[level - 1]) * (np.float32(1.2) - np.float32(0.5) * pixels)
    grey = np.float32(0.8) * layers[0][..., None] + np.float32(0.6) * np.stack(layers[1:], axis=-1)
    return to_image(pixels + strength * grey)
