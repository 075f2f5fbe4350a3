"""A caption's text to what it claims besides terms: sides of the image, numbers, sizes, grades, and more."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from functools import cache

from gastrovl.clinical.mentions import Mention, Token, plain_word, singular, tokenise
from gastrovl.core.positions import LARGE_FROM, SMALL_BELOW
from gastrovl.core.types import Box
from gastrovl.data.captioning.facts import statements

SLACK = 0.1  # of the image's side, by which a box may stand outside the third that its side names
_FILL = "\u00b7"  # stands for the letters of a mention, so that "lower esophagus" claims no side

_SIDE = re.compile(
    r"\b(?P<first>upper|lower|top|bottom|mid|middle|cent(?:er|re)|central(?:ly)?|left|right|leftmost|rightmost)"
    r"(?:[- ]hand)?"
    r"(?:[- ](?P<second>upper|lower|top|bottom|middle|cent(?:er|re)|left|right))?"
    r"(?:[- ]hand)?"
    r"(?:[- ](?P<noun>(?:side|corner|quadrant|part|portion|edge|margin|third|area|border|region)s?|half|halves))?\b"
)
_NO_SIDE = re.compile(r"\b(?:upper|lower) (?:gi|gastrointestinal|endoscop\w*|digestive|tract)\b")
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
_STOPS = frozenset({",", ".", ";", ":", "and", "with", "or", "in", "at", "on", "by", "is", "are", "showing", "no"})
_NOT_ADJECTIVES = _STOPS | {"view", "of", "the"}
_NOT_A_NUMBER_AFTER = frozenset({"grade", "type", "stage", "class", "la", "score", "level", "-"})
_PLACES = re.compile(
    r"\bin (?:about |at least )?(?P<n>[a-z]+|\d+) (?:separate |distinct |different )?"
    r"(?:places?|areas?|spots?|locations?|sites?|regions?|positions?|foci)\b"
)
_ONLY = re.compile(r"\bthe (?:only|sole|single) (?:one|finding|place)\b")
_SHARES = {
    **dict.fromkeys(("small", "tiny", "minute", "minuscule", "diminutive", "little"), "small"),
    **dict.fromkeys(("large", "big", "huge", "giant", "sizeable", "sizable", "extensive", "bulky"), "large"),
    **dict.fromkeys(("medium", "moderately-sized", "mid-sized", "medium-sized"), "medium"),
}
_SHARE = re.compile(r"\b(" + "|".join(sorted(_SHARES, key=len, reverse=True)) + r")\b(?! (?:bowel|intestine))")
_ROMAN = r"i{1,3}v?|iv"
_GRADES = (
    re.compile(
        r"\b(?:la|los angeles)(?: classification)?[, ]*(?:grade|class)?\s*"
        r"(?P<value>[a-d](?:\s?(?:-|–|to|/)\s?[a-d])?)\b"
    ),
    re.compile(r"\b(?P<value>mild|moderate|severe|mildly|moderately|severely|low[- ]grade|high[- ]grade)\b"),
    re.compile(r"\b(?P<value>(?:semi|sub)?-?pedunculated|sessile|(?:long|short|ultrashort)[- ]segment)\b"),
    re.compile(r"\bgrade[\s:]+(?P<value>[\w.+/-]*\w)"),
    re.compile(r"\bforrest(?: class| type)?\s*(?P<value>[i1-3]{1,3}[abc]?)?\b"),
    re.compile(r"\b(?P<value>(?:paris|prague|siewert|borrmann|kimura|eggim|olgim?|sydney|hill)\b[\w -]{0,14})"),
    re.compile(r"\b(?P<value>0-i{1,3}[a-cps]{0,2}|c\d+\s?m\d+|[co]-[1-3])\b"),
    re.compile(rf"\b(?:type|stage|class)\s+(?P<value>(?:0-)?(?:{_ROMAN}|\d)[a-c]?)\b"),
)


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


def masked(text: str, mentions: Sequence[Mention]) -> str:
    """The text in small letters with its mentions blotted out; places stay."""
    plain = text.lower() if len(text.lower()) == len(text) else text
    for mention in mentions:
        plain = plain[: mention.start] + _FILL * (mention.end - mention.start) + plain[mention.end :]
    return plain


def sides(text: str, mentions: Sequence[Mention], things: Set[int]) -> Iterator[Claim]:
    """Claims of a side of the image, each with the finding that it is said of.

    Args:
        things: Indices of the mentions that may lie on a side: findings that are not denied.
    """
    plain = _NO_SIDE.sub(lambda match: _FILL * len(match.group()), masked(text, mentions))
    for match in _SIDE.finditer(plain):
        words = {match["first"], match["second"]} - {None}
        if words <= {"upper", "lower", "middle", "mid"} and match["noun"] is None:
            continue  # of anatomy, or of nothing
        yield Claim(match.group(), match.start(), match.end(), _owner(text, match.start(), mentions, things))


def fits_side(claim: Claim, box: Box) -> bool:
    """Whether the centre of `box` may be said to lie on the side that a claim names, with SLACK."""
    words = set(re.split(r"[- ]", claim.value))
    x, y = (box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2
    third = 1 / 2 - SLACK if "half" in words else 1 / 3
    across = bool(words & {"left", "leftmost", "right", "rightmost"})
    down = bool(words & {"upper", "top", "lower", "bottom"})
    is_middle = bool(words & {"mid", "middle", "center", "centre", "central", "centrally"})
    checks = [
        (not words & {"left", "leftmost"} or x < third + SLACK),
        (not words & {"right", "rightmost"} or x > 1 - third - SLACK),
        (not words & {"upper", "top"} or y < third + SLACK),
        (not words & {"lower", "bottom"} or y > 1 - third - SLACK),
        (not is_middle or across or 1 / 3 - SLACK < x < 2 / 3 + SLACK),
        (not is_middle or down or 1 / 3 - SLACK < y < 2 / 3 + SLACK),
    ]
    return all(checks)


def numbers(text: str, mentions: Sequence[Mention], things: Set[int]) -> Iterator[Claim]:
    """Claims of how many: "two small polyps", "in three places", "several lesions"; `things` as in `sides`."""
    tokens = tokenise(text)
    starts = {mention.start: index for index, mention in enumerate(mentions)}
    inside = [any(mention.start <= token.start < mention.end for mention in mentions) for token in tokens]
    for place, token in enumerate(tokens):
        if starts.get(token.start) not in things:
            continue
        for before in range(place - 1, max(place - 5, -1), -1):
            word = tokens[before].word
            if inside[before] or word in _STOPS:
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


def plurals(text: str, mentions: Sequence[Mention], things: Set[int]) -> Iterator[Claim]:
    """Claims of more than one by the plural alone: "polyps"; `things` whose own names are in the singular."""
    for index in sorted(things):
        said = text[mentions[index].start : mentions[index].end]
        head = plain_word(said.split(" of ")[0].split()[-1])
        if singular(head) != head:
            yield Claim(said, mentions[index].start, mentions[index].end, index, 2, None, is_plural=True)


def shares(text: str, mentions: Sequence[Mention], things: Set[int]) -> Iterator[Claim]:
    """Claims of "small", "medium" or "large"; the value is one of the three, `things` as in `sides`."""
    for match in _SHARE.finditer(masked(text, mentions)):
        behind = [index for index in sorted(things) if mentions[index].start >= match.end()]
        gap = text[match.end() : mentions[behind[0]].start].lower() if behind else ""
        is_adjective = re.fullmatch(r"(?:[\s-]+[a-z]+){0,2}[\s-]+", gap) and not set(gap.split()) & _NOT_ADJECTIVES
        owner = behind[0] if is_adjective else _owner(text, match.start(), mentions, things)
        yield Claim(_SHARES[match.group(1)], match.start(), match.end(), owner)


def fits_share(value: str, box: Box) -> bool:
    """Whether a box may be called so; the next size is let pass, the one behind it is not."""
    if value == "small":
        return box.area < LARGE_FROM
    if value == "large":
        return box.area >= SMALL_BELOW
    return SMALL_BELOW / 2 <= box.area < 2 * LARGE_FROM


def grades(text: str, mentions: Sequence[Mention]) -> Iterator[Claim]:
    """Claims of a grade, class or severity; the value is in small letters."""
    plain = masked(text, mentions)
    taken: set[int] = set()
    for pattern in _GRADES:
        for match in pattern.finditer(plain):
            if taken.isdisjoint(range(match.start(), match.end())) and match.group().strip() not in ("grade", "la"):
                taken |= set(range(match.start(), match.end()))
                value = re.sub(r"\s?(?:to|–)\s?", "-", (match["value"] or match.group()).strip()).replace(" ", "")
                yield Claim(value, match.start(), match.end())


def patterns(text: str, mentions: Sequence[Mention]) -> Iterator[tuple[str, Claim]]:
    """What no record holds, as (kind, claim): treatment, histology, persons, sizes and the like."""
    plain = masked(text, mentions)
    for kind, expressions in _compiled().items():
        for expression in expressions:
            for match in expression.finditer(plain):
                yield kind, Claim(match.group().strip(), match.start(), match.end())


@cache
def _compiled() -> dict[str, tuple[re.Pattern[str], ...]]:
    return {
        kind: tuple(re.compile(expression, re.MULTILINE) for expression in expressions)
        for kind, expressions in statements().patterns.items()
    }


def sentence_bounds(text: str) -> list[tuple[int, int]]:
    """Where each sentence starts and ends; a full stop inside a number, or of "e.g.", ends none."""
    found, start = [], 0
    for match in re.finditer(r"[.!?;](?=\s|$)(?<!e\.g\.)(?<!i\.e\.)\s*", text):
        found.append((start, match.end()))
        start = match.end()
    return [*found, (start, len(text))] if text[start:].strip() else found


def _owner(text: str, place: int, mentions: Sequence[Mention], things: Set[int]) -> int | None:
    """The mention that something at `place` is said of.

    The one before it in the sentence; where the sentence begins with a side ("At the left, a polyp"), the one behind.
    """
    start, end = next((pair for pair in sentence_bounds(text) if pair[0] <= place < pair[1]), (0, len(text)))
    here = [index for index in sorted(things) if start <= mentions[index].start < end]
    before = [index for index in here if mentions[index].end <= place]
    behind = [index for index in here if mentions[index].start >= place]
    if before:
        return before[-1]
    return behind[0] if behind else None


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
