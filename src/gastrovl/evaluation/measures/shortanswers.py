"""Short replies, true and given, to exact match over all questions and for each kind of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from gastrovl.clinical.answers import SEPARATOR
from gastrovl.clinical.taxonomy import Taxonomy, normalise
from gastrovl.core.types import Kind
from gastrovl.evaluation.measures import language
from gastrovl.evaluation.measures.measure import Flags, Measure, mean_measure
from gastrovl.evaluation.questions import Question

EXACT = "exact_match"
Short = frozenset[str]


def metric_of(kind: Kind) -> str:
    """Name of a kind's exact match, e.g. "exact_match_count"."""
    return f"{EXACT}_{kind.value}"


def read_short(text: str) -> Short:
    """A reply in the form in which replies are compared: its parts between ";" in any order, each a term or words.

    Case, a final full stop, hyphens and apostrophes do not matter, and a synonym of a term counts as the term.
    """
    taxonomy = Taxonomy.load()
    found = []
    for part in text.split(SEPARATOR.strip()):
        term = taxonomy.find(part)
        found.append(term.id if term else normalise(part))
    return frozenset(found)


def is_match(references: Sequence[str], reply: str | None) -> bool:
    """Whether a reply says the same as one of the references; None stands for one that could not be read."""
    return reply is not None and read_short(reply) in {read_short(reference) for reference in references}


def measures(
    asked: Sequence[Question], references: Sequence[language.References], replies: Sequence[str | None]
) -> list[Measure]:
    """Exact match over all questions, then over each kind that is asked; for free text, BLEU and ROUGE as well.

    Free text are questions in a source's own words, which have no kind. Word overlap of "yes" with "no" means nothing,
    so no other question is scored by it.

    Raises:
        MissingExtraError: There is free text, and sacrebleu or rouge-score is not installed.
    """
    is_right = np.array([is_match(*pair) for pair in zip(references, replies, strict=True)], dtype=np.bool_)
    everything = np.ones(len(asked), dtype=np.bool_)
    found = [mean_measure(EXACT, is_right, everything, "no question to score")]
    for kind in Kind:
        of_kind = np.array([one.kind is kind for one in asked], dtype=np.bool_)
        if of_kind.any():
            found.append(mean_measure(metric_of(kind), is_right, of_kind, f"no question of the kind {kind.value}"))
    is_free = np.array([one.kind is None for one in asked], dtype=np.bool_)
    if is_free.any():
        found += [_only(measure, is_free) for measure in language.measures(references, replies)]
    return found


def _only(measure: Measure, rows: Flags) -> Measure:
    """The measure over some of its conversations."""
    return replace(measure, counts=np.where(rows[:, None], measure.counts, 0), applies=measure.applies & rows)
