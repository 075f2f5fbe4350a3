"""Replies of REC held to boxes: any weights, any tokenizer, any limit, and the reply can be read."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from gastrovl.clinical.answers import BoxAnswer, parse_answer
from gastrovl.clinical.taxonomy import Taxonomy
from gastrovl.core.boxcoding import BoxCodingConfig
from gastrovl.core.boxtext import decode_boxes
from gastrovl.core.types import Task
from gastrovl.inference.decoding.boxgrammar import FORMS, BoxGrammar, State, read_box
from gastrovl.inference.predictor import Predictor
from gastrovl.inference.question import Question
from gastrovl.model.checkpoint import build_model

CODINGS = [
    BoxCodingConfig(),
    BoxCodingConfig(order="yxyx"),
    BoxCodingConfig(kind="pixels"),
    BoxCodingConfig(kind="pixels", order="yxyx", several="left"),
    BoxCodingConfig(kind="tokens", bins=64),
    BoxCodingConfig(kind="tokens", bins=1000, order="yxyx"),
]
EDGE = (999,) * 4


@pytest.mark.parametrize(
    ("text", "length"),
    [
        ("[000,000,001,001]", 17),
        ("[000,000,001,001] [", 17),
        ("[998,998,999,999]", 17),
        ("[", 0),
        ("[99", 0),
        ("[100,200,10", 0),
        ("[100,200,101,999", 0),
        ("[999", None),
        ("[100,200,100", None),
        ("[100,200,09", None),
        ("[100,200,300,200]", None),
        ("[1000", None),
        ("[10,", None),
        ("[100;", None),
        ("(", None),
    ],
)
def test_a_box_of_digits_is_read_letter_by_letter(text, length):
    assert read_box(text, FORMS["digits"], EDGE) == length


@pytest.mark.parametrize(
    ("text", "length"),
    [
        ("{<0><0><1><1>}", 14),
        ("{<63><9><64><48>}", 17),
        ("{<64", None),
        ("{<6", 0),
        ("{<0><0><0", None),
        ("{<0><0><00", None),
        ("{<10><0><1", 0),
        ("{<10><0><1>", None),
        ("{<10><0><11><49", None),
    ],
)
def test_pixels_end_at_the_edges_of_the_image(text, length):
    assert read_box(text, FORMS["pixels"], (64, 48, 64, 48)) == length


@pytest.fixture(params=["gastrovl", "vicuna"])
def grammar(request, tiny_model):
    return BoxGrammar(build_model(tiny_model("mlp", chat_template=request.param), seed=1)[1])


def test_absent_is_said_alone_and_boxes_as_often_as_liked(grammar):
    box = "[100,200,300,400]"

    assert grammar.state("abs", EDGE) == State(False, "abs")
    assert grammar.state(" absent", EDGE) == State(False, " absent")
    assert grammar.state("absent ", EDGE) is None
    assert grammar.state(f"{box} {box}", EDGE) == State(True, "")
    assert grammar.state(f"{box} [1", EDGE) == State(True, " [1")
    assert grammar.state(f"{box} absent", EDGE) is None
    assert grammar.allowed(State(False, "absent"), EDGE) == [grammar.end]
    assert grammar.end in grammar.allowed(State(True, ""), EDGE)
    assert grammar.end not in grammar.allowed(State(), EDGE)
    assert grammar.end not in grammar.allowed(State(True, " [1"), EDGE)


def test_what_the_limit_cuts_is_left_out(grammar):
    box = "[100,200,300,400]"

    assert grammar.whole(f" {box} [000,0", EDGE) == box
    assert grammar.whole(f"{box} {box}", EDGE) == f"{box} {box}"
    assert grammar.whole("absent", EDGE) == "absent"


@pytest.mark.parametrize("coding", CODINGS, ids=lambda one: f"{one.kind}-{one.order}-{one.bins}")
def test_every_random_walk_is_a_readable_reply(tiny_model, coding):
    """Scores are noise at each step, with the end made likely enough to come."""
    model, processor = build_model(tiny_model("pool", box_coding=coding), seed=5)
    predictor = Predictor(model.eval(), processor, card=None)
    taxonomy, words = Taxonomy.load(), predictor.words
    noise = torch.Generator().manual_seed(3)
    image = Image.fromarray(np.random.default_rng(1).integers(0, 255, (48, 64, 3), dtype=np.uint8))
    questions = [Question(image, (("user", f"Where is polyp {number}?"),), Task.REC) for number in range(12)]

    class Noise(torch.nn.Linear):
        def forward(self, states):
            scores = 4 * torch.randn(len(states), self.out_features, generator=noise)
            scores[:, words.end] += 2
            return scores

    model.lm_head = Noise(4, model.lm_head.out_features)
    replies = [reply for limit in (1, 30, 120) for reply in predictor.answer(questions, limit)]

    answers = [parse_answer(Task.REC, reply.text, taxonomy) for reply in replies]
    assert all(isinstance(one, BoxAnswer) for one in answers), [reply.text for reply in replies]
    assert {min(len(one.boxes), 2) for one in answers} >= {1, 2}
    assert {reply.stop_reason for reply in replies} == {"end", "length"}


def test_what_was_learnt_is_said_as_before(learnt):
    predictor = Predictor.load(learnt[0], "cpu")
    image = Image.open(learnt[1].parent / "0.png").convert("RGB")
    turns = (("user", "Where is the polyp?"),)

    free, held = predictor.answer([Question(image, turns), Question(image, turns, Task.REC)], 40)

    assert (held.text, held.stop_reason) == (free.text, free.stop_reason)
    assert held.confidence == pytest.approx(free.confidence, rel=1e-5)
    assert decode_boxes(held.text)


def test_a_model_of_anothers_making_is_held_too(tiny_model):
    """Its own `generate` decodes; untrained, it says anything but boxes when it is free to."""
    from gastrovl.inference.decoding.generated import generated

    model, processor = build_model(tiny_model("mlp"), seed=5)
    predictor = Predictor(model.eval(), processor, card=None)
    image = Image.new("RGB", (40, 30), (200, 10, 60))
    turns = (("user", "Where is the polyp?"),)

    with torch.inference_mode():
        (held,) = generated(model, processor, predictor.forms, [Question(image, turns, Task.REC)], 30)
        (free,) = generated(model, processor, predictor.forms, [Question(image, turns)], 30)

    assert isinstance(parse_answer(Task.REC, held.text, Taxonomy.load()), BoxAnswer)
    assert not isinstance(parse_answer(Task.REC, free.text, Taxonomy.load()), BoxAnswer)
