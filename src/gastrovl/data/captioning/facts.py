"""A record to what a caption of it may say: the terms it states, and which other terms follow from them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from gastrovl.clinical.implication import implies, is_view
from gastrovl.clinical.taxonomy import Taxonomy
from gastrovl.clinical.words import WORD, words_by_id
from gastrovl.core.config import Config, load_config
from gastrovl.core.types import Box, Sample, Status


class Statements(Config):
    """statements.yaml: patterns of what no record holds, by kind."""

    patterns: dict[str, tuple[str, ...]]


@cache
def statements() -> Statements:
    """What ships with the package; read once."""
    return load_config(Path(__file__).with_name("statements.yaml"), Statements)


@dataclass(frozen=True)
class Stated:
    """One thing of the record: a finding, or a site of one.

    Attributes:
        organ: "esophagus", "stomach", "duodenum", or None when neither term nor site says.
    """

    term: str
    status: Status
    boxes: tuple[Box, ...] = ()
    grade: str | None = None
    organ: str | None = None


@dataclass(frozen=True)
class Facts:
    """A record, ready to be asked what follows from it."""

    stated: tuple[Stated, ...]
    taxonomy: Taxonomy

    @classmethod
    def of(cls, sample: Sample, taxonomy: Taxonomy) -> Facts:
        """The findings of a sample, and the sites that they name, as stated things of their own.

        Raises:
            LabelError: A finding's term or site is not in the taxonomy.
        """
        found = []
        for finding in sample.findings:
            site = taxonomy[finding.site].site if finding.site else None
            organ = taxonomy[finding.term].site or site
            found.append(Stated(finding.term, finding.status, finding.boxes, finding.grade, organ))
            if finding.site and finding.status is not Status.ABSENT:
                found.append(Stated(finding.site, Status.PRESENT, organ=site))
        return cls(tuple(found), taxonomy)

    def that_imply(self, term: str, statuses: Iterable[Status]) -> list[Stated]:
        """What of the record, with one of these statuses, makes `term` true by itself: the same or something closer."""
        wanted = set(statuses)
        return [one for one in self.stated if one.status in wanted and self.implies(one, term)]

    def implied_by(self, term: str, statuses: Iterable[Status]) -> list[Stated]:
        """What of the record would follow from `term`."""
        if term.startswith(WORD):
            return []
        claimed, wanted = Stated(term, Status.PRESENT, organ=self.taxonomy[term].site), set(statuses)
        return [one for one in self.stated if one.status in wanted and self.implies(claimed, one.term)]

    def implies(self, one: Stated, term: str) -> bool:
        """Whether `term` is true wherever `one` is: equal, above it, its organ, or said with fewer words."""
        if term.startswith(WORD):
            return not {one.term, *self.taxonomy.ancestors(one.term)}.isdisjoint(words_by_id()[term].allowed_by)
        return implies(one.term, term, self.taxonomy, organ=one.organ, grade=one.grade)

    def licenses_denial(self, term: str) -> bool:
        """Whether a stated absence, or a normal view, makes "no <term>" true."""
        if term.startswith(WORD):
            denied_by = words_by_id()[term].denied_by
            present = (one.term for one in self.stated if one.status is Status.PRESENT)
            if any(not {other, *self.taxonomy.ancestors(other)}.isdisjoint(denied_by) for other in present):
                return True
        return bool(self.that_imply(term, (Status.ABSENT,)) or self.implied_by(term, (Status.ABSENT,)))

    def to_be_said(self) -> Iterator[Stated]:
        """What a caption must not leave out: findings where there are any, else the views, else the absences."""
        seen = [one for one in self.stated if one.status is not Status.ABSENT]
        findings = [one for one in seen if not is_view(one.term, self.taxonomy)]
        yield from findings or seen or self.stated

    def grades(self) -> set[str]:
        """Grades of the record, in small letters, those in the names of its terms included."""
        found = {one.grade.lower() for one in self.stated if one.grade}
        names = [self.taxonomy[one.term].name for one in self.stated]
        return found | {name.rpartition("grade ")[2] for name in names if "grade " in name}


def boxes_of(stated: Sequence[Stated]) -> set[Box]:
    """Every box of some stated things, each once."""
    return {box for one in stated for box in one.boxes}
