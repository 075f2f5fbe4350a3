"""Texts, true and predicted, to precision, recall and F1 of the facts that they state, and to what is contradicted."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gastrovl.clinical.statements import KINDS, facts_of
from gastrovl.clinical.taxonomy import Taxonomy
from gastrovl.evaluation.measures.factcounts import (
    AGREED,
    ASKED,
    NAMED,
    OPPOSED,
    REFERENCE_NEAR,
    REPLY_NEAR,
    Counts,
    begin_counts,
    best_of,
    counts_of,
)
from gastrovl.evaluation.measures.factpairs import Agreement, agree
from gastrovl.evaluation.measures.measure import Floats, Measure, first_over_second, ratio, value

References = tuple[str, ...]
PRECISION, RECALL, F1, LENIENT = "fact_precision", "fact_recall", "fact_f1", "fact_f1_lenient"
NEGATION, CONTRADICTIONS = "negation_accuracy", "contradictions"
LOWER_IS_BETTER = frozenset({CONTRADICTIONS})
_NOTHING = "no reference states a fact"


def measures(references: Sequence[References], replies: Sequence[str | None], taxonomy: Taxonomy) -> list[Measure]:
    """Agreement of what texts state; None stands for a reply that could not be read and states nothing.

    A conversation counts with the reference whose facts the reply meets best (F1); one whose references state nothing
    is left out of all of them. Facts are summed over conversations before anything is divided, so that a conversation
    weighs as much as it states.

    fact_precision: share of the reply's facts that the reference states. fact_recall: share of the reference's facts
        that the reply states. fact_f1: their harmonic mean; fact_f1_site, _lesion, _attribute, _size, _grade and
        _count: of facts of one kind.
    fact_f1_lenient: as fact_f1, where a lesion or site counts also when it implies, or follows from, one of the other
        text with the same status: "ulcer" for "gastric ulcer", "stomach" for "antrum".
    negation_accuracy: of the sites, lesions and attributes that both texts name or that the reference denies, the
        share of which both say the same: present, absent or uncertain.
    contradictions: how many things one text states as present and the other as absent, a conversation. Less is better.
    """
    return measures_of_counts(begin_counts(references, [replies], taxonomy)()[0])


def measures_of_counts(table: Counts) -> list[Measure]:
    """As `measures`, of one answerer's counts of `factcounts.begin_counts`."""
    applies = table[:, ASKED] > 0
    kinds = table[:, : 3 * len(KINDS)].reshape(len(table), len(KINDS), 3)
    every = kinds.sum(axis=1)
    near = np.concatenate([every, table[:, [REPLY_NEAR, REFERENCE_NEAR]]], axis=1)
    return [
        Measure(PRECISION, every, first_over_second, applies, "no reply states a fact"),
        Measure(RECALL, every, _recall, applies, _NOTHING),
        Measure(F1, every, _f1, applies, _NOTHING),
        Measure(LENIENT, near, _lenient_f1, applies, _NOTHING),
        *(
            Measure(f"{F1}_{kind}", kinds[:, place], _f1, applies, f"no reference states a {kind}")
            for place, kind in enumerate(KINDS)
        ),
        Measure(NEGATION, table[:, [AGREED, NAMED]], first_over_second, applies, "no thing is named in both or denied"),
        Measure(CONTRADICTIONS, table[:, [OPPOSED, ASKED]], first_over_second, applies, _NOTHING),
    ]


def explain(reference: str, reply: str, taxonomy: Taxonomy) -> Agreement:
    """Which facts of two texts agree and which do not, each with its places in its own text (`Fact.spans`)."""
    return agree(facts_of(reference, taxonomy), facts_of(reply, taxonomy), taxonomy)


def f1_of_reply(references: References, reply: str | None, taxonomy: Taxonomy) -> float | None:
    """`fact_f1` of one reply alone; None where no reference states a fact."""
    table = np.array([counts_of(best_of(references, reply or "", taxonomy)[1])], dtype=np.int32)
    return value(next(one for one in measures_of_counts(table) if one.metric == F1))


def best_reference(references: References, reply: str | None, taxonomy: Taxonomy) -> str:
    """The reference that `measures` scores a reply against: the best F1, then the most matches, then the first."""
    return references[best_of(references, reply or "", taxonomy)[0]]


def _recall(sums: Floats) -> Floats:
    return ratio(sums[:, 0], sums[:, 2])


def _f1(sums: Floats) -> Floats:
    """2 x matched / (replied + stated), NaN where nothing is stated."""
    return np.where(sums[:, 2] > 0, ratio(2 * sums[:, 0], sums[:, 1] + sums[:, 2]), np.nan)


def _lenient_f1(sums: Floats) -> Floats:
    right, found = sums[:, 0] + sums[:, 3], sums[:, 0] + sums[:, 4]
    precision, recall = ratio(right, sums[:, 1]), ratio(found, sums[:, 2])
    both = ratio(2 * precision * recall, precision + recall)
    return np.where(sums[:, 2] > 0, np.nan_to_num(both), np.nan)
