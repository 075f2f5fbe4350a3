"""Counts to exact intervals of a proportion."""

from __future__ import annotations

import math

import numpy as np

_STEPS = 60  # of a bisection of [0, 1]: far below the digits that are shown


def exact_interval(count: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """The interval of Clopper and Pearson (Biometrika 26:404, 1934) around count / n.

    It is exact for independent trials; where trials come in groups that resemble each other it is too narrow.

    Raises:
        ValueError: n is zero, or the count is not among 0 ... n.
    """
    if n < 1 or not 0 <= count <= n:
        raise ValueError(f"{count} of {n}; expected 0 <= count <= n and n >= 1")
    tail = (1 - level) / 2
    low = 0.0 if count == 0 else _where_tail_is(count, n, tail)
    high = 1.0 if count == n else 1 - _where_tail_is(n - count, n, tail)
    return low, high


def _where_tail_is(count: int, n: int, tail: float) -> float:
    """The p at which `count` or more of n trials succeed with that probability; it grows with p."""
    hits = np.arange(count, n + 1)
    ways = np.array([math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) for k in hits.tolist()])
    low, high = 0.0, 1.0
    for _ in range(_STEPS):
        p = (low + high) / 2
        found = float(np.exp(ways + hits * math.log(p) + (n - hits) * math.log1p(-p)).sum())
        low, high = (p, high) if found < tail else (low, p)
    return (low + high) / 2
