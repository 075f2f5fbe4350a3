"""Boxes drawn on the image they speak of, each with a word or two beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from gastrovl.core import geometry
from gastrovl.core.files import atomic_path
from gastrovl.core.types import Box

# Told apart in any common colour blindness, and from mucosa (Okabe and Ito 2008, without black and red).
COLOURS = ((255, 140, 0), (86, 180, 233), (240, 228, 66), (0, 158, 115), (204, 121, 167))
_INK = (0, 0, 0)


@dataclass(frozen=True)
class Mark:
    """A box, what is written beside it, and which of `COLOURS` it has."""

    box: Box
    words: str = ""
    colour: int = 0


def marked(picture: Image.Image, marks: Sequence[Mark]) -> Image.Image:
    """A copy of the picture with the marks on it; words stand above their box, or inside where there is no room."""
    drawn = picture.convert("RGB")
    drawn = drawn.copy() if drawn is picture else drawn
    pen = ImageDraw.Draw(drawn)
    width_px = max(2, min(drawn.size) // 150)
    font = ImageFont.load_default(size=max(11, min(drawn.size) // 32))
    for mark in marks:
        colour = COLOURS[mark.colour % len(COLOURS)]
        corners = geometry.to_pixels(mark.box, drawn.size)
        pen.rectangle(corners, outline=colour, width=width_px)
        if mark.words:
            _write(pen, mark.words, corners, colour, font, drawn.size)
    return drawn


def save_png(picture: Image.Image, output: Path) -> None:
    """Write a picture as PNG, whole or not at all.

    Raises:
        OutputError: It cannot be written there.
    """
    with atomic_path(Path(output)) as temporary:
        picture.save(temporary, format="PNG")


def _write(
    pen: ImageDraw.ImageDraw,
    words: str,
    corners: tuple[float, float, float, float],
    colour: tuple[int, int, int],
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    size_wh: tuple[int, int],
) -> None:
    left, top, right, bottom = pen.textbbox((0, 0), words, font=font)
    width, height = right - left + 6, bottom - top + 6
    x = max(0.0, min(corners[0], size_wh[0] - width))
    y = corners[1] - height if corners[1] >= height else corners[1]
    pen.rectangle((x, y, x + width, y + height), fill=colour)
    pen.text((x + 3 - left, y + 3 - top), words, fill=_INK, font=font)
