"""What a record states to VQA questions with short answers: station, presence, count, and comparisons of two boxes.

Nothing is asked that the record leaves open: an answer rests on what is stated, or on the silence of a source that
boxes a term wherever it is seen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations

import numpy as np

from gastrovl.clinical.answers import format_labels
from gastrovl.clinical.taxonomy import Taxonomy
from gastrovl.core.boxtext import decode_box, encode_box
from gastrovl.core.types import Box, Conversation, Kind, Sample, Status, Target, Task
from gastrovl.data.exchanges import (
    Exchange,
    absent_terms,
    boxes_by_term,
    drawn,
    is_told_apart,
    largest_first,
    may_be_one,
    possible_terms,
    present_terms,
    terms_by_box,
)
from gastrovl.data.wordings import Writer

CLEARLY_LARGER = 1.25  # ratio of two areas from which the larger one is asked for
CLEARLY_APART = 0.05  # of the image's side, between two centres, from which it is asked which lies further left or up
SHARE_ABSENT = {Kind.PRESENCE: 0.5, Kind.COUNT: 0.2}  # of the questions that are tried
_ANATOMY, _OTHER_SITES = "anatomical_structure", "other_sites"
_Pair = tuple[Box, Box]


def questions_of(
    writer: Writer, taxonomy: Taxonomy, kinds: Mapping[Kind, int], labels_in_source: Sequence[str]
) -> list[Conversation]:
    """Up to `kinds[kind]` conversations of each kind, in the order of `Kind`.

    Args:
        labels_in_source: Term ids that the sample's source boxes wherever they are seen.
    """
    found = []
    for kind in (kind for kind in Kind if kind in kinds):
        rng = writer.generator(kind.value)
        exchanges = _exchanges(kind, writer.sample, taxonomy, kinds[kind], rng, labels_in_source)
        found += [
            writer.write(f"{Task.VQA.value}-{kind.value}-{number}", (exchange,), kind)
            for number, exchange in enumerate(exchanges)
        ]
    return found


def _exchanges(
    kind: Kind,
    sample: Sample,
    taxonomy: Taxonomy,
    count: int,
    rng: np.random.Generator,
    labels_in_source: Sequence[str],
) -> list[Exchange]:
    if kind is Kind.STATION:
        return _station(sample, taxonomy)
    if kind in SHARE_ABSENT:
        return _about_terms(kind, sample, taxonomy, count, rng, labels_in_source)
    return _comparisons(kind, sample, taxonomy, count, rng)


def stations(sample: Sample, taxonomy: Taxonomy) -> list[str]:
    """The sites that a record states, by a finding's site or a view, the closest ones only; in taxonomy order."""
    present = [finding for finding in sample.findings if finding.status == Status.PRESENT]
    stated = {finding.site for finding in present if finding.site} | {finding.term for finding in present}
    sites = {term for term in stated if _is_site(term, taxonomy)}
    wider = {ancestor for term in sites for ancestor in taxonomy.ancestors(term)}
    return sorted(sites - wider, key=taxonomy.order)


def _is_site(term: str, taxonomy: Taxonomy) -> bool:
    above = taxonomy.ancestors(term)
    return _ANATOMY in above and _OTHER_SITES not in (term, *above)


def _station(sample: Sample, taxonomy: Taxonomy) -> list[Exchange]:
    sites = tuple(stations(sample, taxonomy))
    return [_exchange(Kind.STATION, format_labels(sites, taxonomy), Target(terms=sites))] if sites else []


