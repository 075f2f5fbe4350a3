"""Texts, true and predicted, to BLEU-4 and ROUGE-1, -2 and -L.

Words and arithmetic are those of sacrebleu and rouge-score; the counts between them are taken for all texts at once.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from gastrovl.core.errors import MissingExtraError
from gastrovl.evaluation.measures.measure import Flags, Floats, Measure, mean_measure, ratio
from gastrovl.evaluation.measures.wordcounts import Ints, Rows, Vocabulary, common_subsequences, shared_ngrams

References = tuple[str, ...]
_ORDER = 4  # BLEU-4
_ROWS_AT_ONCE = 8192
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
    bleu = _bleu_class()()
    bleu.corpus_score(["a"], [["a"]])  # the signature is complete only after a first score
    parts = str(bleu.get_signature()).split("|")
    return "|".join(part for part in parts if not part.startswith("nrefs:"))  # ours vary from item to item


def _bleu_measure(references: Sequence[References], texts: Sequence[str]) -> Measure:
    """Per row: matches and totals of each order, lengths of reply and closest reference, whether there are 4-grams."""
    words = _bleu_words()
    table = np.zeros((len(texts), 2 * _ORDER + 3))
    for start in range(0, len(texts), _ROWS_AT_ONCE):
        part = slice(start, start + _ROWS_AT_ONCE)
        wanted, rows = _flat(references[part])
        known = Rows.of([words.numbers(text) for text in wanted], rows)
        said = Rows.of([words.numbers(text) for text in texts[part]], range(len(texts[part])))
        for order in range(1, _ORDER + 1):
            table[part, order - 1], table[part, _ORDER + order - 1], _ = shared_ngrams(said, known, order)
        table[part, 2 * _ORDER] = said.lengths
        table[part, 2 * _ORDER + 1] = _closest(said.lengths, known)
        longest = np.zeros(len(said.lengths), dtype=np.int64)
        np.maximum.at(longest, known.rows, known.lengths)
        table[part, -1] = longest >= _ORDER
    reason = f"no reference of {_ORDER} words or more, so there is no {_ORDER}-gram to match"
    return Measure("bleu4", table, _corpus_bleu, np.ones(len(texts), dtype=np.bool_), reason)


def _closest(lengths: Ints, known: Rows) -> Ints:
    """Length of each row's reference that is nearest to its reply's; the shorter one of two."""
    distance = np.abs(known.lengths - lengths[known.rows])
    order = np.lexsort((known.lengths, distance, known.rows))
    first = np.unique(known.rows[order], return_index=True)[1]
    return known.lengths[order][first]


def _flat(references: Sequence[References]) -> tuple[list[str], list[int]]:
    """All references one behind the other, and the row of each."""
    pairs = [(text, row) for row, some in enumerate(references) for text in some]
    return [text for text, _ in pairs], [row for _, row in pairs]


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
    words = _rouge_words()
    scores = np.zeros((len(texts), len(_ROUGE)))
    applies = np.zeros(scores.shape, dtype=np.bool_)
    for start in range(0, len(texts), _ROWS_AT_ONCE):
        part = slice(start, start + _ROWS_AT_ONCE)
        wanted, rows = _flat(references[part])
        known = [words.numbers(text) for text in wanted]
        said = [words.numbers(texts[start + row]) for row in rows]
        one_each = range(len(rows))  # every reference is compared alone, then the best of a row counts
        pairs = Rows.of(said, one_each), Rows.of(known, one_each)
        lengths = [one.lengths for one in pairs]
        f1 = np.stack([_f1(*shared_ngrams(*pairs, n)) for n in (1, 2)], axis=1)
        f1 = np.column_stack([f1, _f1(common_subsequences(said, known), *lengths)])
        np.maximum.at(scores[part], rows, f1)
        np.maximum.at(applies[part], rows, lengths[1][:, None] >= np.array(list(_ROUGE.values())))
    return scores, applies


def _f1(shared: Ints, said: Ints, wanted: Ints) -> Floats:
    precision, recall = shared / np.maximum(said, 1), shared / np.maximum(wanted, 1)
    return np.nan_to_num(ratio(2 * precision * recall, precision + recall))


@functools.cache
def _rouge_words() -> Vocabulary:
    """rouge-score's words, stemmed."""
    try:
        from nltk.stem.porter import PorterStemmer  # type: ignore[import-untyped]  # rouge-score brings it
        from rouge_score import tokenize
    except ImportError as error:
        raise _missing("rouge-score") from error
    stemmer = PorterStemmer()
    return Vocabulary(str, lambda piece: tokenize.tokenize(piece, stemmer))


@functools.cache
def _bleu_words() -> Vocabulary:
    """sacrebleu's words of its tokenizer 13a: a line break with a hyphen before it is removed, others part words."""
    try:
        from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a
    except ImportError as error:
        raise _missing("sacrebleu") from error
    tokenizer = Tokenizer13a()
    return Vocabulary(
        lambda text: text.rstrip().replace("<skipped>", "").replace("-\n", ""), lambda piece: tokenizer(piece).split()
    )


def _bleu_class() -> Any:
    try:
        from sacrebleu.metrics import BLEU
    except ImportError as error:
        raise _missing("sacrebleu") from error
    return BLEU


def _missing(library: str) -> MissingExtraError:
    return MissingExtraError(f'{library} is not installed; scoring texts needs it: pip install "gastrovl[evaluate]"')
