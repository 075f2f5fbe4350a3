"""Label sets, true and predicted, to accuracy, balanced accuracy, macro F1, scores per class and a confusion matrix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gastrovl.evaluation.measures.measure import Flags, Floats, Measure, mean_measure, mean_of_defined, ratio

Labels = frozenset[str]
SEVERAL = "(several labels)"
UNPARSED = "(not readable)"
_NOTHING = "no conversation to score"


@dataclass(frozen=True)
class ClassCounts:
    """How one label fared; precision, recall and F1 are None where their denominator is zero."""

    label: str
    n_true: int
    n_predicted: int
    n_both: int

    @property
    def precision(self) -> float | None:
        return self.n_both / self.n_predicted if self.n_predicted else None

    @property
    def recall(self) -> float | None:
        return self.n_both / self.n_true if self.n_true else None

    @property
    def f1(self) -> float | None:
        total = self.n_true + self.n_predicted
        return 2 * self.n_both / total if total else None


@dataclass(frozen=True)
class Confusion:
    """Counts of (true row, predicted column) over the conversations with exactly one true label."""

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]


def measures(true: Sequence[Labels], predicted: Sequence[Labels | None]) -> list[Measure]:
    """Accuracy, balanced accuracy and macro F1 of label sets; None stands for a reply that could not be read.

    accuracy: share of conversations whose predicted set equals the true set exactly.
    balanced_accuracy: mean, over the labels that occur in the truth, of the share of their conversations whose
        predicted set holds them. With one label each this is Brodersen et al. 2010, generalised to several classes.
    macro_f1: mean of F1 over the labels that occur in the truth or in a prediction.
    An unread reply predicts nothing, so it misses every true label.
    """
    applies = np.ones(len(true), dtype=np.bool_)
    is_right = np.array([a == b for a, b in zip(true, predicted, strict=True)], dtype=np.bool_)
    in_truth, in_reply = _indicators(true, predicted)
    hits, misses, extras = in_truth & in_reply, in_truth & ~in_reply, in_reply & ~in_truth
    return [
        mean_measure("accuracy", is_right, applies, _NOTHING),
        Measure("balanced_accuracy", _columns(hits, misses), _mean_recall, applies, _NOTHING),
        Measure("macro_f1", _columns(hits, misses, extras), _mean_f1, applies, _NOTHING),
    ]


def per_class(true: Sequence[Labels], predicted: Sequence[Labels | None]) -> list[ClassCounts]:
    """Every label that occurs in the truth or in a prediction, by name."""
    in_truth, in_reply = _indicators(true, predicted)
    totals = zip(in_truth.sum(axis=0), in_reply.sum(axis=0), (in_truth & in_reply).sum(axis=0), strict=True)
    return [
        ClassCounts(label, int(n_true), int(n_predicted), int(n_both))
        for label, (n_true, n_predicted, n_both) in zip(_names(true, predicted), totals, strict=True)
    ]


def confusion(true: Sequence[Labels], predicted: Sequence[Labels | None], order: Sequence[str]) -> Confusion | None:
    """Confusion of the conversations with one true label, None when there is none.

    Args:
        order: All labels in the order of the axes; labels that do not occur are left out.
    """
    pairs = [
        (next(iter(labels)), _column_of(reply))
        for labels, reply in zip(true, predicted, strict=True)
        if len(labels) == 1
    ]
    if not pairs:
        return None
    seen_true, seen_predicted = {row for row, _ in pairs}, {column for _, column in pairs}
    rows = tuple(label for label in order if label in seen_true)
    labels_used = tuple(label for label in order if label in seen_true | seen_predicted)
    columns = (*labels_used, *(extra for extra in (SEVERAL, UNPARSED) if extra in seen_predicted))
    counts = np.zeros((len(rows), len(columns)), dtype=np.int64)
    row_of = {label: index for index, label in enumerate(rows)}
    column_of = {label: index for index, label in enumerate(columns)}
    for row, column in pairs:
        counts[row_of[row], column_of[column]] += 1
    return Confusion(rows, columns, tuple(tuple(int(count) for count in line) for line in counts))


def _column_of(reply: Labels | None) -> str:
    if reply is None:
        return UNPARSED
    return next(iter(reply)) if len(reply) == 1 else SEVERAL


def _names(true: Sequence[Labels], predicted: Sequence[Labels | None]) -> list[str]:
    return sorted({label for labels in (*true, *predicted) if labels is not None for label in labels})


def _indicators(true: Sequence[Labels], predicted: Sequence[Labels | None]) -> tuple[Flags, Flags]:
    """Whether each label stands in the truth and in the reply, two arrays (conversations, labels)."""
    names = _names(true, predicted)
    column_of = {label: column for column, label in enumerate(names)}
    in_truth = np.zeros((len(true), len(names)), dtype=np.bool_)
    in_reply = np.zeros_like(in_truth)
    for row, (labels, reply) in enumerate(zip(true, predicted, strict=True)):
        in_truth[row, [column_of[label] for label in labels]] = True
        in_reply[row, [column_of[label] for label in reply or ()]] = True
    return in_truth, in_reply


def _columns(*parts: Flags) -> NDArray[np.uint8]:
    return np.concatenate(parts, axis=1).astype(np.uint8)


def _mean_recall(sums: Floats) -> Floats:
    hits, misses = np.split(sums, 2, axis=1)
    return mean_of_defined(ratio(hits, hits + misses))


def _mean_f1(sums: Floats) -> Floats:
    hits, misses, extras = np.split(sums, 3, axis=1)
    return mean_of_defined(ratio(2 * hits, 2 * hits + misses + extras))
