"""Typed methods: each asks as models were taught, and gives what the reply says in its own type."""

from __future__ import annotations

import pytest

from gastrovl.clinical.taxonomy import Taxonomy
from gastrovl.core.errors import ModelInputError
from gastrovl.core.images import open_image
from gastrovl.core.types import Box, Task
from gastrovl.data.wordings import Phrasing
from gastrovl.inference import asking
from gastrovl.inference.predictor import Predictor
from gastrovl.inference.question import Reply
from gastrovl.inference.typed import BoxAnswer, LabelAnswer, TextAnswer


@pytest.fixture(scope="module")
def predictor(learnt):
    return Predictor.load(learnt[0], "cpu")


@pytest.fixture(scope="module")
def image(learnt):
    return open_image(learnt[1].parent / "0.png")


def test_every_question_is_one_that_models_are_taught():
    taught = Phrasing.load().wordings

    assert all(text in taught[task] for task, text in asking.ASKED.items())


def test_each_method_answers_in_its_own_type(predictor, image):
    labels, boxes = predictor.classify(image), predictor.locate(image, "polyp")
    region = predictor.name_region(image, Box(x0=0.125, y0=0.25, x1=0.5, y1=0.75))
    text, turn = predictor.describe(image), predictor.chat(image, [("user", "What does the image show?")])

    assert (type(labels), type(boxes), type(region)) == (LabelAnswer, BoxAnswer, LabelAnswer)
    assert (type(text), type(turn)) == (TextAnswer, TextAnswer)
    assert turn.text == "polyp"
    assert all(term in Taxonomy.load() for term in (*labels.terms, *region.terms))
    assert not any(one.calibrated for one in (labels, boxes, region, text, turn))
    assert all(0 < one.confidence <= 1 for one in (labels, boxes, region, text, turn))


def test_a_term_is_asked_for_by_its_name_whatever_it_is_called(image):
    asked = [
        asking.locate(image, what).turns[0][1] for what in ("barretts_esophagus", "Barrett's oesophagus", "a mole")
    ]

    assert asked == [
        "Where is the following: barrett's esophagus?",
        "Where is the following: barrett's esophagus?",
        "Where is the following: a mole?",
    ]


def test_labels_come_likeliest_first_and_boxes_in_the_order_of_the_text():
    taxonomy = Taxonomy.load()
    chances = {"esophagitis": 0.4, "polyp_unspecified": 0.7, "cancer": 0.1}
    labels = asking.label_answer(Reply("esophagitis; polyp", 0.5, 0.0, "end", chances), taxonomy)
    boxes = asking.box_answer(
        Reply("[000,000,999,999] [000,000,111,333]", 0.5, 0.0, "end", None, 0.75, (0.5, 0.25)), taxonomy
    )

    assert labels == LabelAnswer("esophagitis; polyp", ("polyp_unspecified", "esophagitis"), chances, 0.5)
    assert [box.x1 for box in boxes.boxes] == pytest.approx([1.0, 1 / 9])
    assert (boxes.presence, boxes.expected_iou) == (0.75, (0.5, 0.25))


def test_an_empty_wish_and_a_dialogue_out_of_turn_are_refused(predictor, image):
    with pytest.raises(ModelInputError, match="nothing to locate"):
        predictor.locate(image, " ")
    for roles in ((), ("assistant",), ("user", "assistant"), ("user", "user", "user")):
        with pytest.raises(ModelInputError, match="in turn"):
            predictor.chat(image, [(role, "Hello") for role in roles])
    assert asking.chat(image, [("user", "a"), ("assistant", "b"), ("user", "c")]).task is Task.VQA
