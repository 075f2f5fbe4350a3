"""Images and their mirror images to one answer of the perception head, by the mean of what it says of each.

Whatever side a lesion lies on, it is the same lesion: what differs between mirror images is the head's error.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gastrovl.core.geometry import flip_horizontal, flip_vertical
from gastrovl.core.types import Box
from gastrovl.model.perception import Located, SeenMap

_ACROSS, _DOWN = 1, 2
_SIDES = (0, _ACROSS, _DOWN, _ACROSS | _DOWN)  # which sides each view has changed, the image itself first


def mirrored(pixels: Tensor, views: int) -> Tensor:
    """Images (images, channels, side, side) in the first `views` views, view by view: (views * images, ...)."""
    return torch.cat([_turned(pixels, sides, rows=2, columns=3) for sides in _SIDES[:views]])


def mirrored_regions(regions: Sequence[Box], views: int) -> list[Box]:
    """The same of a region of each image."""
    return [_moved(box, sides) for sides in _SIDES[:views] for box in regions]


def joined(first: SeenMap, others: SeenMap) -> SeenMap:
    """What is kept of two batches of images, as of one."""
    return SeenMap(
        torch.cat([first.keys, others.keys]),
        torch.cat([first.cells, others.cells]),
        torch.cat([first.frame, others.frame]),
    )


def mean_located(said: Located, views: int) -> Located:
    """What is said of images in views, view by view, to what is said of the images.

    Masks, presence and expected IoU are averaged as logits, boxes side by side, each where it lies in the image.
    """
    if views == 1:
        return said
    parts = [Located(*fields) for fields in zip(*(one.chunk(views) for one in _fields(said)), strict=True)]
    back = [_unmirrored(part, sides) for part, sides in zip(parts, _SIDES, strict=False)]
    return Located(*(torch.stack(fields).mean(dim=0) for fields in zip(*map(_fields, back), strict=True)))


def mean_probabilities(said: Tensor, views: int) -> Tensor:
    """Probabilities (views * images, terms), view by view, to their mean (images, terms)."""
    return torch.stack(said.chunk(views)).mean(dim=0)


def _fields(said: Located) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return said.masks, said.boxes, said.qualities, said.presence


def _unmirrored(said: Located, sides: int) -> Located:
    boxes = _turned(said.boxes, sides, rows=1, columns=2)
    if sides & _ACROSS:
        boxes = torch.stack([1 - boxes[..., 2], boxes[..., 1], 1 - boxes[..., 0], boxes[..., 3]], dim=-1)
    if sides & _DOWN:
        boxes = torch.stack([boxes[..., 0], 1 - boxes[..., 3], boxes[..., 2], 1 - boxes[..., 1]], dim=-1)
    masks, qualities = (_turned(maps, sides, rows=1, columns=2) for maps in (said.masks, said.qualities))
    return Located(masks, boxes, qualities, said.presence)


def _turned(maps: Tensor, sides: int, *, rows: int, columns: int) -> Tensor:
    across = (columns,) if sides & _ACROSS else ()
    down = (rows,) if sides & _DOWN else ()
    return maps.flip((*across, *down)) if sides else maps


def _moved(box: Box, sides: int) -> Box:
    box = flip_horizontal(box) if sides & _ACROSS else box
    return flip_vertical(box) if sides & _DOWN else box
