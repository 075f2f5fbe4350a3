"""Places in a picture to the picture with them painted over, by one colour or by what surrounds them.

Both ways are simple on purpose: they take a shortcut away from a classifier and a name away from a reader. They invent
no mucosa, and a painted place is no evidence of anything.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gastrovl.core.types import Box

RING = 0.02  # width of the surroundings that are looked at, of the shorter side
SMALL = 160  # longer side of the copy on which diffusion runs
STEPS = 400


def paint_over(picture: Image.Image, boxes: Sequence[Box], *, inpaint: bool) -> Image.Image:
    """A copy of an RGB picture with `boxes` painted over; everything outside them is as it was.

    Args:
        inpaint: Diffuse the surroundings into each place (the heat equation, solved by averaging neighbours on a small
            copy: Bertalmio et al., SIGGRAPH 2000, without its transport of edges); else fill it with their mean colour.
    """
    if not boxes:
        return picture
    mask = _mask(boxes, picture.size)
    pixels = np.asarray(picture).copy()
    if mask.all():
        return Image.fromarray(np.zeros_like(pixels))
    pixels[mask] = _diffused(picture, mask)[mask] if inpaint else _ring_colours(pixels, mask, boxes)[mask]
    return Image.fromarray(pixels)


def _mask(boxes: Sequence[Box], size_wh: tuple[int, int]) -> NDArray[np.bool_]:
    mask = np.zeros((size_wh[1], size_wh[0]), dtype=np.bool_)
    for box in boxes:
        mask[_slices(box, size_wh)] = True
    return mask


def _slices(box: Box, size_wh: tuple[int, int], ring: int = 0) -> tuple[slice, slice]:
    width, height = size_wh
    return (
        slice(max(0, int(box.y0 * height) - ring), min(height, int(np.ceil(box.y1 * height)) + ring)),
        slice(max(0, int(box.x0 * width) - ring), min(width, int(np.ceil(box.x1 * width)) + ring)),
    )


def _ring_colours(pixels: NDArray[np.uint8], mask: NDArray[np.bool_], boxes: Sequence[Box]) -> NDArray[np.uint8]:
    """Each box filled with the mean of the unmasked pixels around it, or of the whole picture when there are none."""
    height, width = mask.shape
    ring = max(2, round(RING * min(width, height)))
    filled = pixels.copy()
    everywhere = pixels[~mask].mean(axis=0)
    for box in boxes:
        around = _slices(box, (width, height), ring)
        free = pixels[around][~mask[around]]
        filled[_slices(box, (width, height))] = np.round(free.mean(axis=0) if len(free) else everywhere)
    return filled


def _diffused(picture: Image.Image, mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """The picture with its masked places relaxed towards the mean of their neighbours, brought back to full size."""
    scale = min(1.0, SMALL / max(picture.size))
    size = (max(2, round(picture.width * scale)), max(2, round(picture.height * scale)))
    # a cell of the small copy that a masked pixel touches is unknown
    unknown = np.asarray(Image.fromarray(mask.astype(np.uint8) * 255).resize(size, Image.Resampling.BOX)) > 0
    small = np.asarray(picture.resize(size, Image.Resampling.BOX)).astype(np.float32)
    if unknown.all():
        return np.asarray(picture)
    small[unknown] = small[~unknown].mean(axis=0)
    for _ in range(STEPS):
        padded = np.pad(small, ((1, 1), (1, 1), (0, 0)), mode="edge")
        mean = (padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:]) / 4
        small[unknown] = mean[unknown]
    back = Image.fromarray(np.round(small).astype(np.uint8)).resize(picture.size, Image.Resampling.BILINEAR)
    return np.asarray(back)
