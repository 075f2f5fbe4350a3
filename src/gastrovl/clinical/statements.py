"""Free English text to the facts it states: sites, lesions, attributes, sizes, grades and counts, each with its places.

Terms and attributes are found and their status read as in `clinical.mentions`; what a property belongs to follows from
where it stands in its sentence. There is no grammar behind it, and nothing is read between the lines: "antral ulcer"
states an ulcer and the antrum, and not that the ulcer is gastric.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple, get_args

from gastrovl.clinical.attributes import attribute_wordings, attributes_by_id
from gastrovl.clinical.counts import numbers, sentence_bounds
from gastrovl.clinical.implication import implies
from gastrovl.clinical.mentions import Lexicon, Mention, Token, lexicon_of, mentions_among, tokenise
from gastrovl.clinical.quantities import grades, sizes
from gastrovl.clinical.taxonomy import Taxonomy
from gastrovl.clinical.words import known_words, word_facts
from gastrovl.core.types import Status

Kind = Literal["site", "lesion", "attribute", "size", "grade", "count"]
KINDS: tuple[Kind, ...] = get_args(Kind)
Span = tuple[int, int]
_Sentence = tuple[int, int, "list[_Lesion]"]  # where it starts and ends, and the lesions in it; last, the whole text
MOST_CHARACTERS = 10_000  # about 1,500 words

_GENERIC = "lesion"  # the word that any pathological finding may be called
# Terms whose names hold a grade, with the lesion and the grade that they state.
_GRADED = {
    "esophagitis_la_a": ("esophagitis", "los_angeles a"),
    "esophagitis_la_b_d": ("esophagitis", "los_angeles b-d"),
}
_NO_SITES = frozenset({"unqualified_frame"})  # stands among the sites and says that none is to be seen
_LOWER_TRACT = "lower_tract"  # the one word that names sites
_DEFINITE = re.compile(r"\b(?:the|this|that|these|those|both|said)\s+(?:[\w-]+\s+){0,2}$")
_PRONOUN = re.compile(r"\s*(?:it|its|they|their|both|the (?:latter|larger|largest|smaller|smallest|biggest))\b")
_TISSUE = re.compile(r"\b(?:mucosa|background|lumen|walls?|tissue|esophagus|oesophagus|stomach|duodenum)\b")
_TISSUE_NEXT = re.compile(r"[\s,]*(?:[\w-]+[\s,]+)?(?:mucosa|background|lumen|tissue|fluid|light)\b")
_GAP_WORD = re.compile(r"[^\W\d_][\w-]*|[^\s\w]")
_NOT_ADJECTIVES = frozenset(
    {"of", "with", "without", "in", "at", "on", "by", "is", "are", "was", "were", "has", "have", "showing", "shows",
     "no", "the", "a", "an", "view", "there", "near", "under", "above", "below", "containing", "but", "to", "from",
     ".", ";", ":", "(", ")"}
)  # fmt: skip
_CLAUSE = re.compile(r"[,;:]|\b(?:but|while|whereas|and)\b")
_MOST_FREE_WORDS = 2  # that may stand between an adjective and its noun without being known


class Fact(NamedTuple):
    """One thing that a text states; said twice, it is one fact in two places.

    Attributes:
        kind: A lesion is anything found, a normal view and an instrument included.
        value: Id of a term, word or attribute; or a size ("8-10 mm"), a grade ("los_angeles b", "mild") or a count
            ("2", "2+" for several).
        status: What the text says of it; a property of an uncertain lesion is uncertain.
        of: The lesion that a property belongs to, or None where the text does not say.
        spans: Where it is said, as in text[start:end], in order.
        low, high: Of a size, in millimetres, and of a count; 0 for other kinds, infinity for "more than" and "several".
    """

    kind: Kind
    value: str
    status: Status
    of: str | None
    spans: tuple[Span, ...]
    low: float = 0.0
    high: float = 0.0


@dataclass(slots=True)
class _Lesion:
    value: str
    status: Status
    start: int
    end: int


def facts_of(text: str, taxonomy: Taxonomy) -> tuple[Fact, ...]:
    """What `text` states, in the order in which it is first said; kept for texts that come again.

    A property of something that is denied ("no large ulcer") is no fact: what is not there has no size. A lesion named
    with "the" or "this" that an earlier one implies is that one again ("A gastric polyp. The polyp is red").
    Of a text longer than MOST_CHARACTERS, the rest is not read: it is a model that does not stop, and no report.
    """
    return _facts_of(text[:MOST_CHARACTERS], taxonomy)


@lru_cache(maxsize=1 << 15)
def _facts_of(text: str, taxonomy: Taxonomy) -> tuple[Fact, ...]:
    found: dict[tuple[str, ...], Fact] = {}
    for fact in sorted(_read(text, taxonomy), key=lambda one: one.spans[0]):
        key = (fact.kind, fact.value, fact.status, fact.of or "")
        known = found.get(key)
        if known is None:
            found[key] = fact
        elif fact.spans[0] not in known.spans:
            found[key] = _with_span(known, fact.spans[0])
    return tuple(found.values())


@lru_cache(maxsize=1 << 14)
def fact_implies(value: str, wider: str, taxonomy: Taxonomy) -> bool:
    """Whether a lesion or site `wider` is true wherever `value` is: "gastric_ulcer" implies "ulcer_unspecified".

    Args:
        value, wider: As in `Fact.value`.
    """
    if value == wider:
        return True
    if wider in taxonomy:
        return value in taxonomy and implies(value, wider, taxonomy, organ=taxonomy[value].site)
    allowed = _makes_true().get(wider, frozenset())
    if value in taxonomy:
        return not allowed.isdisjoint((value, *taxonomy.ancestors(value)))
    return wider == _GENERIC and value in _makes_true()


def _with_span(fact: Fact, span: Span) -> Fact:
    return Fact(fact.kind, fact.value, fact.status, fact.of, (*fact.spans, span), fact.low, fact.high)


@lru_cache(maxsize=8)
def _lexicon(taxonomy: Taxonomy) -> Lexicon:
    return lexicon_of(taxonomy, {**word_facts(), **attribute_wordings()})


@lru_cache(maxsize=1)
def _makes_true() -> dict[str, frozenset[str]]:
    """By id of a word or of a part of one, the terms that imply it; a part is implied by itself alone."""
    found = {}
    for word in known_words():
        found.update(dict.fromkeys(word.apart, frozenset[str]()))
        if word.term is None:
            found[word.id] = frozenset(word.allowed_by)
    return found


@lru_cache(maxsize=1 << 12)
def _kind(value: str, taxonomy: Taxonomy) -> Kind:
    if value in taxonomy:
        if value in _NO_SITES:
            return "attribute"
        above = (value, *taxonomy.ancestors(value))
        return "site" if above[-1] == "anatomical_structure" or "out_of_scope" in above else "lesion"
    known = attributes_by_id().get(value)
    if known is not None:
        return "site" if known.group == "wall" else "attribute"
    return "site" if value == _LOWER_TRACT else "lesion"


def _is_of_the_view(value: str) -> bool:
    """Whether an attribute is said of the picture, and never of a lesion in it."""
    known = attributes_by_id().get(value)
    return known is None or known.group == "view"


def _read(text: str, taxonomy: Taxonomy) -> list[Fact]:
    tokens = tokenise(text)
    mentions = mentions_among(tokens, _lexicon(taxonomy))
    kinds = [_kind(mention.term, taxonomy) for mention in mentions]
    lower = text.lower()
    plain = lower if len(lower) == len(text) else text
    blotted = _blotted(plain, mentions)
    lesions: list[_Lesion] = []
    found: list[Fact] = []
    for mention, kind in zip(mentions, kinds, strict=True):
        if kind == "site":
            found.append(Fact("site", mention.term, mention.status, None, ((mention.start, mention.end),)))
        elif kind == "lesion":
            found += _lesion(mention, plain, lesions, taxonomy)
    things = [one for one in lesions if _is_thing(one.value, taxonomy)]
    places = _Places(plain, blotted, _sentences(text, things), things)
    for mention, kind in zip(mentions, kinds, strict=True):
        if kind == "attribute" and _is_of_the_view(mention.term):
            found.append(Fact("attribute", mention.term, mention.status, None, ((mention.start, mention.end),)))
        elif kind == "attribute":
            found += _property(places, "attribute", mention.term, mention.start, mention.end, mention.status)
    for size in sizes(plain):
        found += _property(places, "size", str(size), size.start, size.end, low=size.low_mm, high=size.high_mm)
    for grade in grades(blotted):
        found += _property(places, "grade", grade.value, grade.start, grade.end)
    found += _counts(text, tokens, things)
    return found


def _lesion(mention: Mention, plain: str, lesions: list[_Lesion], taxonomy: Taxonomy) -> tuple[Fact, ...]:
    """A lesion's fact, and that of its grade where the term's name holds one; `lesions` grows by it."""
    value, grade = _GRADED.get(mention.term, (mention.term, None))
    status = mention.status
    if status is not Status.ABSENT:
        for earlier in reversed(lesions):
            if earlier.status is not Status.ABSENT and fact_implies(earlier.value, value, taxonomy):
                if _DEFINITE.search(plain[max(0, mention.start - 40) : mention.start]):
                    value, status = earlier.value, earlier.status
                break
    span = (mention.start, mention.end)
    lesions.append(_Lesion(value, status, *span))
    fact = Fact("lesion", value, status, None, (span,))
    if grade and status is not Status.ABSENT:
        return fact, Fact("grade", grade, status, value, (span,))
    return (fact,)


@lru_cache(maxsize=1 << 12)
def _is_thing(value: str, taxonomy: Taxonomy) -> bool:
    """Whether a lesion is something in view, and no normal view."""
    return value != "negative" and not (value in taxonomy and "negative" in taxonomy.ancestors(value))


def _blotted(plain: str, mentions: Sequence[Mention]) -> str:
    """The text with the letters of its terms and attributes replaced, so that no other pattern is found inside them."""
    parts, behind = [], 0
    for mention in mentions:
        parts += [plain[behind : mention.start], "\u00b7" * (mention.end - mention.start)]
        behind = mention.end
    return "".join((*parts, plain[behind:]))


def _sentences(text: str, lesions: Sequence[_Lesion]) -> list[_Sentence]:
    found = [
        (first, last, [one for one in lesions if first <= one.start < last]) for first, last in sentence_bounds(text)
    ]
    return [*found, (0, len(text), list(lesions))]


@dataclass(frozen=True, slots=True)
class _Places:
    """A text, with and without its terms, its sentences and lesions: all that decides what a property belongs to."""

    plain: str
    blotted: str
    sentences: list[_Sentence]
    lesions: list[_Lesion]

    def owner(self, start: int, end: int) -> _Lesion | None:
        """The lesion that something at [start:end] is said of.

        The one that it stands before as an adjective; else the last one before it in the sentence, unless other tissue
        is named in between; else the first one behind it ("At the left, a polyp"); else, where the sentence begins
        with "it" or "they", the last one of the text so far.
        """
        if not self.lesions:
            return None
        first, _, here = next(one for one in self.sentences if start < one[1])
        before: list[_Lesion] = []
        behind = None
        for one in here:
            if one.end <= start:
                before.append(one)
            elif one.start >= end:
                behind = one
                break
        if behind is not None and self._is_adjective(end, behind.start):
            return behind
        if _TISSUE_NEXT.match(self.plain, end):
            return None
        if before:
            return self._of_earlier(before, start)
        if behind is not None:
            return None if _TISSUE.search(self.plain, first, start) else behind
        earlier = [one for one in self.lesions if one.end <= first]
        return earlier[-1] if earlier and _PRONOUN.match(self.plain, first) else None

    def _of_earlier(self, before: list[_Lesion], start: int) -> _Lesion | None:
        nearest = before[-1]
        gap = self.plain[nearest.end : start]
        if _TISSUE.search(gap) and " in the " not in gap and " of the " not in gap:
            return None
        seen = [one for one in before if one.status is not Status.ABSENT]
        # "a polyp without ulcer, 8 mm": behind the comma, the polyp is meant again
        return seen[-1] if nearest.status is Status.ABSENT and seen and _CLAUSE.search(gap) else nearest

    def _is_adjective(self, end: int, start: int) -> bool:
        gap = self.blotted[end:start]
        if gap == " ":
            return True
        words = _GAP_WORD.findall(gap.replace("\u00b7", " "))
        if words and words[-1] in ("and", "or", ","):
            return False
        free = [word for word in words if word not in ("and", "or", ",", "-", "/")]
        return len(free) <= _MOST_FREE_WORDS and _NOT_ADJECTIVES.isdisjoint(words)


def _property(
    places: _Places,
    kind: Kind,
    value: str,
    start: int,
    end: int,
    status: Status = Status.PRESENT,
    low: float = 0.0,
    high: float = 0.0,
) -> tuple[Fact, ...]:
    """A property's fact, unless it is said of something that is not there."""
    owner = places.owner(start, end)
    if owner is not None and owner.status is Status.ABSENT:
        return ()
    if owner is not None and owner.status is Status.UNCERTAIN and status is Status.PRESENT:
        status = Status.UNCERTAIN
    return (Fact(kind, value, status, owner.value if owner else None, ((start, end),), low, high),)


def _counts(text: str, tokens: Sequence[Token], lesions: Sequence[_Lesion]) -> Iterator[Fact]:
    seen = {place for place, one in enumerate(lesions) if one.status is not Status.ABSENT}
    for claim in numbers(text, lesions, seen, tokens) if seen else ():
        owner = lesions[claim.owner or 0]
        value = f"{claim.least}" if claim.most == claim.least else f"{claim.least}+"
        high = float("inf") if claim.most is None else float(claim.most)
        yield Fact("count", value, owner.status, owner.value, ((claim.start, claim.end),), float(claim.least), high)
