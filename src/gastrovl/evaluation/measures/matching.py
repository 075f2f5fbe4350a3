"""Two sets of boxes to the one-to-one pairing that is worth most."""

from __future__ import annotations

import math
from collections.abc import Sequence

from gastrovl.core import geometry
from gastrovl.core.types import Box

Pair = tuple[int, int]


def overlaps(true: Sequence[Box], predicted: Sequence[Box]) -> list[list[float]]:
    """IoU of every true box (rows) with every predicted one (columns)."""
    return [[geometry.iou(a, b) for b in predicted] for a in true]


def best_pairs(worth: Sequence[Sequence[float]]) -> list[Pair]:
    """The pairing (row, column), each used at most once, whose summed worth is greatest; exact, O(n^2 m).

    Shortest augmenting paths with potentials (Kuhn 1955, Munkres 1957; in the form of Jonker and Volgenant 1987).
    Rows or columns in surplus stay alone; all of the shorter side is paired, if need be for a worth of zero.
    """
    if not worth or not worth[0]:
        return []
    if len(worth) > len(worth[0]):
        return sorted((row, column) for column, row in best_pairs(list(zip(*worth, strict=True))))
    row_of = _assign([[-value for value in row] for row in worth])
    return sorted((row, column) for column, row in enumerate(row_of) if row >= 0)


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


def _assign(cost: list[list[float]]) -> list[int]:
    """For each column its row, or -1, at the least total cost; needs at most as many rows as columns."""
    rows, columns = len(cost), len(cost[0])
    row_price = [0.0] * (rows + 1)
    column_price = [0.0] * (columns + 1)
    row_of = [0] * (columns + 1)  # rows and columns are counted from 1 here; 0 means none
    for row in range(1, rows + 1):
        row_of[0] = row
        column = 0
        slack = [math.inf] * (columns + 1)
        came_from = [0] * (columns + 1)
        is_used = [False] * (columns + 1)
        while row_of[column] != 0:
            is_used[column] = True
            current = row_of[column]
            step, following = math.inf, 0
            for candidate in range(1, columns + 1):
                if is_used[candidate]:
                    continue
                reduced = cost[current - 1][candidate - 1] - row_price[current] - column_price[candidate]
                if reduced < slack[candidate]:
                    slack[candidate], came_from[candidate] = reduced, column
                if slack[candidate] < step:
                    step, following = slack[candidate], candidate
            for candidate in range(columns + 1):
                if is_used[candidate]:
                    row_price[row_of[candidate]] += step
                    column_price[candidate] -= step
                else:
                    slack[candidate] -= step
            column = following
        while column:
            row_of[column] = row_of[came_from[column]]
            column = came_from[column]
    return [row - 1 for row in row_of[1:]]
