"""How often each question counts to one metric of it: the form of measures that are no function of sums."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from gastrovl.evaluation.measures.measure import Flags, Floats, Measure, value

Counts = NDArray[np.int32]
Indices = NDArray[np.int64]
V = TypeVar("V")
OfTimes = Callable[[Counts], Floats]


@dataclass(frozen=True)
class WeightedMeasure:
    """One metric that depends on the order of its conversations, e.g. average precision, beside `Measure`.

    Attributes:
        metric: Name in the results, e.g. "mean_ap".
        of_rows: From the chosen conversations, indices (k,) in rising order, to a function from how often each of them
            counts, whole numbers >= 0, (k, draws), to the metric of each draw, (draws,), NaN where it is undefined.
            What can be sorted once for all draws is sorted there.
        applies: Which conversations the metric is about, (conversations,).
        undefined: Why the metric has no value when it gives NaN.
    """

    metric: str
    of_rows: Callable[[Indices], OfTimes]
    applies: Flags
    undefined: str


class Kept(Generic[V]):
    """A function of one array that keeps its last result, for measures that need the same of the same array."""

    def __init__(self, function: Callable[[NDArray[Any]], V]) -> None:
        self._function = function
        self._last: tuple[NDArray[Any], V] | None = None

    def __call__(self, array: NDArray[Any]) -> V:
        if self._last is None or self._last[0] is not array:
            self._last = (array, self._function(array))
        return self._last[1]


AnyMeasure = Measure | WeightedMeasure


def weighted_value(measure: WeightedMeasure, rows: Flags | None = None) -> float | None:
    """The metric over the chosen conversations, each counted once; None when it is undefined there."""
    chosen = np.arange(len(measure.applies)) if rows is None else np.flatnonzero(rows)
    found = float(measure.of_rows(chosen)(np.ones((len(chosen), 1), dtype=np.int32))[0])
    return None if np.isnan(found) else found


def value_of_any(measure: AnyMeasure, rows: Flags | None = None) -> float | None:
    """The metric of either form over the chosen conversations, None when it is undefined there."""
    return value(measure, rows) if isinstance(measure, Measure) else weighted_value(measure, rows)


def counts_before(times: Counts, order: Indices, stops: Indices) -> NDArray[np.int64]:
    """How often the conversations before each stop of an order count in all.

    Args:
        times: How often each conversation counts, (conversations, draws).
        order: Conversations, best first, (k,).
        stops: Places in `order`, rising, each in 0..k, (stops,); equal ones are allowed.

    Returns:
        Sums over `order[:stop]`, (stops, draws).
    """
    distinct, place = np.unique(stops, return_inverse=True)
    inner = distinct[distinct > 0]
    sums = np.zeros((len(distinct), times.shape[1]), dtype=np.int64)
    if inner.size:
        starts = np.concatenate([[0], inner[:-1]])
        parts = np.add.reduceat(times[order[: inner[-1]]], starts, axis=0, dtype=np.int32)
        np.cumsum(parts, axis=0, dtype=np.int64, out=sums[len(distinct) - len(inner) :])
    return sums[place]


def ties(scores: NDArray[Any]) -> tuple[Indices, Indices, Indices]:
    """The order of scores from the highest down, and where the run of equals of each place in it starts and stops.

    Returns:
        order, start, stop, each (scores,); the equals of `order[i]` are `order[start[i]:stop[i]]`.
    """
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    is_first = np.ones(len(ranked), dtype=np.bool_)
    is_first[1:] = ranked[1:] != ranked[:-1]
    firsts = np.append(np.flatnonzero(is_first), len(ranked))
    run = np.cumsum(is_first) - 1
    return order, firsts[run], firsts[run + 1]
