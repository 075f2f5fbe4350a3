"""A text and its terms to how many of each it counts: "two small polyps", "in three places", "several lesions"."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from typing import Protocol

from gastrovl.clinical.mentions import Token, tokenise

BLOT = "\u00b7"  # stands for the letters of a mention, so that "lower esophagus" claims no side
_WORDS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
_NUMBERS = {word: number for number, word in enumerate(_WORDS, start=1)}
_EXACT = _NUMBERS | {
    "single": 1,
    "solitary": 1,
    "isolated": 1,
    "sole": 1,
    "both": 2,
    "pair": 2,
    "couple": 2,
    "twin": 2,
    "twins": 2,
}
_AT_LEAST = {
    "several": 2,
    "multiple": 2,
    "few": 2,
    "some": 2,
    "various": 2,
    "scattered": 2,
    "clustered": 2,
    "disseminated": 2,
    "many": 3,
    "numerous": 3,
    "countless": 3,
}
_COUNTING = frozenset({*_EXACT, *_AT_LEAST, "only"})  # a text without any of these words counts nothing
STOPS = frozenset({",", ".", ";", ":", "and", "with", "or", "in", "at", "on", "by", "is", "are", "showing", "no"})
_NOT_A_NUMBER_AFTER = frozenset({"grade", "type", "stage", "class", "la", "score", "level", "-"})
_PLACES = re.compile(
    r"\bin (?:about |at least )?(?P<n>[a-z]+|\d+) (?:separate |distinct |different )?"
    r"(?:places?|areas?|spots?|locations?|sites?|regions?|positions?|foci)\b"
)
_ONLY = re.compile(r"\bthe (?:only|sole|single) (?:one|finding|place)\b")


class Placed(Protocol):
    """A mention, or anything else that stands at text[start:end]."""

    @property
    def start(self) -> int: ...

    @property
    def end(self) -> int: ...


@dataclass(frozen=True)
class Claim:
    """Something said at text[start:end].

    Attributes:
        owner: Index of the mention that it is said of, or None when there is none.
        value: What is said: the words themselves, or a grade.
        least, most: Of a number, its bounds (most None: no upper one).
        is_plural: The number is said by the ending of the word only.
    """

    value: str
    start: int
    end: int
    owner: int | None = None
    least: int = 0
    most: int | None = None
    is_plural: bool = False


def masked(text: str, mentions: Sequence[Placed]) -> str:
    """The text in small letters with its mentions blotted out; places stay."""
    plain = text.lower() if len(text.lower()) == len(text) else text
    for mention in mentions:
        plain = plain[: mention.start] + BLOT * (mention.end - mention.start) + plain[mention.end :]
    return plain


def numbers(
    text: str, mentions: Sequence[Placed], things: Set[int], tokens: Sequence[Token] | None = None
) -> Iterator[Claim]:
    """Claims of how many: "two small polyps", "in three places", "several lesions".

    Args:
        things: Indices of the mentions that may be counted: findings that are not denied.
        tokens: Those of the text, where they are at hand.
    """
    tokens = tokenise(text) if tokens is None else tokens
    words = [token.word for token in tokens]
    if _COUNTING.isdisjoint(words) and not any(map(str.isdecimal, words)):
        return
    starts = {mentions[index].start: index for index in things}
    for place, token in enumerate(tokens):
        if token.start not in starts:
            continue
        for before in range(place - 1, max(place - 5, -1), -1):
            word, at = tokens[before].word, tokens[before].start
            if word in STOPS or any(mention.start <= at < mention.end for mention in mentions):
                break
            claim = _number(tokens, before, starts[token.start])
            if claim is not None:
                yield claim
                break
    plain = masked(text, mentions)
    for match in _ONLY.finditer(plain):
        owners = [index for index in sorted(things) if mentions[index].end <= match.start()]
        if owners:
            yield Claim(match.group(), match.start(), match.end(), owners[-1], 1, 1)
    for match in _PLACES.finditer(plain):
        bounds = _bounds(match["n"])
        owners = [index for index in sorted(things) if mentions[index].end <= match.start()]
        if bounds and owners:
            yield Claim(match.group(), match.start(), match.end(), owners[-1], *bounds)


def sentence_bounds(text: str) -> list[tuple[int, int]]:
    """Where each sentence starts and ends; a full stop inside a number, or of "e.g.", ends none."""
    found, start = [], 0
    for match in re.finditer(r"[.!?;](?=\s|$)(?<!e\.g\.)(?<!i\.e\.)\s*", text):
        found.append((start, match.end()))
        start = match.end()
    return [*found, (start, len(text))] if text[start:].strip() else found


def _number(tokens: Sequence[Token], place: int, owner: int) -> Claim | None:
    token = tokens[place]
    bounds = _bounds(token.word)
    if bounds is None or (place and tokens[place - 1].word in _NOT_A_NUMBER_AFTER):
        return None
    if tokens[place + 1].word in ("mm", "cm", "%", "-", "of") and token.word not in ("pair", "couple"):
        return None
    return Claim(token.raw, token.start, token.end, owner, *bounds)


def _bounds(word: str) -> tuple[int, int | None] | None:
    """(least, most) of a number word."""
    if word in _AT_LEAST:
        return _AT_LEAST[word], None
    exact = int(word) if word.isdecimal() and len(word) < 4 else _EXACT.get(word)
    return None if exact is None else (exact, exact)
