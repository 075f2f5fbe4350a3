"""Two sets of boxes to how well they can be paired one to one."""

from __future__ import annotations

from collections.abc import Sequence

from gastrovl.core import geometry
from gastrovl.core.pairing import best_pairs
from gastrovl.core.types import Box


def overlaps(true: Sequence[Box], predicted: Sequence[Box]) -> list[list[float]]:
    """IoU of every true box (rows) with every predicted one (columns)."""
    return [[geometry.iou(a, b) for b in predicted] for a in true]


def count_pairs(worth: Sequence[Sequence[float]], at_least: float) -> int:
    """The greatest number of one-to-one pairs that are each worth `at_least`."""
    is_enough = [[1.0 if value >= at_least else 0.0 for value in row] for row in worth]
    return sum(1 for row, column in best_pairs(is_enough) if is_enough[row][column] > 0)


def bottleneck(worth: Sequence[Sequence[float]]) -> float:
    """The greatest t such that all rows and columns can be paired with every pair worth at least t.

    Zero when the numbers of rows and columns differ, for then something stays alone.
    """
    if not worth or len(worth) != len(worth[0]):
        return 0.0
    levels = sorted({value for row in worth for value in row})
    low, high = 0, len(levels) - 1  # everything can be paired at the lowest level
    while low < high:
        middle = (low + high + 1) // 2
        if count_pairs(worth, levels[middle]) == len(worth):
            low = middle
        else:
            high = middle - 1
    return levels[low]
