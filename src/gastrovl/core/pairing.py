"""A table of what each pair is worth to the one-to-one pairing that is worth most."""

from __future__ import annotations

import math
from collections.abc import Sequence

Pair = tuple[int, int]


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
