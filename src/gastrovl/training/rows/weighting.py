"""A packed row to the same row with answers weighed by length, so that long captions do not drown short labels."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from gastrovl.model.gastrovl import IGNORED
from gastrovl.training.config import LengthWeighting
from gastrovl.training.rows.packing import PackedRow

_POWERS: dict[LengthWeighting, float] = {"token": 0.0, "sqrt": 0.5, "dialogue": 1.0}


def weigh_lengths(row: PackedRow, how: LengthWeighting) -> PackedRow:
    """The row with each dialogue's weights divided by a power of how many answer tokens it has.

    Args:
        how: `token` leaves each token its weight; `dialogue` lets each dialogue count 1 in total; `sqrt` lets it count
            the square root of its answer tokens. Other weights (of tasks, of digits) multiply on top.
    """
    power = _POWERS[how]
    if power == 0.0:
        return row
    lengths = Counter(segment for segment, label in zip(row.segments, row.labels, strict=True) if label != IGNORED)
    weights = [
        weight / lengths[segment] ** power if weight else 0.0
        for segment, weight in zip(row.segments, row.weights, strict=True)
    ]
    return replace(row, weights=weights)
