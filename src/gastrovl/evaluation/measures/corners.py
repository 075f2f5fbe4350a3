"""Boxes to rows of corners, and two tables of rows to their overlap, row by row."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from gastrovl.core.types import Box
from gastrovl.evaluation.measures.measure import Flags, Floats

Corners = NDArray[np.float64]


def corners(boxes: Sequence[Box]) -> Corners:
    """x0, y0, x1, y1 of each box, (boxes, 4)."""
    flat = chain.from_iterable((box.x0, box.y0, box.x1, box.y1) for box in boxes)
    return np.fromiter(flat, dtype=np.float64, count=4 * len(boxes)).reshape(-1, 4)


def areas(rows: Corners) -> Floats:
    """Area of each row, (rows,)."""
    found: Floats = (rows[:, 2] - rows[:, 0]) * (rows[:, 3] - rows[:, 1])
    return found


def ious(a: Corners, b: Corners) -> Floats:
    """Intersection over union of row i of `a` with row i of `b`, in [0, 1], as `core.geometry.iou` computes it."""
    width = np.minimum(a[:, 2], b[:, 2]) - np.maximum(a[:, 0], b[:, 0])
    height = np.minimum(a[:, 3], b[:, 3]) - np.maximum(a[:, 1], b[:, 1])
    overlap = np.where((width > 0) & (height > 0), width * height, 0.0)
    return np.minimum(overlap / (areas(a) + areas(b) - overlap), 1.0)


def gious(a: Corners, b: Corners) -> Floats:
    """Generalised IoU row by row, in [-1, 1] (Rezatofighi et al. 2019), as `core.geometry.giou` computes it."""
    cover = areas(np.concatenate([np.minimum(a[:, :2], b[:, :2]), np.maximum(a[:, 2:], b[:, 2:])], axis=1))
    overlap = ious(a, b)
    union = (areas(a) + areas(b)) / (1.0 + overlap)
    found: Floats = overlap - np.maximum(cover - union, 0.0) / cover
    return found


def centre_hits(true: Corners, predicted: Corners) -> Flags:
    """Whether the centre of each predicted row lies inside its true row, borders included."""
    centre = (predicted[:, :2] + predicted[:, 2:]) / 2
    is_inside = (true[:, :2] <= centre) & (centre <= true[:, 2:])
    return is_inside[:, 0] & is_inside[:, 1]
