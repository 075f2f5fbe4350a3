"""Facts that a text states, with kind, status, owner and place; every expectation is read off the sentence by hand."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gastrovl.clinical.attributes import attribute_wordings, attributes_by_id, known_attributes
from gastrovl.clinical.quantities import grades, sizes
from gastrovl.clinical.statements import fact_implies, facts_of
from gastrovl.clinical.taxonomy import Taxonomy, normalise
from gastrovl.clinical.words import further_wordings, known_words, word_facts
from gastrovl.core.types import Status

TAXONOMY = Taxonomy.load()
MARKS = {Status.PRESENT: "+", Status.ABSENT: "-", Status.UNCERTAIN: "?"}


def said(text: str) -> set[str]:
    return {
        f"{MARKS[one.status]}{one.kind} {one.value}" + (f" of {one.of}" if one.of else "")
        for one in facts_of(text, TAXONOMY)
    }


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The polyp is red and the ulcer is white.",
         {"+lesion polyp_unspecified", "+attribute red of polyp_unspecified",
          "+lesion ulcer_unspecified", "+attribute white of ulcer_unspecified"}),
        ("At the upper left, a small polyp.",
         {"+lesion polyp_unspecified", "+attribute small of polyp_unspecified",
          "+attribute image_upper_left of polyp_unspecified"}),
        ("A gastric polyp without ulcer, 8 mm in size.",
         {"+lesion gastric_polyp", "-lesion ulcer_unspecified", "+size 8 mm of gastric_polyp"}),
        ("Possible small polyp.", {"?lesion polyp_unspecified", "?attribute small of polyp_unspecified"}),
        ("Polyp, possibly pedunculated.",
         {"+lesion polyp_unspecified", "?attribute pedunculated of polyp_unspecified"}),
        ("The ulcer is not bleeding.", {"+lesion ulcer_unspecified", "-lesion bleeding"}),
        ("No abnormality of the antrum.", {"-lesion lesion", "+site antrum"}),
        ("The antrum is not seen.", {"-site antrum"}),
        ("A gastric polyp. The duodenal polyp is red.",
         {"+lesion gastric_polyp", "+lesion duodenal_polyp", "+attribute red of duodenal_polyp"}),
        ("No polyp. The lesion is red.",  # nothing that was seen before it could be the lesion
         {"-lesion polyp_unspecified", "+lesion lesion", "+attribute red of lesion"}),
        ("Two polyps; the larger measures 12 mm.",
         {"+lesion polyp_unspecified", "+count 2 of polyp_unspecified", "+size 12 mm of polyp_unspecified"}),
        ("Blurred image.", {"+attribute unqualified_frame"}),
        ("The stomach is unremarkable.", {"+site stomach", "+lesion normal"}),
        ("Rectum.", {"+site lower_tract"}),
        ("", set()),
    ],
)  # fmt: skip
def test_a_text_states(text, expected):
    assert said(text) == expected


def test_said_twice_is_one_fact_in_two_places():
    text = "Gastric polyp. There is a gastric polyp in the antrum."
    lesion, site = facts_of(text, TAXONOMY)
    assert [text[start:end] for start, end in lesion.spans] == ["Gastric polyp", "gastric polyp"]
    assert [text[start:end] for start, end in site.spans] == ["antrum"]


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [
        ("8 mm", 8, 8), ("8mm", 8, 8), ("8-mm", 8, 8), ("0.8 cm", 8, 8), ("0,8 cm", 8, 8), ("8-10 mm", 8, 10),
        ("8 to 10 mm", 8, 10), ("8 mm to 1 cm", 8, 10), ("1 x 2 cm", 10, 20), ("1×2 cm", 10, 20),
        ("10 by 20 mm", 10, 20), ("3 x 2 x 1 cm", 10, 30), ("two cm", 20, 20),
        ("5 millimetres", 5, 5), ("1.5 centimeter", 15, 15),
        ("< 5 mm", 0, 5), ("less than 1 cm", 0, 10), ("up to 12 mm", 0, 12), (">2 cm", 20, math.inf),
        ("at least 3 mm", 3, math.inf),
    ],
)  # fmt: skip
def test_a_size_is_read_in_millimetres(text, low, high):
    found = list(sizes(f"a polyp of {text} in the antrum"))
    assert [(one.low_mm, one.high_mm) for one in found] == [(low, high)]


@pytest.mark.parametrize(
    "text", ["at 38 cm", "38 cm from the incisors", "2 cm above the z-line", "two polyps", "0 mm", "grade 2", "1.5.2"]
)
def test_a_distance_or_a_number_is_no_size(text):
    assert not list(sizes(text))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("la grade b", "los_angeles b"), ("los angeles classification grade c", "los_angeles c"),
        ("la b-d", "los_angeles b-d"), ("la grade b to d", "los_angeles b-d"),
        ("forrest iia", "forrest iia"), ("forrest class 2c", "forrest iic"), ("forrest 3", "forrest iii"),
        ("paris 0-iia", "paris 0-iia"), ("0-iia+iic", "paris 0-iia+iic"), ("paris type isp", "paris 0-isp"),
        ("grade 0-is", "paris 0-is"), ("prague c2m4", "prague c2m4"), ("c1 m3.5", "prague c1m3.5"),
        ("siewert type 2", "siewert ii"), ("borrmann iii", "borrmann iii"), ("hill grade iv", "hill iv"),
        ("kimura-takemoto c-2", "kimura c-2"), ("kimura o3", "kimura o-3"), ("eggim score 6", "eggim 6"),
        ("olgim stage 3", "olgim iii"), ("severely", "severe"), ("low grade", "low-grade"), ("grade 2", "2"),
    ],
)  # fmt: skip
def test_a_grade_is_read_with_its_scale(text, value):
    assert [one.value for one in grades(f"ulcer, {text}, seen")] == [value]


def test_a_lesion_implies_the_vaguer_ones_and_no_others():
    def implied(value: str) -> set[str]:
        others = ("ulcer_unspecified", "gastric_ulcer", "polyp_unspecified", "lesion", "erosion", "hernia")
        return {other for other in others if fact_implies(value, other, TAXONOMY)}

    assert implied("gastric_ulcer") == {"gastric_ulcer", "ulcer_unspecified", "lesion"}
    assert implied("fundic_gland_polyp") == {"polyp_unspecified", "lesion"}
    assert implied("gastric_erosion") == {"erosion", "lesion"}
    assert implied("hernia") == {"hernia", "lesion"}
    assert implied("normal_stomach") == set()
    assert implied("polyp_unspecified") == {"polyp_unspecified", "lesion"}
    assert fact_implies("antrum", "stomach", TAXONOMY)
    assert not fact_implies("stomach", "antrum", TAXONOMY)


def test_every_attribute_is_read_from_its_own_name():
    for one in known_attributes().attributes:
        found = [fact.value for fact in facts_of(f"There is {one.name}.", TAXONOMY)]
        assert found == [one.id], one.name


def test_ids_and_wordings_of_the_vocabularies_do_not_collide():
    words = {word.id for word in known_words() if word.term is None} | {
        one for word in known_words() for one in word.apart
    }
    ids = set(attributes_by_id())
    assert not ids & {term.id for term in TAXONOMY.terms}
    assert not words & {term.id for term in TAXONOMY.terms}
    assert words & ids <= {"food"}  # a bolus of food is what obscures the view
    by_wording: dict[str, set[str]] = {}
    for wording, value in attribute_wordings().items():
        by_wording.setdefault(normalise(wording), set()).add(value)
    assert {wording: values for wording, values in by_wording.items() if len(values) > 1} == {}


def test_a_word_and_its_parts_share_its_wordings():
    for word in known_words():
        assert {wording for part in word.apart.values() for wording in part} <= set(word.words), word.id
    assert set(word_facts()) == set(further_wordings())


@given(st.text(max_size=200))
def test_any_text_is_read_and_every_place_lies_in_it(text):
    for fact in facts_of(text, TAXONOMY):
        assert all(0 <= start < end <= len(text) for start, end in fact.spans)


@pytest.mark.parametrize(
    "text", ["İstanbul 8 mm polyp", "ẞ" * 50 + " red polyp", "\x00polyp\u200b red", "polyp " * 5000]
)
def test_odd_texts_are_read(text):
    assert "+lesion polyp_unspecified" in said(text)


def test_of_a_text_without_end_the_beginning_is_read():
    assert said("Gastric ulcer. " + "x " * 500_000 + "polyp") == {"+lesion gastric_ulcer"}
