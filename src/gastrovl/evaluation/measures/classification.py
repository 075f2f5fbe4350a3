"""Label sets, true and predicted, to accuracy and its kin, Matthews correlation, scores per class and a confusion."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gastrovl.evaluation.measures.measure import Flags, Floats, Measure, mean_measure, mean_of_defined, ratio

Labels = frozenset[str]
SEVERAL = "(several labels)"
UNPARSED = "(not readable)"
_NOTHING = "no conversation to score"
_ONE_CLASS = "needs conversations with one true label each, and two different ones among these labels"


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
    """Accuracy, balanced accuracy, macro F1 and MCC of label sets; None stands for a reply that could not be read.

    accuracy: share of conversations whose predicted set equals the true set exactly.
    balanced_accuracy: mean, over the labels that occur in the truth, of the share of their conversations whose
        predicted set holds them. With one label each this is Brodersen et al. 2010, generalised to several classes.
    macro_f1: mean of F1 over the labels that occur in the truth or in a prediction.
    mcc: Matthews correlation for several classes (Gorodkin 2004, equation 8) over the conversations with exactly one
        true label. A reply that is unread, or has not exactly one label, is a further class that is never true, so it
        is wrong whatever it holds. 0 where all replies are alike, undefined where all truths are.
    An unread reply predicts nothing, so it misses every true label.
    """
    applies = np.ones(len(true), dtype=np.bool_)
    is_right = np.array([a == b for a, b in zip(true, predicted, strict=True)], dtype=np.bool_)
    in_truth, in_reply = _indicators(true, predicted)
    counts = _columns(in_truth & in_reply, in_truth & ~in_reply, in_reply & ~in_truth)
    return [
        mean_measure("accuracy", is_right, applies, _NOTHING),
        Measure("balanced_accuracy", counts, _mean_recall, applies, _NOTHING),
        Measure("macro_f1", counts, _mean_f1, applies, _NOTHING),
        _matthews(in_truth, in_reply, is_right),
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
    pairs = Counter(
        (next(iter(labels)), _column_of(reply))
        for labels, reply in zip(true, predicted, strict=True)
        if len(labels) == 1
    )
    if not pairs:
        return None
    seen_true, seen_predicted = {row for row, _ in pairs}, {column for _, column in pairs}
    rows = tuple(label for label in order if label in seen_true)
    labels_used = tuple(label for label in order if label in seen_true | seen_predicted)
    columns = (*labels_used, *(extra for extra in (SEVERAL, UNPARSED) if extra in seen_predicted))
    return Confusion(rows, columns, tuple(tuple(pairs[row, column] for column in columns) for row in rows))


def _column_of(reply: Labels | None) -> str:
    if reply is None:
        return UNPARSED
    return next(iter(reply)) if len(reply) == 1 else SEVERAL


def _names(true: Sequence[Labels], predicted: Sequence[Labels | None]) -> list[str]:
    return sorted({label for labels in (*true, *predicted) if labels is not None for label in labels})


def _indicators(true: Sequence[Labels], predicted: Sequence[Labels | None]) -> tuple[Flags, Flags]:
    """Whether each label stands in the truth and in the reply, two arrays (conversations, labels)."""
    column_of = {label: column for column, label in enumerate(_names(true, predicted))}
    if len(true) != len(predicted):
        raise ValueError(f"{len(true)} truths and {len(predicted)} replies; expected as many of each")
    return _table(true, column_of), _table([reply or () for reply in predicted], column_of)


def _table(sets: Sequence[Iterable[str]], column_of: dict[str, int]) -> Flags:
    """Which column's label each set holds, (sets, labels)."""
    pairs = [(row, column_of[label]) for row, labels in enumerate(sets) for label in labels]
    table = np.zeros((len(sets), len(column_of)), dtype=np.bool_)
    if pairs:
        rows, columns = np.array(pairs, dtype=np.int64).T
        table[rows, columns] = True
    return table


def _matthews(in_truth: Flags, in_reply: Flags, is_right: Flags) -> Measure:
    """Counts: true, then given per class, given as no class, right."""
    is_single = in_truth.sum(axis=1) == 1
    has_class = in_reply.sum(axis=1) == 1
    given = in_reply & has_class[:, None]
    counts = _columns(in_truth, given, ~has_class[:, None], is_right[:, None])
    counts[~is_single] = 0
    return Measure("mcc", counts, _correlation, is_single, _ONE_CLASS)


def _correlation(sums: Floats) -> Floats:
    """Sums as `_matthews` counts them, (rows, 2 x classes + 2), to the correlation, (rows,)."""
    classes = (sums.shape[1] - 2) // 2
    true, given, right = sums[:, :classes], sums[:, classes:-1], sums[:, -1]
    total = true.sum(axis=1)
    spread_true = total**2 - (true**2).sum(axis=1)
    spread_given = total**2 - (given**2).sum(axis=1)
    covariance = right * total - (true * given[:, :classes]).sum(axis=1)
    found = ratio(covariance, np.sqrt(spread_true * spread_given))
    return np.where((spread_true > 0) & (spread_given == 0), 0.0, found)


def _columns(*parts: Flags) -> NDArray[np.uint8]:
    return np.concatenate(parts, axis=1).astype(np.uint8)


def _mean_recall(sums: Floats) -> Floats:
    hits, misses, _ = np.split(sums, 3, axis=1)
    return mean_of_defined(ratio(hits, hits + misses))


def _mean_f1(sums: Floats) -> Floats:
    hits, misses, extras = np.split(sums, 3, axis=1)
    return mean_of_defined(ratio(2 * hits, 2 * hits + misses + extras))
