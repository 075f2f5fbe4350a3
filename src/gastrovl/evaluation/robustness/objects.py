"""What lies between lens and mucosa, or is written over the frame, at five levels: glare, foam, text, an instrument."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from gastrovl.core.types import Box
from gastrovl.evaluation.robustness.pixels import (
    Pixels,
    blend,
    draw_places,
    field_of_view,
    short_side,
    to_image,
    to_pixels,
)

MOST_COVERED = 0.25  # of the area of any box that an instrument may hide
_GLARE = (14, 32, 60, 105, 170)  # highlights
_GLARE_SIZE = (0.8, 0.9, 1.0, 1.2, 1.5)
_FOAM = (14, 40, 90, 170, 300)  # bubbles
_FOAM_CLUSTERS = 6
_TEXT_LINES = (3, 6, 10, 15, 22)
_TEXT_SIZE = (0.026, 0.03, 0.034, 0.038, 0.042)
_INSTRUMENT_REACH = (0.18, 0.28, 0.38, 0.48, 0.58)  # beyond the rim of the field, in shares of the shorter side
_INSTRUMENT_WIDTH = (0.050, 0.058, 0.066, 0.074, 0.082)
_PLACEMENTS = 24
_TRIED_AT = 160  # px of the longer side at which ways in are tried
_SCALE = 2  # masks are drawn this much larger, for smooth edges
_FIELDS = ("ID", "NAME", "SEX", "AGE", "D.O.B.", "DATE", "TIME", "EXAM", "DR", "ROOM", "SCOPE", "COMMENT", "CVP", "EH")
_CONSONANTS = "BCDFGHJKLMNPQRSTVWXZ"  # without vowels no name can come out
_WHITE, _YELLOW, _GREEN = (236, 236, 236), (240, 226, 90), (120, 230, 130)


def glare(image: Image.Image, level: int, generator: np.random.Generator) -> Image.Image:
    """Specular highlights on wet mucosa: white irregular spots with a thin halo, mostly where it is bright already."""
    side = short_side(image)
    places = draw_places(image, _GLARE[-1], generator, brightness=1.8)
    sizes = np.minimum(generator.lognormal(mean=math.log(0.0055), sigma=0.6, size=len(places)), 0.022)
    shapes = generator.random((len(places), 3))
    mask, pen = _mask(image)
    for place, size, (angle, stretch, waves) in list(zip(places, sizes, shapes, strict=True))[: _GLARE[level - 1]]:
        radius = float(size) * _GLARE_SIZE[level - 1] * side
        pen.polygon(_blot(place, radius, float(angle), float(stretch), float(waves), image.size), fill=255)
    spots = _shrunk(mask.filter(ImageFilter.GaussianBlur(_SCALE * max(0.6, 0.0012 * side))), image)
    halo = _shrunk(mask.filter(ImageFilter.GaussianBlur(_SCALE * 0.012 * side)), image)
    cover: Pixels = np.clip(np.maximum(spots * np.float32(1.05), halo * np.float32(0.55)), 0, 1) * field_of_view(image)
    return to_image(blend(to_pixels(image), (1.0, 0.985, 0.97), cover))


def _blot(
    place: NDArray[np.float64], radius: float, angle: float, stretch: float, waves: float, size: tuple[int, int]
) -> list[tuple[float, float]]:
    """A closed wavy line around an elongated spot, on the enlarged mask."""
    turn, longer = 2 * math.pi * angle, 1 + 1.1 * stretch
    points = []
    for step in range(28):
        t = 2 * math.pi * step / 28
        r = radius * (1 + 0.28 * math.sin(2 * t + 9 * waves) + 0.16 * math.sin(5 * t + 31 * waves))
        x, y = r * longer * math.cos(t), r * math.sin(t)
        points.append(
            (
                _SCALE * (place[0] * size[0] + x * math.cos(turn) - y * math.sin(turn)),
                _SCALE * (place[1] * size[1] + x * math.sin(turn) + y * math.cos(turn)),
            )
        )
    return points


def bubbles(image: Image.Image, level: int, generator: np.random.Generator) -> Image.Image:
    """Foam: clusters of clear bubbles with bright rims and a reflex each, on a thin whitish film."""
    side, count = short_side(image), _FOAM[level - 1]
    centres = draw_places(image, _FOAM_CLUSTERS, generator, brightness=0.5)
    cluster = generator.choice(_FOAM_CLUSTERS, size=_FOAM[-1], p=_falling(_FOAM_CLUSTERS))
    spread = generator.normal(scale=0.11, size=(_FOAM[-1], 2)) * side / np.array(image.size)
    radii = np.clip(generator.lognormal(mean=math.log(0.011), sigma=0.5, size=_FOAM[-1]), 0.004, 0.045) * side
    places = (centres[cluster] + spread) * np.array(image.size)
    film, film_pen = _mask(image)
    rims, rim_pen = _mask(image)
    inside, inside_pen = _mask(image)
    reflexes, reflex_pen = _mask(image)
    for (x, y), radius in list(zip(places, radii, strict=True))[:count]:
        film_pen.ellipse(_circle(x, y, 1.5 * radius), fill=255)
        inside_pen.ellipse(_circle(x, y, radius), fill=255)
        rim_pen.ellipse(_circle(x, y, radius), outline=255, width=max(_SCALE, round(_SCALE * 0.22 * radius)))
        reflex_pen.ellipse(_circle(x - 0.38 * radius, y - 0.42 * radius, max(0.8, 0.24 * radius)), fill=255)
    pixels, field = to_pixels(image), field_of_view(image)
    soft = field * _shrunk(film.filter(ImageFilter.GaussianBlur(_SCALE * 0.02 * side)), image)
    pixels = blend(pixels, (0.93, 0.90, 0.82), np.float32(0.42) * soft)
    pixels = blend(pixels, 0.72 * pixels, np.float32(0.55) * field * _shrunk(inside, image))
    rim = _shrunk(rims.filter(ImageFilter.GaussianBlur(_SCALE * 0.0015 * side)), image)
    pixels = blend(pixels, (0.97, 0.95, 0.90), np.float32(0.62) * field * rim)
    spark = _shrunk(reflexes.filter(ImageFilter.GaussianBlur(0.6 * _SCALE)), image)
    return to_image(blend(pixels, (1.0, 1.0, 1.0), np.float32(0.95) * field * spark))


def text_overlay(image: Image.Image, level: int, generator: np.random.Generator) -> Image.Image:
    """Lines like those of a processor's screen, but of random letters and digits; at high levels over the mucosa."""
    lines = [_gibberish(generator) for _ in range(_TEXT_LINES[-1])]
    colour = (_WHITE, _YELLOW, _GREEN)[int(generator.integers(3))]
    size_px = max(8, round(_TEXT_SIZE[level - 1] * short_side(image)))
    rows = max(1, int(0.92 * image.height / (1.35 * size_px)))
    changed = image.convert("RGB").copy()
    pen = ImageDraw.Draw(changed)
    for index, line in enumerate(lines[: _TEXT_LINES[level - 1]]):
        column, row = divmod(index, rows)
        _write(
            pen, line, (0.02 + 0.48 * column) * image.width, 0.03 * image.height + 1.35 * size_px * row, size_px, colour
        )
    return changed


