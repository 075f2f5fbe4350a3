"""A shared prefix changes nothing but the work: replies are those of plain `generate`, whatever is shared."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from gastrovl.core.errors import BoxTextError
from gastrovl.core.types import Task
from gastrovl.inference.decoding.generated import generated, inputs_of
from gastrovl.inference.predictor import Predictor
from gastrovl.inference.question import Question
from gastrovl.model.checkpoint import build_model
from gastrovl.model.config import PartConfig

ASKED = (
    ("What does the image show?", Task.CLS),
    ("Where is the polyp?", None),
    ("What lies in [125,250,500,750]?", Task.REG),
    ("What lies in [000,000,300,300], and what in [600,600,999,999]?", None),
    ("Describe the image.", Task.CAP),
)


def picture(seed):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (40, 30, 3), dtype=np.uint8))


def asked(*images):
    return [Question(image, (("user", text),), task) for image in images for text, task in ASKED]


def predictor_of(pair):
    model, processor = pair
    return Predictor(model.eval(), processor, card=None)


def by_generate(predictor, questions, most):
    with torch.inference_mode():
        return generated(predictor.model, predictor.processor, predictor.forms, questions, most)


def same(some, others):
    assert [(one.text, one.stop_reason) for one in some] == [(one.text, one.stop_reason) for one in others]
    assert [one.confidence for one in some] == pytest.approx([one.confidence for one in others], rel=1e-4)


@pytest.fixture
def counted():
    """`counted(predictor)` lists how many tokens each pass of its language model reads, and how many images a tower."""

    def count(predictor):
        passes, images = [], []
        trunk = predictor.model.model
        trunk.language_model.register_forward_pre_hook(
            lambda _, __, given: passes.append(tuple(given["inputs_embeds"].shape[:2])), with_kwargs=True
        )
        trunk.vision_tower.register_forward_pre_hook(
            lambda _, args, given: images.append(len(given.get("pixel_values", args[0] if args else None))),
            with_kwargs=True,
        )
        return passes, images

    return count


@pytest.mark.parametrize(
    ("connector", "tower"), [("mlp", "siglip"), ("mlp", "clip"), ("pool", "resnet"), ("query", "siglip")]
)
def test_replies_are_those_of_generate(tiny_model, connector, tower):
    predictor = predictor_of(build_model(tiny_model(connector, tower), seed=5))
    questions = asked(picture(0), picture(1))

    replies = predictor.answer(questions, 14)

    same(replies, by_generate(predictor, questions, 14))
    assert len({reply.text for reply in replies}) > 3


@pytest.mark.parametrize("fusion", ["gated", "gated-query", "two-towers", "two-towers-gated"])
def test_so_are_those_of_every_way_to_join_image_and_text(open_fusion, fusion):
    predictor = predictor_of(open_fusion(fusion))
    questions = asked(picture(0), picture(1))

    same(predictor.answer(questions, 10), by_generate(predictor, questions, 10))


@pytest.mark.parametrize(
    ("kind", "more", "template"),
    [
        ("phi", {"partial_rotary_factor": 0.5}, "vicuna"),
        ("qwen3", {"num_key_value_heads": 1, "head_dim": 16}, "chatml"),
        ("llama", {"num_key_value_heads": 1}, "llama3"),
    ],
)
def test_so_are_those_of_the_language_models_of_the_presets(tiny_model, kind, more, template):
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    language = PartConfig(config={"model_type": kind, "max_position_embeddings": 512, **shape, **more})
    predictor = predictor_of(build_model(tiny_model("pool", language=language, chat_template=template), seed=2))
    questions = asked(picture(0))

    same(predictor.answer(questions, 10), by_generate(predictor, questions, 10))


def test_an_image_is_encoded_once_for_all_its_questions_and_remembered(tiny_model, counted):
    predictor = predictor_of(build_model(tiny_model("mlp"), seed=5))
    passes, images = counted(predictor)
    first, second = picture(0), picture(1)

    predictor.answer(asked(first, second, first.copy()), 3)
    shared = predictor.words.shared.length

    assert images == [2]
    assert passes[0] == (2, shared)
    assert passes[1][0] == 15
    longest = max(len(predictor.processor.encode_prompt(question.turns)) for question in asked(first))
    assert [length for _, length in passes[1:]] == [longest - shared, 1, 1]

    passes.clear()
    predictor.answer(asked(second), 3)
    assert images == [2]
    assert passes[0][0] == 5


def states_of(predictor, questions):
    with torch.no_grad():
        return predictor.words.states(questions)


def scores_of(predictor, questions):
    """Of the next token, by the model's own forward pass over one question at a time."""
    found = []
    with torch.no_grad():
        for question in questions:
            inputs = inputs_of(predictor.processor, [question], predictor.model.device)
            found.append(predictor.model(**inputs, logits_to_keep=1).logits[0, -1])
    return torch.stack(found)


