"""Several images in one dialogue: each stands where it is shown, and one image costs what it did."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from gastrovl.core.boxcoding import BoxCodingConfig
from gastrovl.core.errors import ModelInputError
from gastrovl.core.types import Task
from gastrovl.inference import asking
from gastrovl.inference.decoding.generated import generated, inputs_of
from gastrovl.inference.predictor import Predictor
from gastrovl.inference.question import Question
from gastrovl.inference.session import Kind, Session, Wish
from gastrovl.model.checkpoint import CheckpointCard, build_model
from gastrovl.model.config import ConnectorConfig
from gastrovl.serving.checkpoints import ServedCheckpoint

CARD = CheckpointCard(name="tiny", image_tokens=16, image_size_px=32)


def picture(number):
    return Image.fromarray(np.random.default_rng(number).integers(0, 256, (24, 32, 3), dtype=np.uint8))


A, B, C = (picture(number) for number in range(3))
TURNS = (("user", "What is it?"), ("assistant", "polyp"), ("user", "And here?"))


@pytest.fixture(scope="module")
def predictor(tiny_model):
    model, processor = build_model(tiny_model("mlp"), seed=3)
    return Predictor(model.eval(), processor, CARD)


@pytest.fixture(scope="module", params=["mlp", "pool", "query"])
def any_predictor(request, tiny_model):
    model, processor = build_model(tiny_model(request.param), seed=4)
    return Predictor(model.eval(), processor, CARD)


def test_each_image_stands_before_the_words_of_its_turn(predictor):
    processor = predictor.processor

    ids = processor.encode_prompt(TURNS, further=[0, 2])

    image = processor.image_token_id
    assert ids.count(image) == 3 * 16
    text = processor.tokenizer.decode([one for place, one in enumerate(ids) if one != image or ids[place - 1] != image])
    assert text.replace("\n", "|") == "<|user|><image>|<image>|What is it?<|end|><|assistant|>polyp<|end|>" + (
        "<|user|><image>|And here?<|end|><|assistant|>"
    )


def test_plain_generate_with_all_pixels_says_the_same(any_predictor):
    """`generate` gets the whole prompt and all images at once, and shares no prefix."""
    asked = [
        Question(A, TURNS, further=((2, B),)),
        Question(A, TURNS, further=((0, C), (2, B))),
        Question(A, TURNS, further=((2, C),)),
        Question(B, TURNS),
        Question(A, (("user", "What is in [100,200,300,400]?"),)),
    ]

    together = any_predictor.answer(asked, 12)
    plain = [
        generated(any_predictor.model, any_predictor.processor, any_predictor.forms, [one], 12)[0] for one in asked
    ]
    alone = [any_predictor.answer([one], 12)[0] for one in asked]

    assert [reply.text for reply in together] == [reply.text for reply in plain] == [reply.text for reply in alone]
    for one, other in zip(together, plain, strict=True):
        assert one.confidence == pytest.approx(other.confidence, rel=1e-4)


def test_what_is_said_depends_on_every_image_and_on_their_order(predictor):
    def sure(*question):
        return predictor.answer([asking.chat(*question)], 4)[0].confidence

    base = sure(A, TURNS, [(2, B)])
    others = [sure(A, TURNS), sure(A, TURNS, [(2, C)]), sure(B, TURNS, [(2, A)]), sure(A, TURNS, [(0, B)])]

    assert all(abs(other - base) > 1e-6 for other in others)


def test_the_first_images_prefix_is_worked_out_once_for_one_image_and_several(predictor, monkeypatch):
    passes = []
    language = predictor.model.model.language_model
    monkeypatch.setattr(
        language,
        "forward",
        lambda *a, _f=language.forward, **k: passes.append(k["inputs_embeds"].shape[:2]) or _f(*a, **k),
    )
    predictor.forget()

    predictor.answer([Question(A, TURNS), Question(A, TURNS, further=((2, B),))], 1)
    first = list(passes)
    predictor.answer([Question(A, TURNS)], 1)

    assert [shape[0] for shape in first] == [1, 2]  # A's prefix once, then both questions; B has no prefix of its own
    assert len(passes) == 3


def test_a_stream_and_python_say_what_answer_says(predictor):
    asked = asking.chat(A, TURNS, [(2, B)])

    [reply] = predictor.answer([asked], 12)

    assert "".join(predictor.stream(asked, 12)) == reply.text
    assert predictor.chat(A, TURNS, [(2, B)]).text.startswith(reply.text)


def test_what_is_of_one_image_is_refused_with_several(predictor):
    for task in (Task.CLS, Task.REC, Task.REG):
        with pytest.raises(ModelInputError, match=f"2 images: a question of {task} is about one image"):
            Question(A, TURNS, task, further=((2, B),))
    for places in ([1], [3], [2, 0], [-1]):
        with pytest.raises(ModelInputError, match=r"further images are shown in turns \["):
            Question(A, TURNS, further=tuple((place, B) for place in places))
    with pytest.raises(ModelInputError, match="a box in a dialogue about several images does not say in which"):
        predictor.answer([Question(A, (("user", "What is in [1,2,3,4]?"),), further=((0, B),))], 4)


def test_models_that_look_at_one_image_say_so(tiny_model):
    connector = ConnectorConfig(kind="query", queries=4, gated_every=1)
    gated = build_model(tiny_model("query").model_copy(update={"connector": connector}), seed=1)
    pixels = build_model(tiny_model("mlp", box_coding=BoxCodingConfig(kind="pixels")), seed=1)
    for (model, processor), why in ((gated, "gated cross-attention"), (pixels, "writes boxes in a way that is of one")):
        predictor = Predictor(model.eval(), processor, CARD)
        asked = Question(A, TURNS, further=((2, B),))
        with pytest.raises(ModelInputError, match=why):
            predictor.answer([asked], 4)
        with pytest.raises(ModelInputError, match=why):
            ServedCheckpoint(predictor).prompt_length(asked)


def test_a_prompt_is_as_long_as_all_its_images(predictor):
    served = ServedCheckpoint(predictor)

    lengths = [
        served.prompt_length(Question(A, TURNS, further=further)) for further in ((), ((2, B),), ((0, C), (2, B)))
    ]

    assert lengths[1] - lengths[0] == lengths[2] - lengths[1] >= 16
    inputs = inputs_of(predictor.processor, [Question(A, TURNS, further=((2, B),))], torch.device("cpu"))
    assert inputs["input_ids"].shape[1] == lengths[1]
    assert len(inputs["pixel_values"]) == 2


def test_a_session_shows_more_images_until_another_dialogue_begins(predictor):
    asked = []

    class Watched:
        def answer(self, questions):
            asked.extend(questions)
            return predictor.answer(questions, 4)

    session = Session(Watched(), "tiny")
    with pytest.raises(ModelInputError, match="no image is shown yet"):
        session.add(B, "b.png")
    session.show(A, "a.png")
    session.ask(Wish(Kind.SAY, "What is it?"))
    session.add(B, "folder/b.png")
    session.ask(Wish(Kind.SAY, "And here?"))
    session.ask(Wish(Kind.DESCRIBE))
    session.ask(Wish(Kind.SAY, "Which is larger?"))
    session.forget()
    session.ask(Wish(Kind.SAY, "What is it?"))

    assert [[place for place, _ in one.further] for one in asked] == [[], [2], [], [2], []]
    assert asked[3].images == [A, B]
    assert [one.further and [shown.name for shown in one.further] for one in session.exchanges] == [
        None,
        ["b.png"],
        None,
        ["b.png"],
        None,
    ]
    assert '"further":' in session.record().model_dump_json(exclude_none=True)
