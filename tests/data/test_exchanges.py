"""What a record states, without wording: above all, which terms may be said to be absent."""

import pytest

from gastrovl.clinical.taxonomy import Taxonomy
from gastrovl.core.types import Box, Finding, ImageRef, Sample, Split, Status
from gastrovl.data.exchanges import absent_terms, is_told_apart, may_be_one, terms_by_box

TAXONOMY = Taxonomy.load()
BOX = Box(x0=0.1, y0=0.1, x1=0.2, y1=0.3)


def sample_of(*findings):
    image = ImageRef(path="images/a.jpg", width_px=320, height_px=288, sha256="0" * 64)
    return Sample(id="own/a", image=image, source="own", group="1", split=Split.TRAIN, findings=findings)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("gastric_polyp", "gastric_polyp"),
        ("gastric_polyp", "gastric_diseases"),  # above it
        ("esophagitis", "esophagitis_la_a"),  # a sibling that says more
        ("barretts_esophagus", "short_segment_barretts"),
        ("gastric_cancer", "early_gastric_cancer"),
        ("cancer_unspecified", "esophageal_adenocarcinoma"),  # another branch, another word
        ("polyp_unspecified", "gastric_adenoma"),
        ("fundic_gland_polyp", "gastric_polyp"),
    ],
)
def test_terms_that_may_name_one_thing_are_found(one, other):
    assert may_be_one(one, other, TAXONOMY)
    assert may_be_one(other, one, TAXONOMY)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("gastric_polyp", "gastric_ulcer"),
        ("barretts_esophagus", "esophagitis"),
        ("barretts_esophagus", "normal_esophagus"),  # the same last word, but a view
        ("high_grade_dysplasia", "suspicious_area"),
        ("early_gastric_cancer", "gastric_ulcer"),
        ("antrum", "gastric_polyp"),
    ],
)
def test_terms_that_name_different_things_are_told_apart(one, other):
    assert not may_be_one(one, other, TAXONOMY)


def test_a_term_is_not_absent_where_it_may_be_there_under_another_name():
    known = ("esophagitis", "gastric_ulcer", "gastric_polyp")
    seen = sample_of(Finding(term="esophagitis_la_a"), Finding(term="gastric_polyp", status=Status.UNCERTAIN))
    assert absent_terms(seen, TAXONOMY, known) == ["gastric_ulcer"]


def test_what_is_stated_to_be_absent_is_absent():
    stated = sample_of(Finding(term="gastric_ulcer", status=Status.ABSENT))
    assert absent_terms(stated, TAXONOMY, ("gastric_ulcer",)) == ["gastric_ulcer"]
    assert absent_terms(stated, TAXONOMY, ()) == []


def test_a_term_is_told_apart_from_others_and_not_from_itself():
    assert is_told_apart("gastric_polyp", {"gastric_polyp", "gastric_ulcer"}, TAXONOMY)
    assert not is_told_apart("gastric_polyp", {"gastric_polyp", "polyp_unspecified"}, TAXONOMY)


def test_a_box_of_two_findings_has_both_terms():
    sample = sample_of(Finding(term="suspicious_area", boxes=(BOX,)), Finding(term="barretts_esophagus", boxes=(BOX,)))
    assert terms_by_box(sample) == {BOX: {"suspicious_area", "barretts_esophagus"}}
