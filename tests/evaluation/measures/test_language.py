from __future__ import annotations

import random
import sys

import pytest
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics import BLEU

from gastrovl.core.errors import MissingExtraError
from gastrovl.evaluation.measures.language import bleu_signature, measures, rouge_l
from gastrovl.evaluation.measures.measure import value

TEXT = "a small reddish polyp lies at the upper left of the gastric antrum ; mucosa is normal, 5 mm."
WORDS = TEXT.split()


def sentences(seed: int, count: int) -> list[str]:
    generator = random.Random(seed)
    return [" ".join(generator.choices(WORDS, k=generator.randint(6, 14))) for _ in range(count)]


def scores(references: list[tuple[str, ...]], replies: list[str | None]) -> dict[str, float | None]:
    return {measure.metric: value(measure) for measure in measures(references, replies)}


def test_the_true_texts_score_exactly_one():
    texts = sentences(1, 5)
    assert set(scores([(text,) for text in texts], [*texts]).values()) == {1.0}


def test_unread_replies_score_zero():
    assert set(scores([(text,) for text in sentences(1, 5)], [None] * 5).values()) == {0.0}


def test_the_true_text_is_one_of_several_wordings():
    references = [("the pylorus is seen from afar.", "a distant view of the pylorus.")]
    assert set(scores(references, ["a distant view of the pylorus."]).values()) == {1.0}


def test_bleu_is_what_sacrebleu_says_of_the_corpus():
    references, replies = sentences(1, 30), sentences(2, 30)
    expected = BLEU().corpus_score(replies, [references]).score / 100
    assert scores([(text,) for text in references], [*replies])["bleu4"] == pytest.approx(expected, abs=1e-12)


def test_bleu_with_two_references_is_what_sacrebleu_says():
    first, second, replies = sentences(1, 20), sentences(3, 20), sentences(2, 20)
    expected = BLEU().corpus_score(replies, [first, second]).score / 100
    found = scores(list(zip(first, second, strict=True)), [*replies])["bleu4"]
    assert found == pytest.approx(expected, abs=1e-12)


def test_rouge_is_the_mean_of_what_rouge_score_says():
    references, replies = sentences(1, 30), sentences(2, 30)
    scorer = RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=True)
    each = [scorer.score(reference, reply) for reference, reply in zip(references, replies, strict=True)]
    found = scores([(text,) for text in references], [*replies])
    for name in ("rouge1", "rouge2", "rougeL"):
        assert found[name] == pytest.approx(sum(one[name].fmeasure for one in each) / 30, abs=1e-12)


def test_rouge_l_of_one_reply_is_worked_by_hand():
    # common subsequence "the polyp is red" of 4 words; 4 of 5 reply words, 4 of 4 true words: F1 = 8/9
    assert rouge_l(("the polyp is red",), "the small polyp is red") == pytest.approx(8 / 9)


def test_bleu_of_texts_too_short_for_it_is_undefined_and_says_why():
    found = {measure.metric: measure for measure in measures([("normal stomach",)], ["normal stomach"])}
    assert value(found["bleu4"]) is None
    assert "no reference of 4 words" in found["bleu4"].undefined
    assert value(found["rouge2"]) == 1.0


def test_rouge_of_texts_it_cannot_read_is_undefined():
    assert scores([("胃角",)], ["胃角"])["rougeL"] is None


def test_the_signature_names_version_and_settings():
    assert bleu_signature().startswith("case:mixed|eff:no|tok:13a|smooth:exp|version:")


@pytest.mark.parametrize("library", ["sacrebleu.metrics", "rouge_score"])
def test_a_missing_library_is_named_with_its_extra(monkeypatch, library):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(MissingExtraError, match=r"gastrovl\[evaluate\]"):
        measures([("a b c d",)], ["a b c d"])
