"""What a record states, as questions with their typed answers and without any wording: CLS, REC, REG and CAP."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from gastrovl.clinical.answers import format_labels
from gastrovl.clinical.taxonomy import Taxonomy
from gastrovl.core.boxtext import encode_box, encode_boxes
from gastrovl.core.types import Box, Sample, Status, Target, Task
from gastrovl.data.captions import captions_of

# Terms that name one thing at different depth share the last word of their names, or these stand for it.
_HEADS = {"adenocarcinoma": "cancer", "carcinoma": "cancer", "adenoma": "polyp"}
_PATHOLOGY = "pathological_findings"


@dataclass(frozen=True)
class Exchange:
    """One question and its answer.

    Attributes:
        phrasing: Key of the wordings, e.g. "REC"; `slots` fill them.
        answers: The reference, then other wordings of it.
    """

    task: Task
    phrasing: str
    answers: tuple[str, ...]
    target: Target
    slots: Mapping[str, str] = field(default_factory=dict)


def label_exchange(sample: Sample, taxonomy: Taxonomy) -> Exchange | None:
    """CLS, or None when nothing is present."""
    terms = tuple(sorted(present_terms(sample), key=taxonomy.order))
    return Exchange(Task.CLS, Task.CLS, (format_labels(terms, taxonomy),), Target(terms=terms)) if terms else None


def place_exchange(term: str, sample: Sample, taxonomy: Taxonomy) -> Exchange:
    """REC: all places of a term in a sample and its mask, none when it is absent."""
    ordered = tuple(largest_first(boxes_by_term(sample).get(term, ())))
    target = Target(terms=(term,), boxes=ordered, mask=mask_of(term, sample) if ordered else None)
    return Exchange(Task.REC, Task.REC, (encode_boxes(ordered),), target, {"label": taxonomy[term].name})


def region_exchange(box: Box, terms: Iterable[str], taxonomy: Taxonomy) -> Exchange:
    """REG: every label of one box."""
    ordered = tuple(sorted(terms, key=taxonomy.order))
    target = Target(terms=ordered, boxes=(box,))
    return Exchange(Task.REG, Task.REG, (format_labels(ordered, taxonomy),), target, {"box": encode_box(box)})


def caption_exchange(
    sample: Sample, taxonomy: Taxonomy, rng: np.random.Generator, count: int, caption: str | None = None
) -> Exchange | None:
    """CAP with up to `count` captions, or None when the record states nothing.

    Args:
        caption: A model's caption that was checked against the record; it comes first, the grammar's behind it.
    """
    captions = captions_of(sample, taxonomy, rng, count)
    if not captions:
        return None
    if caption is not None:
        captions = [caption, *(one for one in captions if one != caption)][: max(count, 2)]
    sites = {finding.site for finding in sample.findings if finding.status == Status.PRESENT and finding.site}
    terms = tuple(sorted(present_terms(sample) | sites, key=taxonomy.order))
    return Exchange(Task.CAP, Task.CAP, tuple(captions), Target(terms=terms))


def present_terms(sample: Sample) -> set[str]:
    return {finding.term for finding in sample.findings if finding.status == Status.PRESENT}


def possible_terms(sample: Sample) -> set[str]:
    """Terms seen or suspected."""
    return {finding.term for finding in sample.findings if finding.status != Status.ABSENT}


def boxes_by_term(sample: Sample) -> dict[str, set[Box]]:
    """The boxes of each present term that has any."""
    found: dict[str, set[Box]] = {}
    for finding in sample.findings:
        if finding.status == Status.PRESENT and finding.boxes:
            found.setdefault(finding.term, set()).update(finding.boxes)
    return found


def mask_of(term: str, sample: Sample) -> str | None:
    """The mask of everything of a present term, or None where the sample has none."""
    masks = (one.mask for one in sample.findings if one.term == term and one.status == Status.PRESENT)
    return next((mask for mask in masks if mask), None)


def terms_by_box(sample: Sample) -> dict[Box, set[str]]:
    """The present terms of each box."""
    found: dict[Box, set[str]] = {}
    for term, boxes in boxes_by_term(sample).items():
        for box in boxes:
            found.setdefault(box, set()).add(term)
    return found


def largest_first(boxes: Iterable[Box]) -> list[Box]:
    return sorted(set(boxes), key=lambda box: (-box.area, box.xyxy))


def absent_terms(sample: Sample, taxonomy: Taxonomy, labels_in_source: Iterable[str]) -> list[str]:
    """Terms that the source would have boxed, and that nothing seen or suspected is, implies or may be, in order."""
    seen = possible_terms(sample)
    terms = sorted(set(labels_in_source), key=taxonomy.order)
    return [term for term in terms if not any(may_be_one(term, other, taxonomy) for other in seen)]


def may_be_one(term: str, other: str, taxonomy: Taxonomy) -> bool:
    """Whether the two may name one and the same thing: equal, one above the other, or one the other said closer.

    Siblings such as "esophagitis" and "esophagitis la grade a" are told by their names.
    """
    if term == other or term in taxonomy.ancestors(other) or other in taxonomy.ancestors(term):
        return True
    if any(_PATHOLOGY not in taxonomy.ancestors(one) for one in (term, other)):
        return False
    words, others = (taxonomy[one].name.split() for one in (term, other))
    is_closer = set(words) <= set(others) or set(others) <= set(words)
    return is_closer or _HEADS.get(words[-1], words[-1]) == _HEADS.get(others[-1], others[-1])


def is_told_apart(term: str, others: Iterable[str], taxonomy: Taxonomy) -> bool:
    """Whether no other term may name the same thing as `term`."""
    return not any(may_be_one(term, other, taxonomy) for other in others if other != term)


def drawn(rng: np.random.Generator, items: Sequence[str], count: int) -> list[str]:
    """Up to `count` of `items`, in a random order."""
    return [items[index] for index in rng.permutation(len(items))[:count]]
