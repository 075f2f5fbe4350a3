"""VQA questions from records: worked examples of each kind, and every answer computed again from the record alone."""

import re
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gastrovl.clinical.taxonomy import Taxonomy
from gastrovl.core.boxtext import BOX_PATTERN, encode_box
from gastrovl.core.types import Box, Conversation, Finding, ImageRef, Kind, Sample, Split, Status, Task
from gastrovl.data.instructions import InstructionOptions, conversations_of
from gastrovl.data.wordings import Phrasing

TAXONOMY = Taxonomy.load()
PHRASING = Phrasing.load()
SMALL = Box(x0=0.1, y0=0.1, x1=0.2, y1=0.3)  # area 0.02, centre (0.15, 0.2)
LARGE = Box(x0=0.5, y0=0.5, x1=0.9, y1=0.8)  # 0.12, (0.7, 0.65)
THIRD = Box(x0=0.3, y0=0.6, x1=0.45, y1=0.9)  # 0.045, (0.375, 0.75)
TWO_POLYPS_AND_AN_ULCER = (
    Finding(term="antrum"),
    Finding(term="gastric_polyp", boxes=(SMALL, LARGE)),
    Finding(term="gastric_ulcer", boxes=(THIRD,)),
)
KNOWN = ("gastric_polyp", "gastric_ulcer", "early_gastric_cancer")


def sample_of(*findings: Finding, split: Split = Split.TRAIN, name: str = "own/a") -> Sample:
    image = ImageRef(path="images/a.jpg", width_px=320, height_px=288, sha256="0" * 64)
    return Sample(id=name, image=image, source="own", group="1", split=split, findings=findings)


def ask(kind: Kind, *findings: Finding, count: int = 8, known: tuple[str, ...] = KNOWN) -> list[Conversation]:
    options = InstructionOptions(tasks=(Task.VQA,), kinds={kind: count})
    return conversations_of(sample_of(*findings), TAXONOMY, PHRASING, options, 7, known)


def answers(kind: Kind, *findings: Finding, **settings: object) -> dict[str, str]:
    """Answers of many seeds, by the term that is asked about."""
    found: dict[str, str] = {}
    for seed in range(20):
        options = InstructionOptions(tasks=(Task.VQA,), kinds={kind: 8})
        known = settings.get("known", KNOWN)
        for one in conversations_of(sample_of(*findings), TAXONOMY, PHRASING, options, seed, known):
            assert found.setdefault(one.target.terms[0], one.answer) == one.answer
    return found


def test_without_kinds_nothing_is_asked():
    assert conversations_of(sample_of(*TWO_POLYPS_AND_AN_ULCER), TAXONOMY, PHRASING, InstructionOptions(), 7, ()) == [
        one
        for one in conversations_of(
            sample_of(*TWO_POLYPS_AND_AN_ULCER), TAXONOMY, PHRASING, InstructionOptions(kinds={Kind.COUNT: 2}), 7, KNOWN
        )
        if one.task is not Task.VQA and (one.task is not Task.REC or one.target.boxes)
    ]


def test_a_question_says_its_kind_and_has_its_own_id():
    found = ask(Kind.COMPARE_SIZE, *TWO_POLYPS_AND_AN_ULCER)
    assert [one.id for one in found] == [f"own/a#VQA-compare_size-{number}" for number in range(3)]
    assert {(one.task, one.kind) for one in found} == {(Task.VQA, Kind.COMPARE_SIZE)}


@pytest.mark.parametrize(
    ("findings", "answer"),
    [
        ((Finding(term="antrum"),), "antrum"),
        ((Finding(term="gastric_ulcer", site="antrum"),), "antrum"),
        ((Finding(term="antrum"), Finding(term="gastric_ulcer", site="stomach")), "antrum"),  # the closer one
        ((Finding(term="lower_esophagus"), Finding(term="z_line")), "lower esophagus; z-line"),
        ((Finding(term="stomach"),), "stomach"),
    ],
)
def test_the_station_is_the_closest_site_that_is_stated(findings, answer):
    (asked,) = ask(Kind.STATION, *findings)
    assert asked.answer == answer


