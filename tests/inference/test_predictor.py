"""Answers: what was learnt comes back, alone or in a batch, with the confidence that the model gave its words."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from gastrovl.clinical.answers import LabelAnswer, ParseFailure, parse_answer
from gastrovl.clinical.taxonomy import Taxonomy
from gastrovl.core.errors import CheckpointError, ImageError
from gastrovl.core.images import open_image
from gastrovl.core.records import read_records
from gastrovl.core.types import Conversation, Task
from gastrovl.inference.predictor import Predictor
from gastrovl.inference.question import Question
from gastrovl.model.checkpoint import build_model


@pytest.fixture(scope="module")
def predictor(learnt):
    return Predictor.load(learnt[0], "cpu")


@pytest.fixture(scope="module")
def conversations(learnt):
    return list(read_records(learnt[1], Conversation))


@pytest.fixture(scope="module")
def questions(learnt, conversations):
    """Of very different lengths."""
    return [
        Question(open_image(learnt[1].parent / one.image.path), (("user", one.turns[0].text),)) for one in conversations
    ]


def test_eight_conversations_learnt_by_heart_come_back_word_by_word(predictor, questions, conversations):
    replies = predictor.answer(questions, max_new_tokens=40)

    assert [reply.text for reply in replies] == [one.answer for one in conversations]
    assert {reply.stop_reason for reply in replies} == {"end"}
    assert all(0.5 < reply.confidence <= 1.0 for reply in replies)
    assert all(reply.seconds > 0 for reply in replies)


def test_another_wording_of_a_question_is_understood_too(predictor, learnt, conversations):
    one = conversations[1]

    reply = predictor.ask(learnt[1].parent / one.image.path, one.turns[0].alternatives[0])

    assert reply.text == one.answer


def test_questions_in_a_batch_get_the_replies_they_get_alone(predictor, questions):
    together = predictor.answer(questions, max_new_tokens=40)
    alone = [predictor.answer([question], max_new_tokens=40)[0] for question in questions]

    assert [reply.text for reply in together] == [reply.text for reply in alone]
    for one, other in zip(together, alone, strict=True):
        assert one.confidence == pytest.approx(other.confidence, rel=1e-4)


@pytest.mark.parametrize(("connector", "tower"), [("mlp", "siglip"), ("pool", "resnet")])
def test_an_untrained_model_answers_alike_in_a_batch_and_alone(tiny_model, questions, connector, tower):
    """Nothing that was learnt hides a wrong position, mask or region here."""
    model, processor = build_model(tiny_model(connector, tower), seed=5)
    predictor = Predictor(model.eval(), processor, card=None)

    together = predictor.answer(questions, max_new_tokens=12)
    alone = [predictor.answer([question], max_new_tokens=12)[0] for question in questions]

    assert [reply.text for reply in together] == [reply.text for reply in alone]
    assert len({reply.text for reply in together}) > 1


def forced_probabilities(predictor, question, answer):
    """Probability of each token of an answer, from one plain forward pass."""
    processor = predictor.processor
    dialogue = processor.encode_dialogue([*question.turns, ("assistant", answer)])
    ids = torch.tensor([dialogue.ids])
    pixels = processor.pixels(np.stack([processor.square(question.image)]))
    with torch.no_grad():
        logits = predictor.model(input_ids=ids, attention_mask=torch.ones_like(ids), pixel_values=pixels).logits[0]
    chances = logits[:-1].softmax(dim=-1).gather(1, ids[0, 1:, None]).squeeze(1)
    return chances[torch.tensor(dialogue.is_answer[1:])].tolist()


@pytest.mark.parametrize("index", range(4))
def test_confidence_is_the_geometric_mean_of_the_tokens_probabilities(predictor, questions, index):
    reply = predictor.answer(questions, max_new_tokens=40)[index]

    chances = forced_probabilities(predictor, questions[index], reply.text)

    assert reply.confidence == pytest.approx(math.prod(chances) ** (1 / len(chances)), rel=1e-3)


def test_a_reply_that_is_cut_says_so(predictor, questions):
    whole = predictor.answer(questions[3:4], max_new_tokens=40)[0]
    cut = predictor.answer(questions[3:4], max_new_tokens=2)[0]

    assert (whole.stop_reason, cut.stop_reason) == ("end", "length")
    assert whole.text.startswith(cut.text)
    assert cut.text != whole.text


def test_a_dialogue_may_have_earlier_turns(predictor, questions, conversations):
    image = questions[0].image
    turns = (("user", conversations[0].turns[0].text), ("assistant", conversations[0].answer), ("user", "Where?"))

    replies = predictor.answer([Question(image, turns), questions[0]], max_new_tokens=40)

    assert replies[0].text
    assert replies[1].text == conversations[0].answer


def test_a_question_that_names_its_task_is_answered_with_labels_even_by_a_model_that_knows_nothing(
    tiny_model, questions
):
    model, processor = build_model(tiny_model("pool", "resnet"), seed=5)
    predictor = Predictor(model.eval(), processor, card=None)
    held = [replace(question, task=Task.CLS) for question in questions]

    free = predictor.answer([*questions[:2], *held], max_new_tokens=400)

    taxonomy = Taxonomy.load()
    assert all(isinstance(parse_answer(Task.CLS, reply.text, taxonomy), LabelAnswer) for reply in free[2:])
    assert all(isinstance(parse_answer(Task.CLS, reply.text, taxonomy), ParseFailure) for reply in free[:2])


def test_the_region_asked_about_decides_the_answer(tiny_model, questions):
    """Same words, same image, another box in the picture: the model must see another token."""
    model, processor = build_model(tiny_model("pool", "resnet"), seed=5)
    predictor = Predictor(model.eval(), processor, card=None)
    texts = ("What lies in [000,000,300,300]?", "What lies in [600,600,999,999]?")
    inputs = predictor._inputs([Question(questions[0].image, (("user", text),)) for text in texts])
    inputs["input_ids"][1] = inputs["input_ids"][0]

    with torch.no_grad():
        logits = predictor.model(**inputs).logits[:, -1]

    assert not torch.allclose(logits[0], logits[1], atol=1e-6)


def test_any_image_size_and_mode_can_be_asked(predictor):
    for picture in (Image.new("L", (5, 300), 90), Image.new("RGBA", (700, 9))):
        assert predictor.answer([Question(picture, (("user", "What does the image show?"),))], 40)[0].text


def test_a_broken_image_or_checkpoint_is_named(predictor, tmp_path):
    with pytest.raises(ImageError, match=r"none\.png: no such image"):
        predictor.ask(tmp_path / "none.png", "What does the image show?")
    with pytest.raises(CheckpointError, match=r"gastrovl\.json: no such file"):
        Predictor.load(tmp_path, "cpu")
