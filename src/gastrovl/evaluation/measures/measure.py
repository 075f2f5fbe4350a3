"""Per-question counts to one metric over any set of questions: the form in which all measures are kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Measure:
    """One metric in the form that lets it be summed over any set of conversations.

    Attributes:
        metric: Name in the results, e.g. "accuracy".
        counts: Sufficient statistics of each conversation, (conversations, k); zero where it does not apply.
        value_of: Sums, (rows, k), to the metric, (rows,), NaN where it is undefined.
        applies: Which conversations the metric is about, (conversations,).
        undefined: Why the metric has no value when `value_of` gives NaN.
    """

    metric: str
    counts: NDArray[Any]
    value_of: Callable[[Floats], Floats]
    applies: Flags
    undefined: str


def mean_measure(metric: str, values: NDArray[Any], applies: Flags, undefined: str) -> Measure:
    """The plain mean of `values`, (conversations,), over the conversations it applies to."""
    counts = np.stack([np.where(applies, values, 0.0), applies], axis=1).astype(np.float64)
    return Measure(metric, counts, first_over_second, applies, undefined)


def first_over_second(sums: Floats) -> Floats:
    """Column 0 over column 1, NaN where column 1 is zero."""
    return ratio(sums[:, 0], sums[:, 1])


def ratio(numerator: Floats, denominator: Floats) -> Floats:
    """Element-wise quotient, NaN where the denominator is zero."""
    quotient: Floats = np.full(numerator.shape, np.nan)
    np.divide(numerator, denominator, out=quotient, where=denominator != 0)
    return quotient


def mean_of_defined(values: Floats) -> Floats:
    """Mean over the columns that are not NaN, (rows, k) -> (rows,); NaN where all are."""
    is_defined = ~np.isnan(values)
    return ratio(np.where(is_defined, values, 0.0).sum(axis=1), is_defined.sum(axis=1).astype(np.float64))


def value(measure: Measure, rows: Flags | None = None) -> float | None:
    """The metric over the chosen conversations, None when it is undefined there."""
    counts = measure.counts if rows is None else measure.counts[rows]
    found = float(measure.value_of(counts.sum(axis=0, dtype=np.float64)[None])[0])
    return None if np.isnan(found) else found
