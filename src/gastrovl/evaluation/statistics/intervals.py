"""Measures to 95 % intervals, by a bootstrap over groups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gastrovl.evaluation.measures.measure import Flags, Floats, Measure

LEVEL = 0.95
FEW_GROUPS = 10  # below, a cluster bootstrap is known to be overconfident (Cameron, Gelbach and Miller 2008)
_DRAWS_AT_ONCE = 4_000_000  # groups drawn per chunk of resamples: bounds the memory at some 100 MB


@dataclass(frozen=True)
class Interval:
    """Percentile bounds of a score; `reason` says why there are none, or why they deserve little trust.

    `replicates` are the resampled values, (resamples,).
    """

    low: float | None
    high: float | None
    reason: str | None
    replicates: Floats | None = None


def intervals(
    measures: Sequence[Measure], groups: Sequence[str], *, resamples: int, seed: int, rows: Flags | None = None
) -> list[Interval]:
    """Percentile bootstrap intervals, one per measure, with whole groups drawn with replacement.

    Conversations of one patient, exam or video resemble each other, so groups are the independent units (Davison and
    Hinkley, Bootstrap Methods and their Application, 1997, section 3.8: resample clusters, keep what is inside).

    Args:
        measures: All over the same conversations.
        groups: The group of each conversation.
        resamples: How often to draw; 0 gives no intervals.
        seed: Same seed, same intervals.
        rows: Restrict to these conversations, (conversations,).
    """
    if not measures:
        return []
    chosen = np.ones(len(groups), dtype=np.bool_) if rows is None else rows
    names = np.asarray(groups, dtype=object)[chosen]
    index_of = {name: index for index, name in enumerate(dict.fromkeys(names))}
    codes = np.fromiter((index_of[name] for name in names), dtype=np.int64, count=len(names))
    counts = [len(np.unique(codes[measure.applies[chosen]])) for measure in measures]
    if resamples == 0:
        return [Interval(None, None, "no interval: bootstrap switched off (0 resamples)") for _ in measures]
    if max(counts) < 2:
        return [_without(count) for count in counts]
    sums = np.concatenate([_group_sums(m.counts[chosen], codes, len(index_of)) for m in measures], axis=1)
    totals = resampled_sums(sums, resamples=resamples, seed=seed)
    bounds = np.cumsum([0, *(m.counts.shape[1] for m in measures)])
    return [
        _without(count) if count < 2 else _percentiles(measure.value_of(totals[:, start:stop]), _doubt(count))
        for measure, start, stop, count in zip(measures, bounds[:-1], bounds[1:], counts, strict=True)
    ]


def resampled_sums(sums: Floats, *, resamples: int, seed: int) -> Floats:
    """Column sums over groups drawn with replacement: (groups, k) -> (resamples, k)."""
    count = sums.shape[0]
    generator = np.random.default_rng(seed)
    chunk = max(1, _DRAWS_AT_ONCE // count)
    parts = []
    for start in range(0, resamples, chunk):
        size = min(chunk, resamples - start)
        drawn = generator.integers(0, count, size=(size, count), dtype=np.int64)
        drawn += np.arange(size, dtype=np.int64)[:, None] * count
        times = np.bincount(drawn.ravel(), minlength=size * count).reshape(size, count)
        parts.append(times.astype(np.float64) @ sums)
    return np.concatenate(parts)


def mean_interval(parts: Sequence[Interval]) -> Interval:
    """The interval of an unweighted mean of scores whose groups were drawn independently of each other."""
    replicates = [part.replicates for part in parts if part.replicates is not None]
    if len(replicates) < len(parts):
        return Interval(None, None, next(part.reason for part in parts if part.replicates is None))
    doubts = [part.reason for part in parts if part.reason]
    return _percentiles(np.mean(replicates, axis=0), f"in part, {doubts[0]}" if doubts else None)


def _group_sums(counts: NDArray[Any], codes: NDArray[np.int64], count: int) -> Floats:
    columns = [np.bincount(codes, weights=column, minlength=count) for column in counts.T]
    return np.stack(columns, axis=1)


def _percentiles(replicates: Floats, reason: str | None) -> Interval:
    defined = replicates[~np.isnan(replicates)]
    if defined.size == 0:
        return Interval(None, None, "no interval: the score is undefined in every resample")
    low, high = np.quantile(defined, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(low), float(high), reason, replicates)


def _without(groups: int) -> Interval:
    what = "nothing to score" if groups == 0 else "all conversations belong to one group, so nothing can be resampled"
    return Interval(None, None, f"no interval: {what}")


def _doubt(groups: int) -> str | None:
    """Why an interval is narrower than it should be, where it is."""
    return None if groups >= FEW_GROUPS else f"the interval rests on {groups} groups only, so it is too narrow"
