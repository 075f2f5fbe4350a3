"""Captions state what the record states: every site, finding, number, place and share, and nothing besides."""

import re
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gastrovl.clinical.taxonomy import Taxonomy
from gastrovl.core.positions import PHRASES, mentions_position
from gastrovl.core.types import Box, Finding, ImageRef, Sample, Split, Status
from gastrovl.data.captions import captions_of

TAXONOMY = Taxonomy.load()
LEAVES = [term.id for term in TAXONOMY.terms if term.level == 3]
VIEWS = {"negative", "anatomical_structure", "out_of_scope"}
UPPER_LEFT = Box(x0=0.1, y0=0.1, x1=0.3, y1=0.3)  # 4 % of the view
RIGHT = Box(x0=0.7, y0=0.3, x1=0.95, y1=0.7)  # 10 %
CENTRE = Box(x0=0.3, y0=0.3, x1=0.7, y1=0.7)  # 16 %


def sample_of(*findings: Finding) -> Sample:
    image = ImageRef(path="images/a.jpg", width_px=320, height_px=288, sha256="0" * 64)
    return Sample(id="own/a", image=image, source="own", group="1", split=Split.TRAIN, findings=findings)


def captions(*findings: Finding, count: int = 20) -> list[str]:
    return captions_of(sample_of(*findings), TAXONOMY, np.random.default_rng(1), count)


def facts_in(caption: str) -> Counter[str]:
    """Term names, positions, shares, "no" and "possible" in a caption, by longest match; the words between fall out."""
    names = sorted((term.name for term in TAXONOMY.terms), key=len, reverse=True)
    phrases = [phrase for row in PHRASES for phrase in row]
    words = ["(small in view)", "(medium in view)", "(large in view)", "in two places", "in three places", "possible"]
    pattern = "|".join(rf"(?<!\w){re.escape(word)}(?!\w)" for word in [*names, *sorted(phrases, key=len)[::-1], *words])
    return Counter(re.findall(pattern + r"|\bno\b", caption.lower()))


def test_a_site_and_a_finding_stand_in_one_caption():
    found = captions(Finding(term="antrum"), Finding(term="gastric_polyp", boxes=(UPPER_LEFT,)))
    assert "Antrum with gastric polyp at the upper left (small in view)." in found
    assert "Gastric polyp at the upper left (small in view). Site: antrum." in found


def test_two_findings_stand_in_taxonomy_order():
    found = captions(
        Finding(term="early_gastric_cancer", boxes=(CENTRE,)),
        Finding(term="gastric_ulcer", boxes=(RIGHT,)),
    )
    expected = "gastric ulcer at the right (medium in view) and early gastric cancer in the centre (large in view)"
    assert f"Seen here: {expected}." in found


def test_several_boxes_of_a_term_are_counted_and_placed_largest_first():
    found = captions(Finding(term="gastric_polyp", boxes=(UPPER_LEFT, RIGHT)))
    expected = "Gastric polyp in two places at the right (medium in view) and at the upper left (small in view)."
    assert expected in found


def test_boxes_of_two_findings_of_one_term_are_one_list():
    separate = captions(
        Finding(term="gastric_polyp", boxes=(UPPER_LEFT,)), Finding(term="gastric_polyp", boxes=(RIGHT,))
    )
    assert separate == captions(Finding(term="gastric_polyp", boxes=(RIGHT, UPPER_LEFT)))


def test_many_places_are_counted_but_not_listed():
    boxes = tuple(Box(x0=0.1 * step, y0=0.1, x1=0.1 * step + 0.05, y1=0.2) for step in range(6))
    assert "Gastric polyp in six places." in captions(Finding(term="gastric_polyp", boxes=boxes))


def test_a_finding_without_a_box_has_no_position():
    assert not any(mentions_position(caption) for caption in captions(Finding(term="esophagitis")))


def test_a_finding_without_a_site_gets_none():
    for caption in captions(Finding(term="polyp_unspecified", boxes=(CENTRE,))):
        assert facts_in(caption) == Counter(["polyp", "in the centre", "(large in view)"])


def test_a_site_that_the_finding_names_is_stated_once():
    found = captions(Finding(term="antrum"), Finding(term="gastric_ulcer", site="antrum"))
    assert "Antrum with gastric ulcer." in found
    assert all(facts_in(caption) == Counter(["antrum", "gastric ulcer"]) for caption in found)


