"""How sure a model was and whether it was right, to calibration, and to what is gained by handing over unsure cases."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gastrovl.evaluation.measures.measure import Flags, Floats, Measure, mean_measure, ratio
from gastrovl.evaluation.measures.weighted import (
    AnyMeasure,
    Counts,
    Indices,
    Kept,
    OfTimes,
    WeightedMeasure,
    counts_before,
    ties,
)

BINS = 15  # as in Guo et al. 2017
RISKS = (0.05, 0.1)
ECE, ECE_ADAPTIVE, BRIER, AURC, E_AURC = "ece", "ece_adaptive", "brier", "aurc", "e_aurc"
CONFIDENCE_AUROC = "confidence_auroc"
LOWER_IS_BETTER = frozenset({ECE, ECE_ADAPTIVE, BRIER, AURC, E_AURC})
NO_CONFIDENCE = "the model gave no confidence"
_ONE_KIND = "needs right and wrong replies that carry a confidence"


@dataclass(frozen=True)
class Bin:
    """One bar of a reliability diagram; the means are None where the bin is empty."""

    low: float
    high: float
    n: int
    mean_confidence: float | None
    accuracy: float | None


@dataclass(frozen=True)
class RiskCoverage:
    """What happens when only replies at least as sure as a threshold are kept; one point a threshold, surest first.

    Attributes:
        thresholds: Confidences that occur, falling, (points,).
        coverage: Share of replies kept, rising to 1, (points,).
        risk: Share of the kept ones that are wrong, (points,).
    """

    thresholds: Floats
    coverage: Floats
    risk: Floats


def coverage_at(risk: float) -> str:
    """Name of the coverage at a stated risk, e.g. "coverage@risk0.05"."""
    return f"coverage@risk{risk:g}"


def measures(confidence: Sequence[float | None], is_right: Sequence[bool] | Flags) -> list[AnyMeasure]:
    """All scores of a model's confidence over the replies that carry one; where none does, all are undefined.

    Lower is better in those of `LOWER_IS_BETTER`, and each is worth something only beside `trivial`.

    ece: expected calibration error, the mean over replies of |accuracy - mean confidence| of their bin, with 15 bins of
        equal width, [low, high), the last closed (Naeini et al. 2015, Guo et al. 2017). Chance lifts it above 0 for a
        perfectly calibrated model, too, the more the fewer replies, and resampling adds to that.
    ece_adaptive: the same with 15 bins of equal numbers of the chosen replies; equal confidences share a bin.
    brier: mean of (confidence - right)^2 (Brier 1950).
    aurc: area under the risk-coverage curve, the mean over k of the error rate among the k surest replies; e_aurc: what
        it exceeds that of the best order of the same replies by, exact for the number of replies (Geifman, Uziel and
        El-Yaniv 2019). Equally sure replies count as in a random order, on average over all of them.
    confidence_auroc: chance that a right reply is surer than a wrong one, ties counting half.
    coverage@risk0.05, coverage@risk0.1: the greatest share of replies that a threshold keeps with at most that share of
        them wrong. The threshold is found on the same replies, so a fresh set may exceed the risk.

    Args:
        confidence: In [0, 1], or None for a reply that carries none; it is not part of any score.
        is_right: Whether each reply is right; an unread one is wrong.
    """
    applies = np.array([one is not None for one in confidence], dtype=np.bool_)
    sure = np.array([0.0 if one is None else one for one in confidence], dtype=np.float64)
    right = np.asarray(is_right, dtype=np.bool_)
    if len(right) != len(sure):
        raise ValueError(f"{len(sure)} confidences and {len(right)} verdicts; expected as many of each")

    def adaptive(rows: Indices) -> OfTimes:
        has = applies[rows]
        of_times = _adaptive_error(sure[rows][has], right[rows][has])
        return lambda times: of_times(times[has])

    def ordered(rows: Indices) -> Kept[dict[str, Floats]]:
        has = applies[rows]
        of_times = _order_scores(sure[rows][has], right[rows][has])
        return Kept(lambda times: of_times(times if has.all() else times[has]))

    shared = Kept(ordered)  # five scores ask for the same counts

    def of_order(name: str, undefined: str = NO_CONFIDENCE) -> WeightedMeasure:
        def of_rows(rows: Indices) -> OfTimes:
            of_times = shared(rows)
            return lambda times: of_times(times)[name]

        return WeightedMeasure(name, of_rows, applies, undefined)

    gaps = np.concatenate([_gaps(sure, right, equal_width(sure)), np.ones((len(sure), 1))], axis=1)
    gaps[~applies] = 0.0
    return [
        Measure(ECE, gaps, _mean_gap, applies, NO_CONFIDENCE),
        WeightedMeasure(ECE_ADAPTIVE, adaptive, applies, NO_CONFIDENCE),
        mean_measure(BRIER, (sure - right) ** 2, applies, NO_CONFIDENCE),
        of_order(AURC),
        of_order(E_AURC),
        of_order(CONFIDENCE_AUROC, _ONE_KIND),
        *(of_order(coverage_at(risk)) for risk in RISKS),
    ]


def trivial(is_right: Sequence[bool] | Flags) -> dict[str, float]:
    """What a model earns that states its accuracy as the confidence of every reply; empty without replies.

    Its calibration is perfect, which is why an ECE alone says little; its order is none, so its AURC is the error rate.
    """
    right = np.asarray(is_right, dtype=np.float64)
    if not len(right):
        return {}
    accuracy = float(right.mean())
    error = 1.0 - accuracy
    best = float(_best_area(np.array([len(right)]), np.array([len(right) - right.sum()], dtype=np.int64))[0])
    return {
        ECE: 0.0,
        ECE_ADAPTIVE: 0.0,
        BRIER: accuracy * error,
        AURC: error,
        E_AURC: error - best,
        CONFIDENCE_AUROC: 0.5,
        **{coverage_at(risk): float(error <= risk) for risk in RISKS},
    }


def reliability(
    confidence: Sequence[float], is_right: Sequence[bool] | Flags, *, is_adaptive: bool = False
) -> list[Bin]:
    """The bars of a reliability diagram, lowest confidence first.

    Args:
        confidence: In [0, 1], of the replies that carry one, (replies,).
        is_right: Whether each of them is right.
        is_adaptive: Bins of equal numbers of replies, with their own least and greatest confidence as borders; empty
            ones are left out. Otherwise 15 bins of equal width.
    """
    sure, right = np.asarray(confidence, dtype=np.float64), np.asarray(is_right, dtype=np.bool_)
    bin_of = equal_mass(sure) if is_adaptive else equal_width(sure)
    bars = []
    for index in range(BINS):
        inside = bin_of == index
        n = int(inside.sum())
        if n:
            low, high = (sure[inside].min(), sure[inside].max()) if is_adaptive else _borders(index)
            bars.append(Bin(float(low), float(high), n, float(sure[inside].mean()), float(right[inside].mean())))
        elif not is_adaptive:
            bars.append(Bin(*_borders(index), 0, None, None))
    return bars


def risk_coverage(confidence: Sequence[float], is_right: Sequence[bool] | Flags) -> RiskCoverage:
    """The risk-coverage curve of replies that carry a confidence, at every threshold that occurs."""
    sure, wrong = np.asarray(confidence, dtype=np.float64), ~np.asarray(is_right, dtype=np.bool_)
    order, _, stop = ties(sure)
    kept = np.unique(stop)
    errors = np.cumsum(wrong[order])[kept - 1] if len(kept) else kept
    return RiskCoverage(sure[order][kept - 1], kept / max(len(sure), 1), errors / np.maximum(kept, 1))


def equal_width(confidence: Floats) -> NDArray[np.int64]:
    """Bin 0..14 of each confidence by its value."""
    return np.minimum((confidence * BINS).astype(np.int64), BINS - 1)


def equal_mass(confidence: Floats) -> NDArray[np.int64]:
    """Bin 0..14 of each confidence by the share of confidences below it, so that equal ones share a bin."""
    below = np.searchsorted(np.sort(confidence), confidence, side="left")
    return (below * BINS) // max(len(confidence), 1)


def _borders(index: int) -> tuple[float, float]:
    return index / BINS, (index + 1) / BINS


def _gaps(confidence: Floats, right: Flags, bin_of: NDArray[np.int64]) -> Floats:
    """Confidence minus verdict in the column of each reply's bin, (replies, bins)."""
    gaps = np.zeros((len(confidence), BINS))
    gaps[np.arange(len(confidence)), bin_of] = confidence - right
    return gaps


