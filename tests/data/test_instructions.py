"""Samples to conversations: answers, targets, wordings, absent terms, and the same conversations for the same seed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gastrovl.clinical.answers import BoxAnswer, LabelAnswer, parse_answer
from gastrovl.clinical.taxonomy import Taxonomy
from gastrovl.core.boxtext import encode_box
from gastrovl.core.types import Box, Conversation, Dialogue, Finding, ImageRef, Sample, Split, Status, Task, Turn
from gastrovl.data.instructions import RECORD_TASKS, InstructionOptions, conversations_of
from gastrovl.data.wordings import Phrasing

TAXONOMY = Taxonomy.load()
PHRASING = Phrasing.load()
SMALL = Box(x0=0.1, y0=0.1, x1=0.2, y1=0.3)
LARGE = Box(x0=0.5, y0=0.5, x1=0.9, y1=0.8)
THIRD = Box(x0=0.3, y0=0.6, x1=0.45, y1=0.9)
TWO_POLYPS_AND_AN_ULCER = (
    Finding(term="antrum"),
    Finding(term="gastric_polyp", boxes=(SMALL, LARGE)),
    Finding(term="gastric_ulcer", boxes=(THIRD,)),
)
NO_ABSENT = InstructionOptions(absent_per_image=0)


def sample_of(*findings: Finding, split: Split = Split.TRAIN, name: str = "own/a") -> Sample:
    image = ImageRef(path="images/a.jpg", width_px=320, height_px=288, sha256="0" * 64)
    return Sample(id=name, image=image, source="own", group="1", split=split, findings=findings)


def ask(
    *findings: Finding, options: InstructionOptions = NO_ABSENT, known: tuple[str, ...] = (), split: Split = Split.TRAIN
) -> dict[Task, list[Conversation]]:
    found = conversations_of(sample_of(*findings, split=split), TAXONOMY, PHRASING, options, 7, known)
    return {task: [conversation for conversation in found if conversation.task == task] for task in RECORD_TASKS}


def test_cls_answers_with_every_present_label_in_taxonomy_order():
    (asked,) = ask(*reversed(TWO_POLYPS_AND_AN_ULCER))[Task.CLS]
    assert asked.answer == "antrum; gastric ulcer; gastric polyp"
    assert asked.target.terms == ("antrum", "gastric_ulcer", "gastric_polyp")


def test_rec_asks_for_each_boxed_term_and_answers_with_all_its_boxes():
    ulcer, polyps = ask(*TWO_POLYPS_AND_AN_ULCER)[Task.REC]
    assert (ulcer.target.terms, ulcer.target.boxes) == (("gastric_ulcer",), (THIRD,))
    # bins of 0.5, 0.9, 0.8 and 0.1, 0.2, 0.3 times 999, rounded half up; the larger box comes first
    assert polyps.answer == "[500,500,899,799] [100,100,200,300]"
    assert polyps.target.boxes == (LARGE, SMALL)
    assert "gastric polyp" in polyps.turns[0].text


def test_reg_asks_about_each_box_and_answers_with_its_label():
    asked = ask(*TWO_POLYPS_AND_AN_ULCER)[Task.REG]
    assert [(c.target.boxes, c.answer) for c in asked] == [
        ((LARGE,), "gastric polyp"),
        ((THIRD,), "gastric ulcer"),
        ((SMALL,), "gastric polyp"),
    ]
    assert all(encode_box(c.target.boxes[0]) in c.turns[0].text for c in asked)


def test_a_box_with_two_labels_is_one_reg_question_with_both():
    (asked,) = ask(Finding(term="suspicious_area", boxes=(LARGE,)), Finding(term="barretts_esophagus", boxes=(LARGE,)))[
        Task.REG
    ]
    assert asked.answer == "barrett's esophagus; suspicious area"
    assert asked.target.terms == ("barretts_esophagus", "suspicious_area")


def test_reg_asks_about_no_more_boxes_than_allowed():
    options = InstructionOptions(absent_per_image=0, max_reg_per_image=2)
    assert len(ask(*TWO_POLYPS_AND_AN_ULCER, options=options)[Task.REG]) == 2


def test_cap_holds_the_stated_facts_and_different_wordings_of_them():
    (asked,) = ask(*TWO_POLYPS_AND_AN_ULCER)[Task.CAP]
    assert asked.target.terms == ("antrum", "gastric_ulcer", "gastric_polyp")
    assert asked.target.boxes == ()
    captions = (asked.answer, *asked.turns[1].alternatives)
    assert len(set(captions)) == len(captions) == 3


def test_cap_counts_a_site_that_only_a_finding_names_among_its_facts():
    (asked,) = ask(Finding(term="gastric_ulcer", site="antrum"))[Task.CAP]
    assert asked.target.terms == ("antrum", "gastric_ulcer")


def test_an_absent_term_is_asked_for_and_answered_with_absent():
    options = InstructionOptions(absent_per_image=1)
    known = ("gastric_polyp", "gastric_ulcer", "early_gastric_cancer")
    asked = ask(*TWO_POLYPS_AND_AN_ULCER, options=options, known=known)[Task.REC][-1]
    assert (asked.answer, asked.target.terms, asked.target.boxes) == ("absent", ("early_gastric_cancer",), ())


def test_only_terms_that_the_source_boxes_are_asked_for_in_vain():
    options = InstructionOptions(absent_per_image=2)
    assert ask(Finding(term="antrum"), options=options, known=())[Task.REC] == []


@pytest.mark.parametrize("status", [Status.PRESENT, Status.UNCERTAIN])
def test_a_term_that_may_be_there_is_never_asked_for_as_absent(status):
    options = InstructionOptions(absent_per_image=2)
    finding = Finding(term="gastric_polyp", status=status)  # seen or suspected, but the place was not recorded
    assert ask(finding, options=options, known=("gastric_polyp",))[Task.REC] == []


def test_a_level_two_label_forbids_absence_of_what_lies_below_it():
    options = InstructionOptions(absent_per_image=2)
    assert ask(Finding(term="gastric_diseases"), options=options, known=("gastric_polyp",))[Task.REC] == []


def test_absent_questions_come_at_the_rate_that_was_set():
    options = InstructionOptions(tasks=(Task.REC,), absent_per_image=0.3)
    samples = [sample_of(Finding(term="antrum"), name=f"own/{number}") for number in range(400)]
    asked = [c for s in samples for c in conversations_of(s, TAXONOMY, PHRASING, options, 7, ("gastric_polyp",))]
    assert 90 <= len(asked) <= 150  # 120 expected, standard deviation 9


def test_hard_absent_questions_are_about_the_likest_terms():
    known = ("gastric_ulcer", "early_gastric_cancer", "esophageal_varices", "esophagitis")  # two here, two elsewhere
    samples = [sample_of(Finding(term="gastric_polyp", boxes=(LARGE,)), name=f"own/{number}") for number in range(200)]

    def asked(hard):
        options = InstructionOptions(tasks=(Task.REC,), absent_per_image=1, hard_absent=hard)
        found = [c for s in samples for c in conversations_of(s, TAXONOMY, PHRASING, options, 7, known)]
        return [one.target.terms[0] for one in found if not one.target.boxes]

    assert set(asked(1.0)) == {"gastric_ulcer", "early_gastric_cancer"}
    assert len(asked(1.0)) == 200
    near = sum(term in known[:2] for term in asked(0.0)), sum(term in known[:2] for term in asked(0.5))
    assert 75 <= near[0] <= 125  # one half
    assert 130 <= near[1] <= 170  # three quarters


def test_absent_and_uncertain_findings_are_no_labels():
    asked = ask(
        Finding(term="antrum"),
        Finding(term="gastric_ulcer", status=Status.ABSENT),
        Finding(term="gastric_cancer", status=Status.UNCERTAIN, boxes=(LARGE,)),
    )
    assert asked[Task.CLS][0].target.terms == ("antrum",)
    assert asked[Task.REC] == asked[Task.REG] == []


def test_a_sample_without_findings_has_no_conversation():
    assert conversations_of(sample_of(), TAXONOMY, PHRASING, InstructionOptions(), 7, ()) == []


def test_training_offers_every_wording_of_the_question():
    for task, found in ask(*TWO_POLYPS_AND_AN_ULCER).items():
        for question in (conversation.turns[0] for conversation in found):
            assert len({question.text, *question.alternatives}) == len(PHRASING.wordings[task])


@pytest.mark.parametrize("split", [Split.VAL, Split.TEST])
def test_evaluation_has_one_wording_of_question_and_answer(split):
    found = [c for asked in ask(*TWO_POLYPS_AND_AN_ULCER, split=split).values() for c in asked]
    assert len(found) == 7  # CLS, two terms, three boxes, CAP
    assert all(turn.alternatives == () for conversation in found for turn in conversation.turns)


def test_only_the_chosen_tasks_are_asked():
    options = InstructionOptions(tasks=(Task.REG,))
    found = conversations_of(sample_of(*TWO_POLYPS_AND_AN_ULCER), TAXONOMY, PHRASING, options, 7, ())
    assert {conversation.task for conversation in found} == {Task.REG}


def test_leaving_a_task_out_changes_no_other_conversation():
    whole = conversations_of(
        sample_of(*TWO_POLYPS_AND_AN_ULCER), TAXONOMY, PHRASING, InstructionOptions(), 7, ("esophagitis",)
    )
    options = InstructionOptions(tasks=(Task.REC, Task.CAP))
    part = conversations_of(sample_of(*TWO_POLYPS_AND_AN_ULCER), TAXONOMY, PHRASING, options, 7, ("esophagitis",))
    assert part == [conversation for conversation in whole if conversation.task in options.tasks]


def test_another_seed_draws_other_wordings():
    samples = [sample_of(*TWO_POLYPS_AND_AN_ULCER, split=Split.TEST, name=f"own/{number}") for number in range(10)]
    first, second = (
        [c.turns[0].text for s in samples for c in conversations_of(s, TAXONOMY, PHRASING, NO_ABSENT, seed, ())]
        for seed in (1, 2)
    )
    assert first != second


boxes_anywhere = st.builds(
    lambda x, y, w, h: Box(x0=x, y0=y, x1=x + w * (1 - x), y1=y + h * (1 - y)),
    *(st.floats(0, 0.9), st.floats(0, 0.9), st.floats(0.05, 1), st.floats(0.05, 1)),
)
findings_anywhere = st.lists(
    st.builds(
        Finding,
        term=st.sampled_from([term.id for term in TAXONOMY.terms if term.level == 3]),
        status=st.sampled_from(Status),
        boxes=st.lists(boxes_anywhere, max_size=3).map(tuple),
    ),
    max_size=5,
)


@given(findings_anywhere, st.sampled_from(Split), st.integers(0, 1000))
def test_every_reference_answer_parses_to_its_target(findings, split, seed):
    known = ("gastric_polyp", "esophagitis", "suspicious_area")
    sample = sample_of(*findings, split=split)
    found = conversations_of(sample, TAXONOMY, PHRASING, InstructionOptions(), seed, known)
    for conversation in found:
        answer = parse_answer(conversation.task, conversation.answer, TAXONOMY)
        if conversation.task in (Task.CLS, Task.REG):
            assert answer == LabelAnswer(conversation.target.terms)
        elif conversation.task == Task.REC:
            assert isinstance(answer, BoxAnswer)
            assert len(answer.boxes) == len(conversation.target.boxes)
    assert len({conversation.id for conversation in found}) == len(found)
    assert found == conversations_of(sample, TAXONOMY, PHRASING, InstructionOptions(), seed, known)


def dialogue(task: Task, question: str, answer: str) -> Dialogue:
    return Dialogue(task=task, turns=(Turn(role="user", text=question), Turn(role="assistant", text=answer)))


def test_what_the_source_asks_is_asked_word_by_word_and_not_again_in_our_words():
    talk = (
        dialogue(Task.VQA, "Clean?", "Yes."),
        dialogue(Task.CAP, "Say it.", "A lesion."),
        dialogue(Task.VQA, "Why?", "So."),
    )
    sample = sample_of(*TWO_POLYPS_AND_AN_ULCER).model_copy(update={"dialogues": talk})
    found = conversations_of(sample, TAXONOMY, PHRASING, NO_ABSENT, 7, ())
    assert [(one.id, one.turns[0].text, one.answer) for one in found[:3]] == [
        ("own/a#VQA-0", "Clean?", "Yes."),
        ("own/a#CAP-0", "Say it.", "A lesion."),
        ("own/a#VQA-1", "Why?", "So."),
    ]
    assert Task.CAP not in {one.task for one in found[3:]}
    assert {Task.CLS, Task.REC, Task.REG} == {one.task for one in found[3:]}


def test_dialogues_of_a_task_that_is_not_wanted_are_left_out():
    sample = sample_of(*TWO_POLYPS_AND_AN_ULCER).model_copy(
        update={"dialogues": (dialogue(Task.VQA, "Clean?", "Yes."),)}
    )
    options = InstructionOptions(tasks=(Task.CLS,))
    assert [one.task for one in conversations_of(sample, TAXONOMY, PHRASING, options, 7, ())] == [Task.CLS]
