"""Tokens of a reply as they are told: their bytes, and the log-probabilities that the model itself gave them."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from gastrovl.core.errors import ModelInputError
from gastrovl.core.types import Task
from gastrovl.inference.decoding.generated import generated, inputs_of
from gastrovl.inference.decoding.tokens import TokenBytes, likeliest
from gastrovl.inference.predictor import Predictor
from gastrovl.inference.question import Question
from gastrovl.model.checkpoint import CheckpointCard, build_model
from gastrovl.model.config import PerceptionConfig
from gastrovl.model.tokenizer import SHIPPED, load_tokenizer

CARD = CheckpointCard(name="tiny", image_tokens=16, image_size_px=32)
TASKS = (None, Task.CLS, Task.REC, Task.REG)


@pytest.fixture(scope="module")
def predictor(tiny_model):
    """Of random weights, so that forms forbid most of what the model would say."""
    model, processor = build_model(tiny_model("mlp"), seed=3)
    return Predictor(model.eval(), processor, CARD)


def question(task=None, top=3, number=0):
    pixels = np.random.default_rng(number).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    return Question(Image.fromarray(pixels), (("user", "What is in [100,200,300,400]?"),), task, top_logprobs=top)


def slowly(predictor, asked, tokens):
    """Log-probabilities of all tokens at each place of a reply, by one pass of the whole model without any cache."""
    inputs = inputs_of(predictor.processor, [asked], torch.device("cpu"))
    length = inputs["input_ids"].shape[1]
    inputs["input_ids"] = torch.cat([inputs["input_ids"], torch.tensor([tokens])], dim=1)
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    with torch.inference_mode():
        logits = predictor.model(**inputs, use_cache=False).logits[0]
    return torch.log_softmax(logits[length - 1 : -1].double(), dim=-1)


def ids_of(predictor, reply):
    """The ids of a reply's tokens, by their bytes."""
    tokenizer = predictor.processor.tokenizer
    known = TokenBytes(tokenizer)
    by_bytes = {known.of(token): token for token in range(len(tokenizer))}
    return by_bytes, [by_bytes[one.said] for one in reply.tokens]


@pytest.mark.parametrize("task", TASKS)
def test_log_probabilities_are_those_of_the_whole_model_worked_out_slowly(predictor, task):
    asked = question(task)

    [reply] = predictor.answer([asked], 12)

    by_bytes, ids = ids_of(predictor, reply)
    assert len(ids) > 1
    rows = slowly(predictor, asked, ids)
    for token, one, row in zip(ids, reply.tokens, rows, strict=True):
        assert one.log == pytest.approx(float(row[token]), abs=1e-4)
        assert len(one.likeliest) == 3
        best = row.topk(3)
        assert [by_bytes[said] for said, _ in one.likeliest] == best.indices.tolist()
        assert [log for _, log in one.likeliest] == pytest.approx(best.values.tolist(), abs=1e-4)


def test_what_a_form_forbids_is_likelier_to_the_model_all_the_same(predictor):
    free, held = predictor.answer([question(), question(Task.CLS)], 12)

    assert all(one.said == one.likeliest[0][0] for one in free.tokens)  # greedy: what is likeliest is said
    assert any(one.said not in [said for said, _ in one.likeliest] for one in held.tokens)


def test_a_batch_a_stream_and_plain_generate_tell_the_same_tokens(predictor):
    asked = [question(number=0), question(top=None, number=1), question(top=0, number=2), question(Task.REC, top=2)]

    together = predictor.answer(asked, 12)
    alone = [predictor.answer([one], 12)[0] for one in asked]
    plain = [  # in two batches, since a box may have more tokens than the 12 of others
        reply
        for some in (asked[:3], asked[3:])
        for reply in generated(predictor.model, predictor.processor, predictor.forms, some, 12)
    ]

    assert [reply.tokens is None for reply in together] == [False, True, False, False]
    assert {len(one.likeliest) for one in together[2].tokens} == {0}
    for one, other, third in zip(together, alone, plain, strict=True):
        assert one.text == other.text == third.text
        same(one.tokens or (), other.tokens or ())
        same(one.tokens or (), third.tokens or ())


def same(some, others):
    assert [one.said for one in some] == [one.said for one in others]
    assert [one.log for one in some] == pytest.approx([one.log for one in others], abs=1e-4)
    assert [len(one.likeliest) for one in some] == [len(one.likeliest) for one in others]


