"""What the perception head says of a question, to boxes, labels and how sure it is of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gastrovl.core.components import components
from gastrovl.core.errors import GeometryError
from gastrovl.core.geometry import clip
from gastrovl.core.types import Box
from gastrovl.model.perception import Located, PerceptionHead, SeenMap

PRESENT = 0.5  # presence from which something counts as there, and a label as given
_SHOWN = 0.5  # of a mask
_FINER = 4  # masks are looked at this much finer than they are given
_LEAST_PART = 0.15  # of the largest part's mass, below which another one is noise
_SURE = 0.6  # of the best cell's score: cells that have a say in where the sides are

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Found:
    """A box and how well the head expects it to fit: an IoU in [0, 1], uncalibrated."""

    box: Box
    expected_iou: float


@dataclass(frozen=True)
class Sighting:
    """What is said of one question where something is.

    Attributes:
        presence: In [0, 1].
        found: The boxes, most of the mask first; empty where `presence` is below PRESENT.
        mask: Probability of each fine cell, (side, side).
    """

    presence: float
    found: tuple[Found, ...]
    mask: Floats

    @property
    def confidence(self) -> float:
        """Of the answer as a whole, in [0, 1]: that it is there, times the mean IoU expected; or that it is not."""
        if not self.found:
            return 1.0 - self.presence
        return self.presence * sum(one.expected_iou for one in self.found) / len(self.found)


def sightings(located: Located) -> list[Sighting]:
    """What the head says of pairs of an image and a question, as answers to the questions."""
    finer = torch.nn.functional.interpolate(
        located.masks[:, None].float(), scale_factor=_FINER, mode="bilinear", align_corners=False
    )[:, 0].sigmoid()
    masks, fine = located.masks.float().sigmoid().cpu().numpy(), finer.cpu().numpy()
    boxes, qualities = located.boxes.float().cpu().numpy(), located.qualities.float().sigmoid().cpu().numpy()
    presence = located.presence.float().sigmoid().tolist()
    return [
        Sighting(there, boxes_of(fine[row], boxes[row], qualities[row]) if there >= PRESENT else (), masks[row])
        for row, there in enumerate(presence)
    ]


def boxes_of(mask: Floats, boxes: Floats, qualities: Floats) -> tuple[Found, ...]:
    """One box for each part of a mask: the mean of the part's own extent and of the boxes read in its surest cells.

    Where no pixel reaches one half, half of the highest probability counts as shown: something is there.

    Args:
        mask: Probabilities, (fine side, fine side), a multiple of `side`.
        boxes: Read in each cell, as fractions x0, y0, x1, y1, (side, side, 4).
        qualities: The IoU expected of each, (side, side).
    """
    size, side = mask.shape[0], boxes.shape[0]
    parts = components(mask >= min(_SHOWN, float(mask.max()) / 2))
    marked = np.flatnonzero(parts)
    masses = np.bincount(parts.ravel()[marked], weights=mask.ravel()[marked])
    order = [part for part in np.argsort(-masses).tolist() if masses[part] >= _LEAST_PART * masses.max() > 0]
    found = []
    for part in order:
        is_here = parts == part
        rows, columns = np.flatnonzero(is_here.any(axis=1)), np.flatnonzero(is_here.any(axis=0))
        extent = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]) / size
        shown = (mask * is_here).reshape(side, size // side, side, size // side).mean(axis=(1, 3))
        scores = shown * qualities
        weights = np.where(scores >= _SURE * scores.max(), scores, 0.0)
        weights /= weights.sum()
        read = (boxes * weights[..., None]).sum(axis=(0, 1)).clip(0.0, 1.0)
        corners = (extent + read) / 2 if read[0] < read[2] and read[1] < read[3] else extent
        try:
            box = clip(*(float(value) for value in corners))
        except GeometryError:  # the sides read lie outside the image
            box = clip(*(float(value) for value in extent))
        found.append(Found(box, float((qualities * weights).sum())))
    return tuple(found)


def presence_of(head: PerceptionHead, seen: SeenMap, names: Tensor) -> Tensor:
    """Probability that each image shows each name, (images, names); they need not sum to 1.

    Args:
        names: Mean word embedding of each name, (names, text width).
    """
    count, total = len(seen.cells), len(names)
    images = torch.arange(count, device=names.device).repeat_interleave(total)
    said: Tensor = head.presence(seen, images, head.of_name(names).repeat(count, 1))
    return said.reshape(count, total).sigmoid()


def names_of(head: PerceptionHead, seen: SeenMap, regions: Sequence[Box], names: Tensor) -> Tensor:
    """Probability of each name of the region asked about in each image, (images, names); they sum to 1."""
    images = torch.arange(len(regions), device=names.device)
    boxes = torch.tensor([box.xyxy for box in regions], device=names.device, dtype=names.dtype)
    return head.name(seen, images, boxes, head.of_name(names)).softmax(dim=-1)
