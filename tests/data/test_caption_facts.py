"""Our own captions, read back: every pattern with every term states exactly what its record does."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from gastrovl.clinical.implication import is_view
from gastrovl.clinical.statements import facts_of
from gastrovl.clinical.taxonomy import Taxonomy
from gastrovl.core.positions import PHRASES, position_phrase, share_word
from gastrovl.core.types import Box, Finding, ImageRef, Sample, Split, Status
from gastrovl.data.captions import captions_of

TAXONOMY = Taxonomy.load()
PLACES = dict(
    zip(
        (phrase for row in PHRASES for phrase in row),
        ("upper_left", "top", "upper_right", "left", "centre", "right", "lower_left", "bottom", "lower_right"),
        strict=True,
    )
)
GRADES = {"esophagitis_la_a": "los_angeles a", "esophagitis_la_b_d": "los_angeles b-d"}  # inside of their names
# Names that are answers and too common to be read in a sentence; of level 1 and 2, and no finding of a data set.
UNREAD = {"negative", "other", "other_sites", "anatomical_structure", "pathological_findings"}
TERMS = [term.id for term in TAXONOMY.terms if term.id not in UNREAD]


def sample_of(*findings: Finding) -> Sample:
    image = ImageRef(path="images/a.jpg", width_px=320, height_px=288, sha256="0" * 64)
    return Sample(id="own/a", image=image, source="own", group="1", split=Split.TRAIN, findings=findings)


def expected(sample: Sample) -> set[tuple[str, str, str, str | None]]:
    """(kind, value, status, owner) of what a record states."""
    return {fact for finding in sample.findings for fact in stated(finding, sample)}


def stated(finding: Finding, sample: Sample) -> Iterator[tuple[str, str, str, str | None]]:
    lesion = "esophagitis" if finding.term in GRADES else finding.term
    is_site = "anatomical_structure" in TAXONOMY.ancestors(finding.term) or "out_of_scope" in (
        finding.term, *TAXONOMY.ancestors(finding.term))  # fmt: skip
    kind = "attribute" if finding.term == "unqualified_frame" else "site" if is_site else "lesion"
    # A caption states a view for certain, whatever its record says.
    status = (
        "present" if finding.status == Status.UNCERTAIN and is_view(finding.term, TAXONOMY) else finding.status.value
    )
    yield kind, lesion, status, None
    if status == "absent":
        return
    if finding.site:
        yield "site", finding.site, "present", None
    if is_view(finding.term, TAXONOMY):
        return
    if finding.term in GRADES:
        yield "grade", GRADES[finding.term], status, lesion
    if finding.grade:
        yield "grade", finding.grade.lower(), status, lesion
    boxes = {box for one in sample.findings if one.term == finding.term for box in one.boxes}
    if len(boxes) > 1:
        yield "count", str(len(boxes)), status, lesion
    for box in boxes if len(boxes) <= 4 else ():
        yield "attribute", f"image_{PLACES[position_phrase(box)]}", status, lesion
        yield "attribute", share_word(box), status, lesion


def check(sample: Sample) -> int:
    captions = captions_of(sample, TAXONOMY, np.random.default_rng(0), 99)
    for caption in captions:
        found = {(one.kind, one.value, one.status.value, one.of) for one in facts_of(caption, TAXONOMY)}
        assert found == expected(sample), caption
    return len(captions)


def box_at(column: int, row: int, side: float) -> Box:
    x, y = (column + 0.5) / 3, (row + 0.5) / 3
    return Box(x0=x - side / 2, y0=y - side / 2, x1=x + side / 2, y1=y + side / 2)


@pytest.mark.parametrize("status", list(Status))
def test_every_term_is_read_back_from_every_pattern(status: Status):
    ulcer = Finding(term="gastric_ulcer", site="antrum", boxes=(box_at(0, 0, 0.2),))
    for term in TERMS:
        finding = Finding(term=term, status=status)
        assert check(sample_of(finding)) >= 1
        if term not in ("gastric_ulcer", "antrum"):
            assert check(sample_of(finding, ulcer)) == 6
            assert check(sample_of(ulcer, finding, Finding(term="gastric_polyp", status=Status.ABSENT))) == 6 or (
                term == "gastric_polyp"
            )


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 10, 11, 12])
def test_places_shares_and_numbers_are_read_back(count: int):
    spots = [(column, row) for row in range(3) for column in range(3)]
    sides = (0.15, 0.3, 0.3, 0.33)
    boxes = tuple(box_at(*spots[n % 9], sides[n % 4] - 0.01 * (n // 9)) for n in range(count))
    for start in range(count):
        turned = (*boxes[start:], *boxes[:start])[: max(1, count - start % 3)]
        check(sample_of(Finding(term="polyp_unspecified", boxes=turned), Finding(term="stomach")))
        check(sample_of(Finding(term="gastric_cancer", status=Status.UNCERTAIN, boxes=turned)))


@pytest.mark.parametrize(("term", "grade"), [("esophagitis", "B"), ("gastritis", "2"), ("gastric_ulcer", "IIa")])
def test_grades_are_read_back(term: str, grade: str):
    check(sample_of(Finding(term=term, grade=grade, boxes=(box_at(1, 1, 0.5),)), Finding(term="duodenum")))


def test_every_site_of_a_finding_is_read_back():
    sites = [term.id for term in TAXONOMY.terms if "anatomical_structure" in TAXONOMY.ancestors(term.id)]
    for site in set(sites) - UNREAD - {"unqualified_frame"}:
        check(sample_of(Finding(term="erythema_unspecified", site=site), Finding(term="cancer_unspecified")))