@pytest.mark.parametrize("fusion", ["pool", "gated-query", "two-towers"])
def test_a_reply_begins_where_one_pass_over_its_image_and_question_ends(tiny_model, open_fusion, fusion):
    pair = build_model(tiny_model("pool"), seed=5) if fusion == "pool" else open_fusion(fusion)
    predictor = predictor_of(pair)
    once, often = asked(picture(0)), asked(picture(1))
    questions = [often[1], once[3], often[4], often[0], asked(picture(2))[2], often[1]]  # three images, once and often

    unread, read = (predictor.model.lm_head(states_of(predictor, questions)) for _ in range(2))

    expected = scores_of(predictor, questions)
    torch.testing.assert_close(unread, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(read, expected, rtol=1e-4, atol=1e-5)
    assert (expected[0] - expected[1]).abs().max() > 1e-2


def test_an_image_is_read_with_the_first_question_about_it_and_stays_known(tiny_model, counted):
    predictor = predictor_of(build_model(tiny_model("pool"), seed=5))
    passes, images = counted(predictor)
    first, second = picture(0), picture(1)
    questions = asked(first)[:3] + asked(second)[:1]
    shared = predictor.words.shared.length
    lengths = [len(predictor.processor.encode_prompt(question.turns)) for question in questions]

    states_of(predictor, questions)

    assert images == [2]
    assert passes == [(2, lengths[0]), (2, max(lengths[1:3]) - shared)]
    predictor.words.shared.forget()
    passes.clear()
    predictor.answer(asked(second)[:1], 1)
    assert images == [2]
    assert passes == [(1, lengths[0] - shared)]


def test_an_image_that_only_the_tower_has_seen_is_not_seen_again(tiny_model, counted):
    predictor = predictor_of(build_model(tiny_model("pool"), seed=5))
    passes, images = counted(predictor)
    questions = asked(picture(0))[:1]
    predictor._summaries([questions[0].image])

    states_of(predictor, questions)

    assert images == [1]
    assert passes == [(1, len(predictor.processor.encode_prompt(questions[0].turns)))]


def test_more_images_than_one_pass_takes_are_read_in_several(tiny_model, counted):
    predictor = predictor_of(build_model(tiny_model("mlp"), seed=5))
    passes, _ = counted(predictor)
    questions = [asked(picture(seed))[seed % 2] for seed in range(35)]

    together = states_of(predictor, questions)

    assert [rows for rows, _ in passes] == [32, 3]
    predictor.forget()
    torch.testing.assert_close(together[33:], states_of(predictor, questions[33:]), rtol=1e-4, atol=1e-5)


def test_an_image_that_is_painted_over_between_two_calls_is_looked_at_anew(tiny_model, counted):
    predictor = predictor_of(build_model(tiny_model("pool"), seed=5))
    _, images = counted(predictor)
    image = picture(0)
    predictor.answer(asked(image)[:1], 1)
    with pytest.raises(BoxTextError):  # also where a call ended early
        predictor.answer(
            [*asked(image)[:1], Question(image, (("user", "What lies in [900,000,100,100]?"),), Task.REG)], 1
        )
    image.paste((200, 30, 30), (0, 0, 30, 40))

    predictor.answer(asked(image)[:1], 1)

    assert images == [1, 1]


def test_old_images_are_forgotten(tiny_model, counted):
    predictor = predictor_of(build_model(tiny_model("mlp"), seed=5))
    predictor.words.shared.remembered = 2
    _, images = counted(predictor)

    for seed in (0, 1, 2, 1, 0):
        predictor.answer(asked(picture(seed))[:1], 2)

    assert images == [1, 1, 1, 1]  # picture 1 was still known, picture 0 no more


def test_a_row_that_has_ended_is_left_out_of_later_passes(tiny_model, counted):
    predictor = predictor_of(build_model(tiny_model("mlp"), seed=5))
    passes, _ = counted(predictor)
    questions = asked(picture(0))

    words = predictor.words
    limits = [2, 3, 3, 6, 6]
    with torch.inference_mode():
        mixed = words.replies(questions, limits)
        alone = [words.replies([one], [limit])[0] for one, limit in zip(questions, limits, strict=True)]

    same(mixed, alone)
    assert [rows for rows, length in passes[:7] if length == 1] == [5, 5, 2, 2, 2]


def test_the_order_of_questions_does_not_matter(tiny_model):
    predictor = predictor_of(build_model(tiny_model("pool", "resnet"), seed=5))
    questions = asked(picture(0), picture(1))
    shuffled = np.random.default_rng(3).permutation(len(questions)).tolist()

    straight = predictor.answer(questions, 8)
    mixed = predictor.answer([questions[place] for place in shuffled], 8)

    same(mixed, [straight[place] for place in shuffled])


def test_pieces_of_a_stream_are_the_reply(tiny_model):
    predictor = predictor_of(build_model(tiny_model("pool", "resnet"), seed=5))

    for question in asked(picture(0)):
        pieces = list(predictor.stream(question, 16))

        assert "".join(pieces) == predictor.answer([question], 16)[0].text
        assert (len(pieces) == 1) == (question.task in (Task.CLS, Task.REG))


def test_without_a_limit_each_task_has_its_own_room(tiny_model):
    predictor = predictor_of(build_model(tiny_model("mlp"), seed=5))
    question = asked(picture(0))[2]

    same(predictor.answer([question]), predictor.answer([question], 48))
    same(predictor.answer([replace(question, task=Task.CLS)]), predictor.answer([replace(question, task=Task.CLS)], 64))
