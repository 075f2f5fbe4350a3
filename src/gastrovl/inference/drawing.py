"""A reply's boxes drawn on the image it speaks of."""

from __future__ import annotations

from pathlib import Path

from PIL import ImageDraw

from gastrovl.core import boxtext, geometry
from gastrovl.core.errors import BoxTextError
from gastrovl.core.files import atomic_path
from gastrovl.core.images import open_image
from gastrovl.core.types import Box

_COLOUR = (255, 140, 0)


def draw_reply(image: Path, reply: str, output: Path) -> int:
    """Write `image` with every box of `reply` to a PNG; returns how many boxes there were (none is no error).

    Raises:
        ImageError: The image cannot be read.
    """
    picture = open_image(image)
    boxes = _boxes(reply)
    pen = ImageDraw.Draw(picture)
    width_px = max(2, min(picture.size) // 150)
    for box in boxes:
        pen.rectangle(geometry.to_pixels(box, picture.size), outline=_COLOUR, width=width_px)
    with atomic_path(Path(output)) as temporary:
        picture.save(temporary, format="PNG")
    return len(boxes)


def _boxes(reply: str) -> tuple[Box, ...]:
    try:
        return boxtext.decode_boxes(reply)
    except BoxTextError:
        return ()
