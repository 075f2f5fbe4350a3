"""Levels that two or more raters gave the same replies, to coefficients of agreement as measures over replies.

Every coefficient is a function of sums over replies, so that it has the form of `measures.measure.Measure`, and its
interval comes from the same bootstrap over groups as every other score's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gastrovl.evaluation.measures.measure import Floats, Measure, ratio

Weights = Literal["none", "linear", "quadratic"]
Form = Literal["2,1", "2,k", "3,1"]
_NOTHING = 1e-9  # of a sum of squares: what rounding leaves of zero
_SAME = "all ratings are the same, so agreement beyond chance is not defined"
_NO_SPREAD = "the ratings do not vary, so there is nothing to agree about"


def same_share(first: ArrayLike, second: ArrayLike) -> Measure:
    """Share of replies to which two raters gave the same level; each (replies,)."""
    a, b = _levels(first), _levels(second)
    counts = np.stack([(a == b).astype(np.float64), np.ones(len(a))], axis=1)
    return _measure("same level", counts, lambda sums: ratio(sums[:, 0], sums[:, 1]), "nothing was rated by both")


def cohen_kappa(first: ArrayLike, second: ArrayLike, levels: int, weights: Weights = "none") -> Measure:
    """Kappa of two raters: one less observed over expected disagreement (Cohen 1960; weighted: Cohen 1968).

    Args:
        first, second: Levels in 0 ... levels - 1, (replies,).
        weights: How disagreement grows with the distance of levels; "none": any two differ alike.
    """
    a, b = _levels(first), _levels(second)
    distance = np.abs(np.arange(levels)[:, None] - np.arange(levels)[None]).astype(np.float64)
    loss = {"none": (distance > 0).astype(np.float64), "linear": distance, "quadratic": distance**2}[weights]

    def value_of(sums: Floats) -> Floats:
        table = sums.reshape(-1, levels, levels)
        n = table.sum(axis=(1, 2))
        expected = table.sum(axis=2)[:, :, None] * table.sum(axis=1)[:, None, :]
        return 1 - ratio((loss * table).sum(axis=(1, 2)) * n, (loss * expected).sum(axis=(1, 2)))

    name = "Cohen's kappa" if weights == "none" else f"Cohen's kappa, {weights}"
    return _measure(name, _pairs(a, b, levels, levels), value_of, _SAME)


def spearman(first: ArrayLike, second: ArrayLike) -> Measure:
    """Rank correlation of two series of numbers, (replies,), ties at the mean of their ranks (Spearman 1904)."""
    (_, a), (_, b) = (np.unique(np.asarray(one), return_inverse=True) for one in (first, second))
    rows, columns = (int(one.max(initial=0)) + 1 for one in (a, b))

    def ranks(margin: Floats) -> Floats:
        """Mean rank of each value, centred, (draws, values)."""
        mean: Floats = np.cumsum(margin, axis=1) - margin / 2 - margin.sum(axis=1, keepdims=True) / 2
        return mean

    def value_of(sums: Floats) -> Floats:
        table = sums.reshape(-1, rows, columns)
        of_a, of_b = table.sum(axis=2), table.sum(axis=1)
        x, y = ranks(of_a), ranks(of_b)
        spread = np.sqrt((of_a * x**2).sum(axis=1) * (of_b * y**2).sum(axis=1))
        return ratio(np.einsum("nij,ni,nj->n", table, x, y), spread)

    return _measure("Spearman", _pairs(a, b, rows, columns), value_of, _NO_SPREAD)


def fleiss_kappa(table: ArrayLike, levels: int) -> Measure:
    """Kappa of several raters (Fleiss, Psychological Bulletin 76:378, 1971), all levels differing alike.

    Args:
        table: Levels, (replies, raters), without gaps.
    """
    given = np.asarray(table, dtype=np.int64)
    raters = given.shape[1]
    counts = np.stack([(given == level).sum(axis=1) for level in range(levels)], axis=1).astype(np.float64)
    same = ((counts**2).sum(axis=1) - raters) / (raters * (raters - 1))

    def value_of(sums: Floats) -> Floats:
        observed = ratio(sums[:, 0], sums[:, 1])
        share = sums[:, 2:] / np.maximum(sums[:, 1:2] * raters, 1)
        chance = (share**2).sum(axis=1)
        return ratio(observed - chance, _or_zero(1 - chance, 1.0))

    columns = np.concatenate([same[:, None], np.ones((len(given), 1)), counts], axis=1)
    return _measure("Fleiss' kappa", columns, value_of, _SAME)


def icc(table: ArrayLike, form: Form) -> Measure:
    """Intraclass correlation of Shrout and Fleiss, Psychological Bulletin 86:420 (1979), two-way analysis of variance.

    "2,1" and "2,k": raters stand for all raters, and one who is always a level higher disagrees; of one rater, and of
    the mean of these k. "3,1": these raters only, and what is constant between them does not count.

    Args:
        table: Numbers, (replies, raters), without gaps.
    """
    values = np.asarray(table, dtype=np.float64)
    values = values - (values.mean() if values.size else 0.0)  # the coefficients do not see a shift, rounding does
    k = values.shape[1]
    columns = np.stack([np.ones(len(values)), (values**2).sum(axis=1), values.sum(axis=1) ** 2 / k], axis=1)

    def value_of(sums: Floats) -> Floats:
        n, squares, rows, totals = sums[:, 0], sums[:, 1], sums[:, 2], sums[:, 3:]
        n = np.where(n > 1, n, np.nan)
        mean = totals.sum(axis=1) ** 2 / (n * k)
        between_raters = (totals**2).sum(axis=1) / n - mean
        msr, msc = (rows - mean) / (n - 1), between_raters / (k - 1)
        mse = np.maximum(squares - rows - between_raters, 0.0) / ((n - 1) * (k - 1))
        below = {
            "2,1": msr + (k - 1) * mse + k * (msc - mse) / n,
            "2,k": msr + (msc - mse) / n,
            "3,1": msr + (k - 1) * mse,
        }[form]
        return ratio(msr - mse, _or_zero(np.nan_to_num(below), np.maximum(squares / np.where(n > 1, n, 1), 1.0)))

    return _measure(f"ICC({form})", np.concatenate([columns, values], axis=1), value_of, _NO_SPREAD)


def krippendorff_alpha(table: ArrayLike, levels: int, metric: Literal["nominal", "ordinal"] = "ordinal") -> Measure:
    """Alpha of any number of raters with gaps (Krippendorff, Content Analysis, 2004, section 11.3).

    Args:
        table: Levels, (replies, raters), NaN where a rater gave none; a reply with fewer than two does not count.
    """
    values = np.asarray(table, dtype=np.float64)
    each = np.stack([(values == level).sum(axis=1) for level in range(levels)], axis=1).astype(np.float64)
    given = each.sum(axis=1)
    pairs = each[:, :, None] * each[:, None, :] - np.eye(levels) * each[:, :, None]
    pairs /= np.maximum(given - 1, 1)[:, None, None]

    def value_of(sums: Floats) -> Floats:
        table = sums.reshape(-1, levels, levels)
        of_level = table.sum(axis=2)
        n = of_level.sum(axis=1)
        loss = _losses(of_level, metric)
        expected = (of_level[:, :, None] * of_level[:, None, :] * loss).sum(axis=(1, 2))
        return 1 - ratio((n - 1) * (table * loss).sum(axis=(1, 2)), expected)

    counts = pairs.reshape(len(values), -1)
    return Measure(f"Krippendorff's alpha, {metric}", counts, value_of, given >= 2, _SAME)


def _losses(of_level: Floats, metric: str) -> Floats:
    """Krippendorff's squared differences of levels, (draws, levels, levels)."""
    levels = of_level.shape[1]
    if metric == "nominal":
        return np.broadcast_to(1.0 - np.eye(levels), (len(of_level), levels, levels))
    middle = np.cumsum(of_level, axis=1) - of_level / 2  # how many stand below the middle of a level
    losses: Floats = (middle[:, :, None] - middle[:, None, :]) ** 2
    return losses


