"""True label sets and a probability for each label, to mean average precision and area under the ROC curve."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gastrovl.evaluation.measures.measure import Flags, Floats, mean_of_defined, ratio
from gastrovl.evaluation.measures.weighted import Counts, Indices, OfTimes, WeightedMeasure, counts_before, ties

Labels = frozenset[str]
Probabilities = Mapping[str, float]
MEAN_AP = "mean_ap"
MACRO_AUROC = "macro_auroc"
NO_PROBABILITIES = "the model gave no probabilities of labels"


@dataclass(frozen=True)
class ClassRanking:
    """How well one label's probability ranks the conversations that have it above those that do not.

    `average_precision` is None without a conversation that has the label, `auroc` also without one that lacks it.
    `prevalence` is the share that has it: the average precision of one probability for all.
    """

    label: str
    n_true: int
    prevalence: float
    average_precision: float | None
    auroc: float | None


def measures(true: Sequence[Labels], given: Sequence[Probabilities | None]) -> list[WeightedMeasure]:
    """Mean average precision and mean AUROC over the labels that occur in the truth of the chosen conversations.

    mean_ap: mean over labels of the sum over falling probabilities of (step in recall) x precision, no interpolation;
        equal probabilities are one step, so their order cannot matter.
    macro_auroc: mean over labels of the chance that a conversation with the label has the higher probability, equal
        ones counting half (Mann and Whitney 1947). A label that all conversations have is left out.

    Args:
        true: All true labels of each conversation.
        given: Probability in [0, 1] by label; a label that is not named has 0. None: the reply gave none, which counts
            as 0 of every label, unless no reply of the chosen conversations gave any: then both are undefined.
    """
    has_some = np.array([one is not None for one in given], dtype=np.bool_)
    names, truth, scores = _tables(true, given)

    def of_rows(score: _Score) -> Callable[[Indices], OfTimes]:
        return lambda rows: _macro(score, truth[rows], scores[rows], is_defined=bool(has_some[rows].any()))

    applies = np.full(len(true), bool(has_some.any()))
    why = NO_PROBABILITIES if names else "no conversation with a label to rank"
    return [
        WeightedMeasure(MEAN_AP, of_rows(average_precision), applies, why),
        WeightedMeasure(MACRO_AUROC, of_rows(auroc), applies, why),
    ]


def per_class(true: Sequence[Labels], given: Sequence[Probabilities | None]) -> list[ClassRanking]:
    """Each label that occurs in the truth, by name; empty where no reply gave probabilities."""
    if all(one is None for one in given):
        return []
    names, truth, scores = _tables(true, given)
    once = np.ones((len(true), 1), dtype=np.int32)
    return [
        ClassRanking(
            label=name,
            n_true=int(truth[:, column].sum()),
            prevalence=float(truth[:, column].mean()),
            average_precision=_number(average_precision(truth[:, column], scores[:, column])(once)),
            auroc=_number(auroc(truth[:, column], scores[:, column])(once)),
        )
        for column, name in enumerate(names)
    ]


def chance(true: Sequence[Labels]) -> dict[str, float | None]:
    """What one probability for everything earns: the mean prevalence as mean_ap, and 0.5 as macro_auroc."""
    names, truth, _ = _tables(true, [None] * len(true))
    return {MEAN_AP: float(truth.mean()) if names else None, MACRO_AUROC: 0.5}


_Score = Callable[[Flags, Floats], OfTimes]


def _tables(true: Sequence[Labels], given: Sequence[Probabilities | None]) -> tuple[list[str], Flags, Floats]:
    """Labels of the truth by name, which conversation has them, and their probabilities, (conversations, labels)."""
    names = sorted({label for labels in true for label in labels})
    column_of = {name: column for column, name in enumerate(names)}
    truth = np.zeros((len(true), len(names)), dtype=np.bool_)
    scores = np.zeros((len(true), len(names)))
    for row, (labels, probabilities) in enumerate(zip(true, given, strict=True)):
        truth[row, [column_of[label] for label in labels]] = True
        for label, probability in (probabilities or {}).items():
            if label in column_of:
                scores[row, column_of[label]] = probability
    return names, truth, scores


def _macro(score: _Score, truth: Flags, scores: Floats, *, is_defined: bool) -> OfTimes:
    columns = [score(truth[:, column], scores[:, column]) for column in np.flatnonzero(truth.any(axis=0))]
    if not columns or not is_defined:
        return lambda times: np.full(times.shape[1], np.nan)
    return lambda times: mean_of_defined(np.stack([one(times) for one in columns], axis=1))


def average_precision(is_true: Flags, scores: Floats) -> OfTimes:
    """Average precision of one label's scores, (conversations,): steps in recall times precision, ties as one step."""
    order, _, stop = ties(scores)
    hits, stops, hits_until = _runs_with_hits(order, stop, is_true)

    def of_times(times: Counts) -> Floats:
        found = counts_before(times, hits, hits_until).astype(np.float64)
        shown = counts_before(times, order, stops).astype(np.float64)
        steps = np.diff(found, axis=0, prepend=0.0)
        precision = np.divide(found, shown, out=np.zeros_like(found), where=shown > 0)
        total = found[-1] if len(found) else np.zeros(times.shape[1])
        return ratio((steps * precision).sum(axis=0), total)

    return of_times


def auroc(is_true: Flags, scores: Floats) -> OfTimes:
    """Area under the ROC curve of one label's scores, (conversations,).

    Worked out as one minus the share of (with, without) pairs in which the one without the label is put first, ties
    counting half.
    """
    order, start, stop = ties(scores)
    hits, stops, hits_until = _runs_with_hits(order, stop, is_true)
    starts = np.unique(start[is_true[order]])

    def of_times(times: Counts) -> Floats:
        found = counts_before(times, hits, hits_until).astype(np.float64)
        above = counts_before(times, order, np.concatenate([starts, stops])).astype(np.float64)
        found_before = np.concatenate([np.zeros((1, times.shape[1])), found])[:-1]
        without = (above[: len(starts)] - found_before + above[len(starts) :] - found) / 2
        total = found[-1] if len(found) else np.zeros(times.shape[1])
        pairs = total * (times.sum(axis=0) - total)
        return 1.0 - ratio(((found - found_before) * without).sum(axis=0), pairs)

    return of_times


def _runs_with_hits(order: Indices, stop: Indices, is_true: Flags) -> tuple[Indices, Indices, Indices]:
    """Conversations with the label, best first; where each run of equals that has some stops; hits until there."""
    is_hit = is_true[order]
    stops, counts = np.unique(stop[is_hit], return_counts=True)
    return order[is_hit], stops, np.cumsum(counts)


def _number(values: Floats) -> float | None:
    return None if np.isnan(values[0]) else float(values[0])