def test_a_normal_view_is_stated_and_nothing_is_denied():
    assert {*captions(Finding(term="normal_esophagus"))} >= {"Normal esophagus.", "View of normal esophagus."}
    assert all(
        facts_in(caption) == Counter(["normal esophagus"]) for caption in captions(Finding(term="normal_esophagus"))
    )


def test_a_stated_absence_is_said():
    found = captions(Finding(term="antrum"), Finding(term="gastric_ulcer", status=Status.ABSENT))
    assert "View of antrum. No gastric ulcer." in found
    assert captions(Finding(term="gastric_ulcer", status=Status.ABSENT)) == ["No gastric ulcer."]


def test_an_uncertain_finding_is_called_possible():
    assert "Possible gastric cancer." in captions(Finding(term="gastric_cancer", status=Status.UNCERTAIN))


def test_a_grade_is_said_once():
    assert "Esophageal varices grade 2." in captions(Finding(term="esophageal_varices", grade="2"))
    assert "Esophagitis la grade a." in captions(Finding(term="esophagitis_la_a", grade="A"))


def test_a_record_that_states_nothing_has_no_caption():
    assert captions() == []


def test_captions_of_one_image_differ_and_are_as_many_as_asked():
    found = captions(Finding(term="antrum"), count=3)
    assert len(found) == len(set(found)) == 3


boxes_anywhere = st.builds(
    lambda x, y, w, h: Box(x0=x, y0=y, x1=x + w * (1 - x), y1=y + h * (1 - y)),
    *(st.floats(0, 0.9), st.floats(0, 0.9), st.floats(0.05, 1), st.floats(0.05, 1)),
)
findings_anywhere = st.lists(
    st.builds(
        Finding,
        term=st.sampled_from(LEAVES),
        status=st.sampled_from([Status.PRESENT, Status.PRESENT, Status.UNCERTAIN, Status.ABSENT]),
        boxes=st.lists(boxes_anywhere, max_size=2, unique=True).map(tuple),
    ),
    max_size=4,
    unique_by=lambda finding: finding.term,
)


def facts_of(findings: list[Finding]) -> Counter[str]:
    """What a caption has to state, worked out from the record by itself."""
    facts: Counter[str] = Counter()
    for finding in findings:
        facts[TAXONOMY[finding.term].name] += 1
        is_view = any(ancestor in VIEWS for ancestor in TAXONOMY.ancestors(finding.term))
        if finding.status == Status.ABSENT:
            facts["no"] += 1
        elif not is_view:
            facts["possible"] += finding.status == Status.UNCERTAIN
            facts["in two places"] += len(finding.boxes) == 2
            for box in finding.boxes:
                across = "left" if box.x0 + box.x1 < 2 / 3 else "right" if box.x0 + box.x1 >= 4 / 3 else ""
                down = "upper" if box.y0 + box.y1 < 2 / 3 else "lower" if box.y0 + box.y1 >= 4 / 3 else ""
                edge = {"upper": "at the top", "lower": "at the bottom", "": "in the centre"}[down]
                facts[f"at the {down} {across}".replace("  ", " ") if across else edge] += 1
                share = (box.x1 - box.x0) * (box.y1 - box.y0)
                facts[f"({'small' if share < 0.05 else 'medium' if share < 0.15 else 'large'} in view)"] += 1
    return +facts


@given(findings_anywhere, st.integers(0, 100))
def test_every_caption_states_the_facts_of_the_record_and_no_others(findings, seed):
    for caption in captions_of(sample_of(*findings), TAXONOMY, np.random.default_rng(seed), count=3):
        assert facts_in(caption) == facts_of(findings)


@given(findings_anywhere)
def test_every_caption_is_sentences_that_end_with_a_full_stop(findings):
    for caption in captions(*findings):
        assert re.fullmatch(r"[A-Z][^{}\n]*[^ .]\.", caption)
        assert "  " not in caption


@pytest.mark.parametrize("term", LEAVES)
def test_every_term_can_be_captioned(term):
    assert all(TAXONOMY[term].name in caption.lower() for caption in captions(Finding(term=term)))