def burned_in(image: Image.Image, text: str, generator: np.random.Generator) -> Image.Image:
    """A line of text in a corner of the frame, large enough to be read at a model's input size."""
    size_px = max(10, round(0.06 * short_side(image)))
    changed = image.convert("RGB").copy()
    pen = ImageDraw.Draw(changed)
    width = pen.textlength(text, font=ImageFont.load_default(size_px))
    if width > 0.94 * image.width:
        size_px = max(8, int(size_px * 0.94 * image.width / width))
        width = pen.textlength(text, font=ImageFont.load_default(size_px))
    left, top = generator.random(2) < 0.5
    x = 0.03 * image.width if left else 0.97 * image.width - width
    y = 0.03 * image.height if top else 0.95 * image.height - size_px
    _write(pen, text, x, y, size_px, _WHITE)
    return changed


def _gibberish(generator: np.random.Generator) -> str:
    field = _FIELDS[int(generator.integers(len(_FIELDS)))]
    letters = "".join(_CONSONANTS[i] for i in generator.integers(len(_CONSONANTS), size=int(generator.integers(3, 8))))
    digits = "".join(str(i) for i in generator.integers(10, size=int(generator.integers(2, 7))))
    return f"{field}: {letters} {digits}"


def _write(pen: ImageDraw.ImageDraw, text: str, x: float, y: float, size_px: int, colour: tuple[int, int, int]) -> None:
    """Text with a thin dark rim, as it stays legible over mucosa."""
    rim = max(1, size_px // 14)
    pen.text(
        (x, y), text, fill=colour, font=ImageFont.load_default(size_px), stroke_width=rim, stroke_fill=(12, 12, 12)
    )


def instrument(
    image: Image.Image, level: int, generator: np.random.Generator, boxes: Sequence[Box] = ()
) -> Image.Image:
    """Biopsy forceps or a snare that enters from the rim and hides at most `MOST_COVERED` of the area of any box.

    Of several random ways in, the first that keeps to that at the highest level is taken, for all levels alike; where
    none does, the one that hides least, drawn back as far as it takes.
    """
    is_snare = bool(generator.random() < 0.4)
    ways = [_way_in(generator) for _ in range(_PLACEMENTS if boxes else 1)]
    way = _harmless(image, ways, is_snare, boxes)
    back = 1.0
    cover, shade = _shaft(image, way, level, is_snare)
    while _most_hidden(cover, boxes) > MOST_COVERED:
        back -= 0.1
        cover, shade = _shaft(image, way, level, is_snare, back)
    metal: Pixels = np.stack([shade, shade * np.float32(0.99), shade * np.float32(0.97)], axis=-1)
    return to_image(blend(to_pixels(image), metal, cover))


def _harmless(
    image: Image.Image, ways: Sequence[tuple[float, float]], is_snare: bool, boxes: Sequence[Box]
) -> tuple[float, float]:
    """The first way in that hides little of the boxes at the highest level, judged on a small copy; else the best."""
    small = image.copy()
    small.thumbnail((_TRIED_AT, _TRIED_AT))
    hidden: list[float] = []
    for way in ways:
        hidden.append(_most_hidden(_shaft(small, way, len(_INSTRUMENT_REACH), is_snare)[0], boxes))
        if hidden[-1] <= MOST_COVERED:
            return way
    return ways[int(np.argmin(hidden))]


def _way_in(generator: np.random.Generator) -> tuple[float, float]:
    """Where on the rim (angle around the middle) an instrument enters, and by how much it misses the middle."""
    return float(generator.uniform(0, 2 * math.pi)), float(generator.uniform(-0.35, 0.35))


def _shaft(
    image: Image.Image, way: tuple[float, float], level: int, is_snare: bool, back: float = 1.0
) -> tuple[Pixels, Pixels]:
    """Cover and shade, (height, width) each, of an instrument of some level; `back` < 1 draws it back."""
    side = short_side(image)
    angle, miss = way
    reach, width = back * _INSTRUMENT_REACH[level - 1], _INSTRUMENT_WIDTH[level - 1]
    middle = np.array(image.size) / 2
    inward = -np.array([math.cos(angle), math.sin(angle)])
    across = np.array([-inward[1], inward[0]])
    # The rim is the ellipse that the image's sides touch; beyond it most frames are black.
    rim = middle * -inward + middle
    inward = inward + miss * across
    inward /= np.linalg.norm(inward)
    across = np.array([-inward[1], inward[0]])
    tip = rim + inward * reach * side
    start = rim - inward * side
    mask, pen = _mask(image)
    half = 0.5 * width * side
    pen.polygon(
        _corners(start - across * half * 1.25, start + across * half * 1.25, tip + across * half, tip - across * half),
        fill=255,
    )
    (_draw_snare if is_snare else _draw_jaws)(pen, tip, inward, across, half)
    y, x = np.mgrid[0 : image.height, 0 : image.width].astype(np.float32)
    place = ((x - tip[0]) * across[0] + (y - tip[1]) * across[1]) / np.float32(half)  # -1 and 1 are the shaft's edges
    along = ((x - tip[0]) * inward[0] + (y - tip[1]) * inward[1]) / np.float32(half)
    shade = np.float32(0.62) - np.float32(0.34) * np.clip(np.abs(place + 0.2), 0, 1.2) ** 2
    shade += np.float32(0.33) * np.exp(-(((place + 0.35) / np.float32(0.14)) ** 2))  # the light's reflex on metal
    if not is_snare:  # a coil's turns; a snare's sheath is smooth
        shade *= np.where(along < -0.4, 1 - np.float32(0.16) * (np.sin(along * np.float32(9)) > 0.2), 1).astype(
            np.float32
        )
    cover = _shrunk(mask.filter(ImageFilter.GaussianBlur(0.7 * _SCALE)), image)
    return cover, np.clip(shade, 0.06, 1).astype(np.float32)


def _draw_jaws(
    pen: ImageDraw.ImageDraw,
    tip: NDArray[np.float64],
    inward: NDArray[np.float64],
    across: NDArray[np.float64],
    half: float,
) -> None:
    """Two open cups of a biopsy forceps."""
    for way in (-1, 1):
        out = inward * math.cos(0.5) + way * across * math.sin(0.5)
        normal = np.array([-out[1], out[0]])
        root, end = tip + way * across * 0.35 * half, tip + out * 3.1 * half
        pen.polygon(
            _corners(
                root - normal * 0.45 * half,
                end - normal * 0.35 * half,
                end + normal * 0.35 * half,
                root + normal * 0.45 * half,
            ),
            fill=255,
        )
        x, y = end - out * 0.5 * half
        pen.ellipse(_circle(float(x), float(y), 0.68 * half), fill=255)


def _draw_snare(
    pen: ImageDraw.ImageDraw,
    tip: NDArray[np.float64],
    inward: NDArray[np.float64],
    across: NDArray[np.float64],
    half: float,
) -> None:
    """An oval loop of wire."""
    points = []
    for step in range(49):
        t = 2 * math.pi * step / 48
        point = tip + inward * half * 3.2 * (1 - math.cos(t)) + across * half * 2.6 * math.sin(t)
        points.append((float(point[0]) * _SCALE, float(point[1]) * _SCALE))
    pen.line(points, fill=255, width=max(2, round(_SCALE * 0.3 * half)), joint="curve")


def _most_hidden(cover: Pixels, boxes: Sequence[Box]) -> float:
    """The largest share of a box's area that is covered."""
    height, width = cover.shape
    shares = [0.0]
    for box in boxes:
        x0, y0 = int(box.x0 * width), int(box.y0 * height)
        part = cover[y0 : max(y0 + 1, math.ceil(box.y1 * height)), x0 : max(x0 + 1, math.ceil(box.x1 * width))]
        shares.append(float(part.mean()))
    return max(shares)


def _corners(*points: NDArray[np.float64]) -> list[tuple[float, float]]:
    return [(float(point[0]) * _SCALE, float(point[1]) * _SCALE) for point in points]


def _circle(x: float, y: float, radius: float) -> tuple[float, float, float, float]:
    return (x - radius) * _SCALE, (y - radius) * _SCALE, (x + radius) * _SCALE, (y + radius) * _SCALE


def _falling(count: int) -> NDArray[np.float64]:
    """Probabilities that fall from the first on, so that one cluster is the main one."""
    weights = 1.0 / np.arange(1, count + 1)
    shares: NDArray[np.float64] = weights / weights.sum()
    return shares


def _mask(image: Image.Image) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    mask = Image.new("L", (image.width * _SCALE, image.height * _SCALE))
    return mask, ImageDraw.Draw(mask)


def _shrunk(mask: Image.Image, image: Image.Image) -> Pixels:
    """A mask at the image's size, (height, width) in [0, 1]."""
    return np.asarray(mask.resize(image.size, Image.Resampling.BOX), dtype=np.float32) / np.float32(255)
