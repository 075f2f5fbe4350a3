"""The words of a text and the places of its terms to what is said of each term: present, absent or uncertain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from gastrovl.core.types import Status

Kind = Literal["absent", "uncertain", "nothing"]
Span = tuple[int, int]  # first word, behind the last word

# Before a term. "nothing": looks like a cue and says nothing about the term behind it.
_NOTHING = (
    "no change in", "no change of", "no changes in", "no change to", "without change in", "no increase in",
    "no decrease in", "no difference in", "no interval change in", "no progression of", "no regression of",
    "no improvement in", "no improvement of", "not only", "no doubt", "without doubt", "not just", "not merely",
    "no longer than", "not larger than", "not smaller than",
)  # fmt: skip
_ABSENT = (
    "no", "not", "without", "no evidence of", "no sign of", "no signs of", "no trace of", "no suspicion of",
    "no indication of", "no evidence for", "free of", "free from", "absence of", "absent", "lack of", "lacks",
    "lacking", "rather than", "instead of", "rules out", "ruled out", "excludes", "negative for", "never", "nor",
    "neither", "none of", "nothing suggestive of", "nothing to suggest", "nothing suggests", "no suggestion of",
    "no hint of", "not suggestive of", "nowhere any", "nothing suspicious for", "devoid of", "fails to show",
    "does not show", "do not show", "does not reveal", "cannot see", "clear of", "unremarkable for", "denies",
)  # fmt: skip
_UNCERTAIN_BEFORE = (
    "possible", "possibly", "probable", "probably", "likely", "presumed", "suspected", "suspect", "suspicion of",
    "suspicion for", "suspicious for", "suspicious of", "suggestive of", "suggests", "suggesting", "concerning for",
    "concern for", "questionable", "may", "might", "could", "maybe", "perhaps", "appears to be", "appear to be",
    "seems to be", "seem to be", "cannot exclude", "can not exclude", "cannot rule out", "cannot be sure of",
    "rule out", "to exclude", "not excluded", "not clear whether", "unclear whether", "not certain whether",
    "uncertain whether", "query", "unlikely", "raises the possibility of", "possibility of",
    "differential includes", "resembling", "resembles", "equivocal for",
)  # fmt: skip
# Behind a term.
_ABSENT_BEHIND = (
    "not seen", "not visible", "not present", "not identified", "not found", "not noted", "not detected", "not evident",
    "not observed", "not there", "not apparent", "absent", "ruled out", "excluded", "nowhere", "unseen", "lacking",
    "missing",
)  # fmt: skip
_UNCERTAIN_BEHIND = (
    "cannot be excluded", "cannot be ruled out", "can not be excluded", "not be excluded", "not ruled out",
    "not excluded", "possible", "likely", "suspected", "questionable", "uncertain", "equivocal", "not certain",
    "not clear", "presumed", "unlikely",
)  # fmt: skip
_COPULAS = frozenset({"is", "are", "was", "were", "be", "been", "being", "appears", "appear", "seems", "remains", "it",
                      "also", "however", "still", "clearly", "definitely", "completely"})  # fmt: skip
_ENDS = frozenset(
    {".", "!", "?", ";", ":", ")", "but", "however", "although", "though", "except", "while", "whereas", "yet", "apart",
     "which", "because", "despite", "showing", "shows", "reveals", "then", "otherwise", "besides"}
)  # fmt: skip
_STOPS_BACK = _ENDS - {"which", "however", ")"}  # in "an ulcer, which is not seen", the ulcer is not seen
_FIELD_SIGNS, _FIELD_DENIALS = (":", "=", "-", "–"), ("none", "no", "absent", "negative", "nil")
_FIELD_WORDS = frozenset(_FIELD_DENIALS)
_VERSUS = (("vs",), ("vs", "."), ("versus",))
_PREPOSITIONS = frozenset(
    {"in", "at", "within", "on", "along", "throughout", "near", "from", "around", "inside", "into", "across", "over",
     "with", "towards", "toward", "beside", "above", "below"}
)  # fmt: skip
# Begin something new behind a comma or an "and".
_OPENERS = frozenset(
    {"the", "there", "it", "this", "a", "an", "with", "one", "two", "three", "several", "multiple", "seen", "these",
     "that", "some", "mild", "small", "large"}
)  # fmt: skip
# Nouns that a cue may deny before any term is named: in "no abnormality of the antrum", the antrum is there.
_DENIED = frozenset(
    {"abnormality", "abnormalities", "lesion", "lesions", "pathology", "finding", "findings", "change", "changes",
     "mass", "masses", "defect", "defects", "disease", "inflammation", "bleeding", "feature", "features",
     "irregularity", "irregularities"}
)  # fmt: skip


_Index = dict[str, list[tuple[tuple[str, ...], Kind]]]  # first word -> cues with that word, the longest first


def _indexed(*lists: tuple[Kind, tuple[str, ...]]) -> _Index:
    """Of equal length, the cue of the list that comes first wins."""
    index: _Index = {}
    for kind, cues in lists:
        for cue in cues:
            words = tuple(cue.split())
            index.setdefault(words[0], []).append((words, kind))
    return {first: sorted(cues, key=lambda pair: -len(pair[0])) for first, cues in index.items()}


_BEFORE = _indexed(("nothing", _NOTHING), ("uncertain", _UNCERTAIN_BEFORE), ("absent", _ABSENT))
_BEHIND = _indexed(("uncertain", _UNCERTAIN_BEHIND), ("absent", _ABSENT_BEHIND))
# Without any of these words, everything is present.
_ALL_CUES = frozenset({*_BEFORE, *_BEHIND, "?", *_FIELD_DENIALS, *(words[0] for words in _VERSUS)})


@dataclass(frozen=True, slots=True)
class _Cue:
    kind: Kind
    first: int
    behind: int


def statuses(words: Sequence[str], terms: Sequence[Span]) -> list[Status]:
    """What is said of each term.

    Args:
        words: Words and signs of a text, in the form of `mentions.plain_word`.
        terms: Places of the terms among the words, in order, none overlapping another.
    """
    if _ALL_CUES.isdisjoint(words):
        return [Status.PRESENT] * len(terms)
    inside = {place for first, behind in terms for place in range(first, behind)}
    before, behind = _cues(words, inside, _BEFORE), _cues(words, inside, _BEHIND)
    said: list[set[Kind]] = [set() for _ in terms]
    backward = [cue for cue in behind if _points_back(cue, words, terms)]
    taken = {place for cue in backward for place in range(cue.first, cue.behind)}
    for cue in before:
        if cue.kind != "nothing" and not taken & set(range(cue.first, cue.behind)):
            for index in _reached(cue, words, terms):
                said[index].add(cue.kind)
    for cue in backward:
        for index in _reached_back(cue, words, terms):
            said[index].add(cue.kind)
    for index in (*_questioned(words, terms), *_opposed(words, terms)):
        said[index].add("uncertain")
    for index in _noned(words, terms):
        said[index].add("absent")
    return [_status(kinds) for kinds in said]


def _status(kinds: set[Kind]) -> Status:
    if "uncertain" in kinds:
        return Status.UNCERTAIN
    return Status.ABSENT if "absent" in kinds else Status.PRESENT


def _cues(words: Sequence[str], inside: set[int], index: _Index) -> list[_Cue]:
    """Cues outside of terms, the longest at each place."""
    found, behind = [], 0
    for place in [place for place, word in enumerate(words) if word in index]:
        if place < behind or place in inside:
            continue
        for cue, kind in index[words[place]]:
            if len(cue) == 1 or tuple(words[place : place + len(cue)]) == cue:
                behind = place + len(cue)
                found.append(_Cue(kind, place, behind))
                break
    return found


def _reached(cue: _Cue, words: Sequence[str], terms: Sequence[Span]) -> list[int]:
    """Terms ahead that a cue speaks of.

    A denial goes over lists ("no ulcer, erosion or polyp"); a doubt goes over "or" alone, because "possible ulcer and
    polyp" leaves the polyp certain.
    """
    starts = {first: index for index, (first, _) in enumerate(terms)}
    found: list[int] = []
    has_noun, place = False, cue.behind
    while place < len(words):
        word = words[place]
        if place in starts:
            index = starts[place]
            found.append(index)
            has_noun, place = True, terms[index][1]
            continue
        if word in _ENDS or _ends(word, place, cue, words, has_noun=has_noun):
            break
        has_noun |= word in _DENIED
        place += 1
    return found


def _ends(word: str, place: int, cue: _Cue, words: Sequence[str], *, has_noun: bool) -> bool:
    """Whether the reach of a cue ends before this word."""
    if place == cue.behind:
        return word == ","
    if word in _PREPOSITIONS or (word == "of" and has_noun):
        return True
    if word not in (",", "and"):
        return False
    if cue.kind == "uncertain":
        return True
    following = words[place + 1] if place + 1 < len(words) else "."
    if word == "," and following in ("and", "or"):
        return place + 2 < len(words) and words[place + 2] in _OPENERS and following == "and"
    return following in _OPENERS


def _points_back(cue: _Cue, words: Sequence[str], terms: Sequence[Span]) -> bool:
    """Whether the cue follows a copula ("is", "are", "cannot be"), or ends its clause, behind a term."""
    start = _clause_start(cue.first, words)
    if not any(start <= first and behind <= cue.first for first, behind in terms):
        return False
    previous = words[cue.first - 1]
    following = words[cue.behind] if cue.behind < len(words) else "."
    is_predicate = previous in _COPULAS or words[cue.first] in ("cannot", "can", "not")
    ends_here = following in _ENDS or following in (",", "in", "here", "on", "at", "and")
    has_term_behind = any(first == cue.behind for first, _ in terms)
    return not has_term_behind and ends_here and (is_predicate or following in _ENDS)


def _reached_back(cue: _Cue, words: Sequence[str], terms: Sequence[Span]) -> list[int]:
    """The subject of the clause: terms back to its beginning, without those behind a preposition."""
    start = _clause_start(cue.first, words)
    found: list[int] = []
    for index, (first, behind) in enumerate(terms):
        if not (start <= first and behind <= cue.first):
            continue
        if any(word in _PREPOSITIONS for word in words[max(start, first - 2) : first]):
            continue
        found.append(index)
    return found


def _clause_start(place: int, words: Sequence[str]) -> int:
    for before in range(place - 1, -1, -1):
        if words[before] in _STOPS_BACK or (words[before] in (",", "and") and words[before + 1] in _OPENERS):
            return before + 1
    return 0


def _questioned(words: Sequence[str], terms: Sequence[Span]) -> list[int]:
    """Terms with a question mark before or behind them: "?ulcer", "ulcer?", "ulcer (?)"."""
    found: list[int] = []
    for index, (first, behind) in enumerate(terms) if "?" in words else ():
        follows = words[behind : behind + 1] == ["?"] or words[behind : behind + 2] == ["(", "?"]
        opens = words[max(first - 1, 0) : first] == ["?"] and (first == 1 or words[first - 2] in (".", ",", ";", ":"))
        if follows or opens:
            found.append(index)
    return found


def _noned(words: Sequence[str], terms: Sequence[Span]) -> list[int]:
    """Terms of a form's field that says so and no more: "ulcer: none.", but not "ulcer - no cancer"."""
    found: list[int] = []
    for index, (_, end) in () if _FIELD_WORDS.isdisjoint(words) else enumerate(terms):
        sign, answer, *following = [*words[end : end + 3], ".", "."]
        if sign in _FIELD_SIGNS and answer in _FIELD_DENIALS and following[0] in (*_ENDS, ","):
            found.append(index)
    return found


def _opposed(words: Sequence[str], terms: Sequence[Span]) -> list[int]:
    """Terms on both sides of "versus"."""
    if "vs" not in words and "versus" not in words:
        return []
    pairs = zip(range(len(terms)), terms, terms[1:], strict=False)
    found = [index for index, (_, end), (start, _) in pairs if tuple(words[end:start]) in _VERSUS]
    return [index for first in found for index in (first, first + 1)]
