"""A caption's text to what it claims besides terms and numbers: sides of the image, sizes, grades, and more."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence, Set
from functools import cache

from gastrovl.clinical.counts import BLOT, STOPS, Claim, masked, sentence_bounds
from gastrovl.clinical.mentions import Mention, plain_word, singular
from gastrovl.core.positions import LARGE_FROM, SMALL_BELOW
from gastrovl.core.types import Box
from gastrovl.data.captioning.facts import statements

SLACK = 0.1  # of the image's side, by which a box may stand outside the third that its side names

_SIDE = re.compile(
    r"\b(?P<first>upper|lower|top|bottom|mid|middle|cent(?:er|re)|central(?:ly)?|left|right|leftmost|rightmost)"
    r"(?:[- ]hand)?"
    r"(?:[- ](?P<second>upper|lower|top|bottom|middle|cent(?:er|re)|left|right))?"
    r"(?:[- ]hand)?"
    r"(?:[- ](?P<noun>(?:side|corner|quadrant|part|portion|edge|margin|third|area|border|region)s?|half|halves))?\b"
)
_NO_SIDE = re.compile(r"\b(?:upper|lower) (?:gi|gastrointestinal|endoscop\w*|digestive|tract)\b")
_NOT_ADJECTIVES = STOPS | {"view", "of", "the"}
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


def sides(text: str, mentions: Sequence[Mention], things: Set[int]) -> Iterator[Claim]:
    """Claims of a side of the image, each with the finding that it is said of.

    Args:
        things: Indices of the mentions that may lie on a side: findings that are not denied.
    """
    plain = _NO_SIDE.sub(lambda match: BLOT * len(match.group()), masked(text, mentions))
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