def _measure(name: str, counts: NDArray[Any], value_of: Callable[[Floats], Floats], undefined: str) -> Measure:
    return Measure(name, counts, value_of, np.ones(len(counts), dtype=np.bool_), undefined)


def _levels(values: ArrayLike) -> NDArray[np.int64]:
    return np.asarray(values, dtype=np.int64)


def _pairs(a: NDArray[np.int64], b: NDArray[np.int64], rows: int, columns: int) -> Floats:
    """One cell of a table of rows x columns for each reply, flat, (replies, rows * columns)."""
    counts = np.zeros((len(a), rows * columns))
    counts[np.arange(len(a)), a * columns + b] = 1.0
    return counts


def _or_zero(values: Floats, scale: Floats | float) -> Floats:
    """Values, with what is nothing beside `scale` set to zero, so that a ratio of it is undefined."""
    return np.where(np.abs(values) > _NOTHING * scale, values, 0.0)


def of_two(first: Sequence[int], second: Sequence[int], levels: int) -> list[Measure]:
    """All coefficients of two raters who rated the same replies."""
    both = np.stack([np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)], axis=1)
    weights: tuple[Weights, ...] = ("none", "linear", "quadratic")
    return [
        same_share(first, second),
        *(cohen_kappa(first, second, levels, one) for one in weights),
        icc(both, "2,1"),
        spearman(first, second),
    ]


def of_many(table: ArrayLike, levels: int) -> list[Measure]:
    """All coefficients of several raters; those that bear no gaps are taken over replies that all of them rated."""
    values = np.asarray(table, dtype=np.float64)
    whole: NDArray[np.bool_] = np.asarray(~np.isnan(values).any(axis=1), dtype=np.bool_)
    full = np.where(whole[:, None], values, 0.0)
    forms: tuple[Form, ...] = ("2,1", "2,k", "3,1")
    found = [fleiss_kappa(full[whole], levels), *(icc(full[whole], form) for form in forms)]
    return [*(_spread(one, whole) for one in found), krippendorff_alpha(values, levels)]


def _spread(measure: Measure, rows: NDArray[np.bool_]) -> Measure:
    """A measure over some replies as one over all of them."""
    counts = np.zeros((len(rows), measure.counts.shape[1]))
    counts[rows] = measure.counts
    return Measure(measure.metric, counts, measure.value_of, rows, measure.undefined)
