"""Boxes found in an image to crops around them, and what is found in those to better boxes.

A tower sees a square of a few hundred pixels at most; of a small lesion in a large image little is left in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gastrovl.core.geometry import from_pixels, into_window, iou, out_of_window, to_whole_pixels
from gastrovl.core.types import Box
from gastrovl.inference.head.perceiving import Found, Sighting
from gastrovl.model.processor import GastroVLProcessor

SAME = 0.5  # IoU from which two boxes are of one lesion

# Chosen on a validation split of 117 real lesions; margins of 0.1-0.3 and sides of 0.3-0.45 differ by 0.02 mean IoU.
MARGIN = 0.2  # of the box's longer side, on each side of it
SMALLEST = 0.4  # side of a window, as a share of the image: below, it is blown up more than any view of training
LARGEST = 0.9  # of a window: above, it shows what was seen already


@dataclass(frozen=True)
class Crop:
    """A second look: at the `place`-th box of the `image`-th image, in a window of whole pixels."""

    image: int
    place: int
    window: Box


def crops_of(said: Sequence[Sighting], images: Sequence[Image.Image]) -> list[Crop]:
    """One for each box that is small enough to gain by it."""
    return [
        Crop(number, place, from_pixels(to_whole_pixels(window, image.size), image.size))
        for number, (sighting, image) in enumerate(zip(said, images, strict=True))
        for place, one in enumerate(sighting.found)
        if (window := window_around(one.box))
    ]


def window_around(box: Box) -> Box | None:
    """A part of the image around a box, as wide as high in fractions, so that nothing in it is distorted further.

    Returns:
        None where it would be nearly the whole image.
    """
    side = max(max(box.x1 - box.x0, box.y1 - box.y0) * (1 + 2 * MARGIN), SMALLEST)
    if side > LARGEST:
        return None
    x0, y0 = (min(max((low + high - side) / 2, 0.0), 1.0 - side) for low, high in ((box.x0, box.x1), (box.y0, box.y1)))
    return Box(x0=x0, y0=y0, x1=min(x0 + side, 1.0), y1=min(y0 + side, 1.0))


def squares_of(crops: Sequence[Crop], images: Sequence[Image.Image], processor: GastroVLProcessor) -> NDArray[np.uint8]:
    """What the tower sees of crops, (crops, side, side, 3) uint8."""
    return np.stack(
        [
            processor.square(images[crop.image].crop(to_whole_pixels(crop.window, images[crop.image].size)))
            for crop in crops
        ]
    )


def refined(said: Sequence[Sighting], crops: Sequence[Crop], seen: Sequence[Sighting]) -> list[Sighting]:
    """The sightings with each box replaced by what its crop shows, where that is expected to fit better.

    Of several boxes in a crop, the one that overlaps the first look's most is meant. Two boxes do not become one.
    """
    found = [list(sighting.found) for sighting in said]
    for crop, closer in zip(crops, seen, strict=True):
        boxes = found[crop.image]
        chosen = better(boxes[crop.place], closer, crop.window)
        others = (*boxes[: crop.place], *boxes[crop.place + 1 :])
        if all(iou(chosen.box, other.box) < SAME for other in others):
            boxes[crop.place] = chosen
    return [replace(sighting, found=tuple(boxes)) for sighting, boxes in zip(said, found, strict=True)]


def better(first: Found, closer: Sighting, window: Box) -> Found:
    """The box of the first look, or that of the second if it is expected to fit better."""
    inside = into_window(first.box, window)
    if inside is None or not closer.found:
        return first
    meant = max(closer.found, key=lambda one: iou(one.box, inside))
    if meant.expected_iou <= first.expected_iou or iou(meant.box, inside) == 0.0:
        return first
    return Found(out_of_window(meant.box, window), meant.expected_iou)
