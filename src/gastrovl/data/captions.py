"""What a sample's record states, as sentences: sites, findings, number, position and share of the view, and no more.

The style is that of a short endoscopy note: no articles, few words, the taxonomy's own names. A caption says nothing of
what the record leaves out: no site when none is given, and "no ..." only where the record states an absence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gastrovl.clinical.implication import is_view
from gastrovl.clinical.taxonomy import Taxonomy
from gastrovl.core.positions import position_phrase, share_word
from gastrovl.core.types import Box, Finding, Sample, Status

MAX_PLACES = 4  # of one finding that are spelled out; of more, the caption states the number alone
_NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")

# {View} and {Findings} begin with a capital, {view} and {findings} do not.
_BOTH = (
    "View of {view} with {findings}.",
    "{View}: {findings}.",
    "The image shows {view} with {findings}.",
    "{Findings}. Site: {view}.",
    "Endoscopic view of {view}. Findings: {findings}.",
    "{View} with {findings}.",
)
_VIEW_ONLY = (
    "View of {view}.",
    "{View}.",
    "The image shows {view}.",
    "Site: {view}.",
    "Endoscopic view of {view}.",
    "{View} in view.",
)
_FINDINGS_ONLY = (
    "The image shows {findings}.",
    "{Findings}.",
    "Findings: {findings}.",
    "Endoscopic view with {findings}.",
    "Seen here: {findings}.",
    "There is {findings}.",
)


@dataclass(frozen=True, slots=True)
class _Item:
    """One finding with all of its places."""

    name: str
    boxes: tuple[Box, ...]


@dataclass(frozen=True, slots=True)
class _Facts:
    """What a caption has to say: names of the views, findings with places, names of what is stated to be absent."""

    views: tuple[str, ...]
    items: tuple[_Item, ...]
    absent: tuple[str, ...]


def captions_of(sample: Sample, taxonomy: Taxonomy, rng: np.random.Generator, count: int) -> list[str]:
    """Up to `count` different captions of one image, all of them stating the same facts.

    Returns:
        Captions that end with a full stop; none when the record states nothing.

    Raises:
        LabelError: A finding's term or site is not in the taxonomy.
    """
    facts = _facts(sample, taxonomy)
    patterns = _patterns(facts)
    chosen = rng.permutation(len(patterns))[:count]
    return [_fill(patterns[index], facts) for index in chosen]


def _facts(sample: Sample, taxonomy: Taxonomy) -> _Facts:
    stated = [finding for finding in sample.findings if finding.status != Status.ABSENT]
    views = {finding.term for finding in stated if is_view(finding.term, taxonomy)}
    views |= {finding.site for finding in stated if finding.site is not None}
    absent = {finding.term for finding in sample.findings if finding.status == Status.ABSENT}
    places: dict[str, list[Box]] = {}
    for finding in sorted(stated, key=lambda finding: taxonomy.order(finding.term)):
        if not is_view(finding.term, taxonomy):
            places.setdefault(_name(finding, taxonomy), []).extend(finding.boxes)
    return _Facts(
        views=tuple(taxonomy[term].name for term in sorted(views, key=taxonomy.order)),
        items=tuple(_Item(name, _sorted(boxes)) for name, boxes in places.items()),
        absent=tuple(taxonomy[term].name for term in sorted(absent, key=taxonomy.order)),
    )


def _name(finding: Finding, taxonomy: Taxonomy) -> str:
    name = taxonomy[finding.term].name
    if finding.grade and not name.endswith(f"grade {finding.grade.lower()}"):
        name = f"{name} grade {finding.grade}"
    return f"possible {name}" if finding.status == Status.UNCERTAIN else name


def _sorted(boxes: Sequence[Box]) -> tuple[Box, ...]:
    """Each box once, largest first, as in the text form of boxes."""
    return tuple(sorted(set(boxes), key=lambda box: (-box.area, box.x0, box.y0, box.x1, box.y1)))


def _patterns(facts: _Facts) -> tuple[str, ...]:
    if facts.views and facts.items:
        return _BOTH
    if facts.views:
        return _VIEW_ONLY
    if facts.items:
        return _FINDINGS_ONLY
    return ("{absent}",) if facts.absent else ()


def _fill(pattern: str, facts: _Facts) -> str:
    view, findings = _join(facts.views), _join([_item_text(item) for item in facts.items])
    absent = _capital(_join([f"no {name}" for name in facts.absent])) + "." if facts.absent else ""
    text = pattern.format(view=view, View=_capital(view), findings=findings, Findings=_capital(findings), absent=absent)
    return f"{text} {absent}" if absent and text != absent else text


def _item_text(item: _Item) -> str:
    if not item.boxes:
        return item.name
    if len(item.boxes) == 1:
        return f"{item.name} {_place(item.boxes[0])}"
    number = len(item.boxes)
    word = _NUMBERS[number] if number < len(_NUMBERS) else str(number)
    places = f" {_join([_place(box) for box in item.boxes])}" if number <= MAX_PLACES else ""
    return f"{item.name} in {word} places{places}"


def _place(box: Box) -> str:
    return f"{position_phrase(box)} ({share_word(box)} in view)"


def _join(parts: Sequence[str]) -> str:
    """ "a", "a and b", "a, b and c"."""
    return " and ".join(part for part in (", ".join(parts[:-1]), *parts[-1:]) if part)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
