"""Real frames to altered copies of them, of known kind: what the leak gate must find."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO

from numpy.random import Generator
from PIL import Image, ImageDraw, ImageEnhance, ImageOps

Plant = Callable[[Image.Image, Generator], Image.Image]


def crop(low: float, high: float) -> Plant:
    """Keep `low` to `high` of the area, anywhere in the picture; sides shrink by factors of their own."""

    def plant(picture: Image.Image, rng: Generator) -> Image.Image:
        kept = rng.uniform(low, high)
        share = rng.uniform(0.35, 0.65)  # of the loss, on a log scale, that the width takes
        width = max(8, round(picture.width * kept**share))
        height = max(8, round(picture.height * kept ** (1 - share)))
        left = int(rng.integers(0, picture.width - width + 1))
        top = int(rng.integers(0, picture.height - height + 1))
        return picture.crop((left, top, left + width, top + height))

    return plant


def resize(picture: Image.Image, rng: Generator) -> Image.Image:
    """0.25 to 2 times as large, on a log scale, with one of three filters."""
    factor = 2 ** rng.uniform(-2, 1)
    kind = (Image.Resampling.BILINEAR, Image.Resampling.BICUBIC, Image.Resampling.LANCZOS)[int(rng.integers(3))]
    return picture.resize((max(32, round(picture.width * factor)), max(32, round(picture.height * factor))), kind)


def square(picture: Image.Image, rng: Generator) -> Image.Image:
    """Stretched to a square of 224 to 512 px, as image models are fed."""
    side = int(rng.integers(224, 513))
    return picture.resize((side, side), Image.Resampling.BICUBIC)


def recompress(picture: Image.Image, rng: Generator) -> Image.Image:
    """JPEG of quality 30 to 90."""
    stream = BytesIO()
    picture.save(stream, "JPEG", quality=int(rng.integers(30, 91)))
    return Image.open(BytesIO(stream.getvalue())).convert("RGB")


def brightness(picture: Image.Image, rng: Generator) -> Image.Image:
    return ImageEnhance.Brightness(picture).enhance(rng.uniform(0.6, 1.5))


def contrast(picture: Image.Image, rng: Generator) -> Image.Image:
    return ImageEnhance.Contrast(picture).enhance(rng.uniform(0.6, 1.5))


def gamma(picture: Image.Image, rng: Generator) -> Image.Image:
    power = 2 ** rng.uniform(-0.7, 0.7)
    return picture.point([round(255 * (value / 255) ** power) for value in range(256)] * 3)


def colour(picture: Image.Image, rng: Generator) -> Image.Image:
    """Each channel times 0.8 to 1.2, then the saturation times 0.5 to 1.5."""
    factors = rng.uniform(0.8, 1.2, 3)
    table = [min(255, round(value * factor)) for factor in factors for value in range(256)]
    return ImageEnhance.Color(picture.point(table)).enhance(rng.uniform(0.5, 1.5))


def mirror_left_right(picture: Image.Image, rng: Generator) -> Image.Image:  # noqa: ARG001
    return ImageOps.mirror(picture)


def mirror_up_down(picture: Image.Image, rng: Generator) -> Image.Image:  # noqa: ARG001
    return ImageOps.flip(picture)


def turn_180(picture: Image.Image, rng: Generator) -> Image.Image:  # noqa: ARG001
    return picture.transpose(Image.Transpose.ROTATE_180)


def logo(picture: Image.Image, rng: Generator) -> Image.Image:
    """A disc with letters in it, 12 to 25 % of the shorter side wide, anywhere."""
    size = round(min(picture.size) * rng.uniform(0.12, 0.25))
    left, top = int(rng.integers(0, picture.width - size)), int(rng.integers(0, picture.height - size))
    pasted = picture.copy()
    draw = ImageDraw.Draw(pasted)
    ink = tuple(int(value) for value in rng.integers(0, 256, 3))
    draw.ellipse((left, top, left + size, top + size), fill=ink)
    draw.text((left + size // 4, top + size // 3), "GI", fill=tuple(255 - value for value in ink), font_size=size // 3)
    return pasted


def text(picture: Image.Image, rng: Generator) -> Image.Image:
    """One to four lines of letters, as devices burn them in."""
    pasted = picture.copy()
    draw = ImageDraw.Draw(pasted)
    height = max(10, round(picture.height * rng.uniform(0.03, 0.06)))
    left, top = (int(value) for value in rng.uniform(0, 0.6, 2) * picture.size)
    for line in range(int(rng.integers(1, 5))):
        draw.text(
            (left, top + line * height), f"2026-11-{10 + line} EXAM {rng.integers(10**6)}", "white", font_size=height
        )
    return pasted


def box(picture: Image.Image, rng: Generator) -> Image.Image:
    """A filled rectangle over 3 to 10 % of the area, anywhere."""
    area, aspect = rng.uniform(0.03, 0.10), 2 ** rng.uniform(-1, 1)
    width = round(picture.width * (area * aspect) ** 0.5)
    height = round(picture.height * (area / aspect) ** 0.5)
    left, top = int(rng.integers(0, picture.width - width)), int(rng.integers(0, picture.height - height))
    pasted = picture.copy()
    ink = (0, 0, 0) if rng.random() < 0.5 else tuple(int(value) for value in rng.integers(0, 256, 3))
    ImageDraw.Draw(pasted).rectangle((left, top, left + width, top + height), fill=ink)
    return pasted


def bars(picture: Image.Image, rng: Generator) -> Image.Image:
    """Black bars of up to 20 % at each side, above and below; at least one of 5 % or more."""
    widths = rng.uniform(0, 0.2, 4) * (rng.random(4) < 0.6)
    widths[int(rng.integers(4))] = rng.uniform(0.05, 0.2)
    left, right = (round(picture.width * share) for share in widths[:2])
    top, bottom = (round(picture.height * share) for share in widths[2:])
    return ImageOps.expand(picture, (left, top, right, bottom), fill=(0, 0, 0))


def without_bars(picture: Image.Image, rng: Generator) -> Image.Image:
    """Cut to the pixels above a brightness of 20 to 40: a black border goes, and parts of dark corners with it."""
    level = int(rng.integers(20, 41))
    found = picture.convert("L").point([255 * int(value > level) for value in range(256)]).getbbox()
    return picture.crop(found) if found and min(found[2] - found[0], found[3] - found[1]) >= 32 else picture.copy()


ONE = {
    "crop 90-95 %": crop(0.90, 0.95),
    "crop 80-90 %": crop(0.80, 0.90),
    "crop 70-80 %": crop(0.70, 0.80),
    "resize": resize,
    "square": square,
    "recompress": recompress,
    "brightness": brightness,
    "contrast": contrast,
    "gamma": gamma,
    "colour": colour,
    "left-right": mirror_left_right,
    "up-down": mirror_up_down,
    "180 degrees": turn_180,
    "logo": logo,
    "text": text,
    "box": box,
    "bars": bars,
    "without bars": without_bars,
}
TWO = (
    ("crop 80-90 %", "left-right"),
    ("crop 70-80 %", "recompress"),
    ("crop 80-90 %", "gamma"),
    ("crop 80-90 %", "logo"),
    ("resize", "bars"),
    ("left-right", "colour"),
    ("180 degrees", "text"),
    ("bars", "recompress"),
    ("crop 80-90 %", "bars"),
    ("logo", "brightness"),
)
KINDS: dict[str, tuple[Plant, ...]] = {name: (plant,) for name, plant in ONE.items()} | {
    f"{a} + {b}": (ONE[a], ONE[b]) for a, b in TWO
}
