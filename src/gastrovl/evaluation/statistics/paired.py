"""Two models' outcomes on the same questions to the difference between them, its interval and its p value."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gastrovl.evaluation.measures.measure import Flags, Floats, Measure, first_over_second
from gastrovl.evaluation.measures.weighted import AnyMeasure, value_of_any
from gastrovl.evaluation.statistics.intervals import LEVEL, Interval, intervals

FLIPS = 9_999  # random sign flips: the smallest p value they can give is 1 / 10,000
_CELLS_AT_ONCE = 4_000_000  # groups x flips held at once, some 50 MB


@dataclass(frozen=True)
class McNemar:
    """Questions that only one of two models answered rightly, and how likely so uneven a split is by chance.

    Attributes:
        only_first, only_second: Questions that this model alone answered rightly.
        exact: Two-sided binomial p value; `mid_p` counts the observed table half. Both take questions as independent.
        clustered: P value of Obuchowski's test, which takes groups as independent; None with fewer than two groups.
    """

    only_first: int
    only_second: int
    exact: float
    mid_p: float
    clustered: float | None


def mcnemar(is_right_first: Flags, is_right_second: Flags, groups: Sequence[str]) -> McNemar:
    """McNemar's test of two models' right and wrong answers to the same questions, (questions,) each.

    The exact and the mid-p version are those of Fagerland, Lydersen and Laake 2013 (BMC Medical Research Methodology
    13:91); the clustered one is that of Obuchowski 1998 (Statistics in Medicine 17:1495).

    Raises:
        ValueError: The three are not equally long.
    """
    if not len(is_right_first) == len(is_right_second) == len(groups):
        raise ValueError(f"{len(is_right_first)} and {len(is_right_second)} outcomes of {len(groups)} questions")
    first = int((is_right_first & ~is_right_second).sum())
    second = int((is_right_second & ~is_right_first).sum())
    differences = is_right_second.astype(np.float64) - is_right_first
    exact, mid_p = binomial_p(first, second)
    return McNemar(first, second, exact, mid_p, obuchowski_p(differences, groups))


def binomial_p(first: int, second: int) -> tuple[float, float]:
    """Two-sided p value of a split of first + second into two equally likely parts: exact, and mid-p.

    Each is twice the one-sided one, at most 1; the mid-p version counts the observed split half.
    """
    total, fewer = first + second, min(first, second)
    steps = np.arange(1, fewer + 1, dtype=np.float64)
    log_counts = np.concatenate([[0.0], np.cumsum(np.log((total - steps + 1) / steps))])  # of total over 0..fewer
    chances = np.exp(log_counts - total * math.log(2))
    tail = 2 * float(chances.sum())
    return min(1.0, tail), min(1.0, tail - float(chances[-1]))


def obuchowski_p(differences: Floats, groups: Sequence[str]) -> float | None:
    """P value of "the mean difference is zero", with groups as the independent units; None with fewer than two.

    With sums d_g over K groups, (sum d_g)^2 / (K / (K - 1) sum d_g^2) is chi-squared with one degree of freedom: the
    statistic of Obuchowski 1998, whose pooled proportion cancels out of the difference. A large-sample test.

    Args:
        differences: Second minus first outcome of each question, (questions,).
    """
    sums = group_sums(differences, groups)
    if len(sums) < 2:
        return None
    variance = len(sums) / (len(sums) - 1) * float(sums @ sums)
    return math.erfc(abs(float(sums.sum())) / math.sqrt(2 * variance)) if variance > 0 else 1.0


def sign_flip_p(differences: Floats, groups: Sequence[str], *, seed: int, flips: int = FLIPS) -> float | None:
    """P value of "the two models are exchangeable in every group", by swapping them in whole groups at random.

    The permutation test for matched pairs (Fisher 1935; Good 2005), with a group as the pair: valid for any number of
    groups and any dependence inside them. All 2^K swaps are made where there are no more than `flips` of them;
    otherwise `flips` are drawn and p is (1 + as extreme) / (1 + flips) (Davison and Hinkley 1997, section 4.2).

    Args:
        differences: Second minus first outcome of each question, (questions,).

    Returns:
        None when there are fewer than two groups.
    """
    sums = group_sums(differences, groups)
    if len(sums) < 2:
        return None
    sums = sums[sums != 0]  # a swap changes nothing there
    observed = abs(float(sums.sum())) * (1 - 1e-12) - 1e-12
    if 2 ** min(len(sums), 60) <= flips:
        swaps = np.arange(2 ** len(sums))[:, None] >> np.arange(len(sums)) & 1
        return float((_extremes(swaps, sums) >= observed).mean())
    generator = np.random.default_rng(seed)
    step = max(1, _CELLS_AT_ONCE // len(sums))
    extreme = 0
    for start in range(0, flips, step):
        swaps = generator.integers(0, 2, size=(min(step, flips - start), len(sums)), dtype=np.int8)
        extreme += int((_extremes(swaps, sums) >= observed).sum())
    return (1 + extreme) / (1 + flips)


@dataclass(frozen=True)
class Difference:
    """Second minus first value of one metric on the same questions.

    Attributes:
        values: Of the first and of the second model, None where undefined.
        difference: None when either is.
        interval: Percentile bootstrap over groups; `interval.replicates` are the resampled differences.
        p: Two-sided, by the bootstrap; None when there is no interval.
        n, groups: Conversations and groups that the metric is about.
    """

    metric: str
    values: tuple[float | None, float | None]
    difference: float | None
    interval: Interval
    p: float | None
    n: int
    groups: int


def differences(
    first: Sequence[AnyMeasure],
    second: Sequence[AnyMeasure],
    groups: Sequence[str],
    *,
    resamples: int,
    seed: int,
    rows: Flags | None = None,
) -> list[Difference]:
    """Differences of each metric between two models, by a bootstrap that draws the same groups for both.

    The p value inverts the percentile interval: 2 (1 + the smaller number of resampled differences on either side of
    zero) / (1 + resamples), at most 1. So it is below 0.05 where the 95 % interval leaves zero out, up to one draw. The
    +1 is that of Davison and Hinkley 1997, section 4.2: no finite number of draws shows that p is zero.

    Args:
        first, second: The same metrics in the same order, over the same conversations.
        groups, resamples, seed, rows: As in `intervals`.

    Raises:
        ValueError: The metrics or the conversations they are about differ.
    """
    for a, b in zip(first, second, strict=True):
        if a.metric != b.metric or not np.array_equal(a.applies, b.applies):
            raise ValueError(f"{a.metric!r} and {b.metric!r} are not the same metric over the same conversations")
    if not first:
        return []
    found = intervals([*first, *second], groups, resamples=resamples, seed=seed, rows=rows)
    chosen = np.ones(len(groups), dtype=np.bool_) if rows is None else rows
    names = np.asarray(groups, dtype=object)
    return [
        _difference(a, b, of_a, of_b, chosen, names)
        for a, b, of_a, of_b in zip(first, second, found[: len(first)], found[len(first) :], strict=True)
    ]


def outcomes(measure: AnyMeasure, rows: Flags | None = None) -> Floats | None:
    """The values whose plain mean a measure is, (conversations it applies to,); None if it is no plain mean."""
    if not isinstance(measure, Measure):
        return None
    chosen = measure.applies if rows is None else measure.applies & rows
    counts = measure.counts[chosen]
    is_mean = measure.value_of is first_over_second and counts.shape[1] == 2 and bool(np.all(counts[:, 1] == 1))
    return counts[:, 0].astype(np.float64) if is_mean else None


def group_sums(values: NDArray[Any], groups: Sequence[str]) -> Floats:
    """Sum of the values of each group, (groups,), in the order of first appearance."""
    index_of: dict[str, int] = {}
    codes = np.fromiter((index_of.setdefault(name, len(index_of)) for name in groups), np.int64, count=len(groups))
    return np.bincount(codes, weights=values, minlength=len(index_of)).astype(np.float64)


def _difference(
    first: AnyMeasure, second: AnyMeasure, of_first: Interval, of_second: Interval, rows: Flags, names: NDArray[Any]
) -> Difference:
    values = value_of_any(first, rows), value_of_any(second, rows)
    about = rows & first.applies
    n, groups = int(about.sum()), len(set(names[about]))
    if values[0] is None or values[1] is None:
        return Difference(first.metric, values, None, Interval(None, None, first.undefined), None, n, groups)
    interval, p = _interval(of_first, of_second)
    return Difference(first.metric, values, values[1] - values[0], interval, p, n, groups)


def _interval(first: Interval, second: Interval) -> tuple[Interval, float | None]:
    if first.replicates is None or second.replicates is None:
        return Interval(None, None, first.reason or second.reason), None
    replicates = second.replicates - first.replicates
    defined = replicates[~np.isnan(replicates)]
    if defined.size == 0:
        return Interval(None, None, "no interval: the difference is undefined in every resample"), None
    fewer = min(int((defined <= 0).sum()), int((defined >= 0).sum()))
    p = min(1.0, 2 * (1 + fewer) / (1 + defined.size))
    low, high = np.quantile(defined, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(low), float(high), first.reason, replicates), p


def _extremes(swaps: NDArray[Any], sums: Floats) -> Floats:
    """|sum| after each set of swaps, (sets,)."""
    totals: Floats = np.abs(sums.sum() - 2 * (swaps.astype(np.float64) @ sums))
    return totals
