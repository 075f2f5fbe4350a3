"""What two texts state to which of it agrees: pairs of facts, and what is missed, invented, contradicted or hedged."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from gastrovl.clinical.statements import Fact, Kind, fact_implies
from gastrovl.clinical.taxonomy import Taxonomy
from gastrovl.core.types import Status

TOLERANCE_MM, TOLERANCE_SHARE = 1.0, 0.2  # two lengths agree within the larger of 1 mm and 20 % of the reference's
STATED_WITH_STATUS: tuple[Kind, ...] = ("site", "lesion", "attribute")  # what a text can deny
Pair = tuple[Fact, Fact]  # of the reference, of the reply


@dataclass(frozen=True, slots=True)
class Agreement:
    """The facts of a reference and of a reply, each in one place of `matched`, `missed` or `invented`.

    Attributes:
        matched: Pairs of one kind, value and status, whose lesions do not differ.
        missed: Facts of the reference that the reply does not state so.
        invented: Facts of the reply that the reference does not state so.
        contradicted: Pairs of which one is stated present and the other absent, among `missed` and `invented`;
            "no ulcer" contradicts "gastric ulcer".
        hedged: Pairs that differ in certainty only, among `missed` and `invented`.
        near: Pairs of which one implies the other ("ulcer", "gastric ulcer"), among `missed` and `invented`.
    """

    matched: tuple[Pair, ...]
    missed: tuple[Fact, ...]
    invented: tuple[Fact, ...]
    contradicted: tuple[Pair, ...]
    hedged: tuple[Pair, ...]
    near: tuple[Pair, ...]


def agree(stated: Sequence[Fact], replied: Sequence[Fact], taxonomy: Taxonomy) -> Agreement:
    """Pair the facts of a reference and of a reply, one to one.

    A term matches itself only: neither "ulcer" nor "cancer" is a match for "gastric ulcer"; the first is `near`. A
    property matches where both belong to the same lesion, or to lesions of which one implies the other, or where one
    text does not say to which. Sizes match within the tolerance; grades, when no two different scales are named.
    """
    missed, invented = list(stated), list(replied)

    def is_same_owner(one: Fact, other: Fact) -> bool:
        if one.of is None or other.of is None:
            return True
        return fact_implies(one.of, other.of, taxonomy) or fact_implies(other.of, one.of, taxonomy)

    def is_same(one: Fact, other: Fact) -> bool:
        return one.status is other.status and _has_same_value(one, other) and is_same_owner(one, other)

    matched = [
        *_pair(missed, invented, lambda one, other: one.of == other.of and is_same(one, other)),
        *_pair(missed, invented, is_same),
    ]
    rest, surplus = _deniable(missed), _deniable(invented)
    turned = _pair(rest, surplus, lambda one, other: one.value == other.value and is_same_owner(one, other))
    contradicted = [pair for pair in turned if _is_opposite(*pair)]
    return Agreement(
        tuple(matched),
        tuple(missed),
        tuple(invented),
        (*contradicted, *_denied_by_a_wider(rest, surplus, taxonomy)),
        tuple(pair for pair in turned if not _is_opposite(*pair)),
        tuple(_near(missed, invented, taxonomy)),
    )


def _pair(missed: list[Fact], invented: list[Fact], fits: Callable[[Fact, Fact], bool]) -> list[Pair]:
    """Pairs of one kind that fit, each fact once, in order; they are taken out of both lists."""
    of_kind: dict[Kind, list[Fact]] = {}
    for other in invented:
        of_kind.setdefault(other.kind, []).append(other)
    found = []
    for one in list(missed):
        for other in of_kind.get(one.kind, ()):
            if fits(one, other):
                found.append((one, other))
                missed.remove(one)
                invented.remove(other)
                of_kind[one.kind].remove(other)
                break
    return found


def _deniable(facts: Iterable[Fact]) -> list[Fact]:
    return [one for one in facts if one.kind in STATED_WITH_STATUS]


def _is_opposite(one: Fact, other: Fact) -> bool:
    return one.status is not other.status and Status.UNCERTAIN not in (one.status, other.status)


def _denied_by_a_wider(missed: Iterable[Fact], invented: Sequence[Fact], taxonomy: Taxonomy) -> list[Pair]:
    """Lesions that one text sees and that are a kind of what the other denies; each lesion once."""
    found: list[Pair] = []
    lesions = [other for other in invented if other.kind == "lesion"]
    for one in missed:
        for other in lesions if one.kind == "lesion" else ():
            if _is_opposite(one, other):
                seen, denied = (one, other) if one.status is Status.PRESENT else (other, one)
                is_new = all(seen not in pair for pair in found)
                if is_new and fact_implies(seen.value, denied.value, taxonomy):
                    found.append((one, other))
    return found


def _near(missed: Iterable[Fact], invented: Iterable[Fact], taxonomy: Taxonomy) -> list[Pair]:
    wanted, given = ([one for one in some if one.kind in ("site", "lesion")] for some in (missed, invented))
    return [
        (one, other)
        for one in wanted
        for other in given
        if one.kind == other.kind
        and one.status is other.status
        and (fact_implies(one.value, other.value, taxonomy) or fact_implies(other.value, one.value, taxonomy))
    ]


def _has_same_value(one: Fact, other: Fact) -> bool:
    """Of two facts of one kind, whether they say the same, their status and their lesions apart."""
    if one.kind == "size":
        return _is_same_size(one, other)
    if one.kind == "count":  # "several" and "numerous" are alike, "several" and "three" are not
        return one.high == other.high and (one.low == other.low or math.isinf(one.high))
    if one.kind == "grade":
        scale, _, grade = one.value.rpartition(" ")
        other_scale, _, other_grade = other.value.rpartition(" ")
        return grade == other_grade and (not scale or not other_scale or scale == other_scale)
    return one.value == other.value


def _is_same_size(one: Fact, other: Fact) -> bool:
    """Whether both ends agree, or, where one size is a single number, the upper ends."""
    if math.isinf(one.high) or math.isinf(other.high):
        return one.high == other.high and _is_close(one.low, other.low)
    if not _is_close(one.high, other.high):
        return False
    return one.low == one.high or other.low == other.high or _is_close(one.low, other.low)


def _is_close(wanted: float, given: float) -> bool:
    return abs(wanted - given) <= max(TOLERANCE_MM, TOLERANCE_SHARE * wanted) + 1e-9
