"""Label sets, true and predicted, and the taxonomy they come from, to scores that a near miss does not lose wholly."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from gastrovl.clinical.taxonomy import Taxonomy
from gastrovl.core.pairing import best_pairs
from gastrovl.evaluation.measures.measure import Floats, Measure, first_over_second, mean_measure

Labels = frozenset[str]
CREDIT = "hierarchical_credit"
LEVELS = (1, 2)
_NOTHING = "no conversation whose labels all stand in the taxonomy"


def credit(a: str, b: str, taxonomy: Taxonomy) -> float:
    """Likeness of two terms in [0, 1]: 1 - distance / (the distance if they met at the root only).

    1 for the same term, 0 for terms of different level-1 branches, 2/3 for siblings at level 3 (Wu and Palmer 1994,
    with the root at depth 0).

    Raises:
        LabelError: An id is unknown.
    """
    return 1.0 - taxonomy.distance(a, b) / (taxonomy[a].level + taxonomy[b].level)


def credit_of_sets(true: Labels, predicted: Labels | None, taxonomy: Taxonomy) -> float:
    """Summed credit of the best one-to-one pairing over the larger number of labels, in [0, 1].

    A missing or surplus label earns nothing, nor does an unread reply (None). Two empty sets agree.

    Raises:
        LabelError: An id is unknown.
    """
    if predicted is None:
        return 0.0
    if not true or not predicted:
        return float(true == predicted)
    ordered_true, ordered_predicted = sorted(true), sorted(predicted)
    worth = [[credit(a, b, taxonomy) for b in ordered_predicted] for a in ordered_true]
    return sum(worth[row][column] for row, column in best_pairs(worth)) / max(len(true), len(predicted))


def with_ancestors(labels: Labels, taxonomy: Taxonomy) -> Labels:
    """The labels and all terms above them; the common root, which everything has, is not among them."""
    return labels.union(*(taxonomy.ancestors(label) for label in labels))


def at_level(labels: Labels, level: int, taxonomy: Taxonomy) -> Labels:
    """Each label's ancestor at a level; a label that stands higher stays itself."""
    return frozenset(
        taxonomy.at_level(label, level).id if taxonomy[label].level >= level else label for label in labels
    )


def measures(true: Sequence[Labels], predicted: Sequence[Labels | None], taxonomy: Taxonomy) -> list[Measure]:
    """Scores by the taxonomy; None stands for a reply that could not be read, which earns nothing.

    hierarchical_credit: mean of `credit_of_sets`.
    hierarchical_precision, _recall, _f1: over all labels together with all their ancestors, summed over conversations
        (Kiritchenko, Matwin and Famili 2005). Every reply with the right level-1 branch earns something here.
    accuracy_level1, accuracy_level2: share whose labels, raised to that level, equal the true ones.
    A conversation with a true label outside the taxonomy has no place there and is left out.

    Raises:
        LabelError: A predicted label is no term of the taxonomy.
    """
    applies = np.array([all(label in taxonomy for label in labels) for labels in true], dtype=np.bool_)
    nothing: tuple[Labels, Labels | None] = (frozenset(), frozenset())
    pairs = [
        pair if has_place else nothing
        for pair, has_place in zip(zip(true, predicted, strict=True), applies.tolist(), strict=True)
    ]
    credits = _of_pairs(pairs, lambda a, b: (credit_of_sets(a, b, taxonomy),), 1)
    sizes = _of_pairs(pairs, lambda a, b: _sizes(with_ancestors(a, taxonomy), _above(b, taxonomy)), 3)
    both, in_truth, in_reply = sizes.T
    found = [mean_measure(CREDIT, credits[:, 0], applies, _NOTHING)]
    for name, numerator, denominator, why in (
        ("precision", both, in_reply, "no reply holds a label"),
        ("recall", both, in_truth, _NOTHING),
        ("f1", 2 * both, in_truth + in_reply, _NOTHING),
    ):
        counts = np.stack([numerator, denominator], axis=1) * applies[:, None]
        found.append(Measure(f"hierarchical_{name}", counts, first_over_second, applies, why))
    hits = _of_pairs(pairs, lambda a, b: tuple(_is_same(a, b, level, taxonomy) for level in LEVELS), len(LEVELS))
    for column, level in enumerate(LEVELS):
        found.append(mean_measure(f"accuracy_level{level}", hits[:, column], applies, _NOTHING))
    return found


def _above(labels: Labels | None, taxonomy: Taxonomy) -> Labels:
    return with_ancestors(labels or frozenset(), taxonomy)


def _sizes(true: Labels, predicted: Labels) -> tuple[float, ...]:
    return float(len(true & predicted)), float(len(true)), float(len(predicted))


def _is_same(true: Labels, predicted: Labels | None, level: int, taxonomy: Taxonomy) -> float:
    if predicted is None:
        return 0.0
    return float(at_level(true, level, taxonomy) == at_level(predicted, level, taxonomy))


def _of_pairs(
    pairs: Sequence[tuple[Labels, Labels | None]],
    function: Callable[[Labels, Labels | None], tuple[float, ...]],
    width: int,
) -> Floats:
    """The function of every pair, (pairs, width); worked out once for pairs that are alike, of which there are many."""
    known = {pair: function(*pair) for pair in set(pairs)}
    return np.array([known[pair] for pair in pairs], dtype=np.float64).reshape(-1, width)