@pytest.mark.parametrize(
    "finding",
    [
        Finding(term="gastric_ulcer"),  # the organ follows from the term, but nobody said where the endoscope is
        Finding(term="normal_stomach"),
        Finding(term="unqualified_frame"),
        Finding(term="antrum", status=Status.UNCERTAIN),
        Finding(term="gastric_ulcer", site="antrum", status=Status.ABSENT),
    ],
)
def test_no_station_is_asked_where_none_is_stated(finding):
    assert ask(Kind.STATION, finding) == []


def test_presence_is_yes_for_what_is_there_and_no_for_what_a_thorough_source_leaves_out():
    assert answers(Kind.PRESENCE, *TWO_POLYPS_AND_AN_ULCER) == {
        "gastric_polyp": "yes",
        "gastric_ulcer": "yes",
        "early_gastric_cancer": "no",
    }


def test_presence_is_not_asked_of_a_source_that_is_not_thorough():
    assert answers(Kind.PRESENCE, *TWO_POLYPS_AND_AN_ULCER, known=()) == {}


def test_presence_and_number_of_what_is_in_doubt_are_not_asked():
    doubt = Finding(term="gastric_polyp", status=Status.UNCERTAIN, boxes=(SMALL,))
    for kind in (Kind.PRESENCE, Kind.COUNT):
        assert answers(kind, doubt, known=("gastric_polyp",)) == {}


def test_the_count_is_that_of_the_different_boxes_and_0_for_what_is_absent():
    again = Finding(term="gastric_polyp", site="antrum", boxes=(LARGE,))
    assert answers(Kind.COUNT, *TWO_POLYPS_AND_AN_ULCER, again) == {
        "gastric_polyp": "2",
        "gastric_ulcer": "1",
        "early_gastric_cancer": "0",
    }


@pytest.mark.parametrize(
    "other",
    [
        Finding(term="gastric_polyp", site="antrum"),  # seen somewhere, but not boxed
        Finding(term="gastric_polyp", site="antrum", status=Status.UNCERTAIN, boxes=(LARGE,)),
        Finding(term="polyp_unspecified", boxes=(LARGE,)),  # may be one more of it
        Finding(term="gastric_diseases"),
    ],
)
def test_nothing_is_counted_that_may_have_more_places(other):
    one = Finding(term="gastric_polyp", boxes=(SMALL,))
    assert "gastric_polyp" in answers(Kind.COUNT, one)
    assert "gastric_polyp" not in answers(Kind.COUNT, one, other)


def test_yes_and_no_come_alike_where_both_can_be_said():
    found = Counter(
        one.answer
        for number in range(300)
        for one in conversations_of(
            sample_of(*TWO_POLYPS_AND_AN_ULCER, name=f"own/{number}"),
            TAXONOMY,
            PHRASING,
            InstructionOptions(tasks=(Task.VQA,), kinds={Kind.PRESENCE: 1}),
            7,
            KNOWN,
        )
    )
    assert 120 <= found["yes"] <= 180  # 150 expected, standard deviation 9


@pytest.mark.parametrize(
    ("kind", "first"),
    [(Kind.COMPARE_SIZE, (LARGE, THIRD)), (Kind.COMPARE_LEFT, (THIRD, LARGE)), (Kind.COMPARE_UP, (LARGE, THIRD))],
)
def test_the_first_of_each_pair_by_hand(kind, first):
    findings = (Finding(term="gastric_polyp", boxes=(LARGE,)), Finding(term="gastric_ulcer", boxes=(THIRD,)))
    (asked,) = ask(kind, *findings)
    assert asked.answer == ("first" if asked.target.boxes == first else "second")
    assert [found.group(0) for found in BOX_PATTERN.finditer(asked.turns[0].text)] == [
        encode_box(box) for box in asked.target.boxes
    ]


