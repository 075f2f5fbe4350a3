"""Gated cross-attention: it begins as the language model alone, and looks at its own row's image only."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from transformers import AutoModel, LlamaConfig, PhiConfig, Qwen3Config

from gastrovl.core.errors import ConfigError, ModelInputError
from gastrovl.model.adapters import add_lora, inner, merge
from gastrovl.model.checkpoint import build_model
from gastrovl.model.config import ConnectorConfig, LoraConfig
from gastrovl.model.fusion.cross_attention import GatedBlock, attach, gated_blocks, gating

SHAPE = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4, "num_attention_heads": 4, "vocab_size": 20}
LANGUAGE_MODELS = [
    LlamaConfig(**SHAPE),
    Qwen3Config(**SHAPE, num_key_value_heads=2, head_dim=8),
    PhiConfig(**SHAPE),
]


def open_gates(blocks):
    """Gates as training would leave them."""
    with torch.no_grad():
        for block in blocks:
            block.gate_attention.fill_(0.7)
            block.gate_feed.fill_(-0.4)


@pytest.fixture(params=LANGUAGE_MODELS, ids=lambda config: config.model_type)
def parts(request):
    """A language model and the blocks before its second and fourth layer."""
    language_model = AutoModel.from_config(request.param).eval()
    attach(language_model, 2)
    return language_model, gated_blocks(request.param, 2)


def test_with_gates_at_zero_the_language_model_speaks_alone(parts):
    language_model, blocks = parts
    embedded, images = torch.randn(2, 5, 32), torch.randn(2, 3, 32)
    alone = language_model(inputs_embeds=embedded).last_hidden_state

    closed = language_model(inputs_embeds=embedded, **gating(blocks, images)).last_hidden_state
    open_gates(blocks)
    opened = language_model(inputs_embeds=embedded, **gating(blocks, images)).last_hidden_state

    assert torch.equal(closed, alone)
    assert not torch.allclose(opened, alone, atol=1e-3)


def test_a_row_sees_its_own_image_only(parts):
    language_model, blocks = parts
    open_gates(blocks)
    embedded, images = torch.randn(2, 5, 32), torch.randn(2, 3, 32)
    other = images.clone()
    other[1] = torch.randn(3, 32)

    before, after = (
        language_model(inputs_embeds=embedded, **gating(blocks, some)).last_hidden_state for some in (images, other)
    )

    assert torch.equal(before[0], after[0])
    assert not torch.allclose(before[1], after[1], atol=1e-3)


def test_a_closed_gate_lets_its_own_gradient_through_and_no_other(parts):
    language_model, blocks = parts
    images = torch.randn(1, 3, 32, requires_grad=True)

    states = language_model(inputs_embeds=torch.randn(1, 5, 32), **gating(blocks, images)).last_hidden_state
    (states * torch.linspace(-1, 1, states.numel()).view_as(states)).sum().backward()

    for block in blocks:
        assert block.gate_attention.grad.abs() > 0
        assert block.gate_feed.grad.abs() > 0
        assert not block.o_proj.weight.grad.any()
    assert not images.grad.any()


def test_open_gates_lead_the_gradient_to_the_image(parts):
    language_model, blocks = parts
    open_gates(blocks)
    images = torch.randn(1, 3, 32, requires_grad=True)

    states = language_model(inputs_embeds=torch.randn(1, 5, 32), **gating(blocks, images)).last_hidden_state
    states.square().sum().backward()

    assert images.grad.abs().min() > 0


def test_recomputing_layers_gives_the_same_gradients(parts):
    language_model, blocks = parts
    open_gates(blocks)
    embedded, images = torch.randn(2, 5, 32), torch.randn(2, 3, 32)

    def gradients():
        language_model.zero_grad(), blocks.zero_grad()
        states = language_model(inputs_embeds=embedded, use_cache=False, **gating(blocks, images)).last_hidden_state
        states.square().sum().backward()
        return [p.grad.clone() for part in parts for p in part.parameters() if p.grad is not None]

    language_model.train()
    kept = gradients()
    newer = getattr(language_model, "activation_checkpointing_enable", None)  # its name from transformers 5.2x on
    (newer or language_model.gradient_checkpointing_enable)({"use_reentrant": False})
    recomputed = gradients()

    assert len(kept) == len(recomputed)
    assert all(torch.allclose(one, other, rtol=1e-5, atol=1e-6) for one, other in zip(kept, recomputed, strict=True))


def test_a_block_adds_what_its_gates_let_through_as_worked_by_hand():
    """One image token with value v: attention to it is v whatever is asked; the feed-forward layer adds nothing."""
    block = GatedBlock(width=4, heads=2)
    value = torch.tensor([1.0, -2.0, 3.0, 0.5])
    with torch.no_grad():
        block.gate_attention.fill_(math.atanh(0.5))
        block.o_proj.weight.copy_(torch.eye(4))
    keys = torch.stack([torch.randn(2, 1, 2), value.view(2, 1, 2)])[None]
    hidden = torch.randn(1, 3, 4)

    assert torch.allclose(block(hidden, keys), hidden + 0.5 * value, atol=1e-6)


def test_copies_of_a_model_use_their_own_blocks(parts):
    language_model, blocks = parts
    twin = copy.deepcopy(torch.nn.ModuleList([language_model, blocks]))
    open_gates(twin[1])
    embedded, images = torch.randn(1, 5, 32), torch.randn(1, 3, 32)

    alone = language_model(inputs_embeds=embedded).last_hidden_state

    assert torch.equal(language_model(inputs_embeds=embedded, **gating(blocks, images)).last_hidden_state, alone)
    twins = twin[0](inputs_embeds=embedded, **gating(twin[1], images)).last_hidden_state
    assert not torch.allclose(twins, alone, atol=1e-3)


def test_more_layers_between_blocks_than_there_are_is_refused(tiny_fusion):
    config = tiny_fusion("gated")
    connector = ConnectorConfig(kind="pool", grids=(4,), gated_every=3)

    with pytest.raises(ConfigError, match=r"connector\.gated_every 3: the language model has 2 layers"):
        build_model(config.model_copy(update={"connector": connector}), seed=1)


def test_a_call_without_image_is_refused(tiny_fusion):
    model, _ = build_model(tiny_fusion("gated"), seed=1)

    with pytest.raises(ModelInputError, match="needs pixel_values or image_keys in every call"):
        model(input_ids=torch.tensor([[5, 6]]))


def test_rows_and_images_that_do_not_match_are_refused(tiny_fusion):
    model, processor = build_model(tiny_fusion("gated"), seed=1)
    ids = torch.tensor([processor.encode_prompt([("user", "Where?")])] * 2)

    with pytest.raises(ModelInputError, match="1 images for 2 rows with 2 placeholders"):
        model(input_ids=ids, pixel_values=torch.randn(1, 3, 32, 32))


def test_adapters_stay_off_the_blocks_and_merge_beside_them(tiny_fusion):
    model, processor = build_model(tiny_fusion("gated"), seed=1)
    open_gates(model.model.gated_blocks)
    model.eval()
    ids = torch.tensor([processor.encode_prompt([("user", "Where?")])])
    inputs = {"input_ids": ids, "pixel_values": torch.randn(1, 3, 32, 32)}
    before = model(**inputs).logits

    wrapped = add_lora(model, LoraConfig(rank=2, alpha=4)).eval()
    assert torch.equal(wrapped(**inputs).logits, before)
    assert not any("lora" in name and "gated_blocks" in name for name, _ in wrapped.named_parameters())
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if "lora_" in name:
                parameter.add_(0.05)
    unmerged = wrapped(**inputs).logits

    assert not torch.allclose(unmerged, before, atol=1e-3)
    torch.testing.assert_close(merge(wrapped).eval()(**inputs).logits, unmerged, rtol=1e-4, atol=1e-5)
    assert len(inner(wrapped).model.gated_blocks) == 2


def test_a_beam_search_of_several_images_keeps_each_with_its_own(tiny_fusion):
    model, processor = build_model(tiny_fusion("gated"), seed=1)
    open_gates(model.model.gated_blocks)
    model.eval()
    ids = torch.tensor([processor.encode_prompt([("user", "Where?")])] * 2)
    pixels = torch.randn(2, 3, 32, 32)
    settings = {"max_new_tokens": 5, "num_beams": 3, "do_sample": False, "eos_token_id": None}

    both = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), pixel_values=pixels, **settings)
    each = [
        model.generate(
            input_ids=ids[:1], attention_mask=torch.ones_like(ids[:1]), pixel_values=pixels[number, None], **settings
        )
        for number in range(2)
    ]

    assert torch.equal(both, torch.cat(each))
