"""Traps around questions: what they say, what they fit, and when a reply counts as led astray."""

from __future__ import annotations

import pytest

from gastrovl.clinical.taxonomy import Taxonomy
from gastrovl.core.types import Box, Task
from gastrovl.evaluation.robustness.leading import Trap, is_followed, lead, wordings, wrong_labels

TAXONOMY = Taxonomy.load()
BOX = Box(x0=0.1, y0=0.1, x1=0.4, y1=0.5)


@pytest.fixture
def ulcer(conversation):
    return conversation(Task.CLS, "a#CLS", terms=["gastric_ulcer"])


@pytest.mark.parametrize("trap", [Trap.FALSE_SUGGESTION, Trap.AUTHORITY])
def test_a_false_suggestion_names_a_label_that_is_not_true_and_keeps_question_truth_and_id(trap, ulcer):
    led = lead(ulcer, trap, TAXONOMY, seed=7)
    words = led.conversation.turns[-2].text
    assert ulcer.turns[-2].text in words
    assert TAXONOMY[led.suggested].name in words
    assert led.suggested in wrong_labels("gastric_ulcer", ["gastric_ulcer"], TAXONOMY)
    assert led.conversation.model_copy(update={"turns": ulcer.turns}) == ulcer
    assert led.conversation.answer == ulcer.answer


def test_a_true_suggestion_names_the_truth(ulcer):
    led = lead(ulcer, Trap.TRUE_SUGGESTION, TAXONOMY, seed=7)
    assert led.suggested == "gastric_ulcer"
    assert "gastric ulcer" in led.conversation.turns[-2].text


def test_the_same_wrong_label_is_suggested_burned_in_and_said_by_authority(ulcer):
    """So that what differs between the three is how it is said."""
    traps = (Trap.FALSE_SUGGESTION, Trap.AUTHORITY, Trap.BURNED_IN_LABEL)
    led = [lead(ulcer, trap, TAXONOMY, seed=7) for trap in traps]
    assert len({one.suggested for one in led}) == 1
    assert led[2].conversation == ulcer
    assert led[2].burned_in == TAXONOMY[led[2].suggested].name


def test_another_seed_draws_another_label(ulcer):
    drawn = {lead(ulcer, Trap.FALSE_SUGGESTION, TAXONOMY, seed).suggested for seed in range(12)}
    assert len(drawn) > 3


def test_a_false_premise_is_built_only_on_what_the_truth_calls_absent(conversation):
    absent = conversation(Task.REC, "a#REC", terms=["gastric_polyp"])
    present = conversation(Task.REC, "b#REC", terms=["gastric_polyp"], boxes=[BOX])
    assert lead(present, Trap.FALSE_PREMISE, TAXONOMY, 7) is None
    assert lead(absent, Trap.FALSE_PREMISE, TAXONOMY, 7).suggested == "gastric_polyp"


def test_irrelevant_context_fits_every_task_and_suggests_nothing(conversation, ulcer):
    caption = conversation(Task.CAP, "a#CAP", caption="The view shows an ulcer.")
    for one in (ulcer, caption):
        led = lead(one, Trap.IRRELEVANT_CONTEXT, TAXONOMY, 7)
        assert led.suggested is None
        assert len(led.conversation.turns[-2].text) > len(one.turns[-2].text)


def test_a_trap_is_not_laid_for_a_task_it_does_not_fit(conversation):
    caption = conversation(Task.CAP, "a#CAP", caption="The view shows an ulcer.")
    assert lead(caption, Trap.FALSE_SUGGESTION, TAXONOMY, 7) is None


def test_a_closer_or_wider_name_of_the_truth_is_no_wrong_label():
    wrong = wrong_labels("esophagitis", ["lower_esophagus", "esophagitis"], TAXONOMY)
    assert "barretts_esophagus" in wrong
    assert not {"esophagitis", "esophagitis_la_a", "esophagitis_la_b_d"} & set(wrong)
    assert "esophageal_adenocarcinoma" not in wrong_labels("esophageal_cancer", ["esophageal_cancer"], TAXONOMY)


def test_a_question_with_braces_survives(conversation):
    one = conversation(Task.CLS, "a#CLS", terms=["gastric_ulcer"])
    question = one.turns[0].model_copy(update={"text": "What is in {<10><20><30><40>} {wrong}?"})
    led = lead(one.model_copy(update={"turns": (question, one.turns[1])}), Trap.AUTHORITY, TAXONOMY, 7)
    assert "What is in {<10><20><30><40>} {wrong}?" in led.conversation.turns[0].text


def test_every_wording_holds_the_question_once():
    for trap, entry in wordings().items():
        assert entry.wordings, trap
        assert all(wording.count("{question}") == 1 for wording in entry.wordings)


@pytest.mark.parametrize(
    ("trap", "task", "labels", "has_boxes", "expected"),
    [
        (Trap.FALSE_SUGGESTION, Task.CLS, ("gastric_polyp",), False, True),
        (Trap.FALSE_SUGGESTION, Task.CLS, ("gastric_ulcer", "gastric_polyp"), False, True),
        (Trap.FALSE_SUGGESTION, Task.CLS, ("gastric_ulcer",), False, False),
        (Trap.FALSE_SUGGESTION, Task.CLS, None, False, False),
        (Trap.FALSE_PREMISE, Task.REC, None, True, True),
        (Trap.FALSE_PREMISE, Task.REC, None, False, False),
    ],
)
def test_a_reply_follows_a_trap_when_it_says_what_was_suggested(trap, task, labels, has_boxes, expected):
    assert is_followed(trap, task, "gastric_polyp", labels=labels, has_boxes=has_boxes) is expected
