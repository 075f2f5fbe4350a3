"""Texts, true and predicted, to precision, recall and F1 of the facts that they state, and to what is contradicted."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gastrovl.clinical.statements import KINDS, Fact, facts_of
from gastrovl.clinical.taxonomy import Taxonomy
from gastrovl.core.types import Status
from gastrovl.evaluation.measures.factpairs import STATED_WITH_STATUS, Agreement, agree
from gastrovl.evaluation.measures.measure import Floats, Measure, first_over_second, ratio

References = tuple[str, ...]
PRECISION, RECALL, F1, LENIENT = "fact_precision", "fact_recall", "fact_f1", "fact_f1_lenient"
NEGATION, CONTRADICTIONS = "negation_accuracy", "contradictions"
LOWER_IS_BETTER = frozenset({CONTRADICTIONS})
_NOTHING = "no reference states a fact"
# A row of counts: matched, replied and stated facts of each kind in turn, then what follows.
_COLUMN = {kind: 3 * place for place, kind in enumerate(KINDS)}
_REPLY_NEAR, _REFERENCE_NEAR, _AGREED, _NAMED, _OPPOSED, _ASKED = range(3 * len(KINDS), 3 * len(KINDS) + 6)


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
    known: dict[tuple[References, str], list[int]] = {}
    table = np.zeros((len(replies), _ASKED + 1))
    for row, (wanted, reply) in enumerate(zip(references, replies, strict=True)):
        pair = (wanted, reply or "")
        if pair not in known:
            known[pair] = _counts(_best(*pair, taxonomy)[1])
        table[row] = known[pair]
    applies = table[:, _ASKED] > 0
    kinds = table[:, : 3 * len(KINDS)].reshape(len(table), len(KINDS), 3)
    every = kinds.sum(axis=1)
    near = np.concatenate([every, table[:, [_REPLY_NEAR, _REFERENCE_NEAR]]], axis=1)
    return [
        Measure(PRECISION, every, first_over_second, applies, "no reply states a fact"),
        Measure(RECALL, every, _recall, applies, _NOTHING),
        Measure(F1, every, _f1, applies, _NOTHING),
        Measure(LENIENT, near, _lenient_f1, applies, _NOTHING),
        *(
            Measure(f"{F1}_{kind}", kinds[:, place], _f1, applies, f"no reference states a {kind}")
            for place, kind in enumerate(KINDS)
        ),
        Measure(
            NEGATION, table[:, [_AGREED, _NAMED]], first_over_second, applies, "no thing is named in both or denied"
        ),
        Measure(CONTRADICTIONS, table[:, [_OPPOSED, _ASKED]], first_over_second, applies, _NOTHING),
    ]


def explain(reference: str, reply: str, taxonomy: Taxonomy) -> Agreement:
    """Which facts of two texts agree and which do not, each with its places in its own text (`Fact.spans`)."""
    return agree(facts_of(reference, taxonomy), facts_of(reply, taxonomy), taxonomy)


def best_reference(references: References, reply: str | None, taxonomy: Taxonomy) -> str:
    """The reference that `measures` scores a reply against: the best F1, then the most matches, then the first."""
    return references[_best(references, reply or "", taxonomy)[0]]


def _best(references: References, reply: str, taxonomy: Taxonomy) -> tuple[int, Agreement]:
    """Place of the best reference that states something, and how the reply agrees with it."""
    replied = facts_of(reply, taxonomy)
    stated = [facts_of(text, taxonomy) for text in references]
    # Wordings of one record state the same: they are compared with the reply once.
    different = {tuple(sorted(map(_key, facts))): place for place, facts in reversed(list(enumerate(stated))) if facts}
    found = [(place, agree(stated[place], replied, taxonomy)) for place in sorted(different.values())]

    def merit(one: tuple[int, Agreement]) -> tuple[float, int]:
        matched = len(one[1].matched)
        return 2 * matched / (len(stated[one[0]]) + len(replied)), matched

    return max(found, key=merit) if found else (0, agree((), (), taxonomy))


def _key(fact: Fact) -> tuple[str, ...]:
    return fact.kind, fact.value, fact.status, fact.of or ""


def _counts(found: Agreement) -> list[int]:
    counts = [0] * (_ASKED + 1)
    agreed = 0
    for one, _ in found.matched:
        agreed += one.kind in STATED_WITH_STATUS
        first = _COLUMN[one.kind]
        counts[first] += 1
        counts[first + 1] += 1
        counts[first + 2] += 1
    for one in found.invented:
        counts[_COLUMN[one.kind] + 1] += 1
    for one in found.missed:
        counts[_COLUMN[one.kind] + 2] += 1
    turned = [one for one, other in (*found.contradicted, *found.hedged) if one.value == other.value]
    ignored = [one for one in found.missed if _is_denied(one) and one not in turned]
    counts[_REPLY_NEAR] = len({id(other) for _, other in found.near})
    counts[_REFERENCE_NEAR] = len({id(one) for one, _ in found.near})
    counts[_AGREED], counts[_NAMED] = agreed, agreed + len(turned) + len(ignored)
    counts[_OPPOSED], counts[_ASKED] = len(found.contradicted), bool(found.matched or found.missed)
    return counts


def _is_denied(fact: Fact) -> bool:
    return fact.status is Status.ABSENT and fact.kind in STATED_WITH_STATUS


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
