"""A mask to its connected parts."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def components(mask: NDArray[Any]) -> NDArray[np.int64]:
    """Number of the 8-connected part each pixel of a mask belongs to, from 1 in reading order; 0 outside, (h, w)."""
    edges = np.diff(np.pad(mask != 0, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    rows, starts = np.nonzero(edges == 1)  # runs of marked pixels, in reading order
    ends = np.nonzero(edges == -1)[1]
    parent = list(range(len(rows)))
    first_of_row = np.searchsorted(rows, np.arange(mask.shape[0] + 1)).tolist()
    begins, finishes = starts.tolist(), ends.tolist()
    for row in range(1, mask.shape[0]):
        above, below = first_of_row[row - 1], first_of_row[row]
        while above < first_of_row[row] and below < first_of_row[row + 1]:
            if begins[above] <= finishes[below] and begins[below] <= finishes[above]:  # corners touch too
                first, second = sorted((_root(parent, above), _root(parent, below)))
                parent[second] = first
            if finishes[above] < finishes[below]:  # the one that ends first meets nothing further to the right
                above += 1
            else:
                below += 1
    roots = [_root(parent, run) for run in range(len(rows))]
    numbers = {root: number for number, root in enumerate(sorted(set(roots)), start=1)}
    found = np.zeros(mask.shape, dtype=np.int64)
    for row, start, end, root in zip(rows.tolist(), begins, finishes, roots, strict=True):
        found[row, start:end] = numbers[root]
    return found


def _root(parent: list[int], run: int) -> int:
    while parent[run] != run:
        parent[run] = parent[parent[run]]
        run = parent[run]
    return run
