"""Rounded language models: adapters learn on them, and what is kept is the very model that was trained, in floats."""

from __future__ import annotations

import sys
import warnings

import pytest
import torch
from safetensors.torch import load_file

from gastrovl.core.errors import CheckpointError, MissingExtraError
from gastrovl.model.adapters import add_lora, inner, merge
from gastrovl.model.checkpoint import build_model, load_checkpoint, save_checkpoint
from gastrovl.model.config import LoraConfig
from gastrovl.model.quantise import is_quantised, load_weights, quantise, save_weights

LORA = LoraConfig(rank=4, alpha=8, dropout=0.0)
KINDS = ["int8", "nf4"]
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _needs_bitsandbytes():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("bitsandbytes")


def inputs_of(processor):
    ids = torch.tensor([processor.encode_prompt([("user", "Where is the polyp?")])])
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": torch.randn(1, 3, 32, 32)}


def rounded(tiny_model, kind, has_lora=True):
    model, processor = build_model(tiny_model("mlp"), seed=1)
    quantise(model, kind, CPU, torch.float32)
    return add_lora(model, LORA) if has_lora else model, processor


def moved(model):
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name or "modules_to_save" in name:
                parameter.add_(0.05 * torch.randn_like(parameter))
    return model.eval()


@pytest.mark.parametrize("kind", KINDS)
def test_rounding_moves_the_logits_a_little_and_touches_the_blocks_only(tiny_model, kind):
    plain, processor = build_model(tiny_model("mlp"), seed=1)
    inputs = inputs_of(processor)
    before = plain.eval()(**inputs).logits
    model, _ = rounded(tiny_model, kind, has_lora=False)

    after = model.eval()(**inputs).logits

    error = (torch.linalg.norm(after - before) / torch.linalg.norm(before)).item()
    assert 0 < error < 0.2
    assert is_quantised(model)
    assert not is_quantised(model.model.vision_tower)
    assert type(model.lm_head) is torch.nn.Linear


@pytest.mark.parametrize("kind", KINDS)
def test_adapters_on_a_rounded_model_get_gradients_and_the_model_none(tiny_model, kind):
    model, processor = rounded(tiny_model, kind)
    inputs = inputs_of(processor)

    model(**inputs).logits.square().sum().backward()

    with_gradient = {name for name, p in model.named_parameters() if p.grad is not None and "language_model" in name}
    assert with_gradient
    assert all("lora_" in name for name in with_gradient)


@pytest.mark.parametrize("kind", KINDS)
def test_the_checkpoint_is_plain_floats_and_the_model_that_was_trained(tiny_model, tmp_path, kind):
    model, processor = rounded(tiny_model, kind)
    inputs = inputs_of(processor)
    trained = moved(model)(**inputs).logits

    merged = merge(model).eval()
    save_checkpoint(tmp_path, merged, processor, "tiny")
    loaded = load_checkpoint(tmp_path)[0]

    found = loaded(**inputs).logits
    # int8 rounds what goes into a layer too, so that one differs by about one part in 127 a layer
    assert torch.linalg.norm(found - trained) < {"nf4": 1e-5, "int8": 0.03}[kind] * torch.linalg.norm(trained)
    content = load_file(tmp_path / "model.safetensors")
    assert {value.dtype for value in content.values()} == {torch.float32}
    assert not any("lora" in name or "base_layer" in name for name in content)
    assert content.keys() == build_model(tiny_model("mlp"), seed=1)[0].state_dict().keys()


@pytest.mark.parametrize("kind", KINDS)
def test_a_rounded_model_without_adapters_becomes_floats_too(tiny_model, kind):
    model, processor = rounded(tiny_model, kind, has_lora=False)
    inputs = inputs_of(processor)
    before = model.eval()(**inputs).logits

    plain = merge(model).eval()

    assert not is_quantised(plain)
    assert torch.linalg.norm(plain(**inputs).logits - before) < 0.03 * torch.linalg.norm(before)


@pytest.mark.parametrize("kind", KINDS)
def test_saved_states_hold_what_learns_and_fit_a_model_rounded_alike(tiny_model, tmp_path, kind):
    model, processor = rounded(tiny_model, kind)
    inputs = inputs_of(processor)
    moved(model)
    save_weights(model, tmp_path / "weights.safetensors")
    other, _ = rounded(tiny_model, kind)

    load_weights(other, tmp_path / "weights.safetensors")

    assert torch.equal(other.eval()(**inputs).logits, model.eval()(**inputs).logits)
    assert not any("q_proj.base_layer" in name for name in load_file(tmp_path / "weights.safetensors"))


def test_an_evaluation_does_not_round_a_model_once_more(tiny_model):
    model, processor = rounded(tiny_model, "nf4", has_lora=False)
    inputs = inputs_of(processor)
    before = model.train()(**inputs).logits

    with torch.no_grad():
        evaluated = model.eval()(**inputs).logits

    assert torch.equal(evaluated, before)
    assert torch.equal(model.train()(**inputs).logits, before)


def test_saved_states_of_another_model_are_refused(tiny_model, tmp_path):
    save_weights(build_model(tiny_model("mlp"), seed=1)[0], tmp_path / "plain.safetensors")
    model, _ = rounded(tiny_model, "int8")

    with pytest.raises(CheckpointError, match="it was written by another model"):
        load_weights(model, tmp_path / "plain.safetensors")


def test_a_model_that_is_not_rounded_is_saved_as_ever(tiny_model, tmp_path):
    model, _ = build_model(tiny_model("mlp"), seed=1)
    save_weights(model, tmp_path / "plain.safetensors")
    other, _ = build_model(tiny_model("mlp"), seed=2)

    load_weights(other, tmp_path / "plain.safetensors")

    assert all(torch.equal(value, other.state_dict()[name]) for name, value in model.state_dict().items())


def test_without_bitsandbytes_the_extra_is_named(tiny_model, monkeypatch):
    model, _ = build_model(tiny_model("mlp"), seed=1)
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)

    with pytest.raises(MissingExtraError, match=r"gastrovl\[quant\]"):
        quantise(inner(model), "nf4", CPU, torch.float32)
