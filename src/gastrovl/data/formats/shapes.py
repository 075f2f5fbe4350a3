"""Drawn outlines to boxes: what the readers of annotation tools share, which store pixels of labelled shapes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, Literal

from gastrovl.core.config import Config
from gastrovl.core.errors import SourceError
from gastrovl.core.types import Box
from gastrovl.data.annotation import box_of_pixels
from gastrovl.data.images import ImageFile


class ShapeOptions(Config):
    """What the formats of annotation tools have in common.

    Attributes:
        outside: A shape that leaves its image by more than a pixel is refused, or "clip" keeps the part inside.
        skip_shapes: Kinds of shape without an area that are left out, e.g. [point, polyline]; others are refused.
    """

    outside: Literal["refuse", "clip"] = "refuse"
    skip_shapes: tuple[str, ...] = ()


def box_of_shape(
    corners: Sequence[Any], options: ShapeOptions, image: ImageFile, where: str, *, box_order: str = "xyxy"
) -> Box | None:
    """The box of four pixel numbers, clipped to the image where the options say so; None when the image is broken.

    Raises:
        SourceError: One is no finite number, or the box is reversed, empty or outside the image.
    """
    numbers = finite_numbers(corners, 4, where)
    if image.size_wh is None:
        return None
    if options.outside == "clip":
        numbers, box_order = _clipped(numbers, box_order, image.size_wh, where), "xyxy"
    return box_of_pixels(numbers, box_order, image.size_wh, where)


def box_of_points(points: Iterable[Sequence[Any]], options: ShapeOptions, image: ImageFile, where: str) -> Box | None:
    """The smallest box that holds all points (x, y) of an outline, in pixels; None when the image is broken.

    Raises:
        SourceError: A point is no pair of finite numbers, or the points span no area inside the image.
    """
    pairs = [finite_numbers(point, 2, where) for point in points]
    if len(pairs) < 2:
        raise SourceError(
            f"{where}: an outline of {len(pairs)} points has no area; expected at least two. Draw it again, or list "
            "its kind under `skip_shapes` in the source description"
        )
    xs, ys = [x for x, _ in pairs], [y for _, y in pairs]
    return box_of_shape((min(xs), min(ys), max(xs), max(ys)), options, image, where)


def finite_numbers(values: Any, count: int, where: str) -> tuple[float, ...]:
    """`count` finite numbers from JSON or XML values.

    Raises:
        SourceError: There are more or fewer, or one is none.
    """
    try:
        if isinstance(values, str | bytes | dict) or any(isinstance(value, bool) for value in values):
            raise TypeError("not a list of numbers")
        numbers = tuple(float(value) for value in values)
        if len(numbers) != count or not all(math.isfinite(number) for number in numbers):
            raise ValueError("too many, too few, or not finite")
    except (TypeError, ValueError, OverflowError) as error:
        raise SourceError(
            f"{where}: found {str(values)[:120]}, expected {count} finite numbers in pixels; correct that entry"
        ) from error
    return numbers


def check_size(stated: Sequence[Any], image: ImageFile, where: str) -> None:
    """Refuse annotations of an image of another size, because pixels of one mean nothing in the other.

    Args:
        stated: Width and height in pixels as the annotation file says; (None, None) when it says nothing.

    Raises:
        SourceError: The image has another size.
    """
    width, height = stated
    if image.size_wh is None or (width is None and height is None):
        return
    numbers = finite_numbers((width, height), 2, f"{where}: size of the image")
    if numbers != image.size_wh:
        swapped = " with width and height swapped" if numbers[::-1] == image.size_wh else ""
        raise SourceError(
            f"{where}: states an image of {width}x{height} px{swapped}, but {image.path} has {image.size_wh[0]}x"
            f"{image.size_wh[1]}; expected the same size. Copy the original image, because the boxes are in its pixels"
        )


def is_skipped(kind: str, known: Sequence[str], options: ShapeOptions, where: str) -> bool:
    """Whether shapes of a kind are left out.

    Raises:
        SourceError: The kind has no area, and the options do not say to leave it out.
    """
    if kind in options.skip_shapes:
        return True
    if kind not in known:
        raise SourceError(
            f"{where}: found a shape of kind {kind!r}, expected one of {', '.join(known)}; list the kind under "
            "`skip_shapes` in the source description to leave it out"
        )
    return False


def _clipped(
    numbers: tuple[float, ...], box_order: str, size_wh: tuple[int, int], where: str
) -> tuple[float, float, float, float]:
    """Corners of the part of a box that lies in the image; a reversed box is handed on for its own message."""
    x0, y0, x1, y1 = numbers
    if box_order == "xywh":
        if x1 <= 0 or y1 <= 0:
            box_of_pixels(numbers, box_order, size_wh, where)  # raises
        x1, y1 = x0 + x1, y0 + y1
    width, height = size_wh
    if x0 < x1 and y0 < y1 and (x1 <= 0 or y1 <= 0 or x0 >= width or y0 >= height):
        raise SourceError(
            f"{where}: box {x0:g} {y0:g} {x1:g} {y1:g} lies outside the image of {width}x{height} px; expected a part "
            "of it inside. Check that the annotation belongs to this image"
        )
    return max(x0, 0.0), max(y0, 0.0), min(x1, float(width)), min(y1, float(height))
