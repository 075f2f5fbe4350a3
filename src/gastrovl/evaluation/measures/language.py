"""Texts, true and predicted, to BLEU-4 (sacrebleu) and ROUGE-1, -2 and -L (rouge-score)."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gastrovl.core.errors import MissingExtraError
from gastrovl.evaluation.measures.measure import Flags, Floats, Measure, mean_measure

References = tuple[str, ...]
_ORDER = 4  # BLEU-4
_ROUGE = {"rouge1": 1, "rouge2": 2, "rougeL": 1}  # name -> words a reference needs for the score to exist


def measures(references: Sequence[References], replies: Sequence[str | None]) -> list[Measure]:
    """BLEU-4 and ROUGE F1 in [0, 1]; None stands for a reply that could not be read and counts as an empty text.

    bleu4: corpus BLEU (Papineni et al. 2002), sacrebleu's defaults (13a tokens, case kept, exponential smoothing),
        all references of a conversation used together. Undefined when no reference is four words long.
    rouge1, rouge2, rougeL: mean F1 (Lin 2004) with Porter stems, the best reference of each conversation counting.
        A conversation whose references are all shorter than the n-gram is left out of that score.

    Raises:
        MissingExtraError: sacrebleu or rouge-score is not installed.
    """
    texts = [reply or "" for reply in replies]
    scores, applies = _rouge_f1(references, texts)
    return [
        _bleu_measure(references, texts),
        *(
            mean_measure(name, scores[:, column], applies[:, column], f"no reference of {words} word(s) or more")
            for column, (name, words) in enumerate(_ROUGE.items())
        ),
    ]


def rouge_l(references: References, reply: str) -> float:
    """ROUGE-L F1 of one reply against its best reference, in [0, 1]."""
    scores, _ = _rouge_f1([references], [reply])
    return float(scores[0, 2])


def bleu_signature() -> str:
    """Version and settings of sacrebleu, which belong beside every BLEU score."""
    bleu = _bleu(is_sentence=False)
    bleu.corpus_score(["a"], [["a"]])  # the signature is complete only after a first score
    parts = str(bleu.get_signature()).split("|")
    return "|".join(part for part in parts if not part.startswith("nrefs:"))  # ours vary from item to item


def _bleu_measure(references: Sequence[References], texts: Sequence[str]) -> Measure:
    bleu = _bleu(is_sentence=True)

    @functools.cache
    def counts(wanted: References, text: str) -> tuple[float, ...]:
        """Matches and totals of each n-gram order, length of the reply and of the closest reference."""
        score = bleu.sentence_score(text, list(wanted))
        return (*score.counts, *score.totals, score.sys_len, score.ref_len)

    @functools.cache
    def has_order(wanted: References) -> bool:
        """Whether a perfect reply would hold an n-gram of the highest order; its tokens are never fewer than words."""
        return any(
            len(text.split()) >= _ORDER or bleu.sentence_score(text, [text]).totals[_ORDER - 1] > 0 for text in wanted
        )

    pairs = zip(references, texts, strict=True)
    rows = [(*counts(wanted, text), has_order(wanted)) for wanted, text in pairs]
    reason = f"no reference of {_ORDER} words or more, so there is no {_ORDER}-gram to match"
    table = np.array(rows, dtype=np.float64).reshape(len(texts), 2 * _ORDER + 3)
    return Measure("bleu4", table, _corpus_bleu, np.ones(len(texts), dtype=np.bool_), reason)


def _corpus_bleu(sums: Floats) -> Floats:
    """BLEU in [0, 1] of summed counts, one per row; sacrebleu does the arithmetic."""
    compute = _bleu_class().compute_bleu
    values = np.full(len(sums), np.nan)
    for index, row in enumerate(np.rint(sums).astype(int).tolist()):
        if row[-1]:
            score = compute(
                correct=row[:_ORDER],
                total=row[_ORDER : 2 * _ORDER],
                sys_len=row[2 * _ORDER],
                ref_len=row[2 * _ORDER + 1],
                smooth_method="exp",
            )
            values[index] = min(score.score / 100, 1.0)  # its perfect score is 100.00000000000004
    return values


def _rouge_f1(references: Sequence[References], texts: Sequence[str]) -> tuple[Floats, Flags]:
    """F1 of each score and whether it exists, two arrays (conversations, len(_ROUGE))."""
    scorer, words_of = _rouge_scorer()

    @functools.cache
    def best(wanted: References, text: str) -> tuple[float, ...]:
        found = scorer.score_multi(list(wanted), text)
        return tuple(float(found[name].fmeasure) for name in _ROUGE)

    @functools.cache
    def exists(wanted: References) -> tuple[bool, ...]:
        longest = max(len(words_of(text)) for text in wanted)
        return tuple(longest >= words for words in _ROUGE.values())

    scores = np.array([best(*pair) for pair in zip(references, texts, strict=True)]).reshape(-1, len(_ROUGE))
    applies = np.array([exists(wanted) for wanted in references], dtype=np.bool_).reshape(-1, len(_ROUGE))
    return scores, applies


def _rouge_scorer() -> tuple[Any, Callable[[str], list[str]]]:
    """The scorer and its word splitter; each word is stemmed once, for stemming is what takes the time."""
    try:
        from nltk.stem.porter import PorterStemmer  # type: ignore[import-untyped]  # rouge-score brings it
        from rouge_score import rouge_scorer, tokenize, tokenizers
    except ImportError as error:
        raise _missing("rouge-score") from error

    class OnceAWord(PorterStemmer):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.known: dict[str, str] = {}

        def stem(self, word: str) -> str:
            if word not in self.known:
                self.known[word] = super().stem(word)
            return self.known[word]

    stemmer = OnceAWord()

    class Words(tokenizers.Tokenizer):  # type: ignore[misc]
        def tokenize(self, text: str) -> list[str]:
            words: list[str] = tokenize.tokenize(text, stemmer)
            return words

    words = Words()
    return rouge_scorer.RougeScorer(list(_ROUGE), tokenizer=words), words.tokenize


def _bleu(*, is_sentence: bool) -> Any:
    return _bleu_class()(effective_order=is_sentence)


def _bleu_class() -> Any:
    try:
        from sacrebleu.metrics import BLEU
    except ImportError as error:
        raise _missing("sacrebleu") from error
    return BLEU


def _missing(library: str) -> MissingExtraError:
    return MissingExtraError(f'{library} is not installed; scoring texts needs it: pip install "gastrovl[evaluate]"')
