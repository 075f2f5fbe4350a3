"""Measures to 95 % intervals, by a bootstrap over groups."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gastrovl.evaluation.measures.measure import Flags, Floats, Measure
from gastrovl.evaluation.measures.weighted import AnyMeasure, Counts, OfTimes

LEVEL = 0.95
FEW_GROUPS = 10  # below, a cluster bootstrap is known to be overconfident (Cameron, Gelbach and Miller 2008)
_DRAWS_AT_ONCE = 16_000_000  # groups drawn per chunk of resamples: bounds the memory at some 200 MB
_EXACT = 2.0**24  # whole numbers below are exact in single precision
_CELLS_AT_ONCE = 4_000_000  # conversations x resamples handed to a weighted measure: some 50 MB


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
    measures: Sequence[AnyMeasure], groups: Sequence[str], *, resamples: int, seed: int, rows: Flags | None = None
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
    found = _replicates(measures, codes, np.flatnonzero(chosen), resamples=resamples, seed=seed)
    return [
        _without(count) if count < 2 else _percentiles(replicates, _doubt(count))
        for count, replicates in zip(counts, found, strict=True)
    ]


def resampled_sums(sums: Floats, *, resamples: int, seed: int) -> Floats:
    """Column sums over groups drawn with replacement: (groups, k) -> (resamples, k)."""
    chunks = drawn_groups(len(sums), resamples=resamples, seed=seed)
    return np.concatenate([times.astype(np.float64) @ sums for times in chunks])


def drawn_groups(count: int, *, resamples: int, seed: int) -> Iterator[Counts]:
    """How often each of `count` groups is drawn, in chunks (resamples of the chunk, groups); every row sums to count.

    The draws depend on `count`, `resamples` and `seed` alone, so all measures see the same ones.
    """
    generator = np.random.default_rng(seed)
    chunk = max(1, _DRAWS_AT_ONCE // count)
    for start in range(0, resamples, chunk):
        times = np.empty((min(chunk, resamples - start), count), dtype=np.int32)
        for row in times:
            row[:] = np.bincount(generator.integers(0, count, size=count, dtype=np.int64), minlength=count)
        yield times


def _replicates(
    measures: Sequence[AnyMeasure],
    codes: NDArray[np.int64],
    chosen: NDArray[np.int64],
    *,
    resamples: int,
    seed: int,
) -> list[Floats]:
    """Each measure over the same resamples, (resamples,) each; `codes` are the groups of the `chosen` conversations."""
    count = int(codes.max()) + 1
    sums = _sums_of_groups([one for one in measures if isinstance(one, Measure)], codes, chosen, count)
    weighted = [one.of_rows(chosen) for one in measures if not isinstance(one, Measure)]
    parts: list[list[Floats]] = []
    for times in drawn_groups(count, resamples=resamples, seed=seed):
        as_floats = {dtype: times.astype(dtype) for dtype in {of_group.dtype for of_group in sums.values()}}
        totals = {key: (as_floats[one.dtype] @ one).astype(np.float64) for key, one in sums.items()}
        of_times = iter(_of_times(weighted, times, codes))
        parts.append(
            [one.value_of(totals[id(one.counts)]) if isinstance(one, Measure) else next(of_times) for one in measures]
        )
    return [np.concatenate(of_one) for of_one in zip(*parts, strict=True)]


def _sums_of_groups(
    measures: Sequence[Measure], codes: NDArray[np.int64], chosen: NDArray[np.int64], count: int
) -> dict[int, NDArray[Any]]:
    """The sums of each array of counts over groups, by its identity: measures that share one are summed once."""
    arrays = {id(one.counts): one.counts for one in measures}
    return {key: _group_sums(counts, codes, chosen, count) for key, counts in arrays.items()}


def _group_sums(counts: NDArray[Any], codes: NDArray[np.int64], chosen: NDArray[np.int64], count: int) -> NDArray[Any]:
    """Sums over groups, (groups, k): in single precision, half as large and twice as fast, where that is exact."""
    columns = counts.T
    sums = np.empty((count, len(columns)), dtype=np.float32 if _is_small(counts) else np.float64)
    for index, column in enumerate(columns):
        sums[:, index] = np.bincount(codes, weights=column[chosen], minlength=count)
    is_exact = sums.dtype == np.float64 or count * float(sums.max(initial=0.0)) < _EXACT
    return sums if is_exact else sums.astype(np.float64)


def _is_small(counts: NDArray[Any]) -> bool:
    """Whether all sums of these whole numbers over any groups are exact in single precision."""
    return counts.dtype.kind in "bu" and len(counts) * float(counts.max(initial=0)) < _EXACT


def _of_times(weighted: Sequence[OfTimes], times: Counts, codes: NDArray[np.int64]) -> list[Floats]:
    """Each weighted measure over the draws of one chunk, a few draws at a time."""
    if not weighted:
        return []
    step = max(1, _CELLS_AT_ONCE // len(codes))
    parts: list[list[Floats]] = []
    for start in range(0, len(times), step):
        of_groups = np.ascontiguousarray(times[start : start + step].T)
        of_rows = of_groups[codes]
        parts.append([value_of(of_rows) for value_of in weighted])
    return [np.concatenate(of_one) for of_one in zip(*parts, strict=True)]


def mean_interval(parts: Sequence[Interval]) -> Interval:
    """The interval of an unweighted mean of scores whose groups were drawn independently of each other."""
    replicates = [part.replicates for part in parts if part.replicates is not None]
    if len(replicates) < len(parts):
        return Interval(None, None, next(part.reason for part in parts if part.replicates is None))
    doubts = [part.reason for part in parts if part.reason]
    return _percentiles(np.mean(replicates, axis=0), f"in part, {doubts[0]}" if doubts else None)


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
