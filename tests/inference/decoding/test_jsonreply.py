"""Free replies held to a JSON schema: noise instead of a model still makes valid JSON, and nothing else changes."""

from __future__ import annotations

import json
import sys

import pytest
import torch
from PIL import Image

from gastrovl.core.errors import MissingExtraError, ModelInputError
from gastrovl.core.types import Task
from gastrovl.inference.predictor import Predictor
from gastrovl.inference.question import Question
from gastrovl.model.checkpoint import build_model

SCHEMA = {
    "type": "object",
    "properties": {"label": {"enum": ["polyp", "cancer"]}, "count": {"type": "integer", "minimum": 0, "maximum": 9}},
    "required": ["label", "count"],
    "additionalProperties": False,
}
TURNS = (("user", "What does the image show?"),)


@pytest.fixture
def image():
    return Image.new("RGB", (40, 30), (200, 10, 60))


@pytest.fixture
def predictor(tiny_model):
    model, processor = build_model(tiny_model("pool"), seed=5)
    return Predictor(model.eval(), processor, card=None)


def test_noise_becomes_json_of_the_schema(predictor, image):
    pytest.importorskip("llguidance")
    noise = torch.Generator().manual_seed(3)

    class Noise(torch.nn.Linear):
        def forward(self, states):
            return torch.randn(len(states), self.out_features, generator=noise)

    predictor.model.lm_head = Noise(4, predictor.model.lm_head.out_features)
    replies = predictor.answer([Question(image, TURNS, schema=SCHEMA) for _ in range(12)], 80)

    found = [json.loads(reply.text) for reply in replies]
    assert {reply.stop_reason for reply in replies} == {"end"}
    assert all(list(one) == ["label", "count"] and 0 <= one["count"] <= 9 for one in found)
    assert {one["label"] for one in found} == {"polyp", "cancer"}


def test_a_neighbour_without_a_schema_says_what_it_says_alone(predictor, image):
    pytest.importorskip("llguidance")
    free, held = Question(image, TURNS), Question(image, TURNS, Task.VQA, schema=SCHEMA)

    beside = predictor.answer([held, free, Question(image, TURNS, Task.CLS)], 12)
    alone = predictor.answer([free], 12)[0]

    assert beside[1].text == alone.text
    assert beside[0].text.startswith("{")
    assert "".join(predictor.stream(held, 12)) == beside[0].text


def test_what_is_no_schema_and_what_has_a_form_already_is_refused(predictor, image):
    with pytest.raises(ModelInputError, match="form of its own"):
        Question(image, TURNS, Task.REC, schema=SCHEMA)
    pytest.importorskip("llguidance")
    with pytest.raises(ModelInputError, match="cannot be used"):
        predictor.answer([Question(image, TURNS, schema={"type": "nonsense"})], 4)


ENDLESS: dict = {"type": "object"}
for _ in range(3000):
    ENDLESS = {"type": "object", "properties": {"deeper": ENDLESS}}


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "number", "minimum": float("nan")},
        {"enum": ["\ud800"]},
        {"enum": {1, 2}},
        ENDLESS,
        ["no schema"],
    ],
    ids=["not a number", "half a letter", "a set", "nested without end", "a list"],
)
def test_what_is_no_json_is_refused_as_a_schema(predictor, image, schema):
    pytest.importorskip("llguidance")

    with pytest.raises(ModelInputError, match="JSON schema cannot be used"):
        predictor.answer([Question(image, TURNS, schema=schema)], 4)


def test_a_schema_that_no_reply_can_end_is_refused_while_it_is_followed(predictor, image, capfd):
    pytest.importorskip("llguidance")
    itself = {"type": "object", "properties": {"it": {"$ref": "#"}}, "required": ["it"], "additionalProperties": False}

    with pytest.raises(ModelInputError, match="cannot be used") as refused:
        predictor.answer([Question(image, TURNS, schema=itself)], 20)

    assert "state" not in str(refused.value)  # llguidance adds what was said so far
    assert capfd.readouterr().err == ""


def test_without_llguidance_the_extra_is_named(predictor, image, monkeypatch):
    monkeypatch.setitem(sys.modules, "llguidance", None)

    with pytest.raises(MissingExtraError, match=r"gastrovl\[structured\]"):
        predictor.answer([Question(image, TURNS, schema=SCHEMA)], 4)
    assert predictor.answer([Question(image, TURNS)], 4)[0].text is not None
