"""Which measures captions get, of the model and of every baseline alike."""

from __future__ import annotations

from gastrovl.clinical.taxonomy import Taxonomy
from gastrovl.core.types import Task
from gastrovl.evaluation.measures import facts
from gastrovl.evaluation.measures.measure import value
from gastrovl.evaluation.measures.texts import WORDS_ALONE, measures_of_each
from gastrovl.evaluation.tasks import HEADLINE, headline_measure

WORDS = ["bleu4", "rouge1", "rouge2", "rougeL"]
REFERENCES = [("Gastric ulcer in the antrum.",), ("No polyp in the stomach.",)]
REPLIES = ["An ulcer of the stomach in the antrum.", "A polyp in the stomach."]


def test_captions_are_scored_by_words_then_by_facts_for_every_answerer():
    model, rival = measures_of_each(REFERENCES, [REPLIES, [None, None]])
    assert [one.metric for one in model] == [one.metric for one in rival]
    assert [one.metric for one in model[:5]] == [*WORDS, "fact_precision"]
    alone = {one.metric: value(one) for one in facts.measures(REFERENCES, REPLIES, Taxonomy.load())}
    assert {one.metric: value(one) for one in model[4:]} == alone
    assert alone["contradictions"] == 1 / 2
    assert value(rival[6]) == 0.0  # fact F1 of silence


def test_facts_can_be_left_out():
    [found] = measures_of_each(REFERENCES, [REPLIES], WORDS_ALONE)
    assert [one.metric for one in found] == WORDS


def test_the_headline_is_worked_out_without_reading_facts(question, monkeypatch):
    monkeypatch.setattr("gastrovl.evaluation.measures.texts.begin_counts", None)
    found = headline_measure(Task.CAP, [question(Task.CAP, "a#CAP", caption="Gastric ulcer.")], [None])
    assert (found.metric, value(found)) == (HEADLINE[Task.CAP], 0.0)
