"""Texts of several answerers, beside the true ones, to all measures of captions and reports."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

from gastrovl.clinical.taxonomy import Taxonomy
from gastrovl.evaluation.measures import bertscore, facts, language
from gastrovl.evaluation.measures.bertscore import BertScorer
from gastrovl.evaluation.measures.factcounts import begin_counts
from gastrovl.evaluation.measures.measure import Measure

References = tuple[str, ...]


@dataclass(frozen=True)
class TextScoring:
    """By what texts are scored, beside BLEU and ROUGE.

    Attributes:
        by_facts: Whether by the facts that they state.
        scorer: The model of BERTScore; None leaves that out.
        helpers: Processes that read facts, as `factcounts.processes` makes them; None reads them in this one.
    """

    by_facts: bool = True
    scorer: BertScorer | None = None
    helpers: Executor | None = None


WORDS_AND_FACTS = TextScoring()
WORDS_ALONE = TextScoring(by_facts=False)


def measures_of_each(
    references: Sequence[References], replies: Sequence[Sequence[str | None]], how: TextScoring = WORDS_AND_FACTS
) -> list[list[Measure]]:
    """The measures of each answerer, in order of report; they are read together, since references are the same.

    Args:
        references: Of each conversation.
        replies: Of each answerer to all conversations; None stands for one that could not be read.

    Raises:
        MissingExtraError: A library that scores texts is not installed.
    """
    counts = begin_counts(references, replies, Taxonomy.load(), how.helpers) if how.by_facts else None
    found = [language.measures(references, some) for some in replies]
    if how.scorer is not None:
        for place, some in enumerate(replies):
            found[place] += bertscore.measures(references, some, how.scorer)
    for place, table in enumerate(counts() if counts else ()):
        found[place] += facts.measures_of_counts(table)
    return found