def test_the_order_of_a_pair_is_drawn():
    findings = (Finding(term="gastric_polyp", boxes=(LARGE,)), Finding(term="gastric_ulcer", boxes=(THIRD,)))
    options = InstructionOptions(tasks=(Task.VQA,), kinds={Kind.COMPARE_SIZE: 1})
    samples = [sample_of(*findings, name=f"own/{number}") for number in range(200)]
    asked = [one for sample in samples for one in conversations_of(sample, TAXONOMY, PHRASING, options, 7, ())]
    assert 75 <= sum(one.answer == "first" for one in asked) <= 125  # 100 expected, standard deviation 7


def test_kinds_are_same_different_or_not_asked():
    found = {
        frozenset(one.target.boxes): one.answer
        for one in ask(
            Kind.COMPARE_KIND,
            *TWO_POLYPS_AND_AN_ULCER,
            Finding(term="polyp_unspecified", boxes=(Box(x0=0.7, y0=0.1, x1=0.8, y1=0.2),)),
        )
    }
    assert found[frozenset((SMALL, LARGE))] == "same"
    assert found[frozenset((SMALL, THIRD))] == found[frozenset((LARGE, THIRD))] == "different"
    assert len(found) == 4  # the unnamed polyp differs from the ulcer alone; it may be a gastric one


@pytest.mark.parametrize("kind", [Kind.COMPARE_SIZE, Kind.COMPARE_LEFT, Kind.COMPARE_UP])
def test_what_is_nearly_equal_is_not_compared(kind):
    other = Box(x0=SMALL.x0 + 0.01, y0=SMALL.y0 + 0.01, x1=SMALL.x1 + 0.01, y1=SMALL.y1 + 0.01)
    assert ask(kind, Finding(term="gastric_polyp", boxes=(SMALL, other))) == []


def test_boxes_in_doubt_are_not_compared():
    doubt = Finding(term="early_gastric_cancer", status=Status.UNCERTAIN, boxes=(LARGE,))
    assert ask(Kind.COMPARE_KIND, Finding(term="gastric_polyp", boxes=(SMALL, LARGE)), doubt) == []


def test_a_source_that_asks_itself_is_not_asked_again():
    from gastrovl.core.types import Dialogue, Turn

    said = Dialogue(turns=(Turn(role="user", text="Clean?"), Turn(role="assistant", text="Yes.")))
    sample = sample_of(*TWO_POLYPS_AND_AN_ULCER).model_copy(update={"dialogues": (said,)})
    options = InstructionOptions(tasks=(Task.VQA,), kinds={Kind.STATION: 1})
    assert [one.answer for one in conversations_of(sample, TAXONOMY, PHRASING, options, 7, ())] == ["Yes."]


# --- every answer, computed again ---------------------------------------------------------------------------

TERMS = [
    "antrum",
    "body",
    "stomach",
    "z_line",
    "normal_esophagus",
    "unqualified_frame",
    "gastric_polyp",
    "fundic_gland_polyp",
    "gastric_ulcer",
    "gastric_diseases",
    "polyp_unspecified",
    "esophagitis",
    "esophagitis_la_a",
    "early_gastric_cancer",
    "barretts_esophagus",
    "accessory_tool",
]
THOROUGH = ("gastric_polyp", "gastric_ulcer", "esophagitis", "early_gastric_cancer", "accessory_tool")
boxes_anywhere = st.builds(
    lambda x, y, w, h: Box(x0=x, y0=y, x1=x + w * (1 - x), y1=y + h * (1 - y)),
    *(st.floats(0, 0.99), st.floats(0, 0.99), st.floats(0.01, 1), st.floats(0.01, 1)),
)
FEW = [SMALL, LARGE, THIRD]  # so that boxes are shared between findings
findings_anywhere = st.lists(
    st.builds(
        Finding,
        term=st.sampled_from(TERMS),
        status=st.sampled_from([Status.PRESENT, Status.PRESENT, Status.PRESENT, Status.UNCERTAIN, Status.ABSENT]),
        site=st.sampled_from([None, None, "antrum", "stomach", "z_line"]),
        boxes=st.lists(st.one_of(boxes_anywhere, st.sampled_from(FEW)), max_size=3).map(tuple),
    ),
    max_size=5,
)


