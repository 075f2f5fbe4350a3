"""Box arithmetic on fractions of an image: overlap, conversion from pixels and masks, and image transforms."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gastrovl.core.errors import GeometryError
from gastrovl.core.types import Box


def iou(a: Box, b: Box) -> float:
    """Intersection over union in [0, 1], continuous areas (no +1 pixel)."""
    width = min(a.x1, b.x1) - max(a.x0, b.x0)
    height = min(a.y1, b.y1) - max(a.y0, b.y0)
    if width <= 0 or height <= 0:
        return 0.0
    overlap = width * height
    return min(overlap / (a.area + b.area - overlap), 1.0)


def giou(a: Box, b: Box) -> float:
    """Generalised IoU in [-1, 1], never above the IoU (Rezatofighi et al., CVPR 2019)."""
    cover = hull((a, b)).area
    overlap = iou(a, b)
    union = (a.area + b.area) / (1.0 + overlap)
    return overlap - max(cover - union, 0.0) / cover


def hull(boxes: tuple[Box, ...]) -> Box:
    """The smallest box that holds all of `boxes`.

    Raises:
        GeometryError: There is none.
    """
    if not boxes:
        raise GeometryError("a hull of no boxes was asked for; expected at least one box")
    return Box(
        x0=min(box.x0 for box in boxes),
        y0=min(box.y0 for box in boxes),
        x1=max(box.x1 for box in boxes),
        y1=max(box.y1 for box in boxes),
    )


def from_pixels(boxes_px: tuple[float, float, float, float], size_wh: tuple[int, int]) -> Box:
    """A box from pixel edges (x0, y0, x1, y1) of an image of `size_wh` pixels.

    Raises:
        GeometryError: The box is reversed, empty, or more than one pixel outside the image.
    """
    width, height = size_wh
    x0, y0, x1, y1 = boxes_px
    if not (x0 < x1 and y0 < y1):
        raise GeometryError(
            f"pixel box {boxes_px} is reversed or empty; expected (x0, y0, x1, y1) with x0 < x1 and y0 < y1. "
            "If the source stores (x, y, width, height), say so in its description (`box_order: xywh`)"
        )
    if x1 <= 0 or y1 <= 0 or x0 >= width or y0 >= height:
        raise GeometryError(
            f"pixel box {boxes_px} lies outside the image of {width}x{height} px; "
            "check the image belongs to this annotation"
        )
    if min(x0, y0) < -1 or x1 > width + 1 or y1 > height + 1:
        raise GeometryError(
            f"pixel box {boxes_px} leaves the image of {width}x{height} px by more than one pixel; "
            "check the image belongs to this annotation and that corners, not widths, are given"
        )
    return Box(
        x0=min(max(x0 / width, 0.0), 1.0),
        y0=min(max(y0 / height, 0.0), 1.0),
        x1=min(max(x1 / width, 0.0), 1.0),
        y1=min(max(y1 / height, 0.0), 1.0),
    )


def to_pixels(box: Box, size_wh: tuple[int, int]) -> tuple[float, float, float, float]:
    """Pixel edges (x0, y0, x1, y1) of `box` in an image of `size_wh` pixels."""
    width, height = size_wh
    return box.x0 * width, box.y0 * height, box.x1 * width, box.y1 * height


def to_whole_pixels(box: Box, size_wh: tuple[int, int]) -> tuple[int, int, int, int]:
    """Pixel edges of `box` rounded to whole pixels; edges that meet are parted, so that it stays a box."""
    width, height = size_wh
    x0, x1 = on_grid(box.x0, box.x1, width)
    y0, y1 = on_grid(box.y0, box.y1, height)
    return x0, y0, x1, y1


def on_grid(low: float, high: float, steps: int) -> tuple[int, int]:
    """Two edges in fractions as whole steps 0-`steps`; edges that meet are parted towards the side they came from."""
    first, second = math.floor(low * steps + 0.5), math.floor(high * steps + 0.5)
    if first < second:
        return first, second
    is_below = (low + high) / 2 * steps < first or first == steps
    return (first - 1, first) if is_below else (first, first + 1)


def from_centre(centre_x: float, centre_y: float, width: float, height: float) -> Box:
    """A box from its centre and size in fractions (the YOLO convention), clipped to the image."""
    return clip(centre_x - width / 2, centre_y - height / 2, centre_x + width / 2, centre_y + height / 2)


def clip(x0: float, y0: float, x1: float, y1: float) -> Box:
    """The part of a box in fractions that lies inside the image.

    Raises:
        GeometryError: Nothing of it does, or the corners are reversed.
    """
    if x0 < x1 and y0 < y1 and (x1 <= 0.0 or y1 <= 0.0 or x0 >= 1.0 or y0 >= 1.0):
        raise GeometryError(f"box {(x0, y0, x1, y1)} lies outside the image; expected a part of it within [0, 1]")
    return Box(x0=max(x0, 0.0), y0=max(y0, 0.0), x1=min(x1, 1.0), y1=min(y1, 1.0))


def from_mask(mask: NDArray[Any]) -> Box:
    """The tight box around the non-zero pixels of a mask, (height, width).

    Raises:
        GeometryError: The mask is empty, or is no single plane.
    """
    if mask.ndim != 2:
        raise GeometryError(f"the mask has shape {mask.shape}; expected one plane, (height, width)")
    rows = np.flatnonzero(mask.any(axis=1))
    columns = np.flatnonzero(mask.any(axis=0))
    if rows.size == 0:
        raise GeometryError("the mask has no pixel set; expected at least one")
    height, width = mask.shape
    return Box(
        x0=float(columns[0]) / width,
        y0=float(rows[0]) / height,
        x1=float(columns[-1] + 1) / width,
        y1=float(rows[-1] + 1) / height,
    )


def flip_horizontal(box: Box) -> Box:
    """The box after the image was mirrored left to right."""
    return Box(x0=1.0 - box.x1, y0=box.y0, x1=1.0 - box.x0, y1=box.y1)


def flip_vertical(box: Box) -> Box:
    """The box after the image was mirrored top to bottom."""
    return Box(x0=box.x0, y0=1.0 - box.y1, x1=box.x1, y1=1.0 - box.y0)


def into_window(box: Box, window: Box) -> Box | None:
    """The box in fractions of a cropped `window`, or None when it lies outside."""
    width, height = window.x1 - window.x0, window.y1 - window.y0
    x0, x1 = max(box.x0, window.x0), min(box.x1, window.x1)
    y0, y1 = max(box.y0, window.y0), min(box.y1, window.y1)
    if x0 >= x1 or y0 >= y1:
        return None
    inside = ((x0 - window.x0) / width, (y0 - window.y0) / height, (x1 - window.x0) / width, (y1 - window.y0) / height)
    try:
        return clip(*inside)
    except GeometryError:  # thinner than floating point can tell
        return None


def out_of_window(box: Box, window: Box) -> Box:
    """The inverse of `into_window`: a box of the crop in fractions of the whole image."""
    width, height = window.x1 - window.x0, window.y1 - window.y0
    return clip(
        window.x0 + box.x0 * width,
        window.y0 + box.y0 * height,
        window.x0 + box.x1 * width,
        window.y0 + box.y1 * height,
    )


def into_padded(box: Box, image_wh: tuple[int, int], canvas_wh: tuple[int, int], offset_xy: tuple[int, int]) -> Box:
    """The box in fractions of a canvas onto which the image was pasted at `offset_xy` pixels."""
    x0, y0, x1, y1 = to_pixels(box, image_wh)
    dx, dy = offset_xy
    return from_pixels((x0 + dx, y0 + dy, x1 + dx, y1 + dy), canvas_wh)
