"""A model's description: what is asked of it, what is refused, and what makes it another model."""

from __future__ import annotations

import pytest
from PIL import Image

from gastrovl.clinical.taxonomy import Taxonomy
from gastrovl.core.config import load_config
from gastrovl.core.errors import CheckpointError, ConfigError
from gastrovl.core.records import read_records, write_records
from gastrovl.core.replyform import BoxForm
from gastrovl.core.types import Conversation, Target, Task
from gastrovl.inference.batch import Ours
from gastrovl.inference.loading import load_answerer
from gastrovl.inference.others.description import (
    ModelDescription,
    Prices,
    Shown,
    ask_in_form,
    boxes_in_form,
    label_names,
)
from gastrovl.inference.predictor import Predictor
from gastrovl.model.checkpoint import build_model

SERVER = {"url": "http://127.0.0.1:1/v1", "model": "m"}


def describe(**fields):
    return ModelDescription.model_validate({"kind": "openai", "name": "rival", "server": SERVER} | fields)


@pytest.mark.parametrize(
    ("shown", "size", "expected"),
    [
        ({"most_side_px": 500}, (1000, 600), (500, 300)),
        ({"most_side_px": 500}, (300, 200), (300, 200)),
        ({"most_side_px": 980, "multiple_px": 28}, (1280, 1024), (980, 784)),
        ({"multiple_px": 28}, (10, 100), (28, 112)),
        ({"square_px": 336}, (1280, 1024), (336, 336)),
    ],
)
def test_an_image_is_shown_no_larger_than_wished_and_in_whole_patches(shown, size, expected):
    assert Shown(**shown).size_of(size) == expected
    assert Shown(**shown).prepare(Image.new("RGB", size)).size == expected


def test_boxes_in_words_take_the_models_form_and_all_else_stays():
    text = "Compare [000,000,500,999] with [499,0,999,999], please [sic]."
    pixels = boxes_in_form(text, BoxForm(scale="pixels"), (200, 100))
    assert pixels == "Compare [0, 0, 100, 100] with [100, 0, 200, 100], please [sic]."
    assert boxes_in_form(text, None, (200, 100)) == text


def test_pixels_of_the_original_stay_so_when_a_smaller_image_is_shown(tiny_data):
    one = next(one for one in read_records(tiny_data(), Conversation) if one.task is Task.REG)
    sent, original = (
        ask_in_form(one, (32, 32), describe(form={"boxes": {"scale": "pixels", "pixels_of": of}}), [])
        for of in ("sent", "original")
    )
    assert sent.turns[-1][1] == "What lies in [4, 8, 16, 24]?"
    assert original.turns[-1][1] == "What lies in [8, 16, 32, 48]?"  # of 64 pixels
    assert (sent.image_wh, original.image_wh) == ((32, 32), (64, 64))


def test_labels_come_from_the_training_split_and_never_from_the_questions(tiny_data, tmp_path):
    path = tiny_data(images=2)
    known = {"polyp": "gastric_polyp", "gastric_ulcer": "gastric_ulcer"}
    write_records(
        path,
        [
            one.model_copy(update={"target": Target(terms=(known[one.target.terms[0]],))})
            for one in read_records(path, Conversation)
        ],
    )
    asked = path.with_name("test.jsonl")
    asked.write_text("unread", encoding="utf-8")
    assert sorted(label_names(describe(labels="dataset"), asked)) == ["gastric polyp", "gastric ulcer"]
    assert label_names(describe(), asked) == [term.name for term in Taxonomy.load().terms]
    assert label_names(describe(labels=["a", "b"]), asked) == ["a", "b"]
    with pytest.raises(ConfigError, match="names come from the training split"):
        label_names(describe(labels="dataset"), tmp_path / "elsewhere" / "test.jsonl")


