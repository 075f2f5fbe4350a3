"""A caption and its record to a verdict: what it contradicts, invents or leaves out, and what is left when that is cut.

The check is strict where a false statement would be taught: what the record does not state counts as invented. It reads
terms, denials, sides, numbers and the like; it does not see the image, and it does not understand sentences.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from gastrovl.clinical.counts import Claim, numbers, sentence_bounds
from gastrovl.clinical.implication import is_view
from gastrovl.clinical.mentions import Mention, find_mentions, singular, tokenise
from gastrovl.clinical.taxonomy import Taxonomy, normalise
from gastrovl.clinical.words import WORD, further_wordings
from gastrovl.core.config import Config
from gastrovl.core.types import Sample, Status, Verdict
from gastrovl.data.captioning import claims
from gastrovl.data.captioning.facts import Facts, Stated, boxes_of

_SEEN = (Status.PRESENT, Status.UNCERTAIN)
_FOREIGN = frozenset(
    {"der", "die", "das", "und", "mit", "ein", "eine", "ist", "nicht", "el", "los", "una", "con", "del", "por", "le",
     "les", "une", "avec", "dans", "il", "della", "un"}
)  # fmt: skip
_ENGLISH = frozenset(
    {"the", "a", "an", "of", "with", "and", "in", "at", "is", "are", "no", "there", "this", "view", "image", "shows",
     "site", "findings", "seen", "here"}
)  # fmt: skip
_PREAMBLE = re.compile(r"^(?:caption|description|answer|note)\s*:\s*", re.IGNORECASE)


class Fault(StrEnum):
    """What can be wrong with a caption."""

    DENIED = "denied finding"  # the record states it, the caption says it is absent
    AFFIRMED = "affirmed absence"  # the record says it is absent, the caption states it
    CERTAINTY = "changed certainty"  # possible in one, certain in the other
    FINDING = "invented finding"
    ORGAN = "added organ"  # the record's label names none
    SITE = "invented site"
    ABSENCE = "invented absence"
    SIDE = "wrong side"
    COUNT = "wrong number"
    SHARE = "wrong share of the view"
    GRADE = "invented grade"
    SIZE = "invented size"
    PLACE = "invented place"  # a wall, a curvature, o'clock
    PERSON = "patient facts"
    TREATMENT = "treatment"
    CAUSE = "cause"
    HISTOLOGY = "histology"
    TECHNIQUE = "technique"
    MISSING = "missing finding"
    FORM = "form"  # a refusal, markdown, another language, too long, leaked prompt


class CheckOptions(Config):
    """What counts as wrong.

    Attributes:
        faults: Kinds that reject a caption, or are cut out of it; the others are let pass.
        most_words: A longer caption is a fault of form.
        repairs: Cut sentences and clauses with faults, where what is left still states the record's findings.
    """

    faults: tuple[Fault, ...] = tuple(Fault)
    most_words: int = 100
    repairs: bool = True


@dataclass(frozen=True)
class Found:
    """One fault, at text[start:end]; both 0 when it is nowhere in particular."""

    fault: Fault
    what: str
    start: int = 0
    end: int = 0

    def __str__(self) -> str:
        return f"{self.fault.value}: {self.what}"


@dataclass(frozen=True)
class Checked:
    """What became of a caption; `text` is None when it was rejected, `found` is what was wrong with it as given."""

    verdict: Verdict
    text: str | None
    found: tuple[Found, ...]


def check_caption(text: str, sample: Sample, taxonomy: Taxonomy, options: CheckOptions | None = None) -> Checked:
    """Compare a caption with a record; never raises, whatever the text.

    Args:
        text: A model's reply; quotes around it, a leading "Caption:" and surplus white space are taken off first.
    """
    options = options or CheckOptions()
    facts = Facts.of(sample, taxonomy)
    text = tidy(text)
    found = faults_of(text, facts, options)
    if not found:
        return Checked(Verdict.ACCEPTED, text, ())
    if options.repairs:
        for shorter in _cuts(text, found):
            if shorter != text and not faults_of(shorter, facts, options):
                return Checked(Verdict.REPAIRED, shorter, tuple(found))
    return Checked(Verdict.REJECTED, None, tuple(found))


def tidy(text: str) -> str:
    """A reply without quotes around it, "Caption:" before it and surplus blanks; with a full stop at its end."""
    plain = text.strip()
    if len(plain) > 1 and plain[0] in "\"'“‘" and plain[-1] in "\"'”’":
        plain = plain[1:-1].strip()
    plain = _PREAMBLE.sub("", plain, count=1)
    plain = re.sub(r"[ \t\u00a0]+", " ", plain)
    if plain and plain[-1] not in ".!?":
        plain = plain.rstrip(",;: ") + "."
    return plain[:1].upper() + plain[1:]


def faults_of(text: str, facts: Facts, options: CheckOptions) -> list[Found]:
    """Everything wrong with a text, in the order in which it stands there; faults of the whole come last."""
    mentions = find_mentions(text, facts.taxonomy, further_wordings())
    located = [*_terms(mentions, facts), *_claims(text, mentions, facts)]
    located.sort(key=lambda one: (one.start, one.end, one.fault))
    whole = [*_missing(text, mentions, facts), *_form(text, options)]
    return [one for one in (*located, *whole) if one.fault in options.faults]


def _terms(mentions: Sequence[Mention], facts: Facts) -> Iterator[Found]:
    for mention in mentions:
        fault = _absence_fault(mention, facts) if mention.status is Status.ABSENT else _presence_fault(mention, facts)
        if fault is not None:
            yield Found(fault, _name(mention.term, facts.taxonomy), mention.start, mention.end)


def _absence_fault(mention: Mention, facts: Facts) -> Fault | None:
    if facts.that_imply(mention.term, _SEEN):
        return Fault.DENIED
    return None if facts.licenses_denial(mention.term) else Fault.ABSENCE


def _presence_fault(mention: Mention, facts: Facts) -> Fault | None:
    term, taxonomy = mention.term, facts.taxonomy
    is_loose = term.startswith(WORD) or is_view(term, taxonomy)  # of these, certainty is not compared
    if facts.that_imply(term, _SEEN if is_loose else (mention.status,)):
        return None
    if facts.that_imply(term, _SEEN):
        return Fault.CERTAINTY
    if facts.that_imply(term, (Status.ABSENT,)) or facts.implied_by(term, (Status.ABSENT,)):
        return Fault.AFFIRMED
    if term.startswith(WORD):
        return Fault.FINDING
    if taxonomy[term].site and any(one.organ is None for one in facts.implied_by(term, _SEEN)):
        return Fault.ORGAN
    return Fault.SITE if "anatomical_structure" in (term, *taxonomy.ancestors(term)) else Fault.FINDING


def _claims(text: str, mentions: Sequence[Mention], facts: Facts) -> Iterator[Found]:
    things = {
        index
        for index, mention in enumerate(mentions)
        if mention.status is not Status.ABSENT
        and (mention.term.startswith(WORD) or not is_view(mention.term, facts.taxonomy))
    }

    def about(claim: Claim) -> list[Stated]:
        seen = [one for one in facts.stated if one.status is not Status.ABSENT]
        return seen if claim.owner is None else facts.that_imply(mentions[claim.owner].term, _SEEN)

    for claim in claims.sides(text, mentions, things):
        if not any(claims.fits_side(claim, box) for box in boxes_of(about(claim))):
            yield Found(Fault.SIDE, claim.value, claim.start, claim.end)
    for claim in claims.shares(text, mentions, things):
        if not any(claims.fits_share(claim.value, box) for box in boxes_of(about(claim))):
            yield Found(Fault.SHARE, text[claim.start : claim.end].lower(), claim.start, claim.end)
    singular_names = {index for index in things if _is_singular(mentions[index].term, facts.taxonomy)}
    for claim in (*numbers(text, mentions, things), *claims.plurals(text, mentions, singular_names)):
        stated = about(claim)
        is_plain = claim.is_plural and not boxes_of(stated)  # "polyps", and nobody has counted them
        if not is_plain and not _fits_number(claim, stated):
            yield Found(Fault.COUNT, claim.value.lower(), claim.start, claim.end)
    known = {grade.replace(" ", "") for grade in facts.grades()}
    for claim in claims.grades(text, mentions):
        if claim.value not in known:
            yield Found(Fault.GRADE, text[claim.start : claim.end].strip().lower(), claim.start, claim.end)
    for kind, claim in claims.patterns(text, mentions):
        yield Found(_OF_KIND[kind], claim.value, claim.start, claim.end)


_OF_KIND = {
    "treatment": Fault.TREATMENT,
    "cause": Fault.CAUSE,
    "histology": Fault.HISTOLOGY,
    "technique": Fault.TECHNIQUE,
    "person": Fault.PERSON,
    "place": Fault.PLACE,
    "size": Fault.SIZE,
    "form": Fault.FORM,
}


def _is_singular(term: str, taxonomy: Taxonomy) -> bool:
    """Whether the name of a term speaks of one thing, so that its plural speaks of several."""
    last = WORD if term.startswith(WORD) else taxonomy[term].name.split()[-1]
    return last == singular(last) and not last.startswith(WORD)


def _fits_number(claim: Claim, stated: Sequence[Stated]) -> bool:
    """Whether the boxes are so many: those of all that is meant, or of what has one term, status and grade."""
    groups = [[one for one in stated if (one.term, one.status, one.grade) == key]
              for key in {(one.term, one.status, one.grade) for one in stated}]  # fmt: skip
    counts = {len(boxes_of(group)) for group in (*groups, stated)} - {0}
    return any(claim.least <= count and (claim.most is None or count <= claim.most) for count in counts)


def _missing(text: str, mentions: Sequence[Mention], facts: Facts) -> Iterator[Found]:
    """Findings that the text leaves out; of a record of views only, all of them together."""
    wanted = list(facts.to_be_said())
    left_out = [one for one in wanted if not _is_said(one, text, mentions, facts)]
    is_views = bool(wanted) and all(is_view(one.term, facts.taxonomy) and one.status in _SEEN for one in wanted)
    if is_views and len(left_out) < len(wanted):
        return
    for name in dict.fromkeys(facts.taxonomy[one.term].name for one in left_out):
        yield Found(Fault.MISSING, name)
    if not wanted:
        yield Found(Fault.MISSING, "anything: the record states nothing")


def _is_said(one: Stated, text: str, mentions: Sequence[Mention], facts: Facts) -> bool:
    taxonomy = facts.taxonomy
    if one.status is Status.ABSENT:
        return any(m.status is Status.ABSENT and _is_either(m.term, one, facts) for m in mentions)
    is_site = is_view(one.term, taxonomy)
    for mention in mentions:
        is_close = not mention.term.startswith(WORD) and (is_site or taxonomy[mention.term].level == 3)
        is_kind = is_close and (is_site or not is_view(mention.term, taxonomy))
        if is_kind and mention.status is not Status.ABSENT and facts.implies(one, mention.term):
            return True
    # Names that are too common for `find_mentions` to read, such as "negative", still count word by word.
    words = " ".join(token.word for token in tokenise(text))
    return f" {normalise(taxonomy[one.term].name)} " in f" {words} "


def _is_either(term: str, one: Stated, facts: Facts) -> bool:
    return not term.startswith(WORD) and (facts.implies(one, term) or one in facts.implied_by(term, (one.status,)))


def _form(text: str, options: CheckOptions) -> Iterator[Found]:
    words = [token.word for token in tokenise(text) if token.word[0].isalpha()]
    if not words:
        yield Found(Fault.FORM, "no words")
        return
    if len(words) > options.most_words:
        yield Found(Fault.FORM, f"more than {options.most_words} words")
    letters = [letter for letter in text if letter.isalpha()]
    foreign = sum(word in _FOREIGN for word in words)
    if sum(not letter.isascii() for letter in letters) > len(letters) / 10 or (
        foreign > 1 and foreign > sum(word in _ENGLISH for word in words)
    ):
        yield Found(Fault.FORM, "not English")


def _cuts(text: str, found: Sequence[Found]) -> Iterator[str]:
    """The text without what is wrong: first the ends of sentences only, then whole sentences."""
    located = [one for one in found if one.end]
    if not located:
        return
    kept: list[tuple[str, bool]] = []
    for start, end in sentence_bounds(text):
        inside = [one.start for one in located if start <= one.start < end]
        kept.append(
            (text[start:end].strip(), not inside)
            if not inside
            else (_head(text[start:end], min(inside) - start), False)
        )
    yield _joined(sentence for sentence, _ in kept)
    yield _joined(sentence for sentence, is_whole in kept if is_whole)


def _head(sentence: str, fault_at: int) -> str:
    """The sentence up to the last comma, bracket or turn of thought before a fault; "" when there is none."""
    breaks = [
        match
        for match in re.finditer(r"\s*[,(]\s*|\s+(?:but|while|although|however)\s+", sentence)
        if match.start() < fault_at
    ]
    return sentence[: breaks[-1].start()].strip() if breaks else ""


def _joined(sentences: Iterable[str]) -> str:
    return " ".join(tidy(sentence.rstrip(";")) for sentence in sentences if sentence)


def _name(term: str, taxonomy: Taxonomy) -> str:
    return term.removeprefix(WORD).replace("_", " ") if term.startswith(WORD) else taxonomy[term].name
