from __future__ import annotations

import random
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nltk.stem.porter import PorterStemmer
from rouge_score import tokenize
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics import BLEU
from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

from gastrovl.core.errors import MissingExtraError
from gastrovl.evaluation.measures import language
from gastrovl.evaluation.measures.language import bleu_signature, measures, rouge_l
from gastrovl.evaluation.measures.measure import value
from gastrovl.evaluation.measures.wordcounts import common_subsequences

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


LENGTHS = (0, 1, 3, 4, 20, 63, 64, 65, 130, 511, 512, 513, 700)


def odd_texts(seed: int, count: int) -> list[str]:
    """Texts of any length, with signs, digits, capitals, letters of other scripts and words said many times."""
    generator = random.Random(seed)
    words = [*WORDS, "Polyps", "polyp", "5mm", "3.5", "Ö-ring", "胃角", "(sic)", "ulcer.", "the", "the", "the", "<b>"]
    return [" ".join(generator.choices(words, k=generator.choice(LENGTHS))) for _ in range(count)]


def test_texts_of_any_length_with_several_references_are_scored_as_the_libraries_score_them():
    first, second, replies = odd_texts(1, 60), odd_texts(2, 60), odd_texts(3, 60)
    references = [pair if row % 3 else pair[:1] for row, pair in enumerate(zip(first, second, strict=True))]
    found = scores(references, [*replies])
    scorer = RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=True)
    for name, words in (("rouge1", 1), ("rouge2", 2), ("rougeL", 1)):
        each = [
            scorer.score_multi(wanted, reply)[name].fmeasure
            for wanted, reply in zip(references, replies, strict=True)
            if max(len(text.split()) for text in wanted) >= words
        ]
        assert found[name] == pytest.approx(sum(each) / len(each), abs=1e-9)
    shown = [pair[1] if row % 3 else None for row, pair in enumerate(zip(first, second, strict=True))]
    expected = BLEU().corpus_score(replies, [first, shown]).score / 100
    assert found["bleu4"] == pytest.approx(expected, abs=1e-9)


ODD = st.lists(
    st.sampled_from([*"a5.,-&;<>/'é胃σΣ \n\t\r\x0b\xa0", "<skipped>", "&lt;", "&amp;", "polyps", "-\n", "ulcerated"]),
    max_size=25,
).map("".join)


@settings(max_examples=400)
@given(ODD)
def test_words_found_piece_by_piece_are_those_of_the_libraries(text):
    bleu, rouge = language._bleu_words(), language._rouge_words()
    for words, expected in (
        (bleu, Tokenizer13a()(text.rstrip()).split()),
        (rouge, tokenize.tokenize(text, PorterStemmer())),
    ):
        found = words.numbers(text).tolist()
        named = {number: word for word, number in words._number.items()}
        assert [named[number] for number in found] == expected


@pytest.mark.parametrize("lengths", [(5, 64), (5, 65), (600, 30), (0, 0), (0, 9)])
def test_a_common_subsequence_is_as_long_as_the_table_says(lengths):
    generator = np.random.default_rng(sum(lengths))
    reply, reference = (generator.integers(0, 6, length) for length in lengths)
    table = np.zeros((len(reply) + 1, len(reference) + 1), dtype=int)
    for i, a in enumerate(reply, start=1):
        for j, b in enumerate(reference, start=1):
            table[i, j] = table[i - 1, j - 1] + 1 if a == b else max(table[i - 1, j], table[i, j - 1])
    assert common_subsequences([reply, reply], [reference, reference]).tolist() == [table[-1, -1]] * 2


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


@pytest.mark.parametrize("library", ["sacrebleu.tokenizers.tokenizer_13a", "rouge_score"])
def test_a_missing_library_is_named_with_its_extra(monkeypatch, library):
    monkeypatch.setitem(sys.modules, library, None)
    language._bleu_words.cache_clear()
    language._rouge_words.cache_clear()
    with pytest.raises(MissingExtraError, match=r"gastrovl\[evaluate\]"):
        measures([("a b c d",)], ["a b c d"])
