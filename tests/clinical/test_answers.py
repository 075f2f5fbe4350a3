"""A reply becomes a typed answer or a failure with a reason; no text whatever raises."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gastrovl.clinical.answers import (
    BoxAnswer,
    LabelAnswer,
    ParseFailure,
    TextAnswer,
    format_labels,
    parse_answer,
)
from gastrovl.clinical.taxonomy import Taxonomy
from gastrovl.core.boxtext import encode_boxes
from gastrovl.core.errors import LabelError
from gastrovl.core.types import Box, Task

TAXONOMY = Taxonomy.load()
TERM_IDS = [term.id for term in TAXONOMY.terms]
LABEL_TASKS = [Task.CLS, Task.REG]
TEXT_TASKS = [Task.CAP, Task.VQA, Task.REPORT]


@pytest.mark.parametrize("task", LABEL_TASKS)
def test_names_become_terms_in_the_order_of_the_reply(task):
    answer = parse_answer(task, "gastric ulcer; antrum", TAXONOMY)
    assert answer == LabelAnswer(("gastric_ulcer", "antrum"))


@pytest.mark.parametrize(
    "text", ["antrum", "Antrum", "ANTRUM.", "  antrum \n", "gastric antrum", "antrum ."]
)  # fmt: skip
def test_case_full_stop_spaces_and_synonyms_are_accepted(text):
    assert parse_answer(Task.CLS, text, TAXONOMY) == LabelAnswer(("antrum",))


def test_a_separator_without_its_space_is_accepted():
    assert parse_answer(Task.CLS, "antrum;polyp.", TAXONOMY) == LabelAnswer(("antrum", "polyp_unspecified"))


def test_an_unknown_label_is_a_failure_that_names_it():
    failure = parse_answer(Task.CLS, "antrum; spleen", TAXONOMY)
    assert failure == ParseFailure("'spleen' is no label of the taxonomy", "antrum; spleen")


def test_a_label_inside_prose_is_not_searched_for():
    failure = parse_answer(Task.CLS, "This is the antrum", TAXONOMY)
    assert failure == ParseFailure("'This is the antrum' is no label of the taxonomy", "This is the antrum")


@pytest.mark.parametrize("text", ["antrum; antrum", "antrum; Gastric antrum."])
def test_a_label_given_twice_is_a_failure(text):
    assert parse_answer(Task.CLS, text, TAXONOMY) == ParseFailure("the label 'antrum' is given twice", text)


@pytest.mark.parametrize("text", ["antrum;", "; antrum", "antrum; ; polyp", ";", "antrum;."])
def test_an_empty_label_is_a_failure(text):
    failure = parse_answer(Task.CLS, text, TAXONOMY)
    assert failure == ParseFailure("there is an empty label between or after separators ';'", text)


@pytest.mark.parametrize("task", list(Task))
@pytest.mark.parametrize("text", ["", "  ", "\n\t"])
def test_an_empty_reply_is_a_failure_for_every_task(task, text):
    assert parse_answer(task, text, TAXONOMY) == ParseFailure("the reply is empty", text)


def test_a_long_unknown_label_is_shortened_in_the_reason_but_kept_in_the_text():
    failure = parse_answer(Task.CLS, "x" * 5000, TAXONOMY)
    assert isinstance(failure, ParseFailure)
    assert len(failure.reason) < 150
    assert failure.text == "x" * 5000


def test_boxes_become_a_box_answer():
    answer = parse_answer(Task.REC, "[000,000,999,999]", TAXONOMY)
    assert answer == BoxAnswer((Box(x0=0, y0=0, x1=1, y1=1),))


def test_absent_is_an_answer_without_boxes():
    assert parse_answer(Task.REC, " Absent ", TAXONOMY) == BoxAnswer(())


@pytest.mark.parametrize("text", ["[000,000,999", "[500,0,400,9]", "[0,0,1000,9]", "upper left", "[0,0,9,9] a polyp"])
def test_a_malformed_box_is_a_failure_with_a_reason(text):
    failure = parse_answer(Task.REC, text, TAXONOMY)
    assert isinstance(failure, ParseFailure)
    assert failure.text == text
    assert failure.reason


@pytest.mark.parametrize("task", TEXT_TASKS)
def test_free_text_is_kept_without_surrounding_space(task):
    assert parse_answer(task, " The antrum is normal.\n", TAXONOMY) == TextAnswer("The antrum is normal.")


@given(st.sampled_from(list(Task)), st.text() | st.text(alphabet="[]0123456789,;-. absent"))
def test_no_text_raises(task, text):
    answer = parse_answer(task, text, TAXONOMY)
    assert isinstance(answer, LabelAnswer | BoxAnswer | TextAnswer | ParseFailure)


@pytest.mark.parametrize("task", list(Task))
@pytest.mark.parametrize("text", ["\ud800", "\x00", "[" + "9" * 5000 + ",1,2,3]", "[" * 10_000, "٣;٣", "[٠,٠,٩,٩]"])
def test_hostile_text_does_not_raise(task, text):
    parse_answer(task, text, TAXONOMY)


@given(st.lists(st.sampled_from(TERM_IDS), min_size=1, unique=True), st.sampled_from(LABEL_TASKS))
def test_formatted_labels_parse_back_to_the_same_terms(term_ids, task):
    answer = parse_answer(task, format_labels(term_ids, TAXONOMY), TAXONOMY)
    assert isinstance(answer, LabelAnswer)
    assert list(answer.terms) == sorted(term_ids, key=TAXONOMY.order)


def test_formatted_boxes_parse_back_to_the_same_boxes():
    boxes = (Box(x0=0.0, y0=0.0, x1=450 / 999, y1=1.0), Box(x0=500 / 999, y0=0.0, x1=510 / 999, y1=10 / 999))
    assert parse_answer(Task.REC, encode_boxes(boxes), TAXONOMY) == BoxAnswer(boxes)


def test_labels_are_written_in_taxonomy_order_each_once():
    text = format_labels(["gastric_ulcer", "antrum", "gastric_ulcer"], TAXONOMY)
    assert text == "antrum; gastric ulcer"


def test_an_unknown_id_cannot_be_written():
    with pytest.raises(LabelError, match="'gastric_ulcr' is no term"):
        format_labels(["gastric_ulcr"], TAXONOMY)


def test_no_label_cannot_be_written():
    with pytest.raises(LabelError, match="no term to format; expected at least one"):
        format_labels([], TAXONOMY)
