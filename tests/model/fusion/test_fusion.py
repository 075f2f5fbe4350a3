"""What holds for every way to join image and text: equal paths, equal caches, whole checkpoints, clear refusals."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from gastrovl.core.errors import ConfigError
from gastrovl.model.checkpoint import build_model, load_checkpoint, save_checkpoint
from gastrovl.model.config import ConnectorConfig
from gastrovl.model.fusion.projector import QueryProjector
from gastrovl.model.gastrovl import IGNORED

FUSIONS = ("attention", "attention-7", "query-2", "gated", "gated-query", "two-towers", "two-towers-gated")
IMAGE_TOKENS = dict(zip(FUSIONS, (4, 7, 4, 1, 1, 17, 1), strict=True))  # in the text; with gates a placeholder


def inputs_of(processor, images=1):
    ids = torch.tensor([processor.encode_prompt([("user", "Where is the polyp?")])] * images)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": torch.randn(images, 3, 32, 32)}


@pytest.mark.parametrize("name", FUSIONS)
def test_the_text_holds_as_many_image_tokens_as_it_says(open_fusion, name):
    _, processor = open_fusion(name)
    ids = processor.encode_prompt([("user", "Where is the polyp?")])

    assert ids.count(processor.image_token_id) == processor.image_tokens == IMAGE_TOKENS[name]


@pytest.mark.parametrize("name", FUSIONS)
def test_training_and_inference_give_the_same_scores(open_fusion, name):
    model, processor = open_fusion(name)
    dialogue = processor.encode_dialogue([("user", "Where is the polyp?"), ("assistant", "[125,250,500,749]")])
    ids, is_answer = torch.tensor([dialogue.ids]), torch.tensor([dialogue.is_answer])
    batch = {
        "input_ids": ids,
        "pixel_values": torch.randn(1, 3, 32, 32),
        "position_ids": torch.arange(ids.shape[1])[None],
    }
    labels = torch.where(is_answer, ids, IGNORED)

    trained = model(**batch, labels=labels, segments=torch.zeros_like(ids), with_guesses=True).token_losses
    logits = model(**batch).logits[:, :-1][is_answer[:, 1:]]

    expected = torch.nn.functional.cross_entropy(logits, ids[:, 1:][is_answer[:, 1:]], reduction="none")
    torch.testing.assert_close(trained, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", FUSIONS)
def test_the_image_matters(open_fusion, name):
    model, processor = open_fusion(name)
    inputs = inputs_of(processor)
    other = model(**inputs | {"pixel_values": torch.randn(1, 3, 32, 32)}).logits

    assert not torch.allclose(model(**inputs).logits, other, atol=1e-4)


@pytest.mark.parametrize("name", FUSIONS)
def test_cached_generation_equals_uncached(open_fusion, name):
    model, processor = open_fusion(name)
    settings = {"max_new_tokens": 12, "do_sample": False, "eos_token_id": None, "output_logits": True}
    settings["suppress_tokens"] = [processor.image_token_id]
    inputs = inputs_of(processor, images=2)

    cached, uncached = (
        model.generate(**inputs, **settings, use_cache=flag, return_dict_in_generate=True) for flag in (True, False)
    )

    assert cached.sequences.shape[1] == inputs["input_ids"].shape[1] + 12
    assert torch.equal(cached.sequences, uncached.sequences)
    torch.testing.assert_close(torch.stack(cached.logits), torch.stack(uncached.logits), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", FUSIONS)
def test_a_padded_prompt_gets_the_reply_it_gets_alone(open_fusion, name):
    model, processor = open_fusion(name)
    inputs = inputs_of(processor)
    settings = {"max_new_tokens": 8, "do_sample": False, "eos_token_id": None}
    padded = dict(inputs)
    padded["input_ids"] = torch.nn.functional.pad(inputs["input_ids"], (3, 0), value=processor.tokenizer.pad_token_id)
    padded["attention_mask"] = torch.nn.functional.pad(inputs["attention_mask"], (3, 0))

    alone, beside = model.generate(**inputs, **settings), model.generate(**padded, **settings)

    assert torch.equal(alone[:, -8:], beside[:, -8:])


@pytest.mark.parametrize("name", FUSIONS)
def test_a_checkpoint_comes_back_with_equal_logits(open_fusion, tmp_path, name):
    model, processor = open_fusion(name)
    inputs = inputs_of(processor)

    save_checkpoint(tmp_path, model, processor, "tiny")
    loaded, again, card = load_checkpoint(tmp_path)

    assert torch.equal(model(**inputs).logits, loaded(**inputs).logits)
    assert again.image_tokens == card.image_tokens == IMAGE_TOKENS[name]
    assert np.array_equal(again.image_processor.image_mean, processor.image_processor.image_mean)
    assert json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))["model_type"] == "gastrovl"


@pytest.mark.parametrize("name", ["gated", "two-towers"])
def test_half_precision_loads_and_answers(open_fusion, tmp_path, name):
    model, processor = open_fusion(name)
    save_checkpoint(tmp_path, model, processor, "tiny")
    loaded, _, _ = load_checkpoint(tmp_path, torch.bfloat16)
    inputs = inputs_of(processor)

    logits = loaded(**inputs | {"pixel_values": inputs["pixel_values"].bfloat16()}).logits

    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.bfloat16}
    assert logits.dtype == torch.bfloat16
    assert logits.float().isfinite().all()


def test_a_query_connector_of_one_block_has_the_weights_it_had_before_there_were_more():
    names = set(QueryProjector(8, 16, 4, 5).state_dict())

    assert not any(name.startswith("further") for name in names)
    assert {"queries", "positions", "attention.in_proj_weight", "linear_2.bias"} <= names


def test_further_query_blocks_let_the_queries_see_each_other():
    projector = QueryProjector(8, 16, 4, 5, depth=2)
    features = torch.randn(1, 16, 8)
    before = projector(features)
    with torch.no_grad():
        projector.queries[0] = torch.randn(16)

    moved = (projector(features) - before).abs().sum(dim=-1) > 1e-6

    assert moved.tolist() == [[True] * 5]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"kind": "mlp", "gated_every": 1}, "`gated_every` needs connector `pool`, `attention` or `query`; 'mlp'"),
        ({"kind": "pool", "gated_every": 1, "regions": True}, "`regions` are tokens in the text's sequence"),
        ({"kind": "query", "regions": True}, "`regions` needs connector `pool`, or `attention` with a square number"),
        ({"kind": "attention", "queries": 7, "regions": True}, "`regions` needs connector `pool`, or `attention`"),
        ({"kind": "pool", "depth": 2}, "`depth` counts the blocks of connector `query`; found 2 with 'pool'"),
    ],
)
def test_what_does_not_go_together_is_refused(fields, reason):
    with pytest.raises(ValidationError, match=reason):
        ConnectorConfig.model_validate(fields)


@pytest.mark.parametrize(("name", "cells"), [("attention", 4), ("gated", 16), ("two-towers", 16)])
def test_a_grid_of_tokens_can_be_grounded(open_fusion, name, cells):
    model, _ = open_fusion(name)
    model.add_grounding_head()

    assert model.grounding.cells == cells


@pytest.mark.parametrize("name", ["attention-7", "query-2", "gated-query"])
def test_tokens_without_a_grid_cannot_be_grounded(open_fusion, name):
    model, _ = open_fusion(name)

    with pytest.raises(ConfigError, match=r"needs image tokens on a grid; connector `\w+` with \d tokens has none"):
        model.add_grounding_head()


def test_a_square_of_attention_windows_takes_regions(tiny_model):
    connector = ConnectorConfig(kind="attention", queries=16, regions=True)
    model, _ = build_model(tiny_model("pool", "siglip").model_copy(update={"connector": connector}), seed=1)
    tokens = torch.arange(16.0).view(1, 16, 1)

    found = model.model.with_regions(tokens, torch.tensor([[[0.25, 0.0, 0.5, 0.25]]]))

    assert found[-1].item() == pytest.approx(1.0)  # the second of 4 x 4 windows
