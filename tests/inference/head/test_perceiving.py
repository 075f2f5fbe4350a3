"""Masks and read boxes to answers, by hand; and a checkpoint whose head answers in the place of words."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from gastrovl.clinical.answers import BoxAnswer, LabelAnswer, ParseFailure, parse_answer
from gastrovl.clinical.taxonomy import Taxonomy
from gastrovl.core.errors import ConfigError, PredictionError
from gastrovl.core.geometry import iou
from gastrovl.core.images import open_image
from gastrovl.core.records import read_records
from gastrovl.core.types import Box, Conversation, Task
from gastrovl.inference.asking import classify, describe, locate, name_region
from gastrovl.inference.batch import predict_file
from gastrovl.inference.head.looking import Looking
from gastrovl.inference.head.perceiving import boxes_of
from gastrovl.inference.predictor import Predictor
from gastrovl.inference.question import Question
from gastrovl.inference.runrecord import read_run
from gastrovl.model.config import PerceptionConfig
from gastrovl.training.config import TrainConfig
from gastrovl.training.train import train


def test_the_box_is_the_mean_of_what_is_shown_and_what_was_read():
    mask = np.full((8, 8), 0.1, dtype=np.float32)
    mask[2:4, 2:6] = 0.9  # x 0.25-0.75, y 0.25-0.5
    boxes = np.zeros((4, 4, 4), dtype=np.float32)
    boxes[..., :] = (0.05, 0.25, 0.95, 0.7)
    qualities = np.full((4, 4), 0.8, dtype=np.float32)

    (found,) = boxes_of(mask, boxes, qualities)

    assert found.box.xyxy == pytest.approx((0.15, 0.25, 0.85, 0.6))
    assert found.expected_iou == pytest.approx(0.8)


def test_only_the_surest_cells_have_a_say():
    mask = np.full((4, 4), 0.9, dtype=np.float32)
    boxes = np.zeros((2, 2, 4), dtype=np.float32)
    boxes[..., 2:] = 0.5
    boxes[0, 0] = (0.0, 0.0, 1.0, 1.0)
    qualities = np.array([[0.9, 0.5], [0.5, 0.5]], dtype=np.float32)  # 0.5 is below 0.6 of 0.9

    (found,) = boxes_of(mask, boxes, qualities)

    assert found.box.xyxy == pytest.approx((0.0, 0.0, 1.0, 1.0))
    assert found.expected_iou == pytest.approx(0.9)


def test_two_lesions_are_two_boxes_the_larger_first_and_a_speck_is_none():
    mask = np.zeros((16, 16), dtype=np.float32)
    mask[0:4, 0:4] = 0.9
    mask[8:16, 8:16] = 0.9
    mask[0, 15] = 0.9
    boxes = np.tile(np.array([0.0, 0.0, 1.0, 1.0], dtype=np.float32), (4, 4, 1))
    found = boxes_of(mask, boxes, np.full((4, 4), 0.5, dtype=np.float32))

    assert [one.box.xyxy for one in found] == [pytest.approx((0.25, 0.25, 1, 1)), pytest.approx((0, 0, 0.625, 0.625))]


def test_a_faint_mask_still_gives_a_box():
    mask = np.full((4, 4), 0.01, dtype=np.float32)
    mask[1, 1] = 0.2

    (found,) = boxes_of(mask, np.tile(np.float32([0.25, 0.25, 0.5, 0.5]), (2, 2, 1)), np.full((2, 2), 0.1, np.float32))

    assert found.box.xyxy == pytest.approx((0.25, 0.25, 0.5, 0.5))


def test_boxes_read_outside_the_image_are_brought_back():
    mask = np.full((4, 4), 0.9, dtype=np.float32)

    (found,) = boxes_of(mask, np.tile(np.float32([-2.0, -1.0, 3.0, 2.0]), (2, 2, 1)), np.full((2, 2), 0.5, np.float32))

    assert found.box.xyxy == (0.0, 0.0, 1.0, 1.0)


@pytest.fixture(scope="module")
def perceived(tmp_path_factory, tiny_model, drawn):
    """A checkpoint whose head has learnt four frames by heart, and their conversations."""
    folder = tmp_path_factory.mktemp("perceived")
    conversations = drawn(folder / "data", images=4)
    stage = {
        "name": "instruct",
        "tasks": ["CLS", "REC", "REG", "CAP"],
        "trains": ["vision", "projector", "language", "perception"],
        "learning_rate": 1e-2,
        "weight_decay": 0.0,
        "warmup": 0.1,
        "perception_weight": 1.0,
        "steps": 120,
        "images_per_step": 4,
    }
    model = tiny_model("pool", "resnet", perception=PerceptionConfig(width=16, upscale=4))
    content = {"name": "perceived", "model": model, "train": str(conversations), "stages": [stage]}
    train(TrainConfig.model_validate(content), folder / "model", show_bar=False, say=lambda _: None)
    return folder / "model", conversations


@pytest.fixture(scope="module")
def asked(perceived):
    return [
        (
            Question(open_image(perceived[1].parent / one.image.path), (("user", one.turns[0].text),), one.task),
            one,
        )
        for one in read_records(perceived[1], Conversation)
        if one.task is not Task.CAP
    ]


def test_what_was_learnt_is_answered_by_the_head(perceived, asked):
    predictor, taxonomy = Predictor.load(perceived[0], "cpu"), Taxonomy.load()

    replies = predictor.answer([question for question, _ in asked], max_new_tokens=8)

    for reply, (question, one) in zip(replies, asked, strict=True):
        answer = parse_answer(question.task, reply.text, taxonomy)
        if question.task is Task.REC:
            assert isinstance(answer, BoxAnswer)
            assert iou(answer.boxes[0], one.target.boxes[0]) > 0.5
            assert reply.probabilities is None
        else:
            assert isinstance(answer, LabelAnswer)
            assert reply.text == one.answer
            assert reply.probabilities[one.target.terms[0]] == max(reply.probabilities.values())
        assert 0.0 <= reply.confidence <= 1.0
        assert reply.seconds > 0


def test_the_language_model_reads_images_and_questions_once_for_boxes_and_nothing_for_labels(perceived, asked):
    predictor = Predictor.load(perceived[0], "cpu")
    calls = []
    predictor.model.model.language_model.register_forward_pre_hook(lambda *_: calls.append(1))
    by_task = {task: [q for q, _ in asked if q.task is task] for task in (Task.REC, Task.CLS, Task.REG)}

    counts = {}
    for task, questions in by_task.items():
        calls.clear()
        predictor.answer(questions, max_new_tokens=8)
        counts[task] = len(calls)

    assert counts == {Task.REC: 1, Task.CLS: 0, Task.REG: 0}


def test_a_call_of_all_tasks_looks_at_an_image_once_and_reads_it_with_the_first_question_that_needs_it(
    perceived, asked
):
    predictor = Predictor.load(perceived[0], "cpu")
    read, seen = [], []
    trunk = predictor.model.model
    trunk.language_model.register_forward_pre_hook(
        lambda _, __, given: read.append(tuple(given["inputs_embeds"].shape[:2])), with_kwargs=True
    )
    trunk.vision_tower.register_forward_pre_hook(lambda *_: seen.append(1))
    image, region = asked[0][0].image, Box(x0=0.2, y0=0.2, x1=0.6, y1=0.6)
    questions = [classify(image), locate(image, "polyp"), name_region(image, region), describe(image)]
    shared = predictor.words.shared.length

    together = predictor.answer(questions, 2)

    assert seen == [1]
    assert [(rows, length > shared) for rows, length in read] == [(1, True), (1, False), (1, False)]
    predictor.forget()
    alone = [predictor.answer([question], 2)[0] for question in questions]
    assert [reply.text for reply in together] == [reply.text for reply in alone]
    assert together[1].presence == pytest.approx(alone[1].presence, abs=1e-5)


def test_without_the_head_the_words_come_back_and_the_fingerprint_tells(perceived, asked):
    head, words = Predictor.load(perceived[0], "cpu"), Predictor.load(perceived[0], "cpu", uses_head=False)
    question = next(question for question, one in asked if one.task is Task.CLS)

    assert head.fingerprint != words.fingerprint
    assert head.answer([question], 8)[0].probabilities is not None
    assert words.answer([question], 8)[0].probabilities is None


def test_a_question_without_a_task_or_about_two_regions_is_answered_in_words(perceived, asked):
    predictor = Predictor.load(perceived[0], "cpu")
    image = asked[0][0].image
    regions = "What lies in [000,000,500,500] and [500,500,999,999]?"

    replies = predictor.answer(
        [Question(image, (("user", regions),), Task.REG), Question(image, (("user", "Where is the gastric polyp?"),))],
        4,
    )

    assert [reply.probabilities for reply in replies] == [None, None]


def test_a_batch_is_answered_as_each_question_alone(perceived, asked):
    predictor = Predictor.load(perceived[0], "cpu")

    together = predictor.answer([question for question, _ in asked], max_new_tokens=8)
    alone = [predictor.answer([question], max_new_tokens=8)[0] for question, _ in asked]

    assert [reply.text for reply in together] == [reply.text for reply in alone]
    for one, other in zip(together, alone, strict=True):
        assert one.confidence == pytest.approx(other.confidence, abs=1e-4)


def test_a_language_model_that_shares_no_prefix_has_its_head_asked_all_the_same(perceived, asked, monkeypatch):
    predictor, other = Predictor.load(perceived[0], "cpu"), Predictor.load(perceived[0], "cpu")
    monkeypatch.setattr(type(other), "words", None)

    without = other.answer([question for question, _ in asked], 8)
    monkeypatch.undo()
    shared = predictor.answer([question for question, _ in asked], 8)

    assert [reply.text for reply in without] == [reply.text for reply in shared]
    assert [one.presence is not None for one in shared] == [question.task is Task.REC for question, _ in asked]


def test_the_card_says_what_was_learnt(perceived):
    card = json.loads((perceived[0] / "gastrovl.json").read_text())

    assert card["locates"] is True
    names = {"polyp": "polyp", "gastric_ulcer": "gastric ulcer", "esophagitis": "esophagitis", "cancer": "cancer"}
    assert names.items() <= card["recognised"].items()


LOOKS = [{"zoom": True}, {"views": 2}, {"views": 4}, {"zoom": True, "views": 4}]


@pytest.mark.parametrize("look", LOOKS, ids=str)
def test_whoever_looks_again_still_knows_what_was_learnt(perceived, asked, look):
    predictor, taxonomy = Predictor.load(perceived[0], "cpu", looking=Looking(**look)), Taxonomy.load()
    kept = [(question, one) for question, one in asked if question.task is Task.REC or look.get("views", 1) == 1]

    together = predictor.answer([question for question, _ in kept], max_new_tokens=8)
    alone = [predictor.answer([question], max_new_tokens=8)[0] for question, _ in kept]

    assert [reply.text for reply in together] == [reply.text for reply in alone]
    for reply, (question, _) in zip(together, kept, strict=True):
        assert not isinstance(parse_answer(question.task, reply.text, taxonomy), ParseFailure)
        assert 0.0 <= reply.confidence <= 1.0


def test_what_a_box_costs_is_what_was_asked_for(perceived, asked):
    questions = [question for question, _ in asked if question.task is Task.REC]
    passed = {}
    for look in ({}, *LOOKS):
        predictor = Predictor.load(perceived[0], "cpu", looking=Looking(**look))
        tower, words = [], []
        predictor.model.model.vision_tower.register_forward_pre_hook(
            lambda _, values, named, seen=tower: seen.append(
                len(named.get("pixel_values", values[0] if values else ()))
            ),
            with_kwargs=True,
        )
        predictor.model.model.language_model.register_forward_pre_hook(lambda *_, read=words: read.append(1))
        predictor.answer(questions, max_new_tokens=8)
        passed[str(look)] = (sum(tower[:1]), sum(tower), len(words))

    count = len(questions)
    assert {words for _, _, words in passed.values()} == {1}  # images and questions together
    assert passed["{}"] == (count, count, 1)
    assert passed["{'views': 2}"][1] == 2 * count
    assert passed["{'views': 4}"][1] == 4 * count
    assert count < passed["{'zoom': True}"][1] <= 2 * count
    assert 4 * count < passed["{'zoom': True, 'views': 4}"][1] <= 8 * count


def test_mirror_images_of_an_image_are_told_the_same(perceived, asked):
    predictor = Predictor.load(perceived[0], "cpu", looking=Looking(views=4))
    questions = [question for question, _ in asked if question.task is Task.CLS]
    turned = [replace(one, image=one.image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)) for one in questions]

    straight, mirror = (predictor.answer(these, max_new_tokens=8) for these in (questions, turned))

    for one, other in zip(straight, mirror, strict=True):
        assert one.probabilities == pytest.approx(other.probabilities, abs=1e-5)


def test_how_closely_it_looked_stands_in_fingerprint_and_record_and_mixes_with_nothing(perceived, tmp_path):
    predictors = [Predictor.load(perceived[0], "cpu", looking=Looking(**look)) for look in ({}, *LOOKS)]
    out = tmp_path / "out.jsonl"

    predict_file(predictors[1], perceived[1], out)

    assert len({one.fingerprint for one in predictors}) == len(predictors)
    assert Predictor.load(perceived[0], "cpu", looking=Looking()).fingerprint == predictors[0].fingerprint
    assert read_run(out).description == {"zoom": True}
    with pytest.raises(PredictionError, match="other weights, another description"):
        predict_file(predictors[0], perceived[1], out, retries_failed=True)
    predict_file(predictors[0], perceived[1], out, is_replaced=True)
    assert read_run(out).description is None


def test_what_cannot_look_again_says_so(perceived, learnt):
    with pytest.raises(ConfigError, match="head that answers is needed for zoom and views;"):
        Predictor.load(learnt[0], "cpu", looking=Looking(zoom=True, views=2))
    with pytest.raises(ConfigError, match="head that answers is needed for zoom;"):
        Predictor.load(perceived[0], "cpu", uses_head=False, looking=Looking(zoom=True))
    with pytest.raises(ConfigError, match="views is 3; expected 1"):
        Predictor.load(perceived[0], "cpu", looking=Looking(views=3))
