"""Boxes of training to the one that, said of every image without looking, is right most often."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gastrovl.core import geometry
from gastrovl.core.types import Box
from gastrovl.evaluation.measures.corners import Corners, corners, ious

_CANDIDATES, _JUDGED = 200, 1000  # boxes at most, spread evenly over those of training


def best_fixed_box(boxes: Sequence[Box]) -> Box:
    """Of some of the boxes and their mean, the one that most of them overlap at IoU >= 0.5; then by mean IoU.

    It is a stronger prior than the mean of all corners: where boxes are of two kinds, their mean is of neither.

    Args:
        boxes: At least one.
    """
    rows = corners(boxes)
    candidates = np.concatenate([_spread(rows, _CANDIDATES), rows.mean(axis=0, keepdims=True)])
    judged = _spread(rows, _JUDGED)
    best, chosen = (-1.0, -1.0), rows[0]
    for candidate in candidates:
        overlap = ious(judged, np.broadcast_to(candidate, judged.shape))
        worth = float((overlap >= 0.5).mean()), float(overlap.mean())
        if worth > best:
            best, chosen = worth, candidate
    x0, y0, x1, y1 = chosen.tolist()
    return Box(x0=x0, y0=y0, x1=x1, y1=y1)


def hull_of(boxes: Sequence[Box]) -> Box:
    """The smallest box around all."""
    return geometry.hull(tuple(boxes))


def largest_of(boxes: Sequence[Box]) -> Box:
    """The largest box; among equals the leftmost, then the topmost."""
    return min(boxes, key=lambda box: (-box.area, *box.xyxy))


def _spread(rows: Corners, most: int) -> Corners:
    return rows[:: -(-len(rows) // most)]
