"""Texts as numbered words to shared n-grams and longest common subsequences, for thousands of pairs at once.

The same counts as sacrebleu and rouge-score take, which go through one pair after the other; tests hold ours to theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gastrovl.evaluation.measures.measure import Flags

Ints = NDArray[np.int64]
_REMEMBERED = 200_000  # texts, and pieces of them, of a vocabulary; all are forgotten when there are more
_ROWS_AT_ONCE = 8192
_WORD_BITS = 64
_MOST_NUMBER = 2**62
_MOST_STEPS = 512  # words of a reply that are compared side by side with others


class Vocabulary:
    """Numbers words, the same word always with the same number.

    Args:
        prepare: A text to the text that is parted at white space.
        split: What stands between white space to its words; asked once for each such piece, for pieces come again.
    """

    def __init__(self, prepare: Callable[[str], str], split: Callable[[str], Sequence[str]]) -> None:
        self._prepare, self._split = prepare, split
        self._number: dict[str, int] = {}
        self._pieces: dict[str, list[int]] = {}
        self._texts: dict[str, Ints] = {}

    def numbers(self, text: str) -> Ints:
        """The words of a text as numbers, (words,)."""
        found = self._texts.get(text)
        if found is None:
            if len(self._texts) >= _REMEMBERED:
                self._texts.clear()
            if len(self._pieces) >= _REMEMBERED:
                self._pieces.clear()
            pieces, words = self._pieces, list[int]()
            for piece in self._prepare(text).split():
                known = pieces.get(piece)
                words += self._of_piece(piece) if known is None else known
            found = self._texts[text] = np.array(words, dtype=np.int64)
        return found

    def _of_piece(self, piece: str) -> list[int]:
        number = self._number
        found = self._pieces[piece] = [number.setdefault(word, len(number)) for word in self._split(piece)]
        return found


@dataclass(frozen=True)
class Rows:
    """Texts one behind the other: `words` (all words), `lengths` (texts,), and the row that each text belongs to."""

    words: Ints
    lengths: Ints
    rows: Ints

    @classmethod
    def of(cls, texts: Sequence[Ints], rows: Sequence[int]) -> Rows:
        lengths = np.array([len(text) for text in texts], dtype=np.int64)
        words = np.concatenate(texts) if texts else np.zeros(0, dtype=np.int64)
        return cls(words, lengths, np.asarray(rows, dtype=np.int64))

    def grams(self, order: int) -> tuple[Ints, Ints]:
        """Text of each n-gram, and the place of its first word in `words`."""
        text = np.repeat(np.arange(len(self.lengths)), self.lengths)
        place = np.arange(len(self.words)) - np.repeat(np.cumsum(self.lengths) - self.lengths, self.lengths)
        begins = np.nonzero(place + order <= self.lengths[text])[0]
        return text[begins], begins


def shared_ngrams(replies: Rows, references: Rows, order: int) -> tuple[Ints, Ints, Ints]:
    """Per row: n-grams that reply and references share (clipped), and n-grams of the reply; per reference its n-grams.

    A row has one reply and any number of references; an n-gram counts at most as often as in the reference that has
    most of it (the modified precision of Papineni et al. 2002).
    """
    count = len(replies.lengths)
    reply_text, reply_begins = replies.grams(order)
    reference_text, reference_begins = references.grams(order)
    begins = np.concatenate([reply_begins, len(replies.words) + reference_begins])
    both = _numbered(np.concatenate([replies.words, references.words]), begins, order, count)
    many = int(both.max(initial=0)) + 1
    said, times = np.unique(replies.rows[reply_text] * many + both[: len(reply_begins)], return_counts=True)
    known, most = _most_often(references, reference_text, many, both[len(reply_begins) :])
    known, most = np.append(known, -1), np.append(most, 0)  # what no reference has is found there
    place = np.minimum(np.searchsorted(known[:-1], said), len(known) - 1)
    matched = np.where(known[place] == said, np.minimum(times, most[place]), 0)
    shared = np.bincount(said // many, weights=matched, minlength=count).astype(np.int64)
    totals = np.bincount(replies.rows[reply_text], minlength=count)
    return shared, totals, np.bincount(reference_text, minlength=len(references.lengths))


def _numbered(words: Ints, begins: Ints, order: int, rows: int) -> Ints:
    """A number for each n-gram that begins at `begins`, equal where all its words are; `rows` times it fits 63 bits."""
    words = np.unique(words, return_inverse=True)[1]
    size = int(words.max(initial=0)) + 1
    is_small = size**order * (rows + 1) < _MOST_NUMBER
    found: Ints = words[begins]
    for step in range(1, order):
        found = found * size + words[begins + step]
        if not is_small:
            found = np.unique(found, return_inverse=True)[1]
    return found


def _most_often(references: Rows, texts: Ints, many: int, grams: Ints) -> tuple[Ints, Ints]:
    """Each n-gram of each row, as row * many + n-gram, sorted, and how often the text that has most of it has it."""
    keys = references.rows[texts] * many + grams
    if len(np.unique(references.rows)) == len(references.rows):  # one text a row
        return np.unique(keys, return_counts=True)
    order = np.lexsort((texts, keys))
    keys, texts = keys[order], texts[order]
    is_new = np.ones(len(keys), dtype=np.bool_)
    is_new[1:] = (keys[1:] != keys[:-1]) | (texts[1:] != texts[:-1])
    begins = np.nonzero(is_new)[0]
    times = np.diff(np.append(begins, len(keys)))
    keys = keys[begins]
    first = np.nonzero(np.append(len(keys) > 0, keys[1:] != keys[:-1]))[0]
    return keys[first], np.maximum.reduceat(times, first) if len(first) else times


def common_subsequences(replies: Sequence[Ints], references: Sequence[Ints]) -> Ints:
    """Length of the longest common subsequence of each pair, (pairs,).

    One bit a word of the reference and one addition a word of the reply (Hyyrö 2004, after Allison and Dix 1986).
    """
    found = np.zeros(len(replies), dtype=np.int64)
    is_short = np.array(
        [len(b) <= _WORD_BITS and len(a) <= _MOST_STEPS for a, b in zip(replies, references, strict=True)],
        dtype=np.bool_,
    )
    short = sorted(np.nonzero(is_short)[0].tolist(), key=lambda row: len(replies[row]))  # alike in length, side by side
    for start in range(0, len(short), _ROWS_AT_ONCE):
        rows = short[start : start + _ROWS_AT_ONCE]
        found[rows] = _side_by_side([replies[row] for row in rows], [references[row] for row in rows])
    for row in np.nonzero(~is_short)[0].tolist():
        found[row] = _one_pair(replies[row].tolist(), references[row].tolist())
    return found


def _side_by_side(replies: Sequence[Ints], references: Sequence[Ints]) -> Ints:
    said, wanted = _padded(replies, -1), _padded(references, -2, least=_WORD_BITS)
    ones = np.full(len(said), np.iinfo(np.uint64).max, dtype=np.uint64)
    for column in said.T:
        bits = np.packbits(wanted == column[:, None], axis=1, bitorder="little").view("<u8")[:, 0]
        kept = ones & bits
        ones = (ones + kept) | (ones - kept)
    zeros = _WORD_BITS - np.unpackbits(ones[:, None].view(np.uint8), axis=1).sum(axis=1)
    return np.asarray(zeros, dtype=np.int64)


def _one_pair(reply: Sequence[int], reference: Sequence[int]) -> int:
    bits: dict[int, int] = {}
    for place, word in enumerate(reference):
        bits[word] = bits.get(word, 0) | 1 << place
    every = (1 << len(reference)) - 1
    ones = every
    for word in reply:
        kept = ones & bits.get(word, 0)
        ones = ((ones + kept) | (ones - kept)) & every
    return len(reference) - ones.bit_count()


def _padded(texts: Sequence[Ints], filling: int, least: int = 0) -> Ints:
    lengths = np.array([len(text) for text in texts], dtype=np.int64)
    table = np.full((len(texts), max(least, int(lengths.max(initial=0)))), filling, dtype=np.int64)
    is_word: Flags = np.arange(table.shape[1]) < lengths[:, None]
    table[is_word] = np.concatenate(texts) if len(texts) else 0
    return table