@pytest.mark.parametrize("task", [None, Task.REC])
def test_the_pieces_of_a_stream_hold_all_tokens_once(predictor, task):
    asked, pieces = question(task), []
    stream = predictor.stream(asked, 12)
    try:
        while True:
            pieces.append(next(stream))
    except StopIteration as end:
        reply = end.value

    assert "".join(pieces) == reply.text
    told = [one for piece in pieces for one in piece.tokens]
    assert told == list(reply.tokens[: len(told)])
    assert not b"".join(one.said for one in reply.tokens[len(told) :]).strip()  # what is left says nothing
    same(reply.tokens, predictor.answer([asked], 12)[0].tokens)


def test_the_tokens_of_a_free_reply_joined_are_its_text(predictor):
    [reply] = predictor.answer([question(number=5)], 12)

    marks = [str(token).encode() for token in predictor.processor.tokenizer.all_special_tokens]
    said = b"".join(one.said for one in reply.tokens if one.said not in marks)
    assert said.decode("utf-8", "replace").strip() == reply.text


def test_the_confidence_of_a_cut_reply_is_the_geometric_mean_of_its_tokens(predictor):
    [reply] = predictor.answer([question(Task.CLS)], 12)

    assert (reply.stop_reason, len(reply.tokens)) == ("length", 12)
    assert reply.confidence == pytest.approx(math.exp(sum(one.log for one in reply.tokens) / 12), rel=1e-5)


def test_what_the_perception_head_answers_has_no_tokens_and_says_so(tiny_model):
    model, processor = build_model(tiny_model("pool", "resnet", perception=PerceptionConfig(width=16, upscale=4)), 1)
    card = CARD.model_copy(update={"image_tokens": 17, "locates": True})
    predictor = Predictor(model.eval(), processor, card)

    for asked in ([question(Task.REC)], [question(), question(Task.REC)]):
        with pytest.raises(ModelInputError, match="the perception head answers REC, so that no tokens are decoded"):
            predictor.answer(asked, 4)
    with pytest.raises(ModelInputError, match="log-probabilities of tokens"):
        list(predictor.stream(question(Task.REC), 4))
    assert predictor.why_no_tokens(question(Task.CLS)) is None  # of which this head has learnt nothing
    words = Predictor(model, processor, card, uses_head=False).answer([question(Task.REC)], 4)
    assert words[0].tokens
    assert predictor.answer([replace(question(Task.REC), top_logprobs=None)], 4)[0].tokens is None


def test_tokens_of_bytes_join_to_any_text():
    tokenizer = load_tokenizer(SHIPPED, "gastrovl")
    text = "größe µ 5–7 mm\tnaïve\n食道 🙂 [12,345]<|end|>"

    ids = tokenizer.encode(text, add_special_tokens=False)

    known = TokenBytes(tokenizer)
    assert b"".join(map(known.of, ids)) == text.encode()
    assert any(len(known.of(token)) == 1 and known.of(token) > b"\x7f" for token in ids)  # parts of letters


def test_tokens_of_sentencepiece_are_read_by_its_own_marks():
    pieces = {1: "\u2581polyp", 2: "<0xC3>", 3: "<0xB6>", 4: "s"}
    tokenizer = SimpleNamespace(
        eos_token_id=0, added_tokens_decoder={0: SimpleNamespace(content="</s>")}, convert_ids_to_tokens=pieces.get
    )

    known = TokenBytes(tokenizer)

    assert [known.of(token) for token in range(5)] == [b"</s>", b" polyp", b"\xc3", b"\xb6", b"s"]


def test_the_likeliest_tokens_come_first_with_their_log_probabilities():
    scores = torch.tensor([[0.0, math.log(6.0), math.log(3.0)], [5.0, 5.0, 5.0]])

    [first, second] = likeliest(scores, 2)

    assert [token for token, _ in first] == [1, 2]
    assert [log for _, log in first] == pytest.approx([math.log(0.6), math.log(0.3)])
    assert [log for _, log in second] == pytest.approx([math.log(1 / 3)] * 2)
    assert likeliest(scores, 0) == [[], []]
    assert [len(row) for row in likeliest(scores, 20)] == [3, 3]