def _about_terms(
    kind: Kind,
    sample: Sample,
    taxonomy: Taxonomy,
    count: int,
    rng: np.random.Generator,
    labels_in_source: Sequence[str],
) -> list[Exchange]:
    """PRESENCE and COUNT: terms that the source marks in every image, some of them absent.

    Presence is asked of no other term: what can only be answered with "yes" teaches to say "yes". A question that
    should be about something present is left out where nothing is, so that healthy views do not make "no" the rule.
    """
    boxes_of = boxes_by_term(sample)
    asked = sorted(set(labels_in_source), key=taxonomy.order)
    if kind is Kind.PRESENCE:
        there = [term for term in asked if term in present_terms(sample)]
    else:
        there = [term for term in asked if term in boxes_of and _is_counted(term, sample, taxonomy)]
    there = drawn(rng, there, count)
    absent = drawn(rng, absent_terms(sample, taxonomy, labels_in_source), count)
    found: list[Exchange] = []
    for is_absent in rng.random(count) < SHARE_ABSENT[kind]:
        if not (terms := absent if is_absent else there):
            continue
        term = terms.pop(0)
        boxes = tuple(largest_first(boxes_of.get(term, ())))
        answer = ("no" if is_absent else "yes") if kind is Kind.PRESENCE else str(len(boxes))
        target = Target(terms=(term,), boxes=boxes if kind is Kind.COUNT else ())
        found.append(_exchange(kind, answer, target, label=taxonomy[term].name))
    return found


def _is_counted(term: str, sample: Sample, taxonomy: Taxonomy) -> bool:
    """Whether every place of the term is boxed, none is in doubt, and none may hide under another term's name."""
    own = [finding for finding in sample.findings if finding.term == term and finding.status != Status.ABSENT]
    is_whole = all(finding.status == Status.PRESENT and finding.boxes for finding in own)
    return is_whole and is_told_apart(term, possible_terms(sample), taxonomy)


def _comparisons(
    kind: Kind, sample: Sample, taxonomy: Taxonomy, count: int, rng: np.random.Generator
) -> list[Exchange]:
    terms_of = terms_by_box(sample)
    doubted = {box for finding in sample.findings if finding.status == Status.UNCERTAIN for box in finding.boxes}
    boxes = [box for box in largest_first(terms_of) if box not in doubted]

    def compared(pair: _Pair) -> str | None:
        if kind is Kind.COMPARE_KIND:
            return _same_kind(terms_of[pair[0]], terms_of[pair[1]], taxonomy)
        answer = _COMPARE[kind](pair)
        as_written = decode_box(encode_box(pair[0])), decode_box(encode_box(pair[1]))
        return answer if answer == _COMPARE[kind](as_written) else None  # bins may part or join thin boxes

    pairs = [pair for pair in combinations(boxes, 2) if compared(pair) and len({encode_box(box) for box in pair}) == 2]
    found = []
    for index in rng.permutation(len(pairs))[:count]:
        first, second = pairs[index] if rng.random() < 0.5 else pairs[index][::-1]
        answer = compared((first, second))
        assert answer is not None, "which box comes first does not decide whether there is an answer"
        target = Target(boxes=(first, second))
        found.append(_exchange(kind, answer, target, first=encode_box(first), second=encode_box(second)))
    return found


def _same_kind(first: set[str], second: set[str], taxonomy: Taxonomy) -> str | None:
    """None when the labels overlap in part, or may name one thing at different depth."""
    if first == second:
        return "same"
    if any(may_be_one(one, other, taxonomy) for one in first for other in second):
        return None
    return "different"


def _larger(pair: _Pair) -> str | None:
    first, second = (box.area for box in pair)
    if max(first, second) < CLEARLY_LARGER * min(first, second):
        return None
    return "first" if first > second else "second"


def _further_left(pair: _Pair) -> str | None:
    return _lower_value(*((box.x0 + box.x1) / 2 for box in pair))


def _further_up(pair: _Pair) -> str | None:
    return _lower_value(*((box.y0 + box.y1) / 2 for box in pair))


def _lower_value(first: float, second: float) -> str | None:
    if abs(first - second) < CLEARLY_APART:
        return None
    return "first" if first < second else "second"


_COMPARE: dict[Kind, Callable[[_Pair], str | None]] = {
    Kind.COMPARE_SIZE: _larger,
    Kind.COMPARE_LEFT: _further_left,
    Kind.COMPARE_UP: _further_up,
}


def _exchange(kind: Kind, answer: str, target: Target, **slots: str) -> Exchange:
    return Exchange(Task.VQA, kind, (answer,), target, slots)
