"""Adapters: they start as nothing, and merged they are the same model in a plain checkpoint."""

from __future__ import annotations

import pytest
import torch
from transformers import LlavaForConditionalGeneration

from gastrovl.core.errors import ConfigError
from gastrovl.model.adapters import add_lora, inner, merge
from gastrovl.model.checkpoint import build_model, load_checkpoint, save_checkpoint
from gastrovl.model.config import ConnectorConfig, LoraConfig
from gastrovl.model.fusion.projector import PooledProjector

LORA = LoraConfig(rank=4, alpha=8, dropout=0.1)
CONNECTORS = [("mlp", "siglip"), ("pool", "resnet"), ("linear", "siglip")]


def inputs_of(processor):
    ids = torch.tensor([processor.encode_prompt([("user", "Where is the polyp?")])])
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": torch.randn(1, 3, 32, 32)}


def trained(model):
    """The model with every adapter and the connector moved, as training would."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name or "modules_to_save" in name:
                parameter.add_(0.05 * torch.randn_like(parameter))
    return model.eval()


@pytest.mark.parametrize(("connector", "tower"), CONNECTORS)
def test_fresh_adapters_change_no_logit(tiny_model, connector, tower):
    model, processor = build_model(tiny_model(connector, tower), seed=1)
    inputs = inputs_of(processor)
    before = model.eval()(**inputs).logits

    assert torch.equal(add_lora(model, LORA).eval()(**inputs).logits, before)


@pytest.mark.parametrize(("connector", "tower"), CONNECTORS)
def test_the_merged_model_equals_the_unmerged_one(tiny_model, tmp_path, connector, tower):
    model, processor = build_model(tiny_model(connector, tower), seed=1)
    inputs = inputs_of(processor)
    before = model.eval()(**inputs).logits
    wrapped = trained(add_lora(model, LORA))
    unmerged = wrapped(**inputs).logits

    merged = merge(wrapped).eval()
    save_checkpoint(tmp_path, merged, processor, "tiny")
    loaded = load_checkpoint(tmp_path)[0]

    assert not torch.allclose(unmerged, before, atol=1e-3)
    torch.testing.assert_close(merged(**inputs).logits, unmerged, rtol=1e-4, atol=1e-5)
    assert torch.equal(loaded(**inputs).logits, merged(**inputs).logits)
    assert not any("lora" in name or "modules_to_save" in name for name in merged.state_dict())


def test_a_merged_mlp_model_is_plain_llava(tiny_model, tmp_path):
    model, processor = build_model(tiny_model("mlp"), seed=1)
    merged = merge(trained(add_lora(model, LORA))).eval()
    inputs = inputs_of(processor)

    save_checkpoint(tmp_path, merged, processor, "tiny")
    plain = LlavaForConditionalGeneration.from_pretrained(tmp_path, local_files_only=True, use_safetensors=True).eval()

    torch.testing.assert_close(plain(**inputs).logits, merged(**inputs).logits, rtol=1e-5, atol=1e-6)
    assert not list(tmp_path.glob("adapter*"))


def test_adapters_sit_on_the_language_model_only(tiny_model):
    wrapped = add_lora(build_model(tiny_model("mlp"), seed=1)[0], LORA)
    adapted = {name for name, _ in wrapped.named_parameters() if "lora_" in name}

    assert len(adapted) == 2 * 7 * 2  # layers x linear layers of a Llama block x (A, B)
    assert all("language_model" in name for name in adapted)


def test_the_grounding_head_reads_the_finest_grid_behind_adapters_too(tiny_model):
    halved = {"connector": ConnectorConfig(kind="pool", grids=(2, 1))}
    described = tiny_model("pool", "resnet").model_copy(update=halved)
    wrapped = add_lora(build_model(described, seed=1)[0], LORA)

    inner(wrapped).add_grounding_head()

    assert inner(wrapped).grounding.cells == 4
    assert isinstance(merge(wrapped).model.multi_modal_projector, PooledProjector)


def test_a_target_that_matches_no_layer_is_refused(tiny_model):
    with pytest.raises(ConfigError, match=r"model\.lora\.target 'nothing_like_this': adapters cannot be placed"):
        add_lora(build_model(tiny_model("mlp"), seed=1)[0], LoraConfig(target="nothing_like_this"))


def test_a_model_without_adapters_is_its_own_merge(tiny_model):
    model, _ = build_model(tiny_model("mlp"), seed=1)

    assert merge(model) is inner(model) is model