def _mean_gap(sums: Floats) -> Floats:
    return ratio(np.abs(sums[:, :-1]).sum(axis=1), sums[:, -1])


def _adaptive_error(confidence: Floats, right: Flags) -> OfTimes:
    gaps = _gaps(confidence, right, equal_mass(confidence))
    gaps = np.concatenate([gaps, np.ones((len(gaps), 1))], axis=1)
    return lambda times: _mean_gap(times.T.astype(np.float64) @ gaps)


def _order_scores(confidence: Floats, right: Flags) -> Callable[[Counts], dict[str, Floats]]:
    """All scores that depend on the order of confidences only, from how often each reply counts, by name.

    Only runs of equally sure replies that hold an error matter to them, so only those are counted out.

    An error at place k raises the error rate of k, .., n replies by one part in each. So a run of m replies with e
    errors behind b others adds to the area e (H(n) - H(b + m)) for the places behind it, H being harmonic numbers, and
    inside it, on average over orders, the sum over j = 1..m of (e j / m) / (b + j) = (e / m) (m - b (H(b + m) - H(b))).
    """
    order, start, stop = ties(confidence)
    is_error = ~right[order]
    starts, counts = np.unique(start[is_error], return_counts=True)
    edges = np.concatenate([starts, np.unique(stop[is_error]), [len(order)]])
    errors_until = np.concatenate([[0], np.cumsum(counts)])

    def of_times(times: Counts) -> dict[str, Floats]:
        places = counts_before(times, order, edges)
        total, before, behind = places[-1], places[: len(starts)], places[len(starts) : -1]
        until = counts_before(times, order[is_error], errors_until)
        wrong, errors = until[-1], np.diff(until, axis=0)
        size = behind - before
        harmonic = _harmonic(int(total.max(initial=0)))
        at_end = harmonic[behind]
        inside = (size - before * (at_end - harmonic[before])) / np.maximum(size, 1)
        area = ratio((errors * (harmonic[total] - at_end + inside)).sum(axis=0), total.astype(np.float64))
        surer = before - until[:-1] + (size - errors) / 2  # right replies that are surer than an error of the run
        pairs = wrong * (total - wrong).astype(np.float64)
        return {
            AURC: area,
            E_AURC: np.maximum(area - _best_area(total, wrong), 0.0),
            CONFIDENCE_AUROC: ratio((errors * surer).sum(axis=0), pairs),
            **{coverage_at(risk): _coverage(risk, before, until, total) for risk in RISKS},
        }

    return of_times


def _coverage(risk: float, before: Indices, until: Indices, total: Indices) -> Floats:
    """The best threshold stands just before a run with errors, or keeps everything: right replies only help.

    Args:
        before: Replies before each run with errors, (runs, draws).
        until: Errors before each such run, and all of them, (runs + 1, draws).
        total: All replies, (draws,).
    """
    kept = np.where(until[:-1] <= risk * before + 1e-9, before, 0).max(axis=0, initial=0)
    kept = np.where(until[-1] <= risk * total + 1e-9, total, kept)
    return ratio(kept.astype(np.float64), total.astype(np.float64))


def _best_area(total: Indices, errors: Indices) -> Floats:
    """AURC of the best order, all errors last: of n replies with e errors, (e - (n - e) (H(n) - H(n - e))) / n."""
    harmonic = _harmonic(int(total.max(initial=0)))
    right = total - errors
    return ratio(errors - right * (harmonic[total] - harmonic[right]), total.astype(np.float64))


def _harmonic(most: int) -> Floats:
    """The sums 1 + 1/2 + .. + 1/k for k = 0..most."""
    return np.concatenate([[0.0], np.cumsum(1.0 / np.arange(1, most + 1))])
