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

Mask = NDArray[np.bool_]

RING = 0.02  # width of the surroundings that are looked at, of the shorter side
SMALL = 160  # longer side of the copy on which diffusion runs
COARSEST = 8  # shorter side at which it begins
STEPS = 24  # at each size; a coarser one has carried the colours across by then


def paint_over(picture: Image.Image, boxes: Sequence[Box], *, inpaint: bool) -> Image.Image:
    """A copy of an RGB picture with `boxes` painted over; everything outside them is as it was.

    Args:
        inpaint: Diffuse the surroundings into each place (the heat equation, solved by averaging neighbours on a small
            copy: Bertalmio et al., SIGGRAPH 2000, without its transport of edges); else fill it with their mean colour.
    """
    if not boxes:
        return picture
    mask = covered(boxes, picture.size)
    if mask.all():
        return Image.new("RGB", picture.size)
    if not inpaint:
        return _filled(picture, mask, boxes)
    return Image.composite(_diffused(picture, mask), picture, Image.fromarray(mask))


def covered(boxes: Sequence[Box], size_wh: tuple[int, int]) -> Mask:
    """The pixels that boxes touch in a picture of this size, (height, width)."""
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


def _filled(picture: Image.Image, mask: Mask, boxes: Sequence[Box]) -> Image.Image:
    """Each box filled with the mean of the unmasked pixels around it, or of the whole picture when there are none."""
    pixels = np.array(picture)
    ring = max(2, round(RING * min(picture.size)))
    fills = []
    for box in boxes:
        around = _slices(box, picture.size, ring)
        free = pixels[around][~mask[around]]
        fills.append(np.round((free if len(free) else pixels[~mask]).mean(axis=0)))
    for box, colour in zip(boxes, fills, strict=True):
        pixels[_slices(box, picture.size)] = colour
    return Image.fromarray(pixels)


def _diffused(picture: Image.Image, mask: Mask) -> Image.Image:
    """The picture with its masked places relaxed towards the mean of their neighbours, at a low resolution.

    From coarse to fine: what a coarse copy has settled is where a finer one begins.
    """
    scale = min(1.0, SMALL / max(picture.size))
    width, height = (max(1, round(side * scale)) for side in picture.size)
    sizes = [(width, height)]
    while min(sizes[-1]) >= 2 * COARSEST:
        sizes.append(((sizes[-1][0] + 1) // 2, (sizes[-1][1] + 1) // 2))
    shade = Image.fromarray(mask.astype(np.uint8) * 255)
    small = picture.resize(sizes[0], Image.Resampling.BOX)
    result: Image.Image | None = None
    for size in reversed(sizes):
        # a pixel of a copy that a masked one touches is unknown
        unknown = np.asarray(shade.resize(size, Image.Resampling.BOX)) > 0
        pixels = np.asarray(small.resize(size, Image.Resampling.BOX)).astype(np.float32)
        if unknown.all():  # too coarse
            continue
        begin = pixels[~unknown].mean(axis=0) if result is None else np.asarray(result.resize(size))[unknown]
        pixels[unknown] = begin
        _relax(pixels, unknown)
        result = Image.fromarray(np.round(pixels).astype(np.uint8))
    return (result or picture).resize(picture.size, Image.Resampling.BILINEAR)


def _relax(pixels: NDArray[np.float32], unknown: Mask) -> None:
    """Replace unknown pixels by the mean of their four neighbours, STEPS times, in place."""
    rows, columns = np.flatnonzero(unknown.any(axis=1)), np.flatnonzero(unknown.any(axis=0))
    place = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    inside = unknown[place][..., None]
    height, width = inside.shape[:2]
    whole = np.pad(pixels, ((1, 1), (1, 1), (0, 0)), mode="edge")
    window = whole[rows[0] : rows[0] + height + 2, columns[0] : columns[0] + width + 2]
    for _ in range(STEPS):
        mean = (window[:-2, 1:-1] + window[2:, 1:-1] + window[1:-1, :-2] + window[1:-1, 2:]) / 4
        np.copyto(window[1:-1, 1:-1], mean, where=inside)
        for edge, beside in ((0, 1), (-1, -2)):  # past the picture's edge stands what is at it
            if (rows[0] == 0) if edge == 0 else (rows[-1] == len(unknown) - 1):
                window[edge] = window[beside]
            if (columns[0] == 0) if edge == 0 else (columns[-1] == unknown.shape[1] - 1):
                window[:, edge] = window[:, beside]
    pixels[place] = window[1:-1, 1:-1]
