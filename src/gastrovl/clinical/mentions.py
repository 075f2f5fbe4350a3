"""Free English text to the terms it names, each with whether the text says it is present, absent or uncertain.

Terms are found by longest match over names and synonyms, their plurals and both spellings. Status follows cues and
their reach, in the manner of NegEx (Chapman et al., J Biomed Inform 2001) and ConText (Harkema et al., 2009); the cues
and the rules for where a reach ends are our own. It reads notes of a few sentences, not letters: there is no grammar
behind it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import NamedTuple

from gastrovl.clinical.cues import statuses
from gastrovl.clinical.taxonomy import Taxonomy, normalise
from gastrovl.core.types import Status

# Read as the site they belong to: "antral erosions" are in the antrum.
_ADJECTIVES = {
    "esophageal": "esophagus",
    "gastric": "stomach",
    "duodenal": "duodenum",
    "antral": "antrum",
    "fundic": "fundus",
    "pyloric": "pylorus",
    "bulbar": "duodenal_bulb",
    "papillary": "duodenal_papilla",
    "angular": "angle",
}
# Wordings that are answers, but mean too many other things in a sentence.
_NEVER_IN_TEXT = frozenset(
    {"negative", "other", "others", "no lesion", "no finding", "no view", "suspicious", "unqualified", "blurred",
     "otherclass", "pathological findings", "pathological finding", "anatomical structure", "anatomical structures",
     "anatomical landmark", "anatomical landmarks"}
)  # fmt: skip
# Abbreviations: short, no words of their own, and "be" is a verb. They count in capitals only.
_CAPITALS_ONLY = frozenset(
    {"be", "rac", "gej", "egj", "ogj", "scj", "hgd", "hgin", "ssbe", "escc", "oscc", "cag", "gim", "fgp", "egc", "agc"}
)
# Longer wordings that name no term, so that a term's word inside them is not read as the term.
_NO_TERM = (
    "an angle", "viewing angle", "view angle", "camera angle", "wide angle", "oblique angle", "acute angle",
    "angle of view", "foreign body", "blood vessel", "blood vessels", "light bulb", "gastric fluid", "gastric juice",
    "gastric content", "gastric contents", "normal saline", "gastric lavage", "gastric outlet",
)  # fmt: skip
_BRITISH = (("oesoph", "esoph"), ("haem", "hem"), ("tumour", "tumor"), ("oedema", "edema"), ("colour", "color"),
            ("centre", "center"), ("ischaem", "ischem"), ("grey", "gray"))  # fmt: skip
_TOKEN = re.compile(r"\d+(?:[.,]\d+)?|[^\W\d_]+(?:['’‘`´][^\W\d_]+)*\d*|[^\s]")
_HYPHENS = frozenset("-‐‑‒–—_")
_NOTHING: Mapping[str, str] = MappingProxyType({})


class Mention(NamedTuple):
    """A term that a text names.

    Attributes:
        term: Term id of the taxonomy, or the id that `further` gave to a wording.
        status: What the text says of it.
        start, end: Where it stands in the text, as in `text[start:end]`.
    """

    term: str
    status: Status
    start: int
    end: int


class Token(NamedTuple):
    """A word or sign: `word` in the form in which wordings are compared, `raw` as it was written."""

    word: str
    raw: str
    start: int
    end: int


def find_mentions(text: str, taxonomy: Taxonomy, further: Mapping[str, str] = _NOTHING) -> list[Mention]:
    """The terms that `text` names, in order, none overlapping another.

    Args:
        further: Wordings that the taxonomy does not have, with the id to report for each; hashable contents only.

    A site named by an adjective ("gastric mucosa") is a mention of the site. A mention inside the reach of "no",
    "without", "is not seen" is absent; of "possible", "cannot exclude", "?" uncertain; and "no change in ulcer" denies
    the change, not the ulcer.
    """
    return mentions_in(text, lexicon_of(taxonomy, further))


def lexicon_of(taxonomy: Taxonomy, further: Mapping[str, str] = _NOTHING) -> Lexicon:
    """What `mentions_in` looks up; arguments as in `find_mentions`."""
    return _lexicon(taxonomy, tuple(sorted(further.items())))


def mentions_in(text: str, lexicon: Lexicon) -> list[Mention]:
    """As `find_mentions`, with a lexicon at hand."""
    return mentions_among(tokenise(text), lexicon)


def mentions_among(tokens: Sequence[Token], lexicon: Lexicon) -> list[Mention]:
    """As `mentions_in`, of a text that is in tokens already."""
    words = [token.word for token in tokens]
    found: list[tuple[str, int, int]] = []  # term, first token, behind the last token
    behind = 0
    for place, lengths in _beginnings(words, lexicon.lengths):
        hit = _longest(tokens, words, place, lengths, lexicon) if place >= behind else None
        if hit is not None:
            term, length = hit
            behind = place + length
            if term:
                found.append((term, place, behind))
    said = statuses(words, [(first, end) for _, first, end in found])
    return [
        Mention(term, status, tokens[first].start, tokens[end - 1].end)
        for (term, first, end), status in zip(found, said, strict=True)
    ]


def tokenise(text: str) -> list[Token]:
    """Words, numbers and signs with their places; a hyphen inside a word parts it and vanishes."""
    made, length = tuple.__new__, len(text)  # without the calls of Token(...), which took a third of the time
    if _HYPHENS.isdisjoint(text):
        return [made(Token, (plain_word(found[0]), found[0], *found.span())) for found in _TOKEN.finditer(text)]
    tokens: list[Token] = []
    for match in _TOKEN.finditer(text):
        raw = match[0]
        start, end = match.span()
        if raw in _HYPHENS and start > 0 and end < length and text[start - 1].isalnum() and text[end].isalnum():
            continue
        tokens.append(made(Token, (plain_word(raw), raw, start, end)))
    return tokens


@lru_cache(maxsize=1 << 14)
def plain_word(word: str) -> str:
    """Lower case, without apostrophes, in American spelling."""
    plain = normalise(word) or word
    for british, american in _BRITISH:
        plain = plain.replace(british, american)
    return plain


def singular(word: str) -> str:
    """A noun without its plural ending; words that end in -ss, -us or -is stay."""
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    if word.endswith(("ss", "us", "is")) or not word.endswith("s") or len(word) < 4:
        return word
    if word.endswith(("ches", "shes", "xes", "sses")):
        return word[:-2]
    return word[:-1]


def _beginnings(words: list[str], known: Lengths) -> Iterator[tuple[int, tuple[int, ...]]]:
    """Places where a wording may begin, with the lengths that such wordings have, the longest first."""
    for place, (first, second) in enumerate(zip(words, [*words[1:], ""], strict=False)):
        of_first = known.get(first)
        if of_first is not None:
            lengths = of_first.get(second) or of_first.get("")
            if lengths:
                yield place, lengths


def _longest(
    tokens: Sequence[Token], words: list[str], place: int, lengths: tuple[int, ...], lexicon: Lexicon
) -> tuple[str, int] | None:
    """The term of the longest wording that begins here and its length in tokens; "" for what names no term."""
    for length in lengths:
        key = tuple(words[place : place + length])
        term = lexicon.terms.get(key)
        if term is None:
            continue
        if key in lexicon.capitals and not tokens[place].raw.isupper():
            continue
        return term, len(key)
    return None


Lengths = dict[str, dict[str, tuple[int, ...]]]  # by first and second word, lengths of wordings; "" for any second word


@dataclass(frozen=True)
class Lexicon:
    """Wordings to look up; built once for a taxonomy and further wordings."""

    terms: dict[tuple[str, ...], str]  # wording, as words -> term id; "" names no term
    capitals: frozenset[tuple[str, ...]]
    lengths: Lengths


@lru_cache(maxsize=8)
def _lexicon(taxonomy: Taxonomy, further: tuple[tuple[str, str], ...]) -> Lexicon:
    terms: dict[tuple[str, ...], str] = {}
    wordings = [(wording, term.id) for term in taxonomy.terms for wording in (term.name, *term.synonyms)]
    for wording, term_id in (*wordings, *further):
        if normalise(wording) not in _NEVER_IN_TEXT:
            terms.setdefault(_key(wording), term_id)
    for key, term_id in list(terms.items()):
        for other in _plurals(key):
            terms.setdefault(other, term_id)
    for adjective, term_id in _ADJECTIVES.items():
        if term_id in taxonomy:
            terms.setdefault((adjective,), term_id)
    terms.update({_key(wording): "" for wording in _NO_TERM})
    capitals = frozenset((word,) for word in _CAPITALS_ONLY)
    return Lexicon(terms, capitals, _lengths(terms))


def _lengths(terms: Iterable[tuple[str, ...]]) -> Lengths:
    found: dict[str, dict[str, set[int]]] = {}
    for key in terms:
        found.setdefault(key[0], {}).setdefault(key[1] if len(key) > 1 else "", set()).add(len(key))
    return {
        first: {
            second: tuple(sorted(lengths | of_first.get("", set()), reverse=True))
            for second, lengths in of_first.items()
        }
        for first, of_first in found.items()
    }


def _key(wording: str) -> tuple[str, ...]:
    return tuple(token.word for token in tokenise(wording))


def _plurals(key: tuple[str, ...]) -> list[tuple[str, ...]]:
    """The wording with its head word in the plural: the last one, and the one before "of"."""
    heads = {len(key) - 1, *(place - 1 for place, word in enumerate(key) if word == "of" and place)}
    return [(*key[:head], many, *key[head + 1 :]) for head in sorted(heads) for many in _plurals_of(key[head])]


def _plurals_of(word: str) -> list[str]:
    if not word.isalpha() or len(word) < 3 or word.endswith(("itis", "s")):
        return []
    if word.endswith("y") and word[-2] not in "aeiou":
        return [word[:-1] + "ies"]
    if word.endswith(("x", "ch", "sh")):
        return [word + "es"]
    return [word + "s", *([word + "e"] if word.endswith("a") else []), *([word + "ta"] if word.endswith("oma") else [])]