def test_the_truth_is_in_no_turn(tiny_data):
    for one in read_records(tiny_data(), Conversation):
        if one.task is not Task.REC:
            prompts = {one.task: "{question} {asked} {labels}"}
            asked = ask_in_form(one, (64, 64), describe(prompts=prompts), ["x"])
            assert one.answer not in asked.turns[-1][1]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"server": None}, "kind openai needs `server`"),
        ({"path": "x"}, "needs `server` .* and no `path`"),
        ({"kind": "huggingface", "server": None}, "kind huggingface needs `path`"),
        ({"kind": "huggingface", "path": "x"}, "neither `server` nor `prices`"),
        ({"kind": "checkpoint", "server": None, "path": "x", "form": {}}, "as it was taught; remove form"),
        ({"prompts": {"REC": '{"box": []}'}}, "a brace of JSON is written twice"),
        ({"prompts": {"REC": "{truth}"}}, "filled in are {labels}"),
    ],
)
def test_what_contradicts_itself_is_refused(fields, message):
    content = {"kind": "openai", "name": "rival", "server": SERVER} | fields
    with pytest.raises(ValueError, match=message):
        ModelDescription.model_validate({name: value for name, value in content.items() if value is not None})


def test_a_fingerprint_follows_what_decides_replies_and_not_what_decides_speed():
    same = describe().fingerprint(["a"])
    faster = describe(server=SERVER | {"workers": 9, "timeout_s": 5.0, "attempts": 2, "key_env": "X"}, batch_size=7)
    prices = {"currency": "EUR", "input_per_million": 1, "output_per_million": 2}
    assert faster.fingerprint(["a"]) == describe(prices=prices).fingerprint(["a"]) == same
    others = [
        describe(server=SERVER | {"model": "n"}).fingerprint(["a"]),
        describe(prompts={"CLS": "x"}).fingerprint(["a"]),
        describe(form={"boxes": {"scale": "0-1"}}).fingerprint(["a"]),
        describe(image={"most_side_px": 99}).fingerprint(["a"]),
        describe().fingerprint(["a", "b"]),
        describe().fingerprint(["a"], weights="w"),
    ]
    assert len({same, *others}) == 7


def test_a_cost_needs_both_counts():
    prices = Prices(currency="EUR", input_per_million=2, output_per_million=8)
    assert prices.of(500_000, 250_000) == 3.0
    assert prices.of(None, 5) is None


def test_a_checkpoint_that_was_trained_on_has_another_fingerprint_under_the_same_name(learnt):
    first, second = Predictor.load(learnt[0], "cpu"), Predictor.load(learnt[0], "cpu")
    assert first.fingerprint == second.fingerprint
    third = Predictor.load(learnt[0], "cpu")
    parameter = next(iter(third.model.parameters()))
    parameter.data[..., 0] += 1e-4
    assert third.fingerprint != first.fingerprint
    assert third.card.name == first.card.name


def test_half_precision_weights_have_a_fingerprint(tiny_model, learnt):
    model, processor = build_model(tiny_model("mlp"), seed=1)
    card = Predictor.load(learnt[0], "cpu").card
    assert len(Predictor(model.bfloat16(), processor, card).fingerprint) == 64


def test_a_description_names_a_checkpoint_anew(learnt, tmp_path, monkeypatch):
    monkeypatch.setenv("MODELS", str(learnt[0].parent))
    path = tmp_path / "ours.yaml"
    path.write_text("kind: checkpoint\nname: another\npath: ${MODELS}/model\n", encoding="utf-8")
    answerer = load_answerer(path, learnt[1], "cpu")
    assert isinstance(answerer, Ours)
    asked = list(read_records(learnt[1], Conversation))[:1]
    (prediction,) = answerer.answers(asked, learnt[1].parent)
    assert (prediction.model, prediction.text) == ("another", asked[0].answer)
    assert load_answerer(learnt[0], learnt[1], "cpu").name == "learnt"


def test_what_is_no_model_says_what_one_is(tmp_path):
    with pytest.raises(CheckpointError, match="is no model; expected a checkpoint folder"):
        load_answerer(tmp_path, tmp_path / "test.jsonl")


def test_every_ready_description_asks_for_boxes_and_labels(repository):
    for path in (repository / "configs/evaluate/models").glob("*.yaml"):
        described = load_config(path, ModelDescription)
        assert described.kind == "checkpoint" or {Task.CLS, Task.REC, Task.REG} <= set(described.prompts)