def answer_again(kind: Kind, question: str, sample: Sample) -> str:
    """The answer from nothing but the words of the question and the record; fails where the record leaves it open."""
    present = [finding for finding in sample.findings if finding.status is Status.PRESENT]
    possible = [finding for finding in sample.findings if finding.status is not Status.ABSENT]
    if kind is Kind.STATION:
        said = {finding.term for finding in present} | {finding.site for finding in present}
        sites = said & {"antrum", "body", "stomach", "z_line"}
        if {"antrum", "body"} & sites:
            sites -= {"stomach"}
        order = ["esophagus", "z-line", "stomach", "gastric body", "antrum"]
        return "; ".join(sorted((TAXONOMY[site].name for site in sites), key=order.index))
    if kind in (Kind.PRESENCE, Kind.COUNT):
        names = [term.name for term in TAXONOMY.terms if re.search(rf"(?<!\w){re.escape(term.name)}(?!\w)", question)]
        term = TAXONOMY.find(max(names, key=len)).id
        assert term in THOROUGH
        own = [finding for finding in possible if finding.term == term]
        others = {finding.term for finding in possible} - {term}
        alike = {
            "gastric_polyp": {"fundic_gland_polyp", "polyp_unspecified", "gastric_diseases"},
            "gastric_ulcer": {"gastric_diseases"},
            "early_gastric_cancer": {"gastric_diseases"},
            "esophagitis": {"esophagitis_la_a"},
            "accessory_tool": set(),
        }[term]
        if kind is Kind.PRESENCE and any(finding.status is Status.PRESENT for finding in own):
            return "yes"
        assert not others & alike  # "no", or a number, would be a guess
        assert all(finding.status is Status.PRESENT for finding in own)
        if kind is Kind.PRESENCE:
            return "no"
        assert all(finding.boxes for finding in own)
        return str(len({box for finding in own for box in finding.boxes}))
    first, second = (
        next(box for finding in present for box in finding.boxes if encode_box(box) == found.group(0))
        for found in BOX_PATTERN.finditer(question)
    )
    if kind is Kind.COMPARE_KIND:
        labels = [{f.term for f in present for other in f.boxes if other == box} for box in (first, second)]
        assert labels[0] == labels[1] or not labels[0] & labels[1]
        return "same" if labels[0] == labels[1] else "different"
    value = {
        Kind.COMPARE_SIZE: lambda box: -(box.x1 - box.x0) * (box.y1 - box.y0),
        Kind.COMPARE_LEFT: lambda box: box.x0 + box.x1,
        Kind.COMPARE_UP: lambda box: box.y0 + box.y1,
    }[kind]
    assert value(first) != value(second)
    return "first" if value(first) < value(second) else "second"


@given(findings_anywhere, st.sampled_from(Split), st.integers(0, 1000))
def test_every_answer_follows_from_the_record(findings, split, seed):
    sample = sample_of(*findings, split=split)
    options = InstructionOptions(tasks=(Task.VQA,), kinds=dict.fromkeys(Kind, 4))
    found = conversations_of(sample, TAXONOMY, PHRASING, options, seed, THOROUGH)
    for one in found:
        for question in (one.turns[0].text, *one.turns[0].alternatives):
            assert answer_again(one.kind, question, sample) == one.answer
    assert max(Counter(one.kind for one in found).values(), default=0) <= 4
    assert len({one.id for one in found}) == len(found)
    assert found == conversations_of(sample, TAXONOMY, PHRASING, options, seed, THOROUGH)


@given(findings_anywhere, st.sampled_from(Kind))
def test_one_kind_changes_no_other_conversation(findings, kind):
    sample = sample_of(*findings)
    whole = InstructionOptions(kinds=dict.fromkeys(Kind, 3), dialogues=2)
    others = {other: 3 for other in Kind if other is not kind}
    less = whole.model_copy(update={"kinds": others})
    asked = conversations_of(sample, TAXONOMY, PHRASING, whole, 7, THOROUGH)
    assert conversations_of(sample, TAXONOMY, PHRASING, less, 7, THOROUGH) == [one for one in asked if one.kind != kind]
