"""Recomputed activations: the same gradients, blocks run twice, and only where memory asks for it."""

from __future__ import annotations

import pytest
import torch

from gastrovl.model.adapters import add_lora, inner
from gastrovl.model.checkpoint import build_model
from gastrovl.model.checkpointing import free_memory, is_wanted, keep_recomputing, set_checkpointing
from gastrovl.model.config import LoraConfig
from gastrovl.model.packed.shared_prefix import Backend
from gastrovl.training.rows.packing import collate, pack

TURNS = (
    [
        [("user", "What does the image show?"), ("assistant", "polyp")],
        [("user", "Where is the polyp?"), ("assistant", "[125,250,500,749]")],
    ],
    [[("user", "Name every finding."), ("assistant", "gastric ulcer")]],
)


def a_batch(processor):
    rows = [pack([processor.encode_dialogue(turns) for turns in image], [1.0] * len(image), 512) for image in TURNS]
    return collate(rows, 0) | {"pixel_values": torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))}


def loss_and_gradients(model, batch):
    torch.manual_seed(5)  # dropout
    model.zero_grad()
    loss = model(**batch).loss
    loss.backward()
    return loss.item(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def calls_of_blocks(model):
    """A counter of calls of each block of the language model."""
    counts = [0, 0]
    for number, layer in enumerate(inner(model).model.language_model.layers):
        layer.self_attn.register_forward_pre_hook(
            lambda *_, number=number: counts.__setitem__(number, counts[number] + 1)
        )
    return counts


@pytest.mark.parametrize("has_lora", [False, True])
@pytest.mark.parametrize(
    ("connector", "tower", "backend"),
    [("mlp", "siglip", "groups"), ("mlp", "siglip", "mask"), ("pool", "resnet", "groups")],
)
def test_recomputed_activations_give_the_same_gradients(tiny_model, connector, tower, backend, has_lora):
    model, processor = build_model(tiny_model(connector, tower), seed=1)
    model.packed_attention = Backend(backend)
    if has_lora:
        model = add_lora(model, LoraConfig(rank=4, alpha=8, dropout=0.3))
    model.train()
    batch = a_batch(processor)
    counts = calls_of_blocks(model)

    set_checkpointing(inner(model), False)
    expected_loss, expected = loss_and_gradients(model, batch)
    assert counts == [1, 1]
    set_checkpointing(inner(model), True)
    loss, found = loss_and_gradients(model, batch)

    assert counts == [3, 3]  # once kept, then forward and again in the backward pass
    assert loss == pytest.approx(expected_loss, rel=1e-6)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        assert torch.linalg.norm(found[name] - gradient) <= 1e-5 * max(float(gradient.norm()), 1e-3), name


def test_recomputing_keeps_less_for_the_backward_pass(tiny_model):
    model, processor = build_model(tiny_model("mlp"), seed=1)
    batch = a_batch(processor)
    weights = {p.data_ptr() for p in model.parameters()}
    kept = {}
    for is_on in (False, True):
        found = {}

        def note(tensor, found=found):
            if tensor.data_ptr() not in weights:
                found[tensor.data_ptr()] = tensor.numel() * tensor.element_size()
            return tensor

        set_checkpointing(model.train(), is_on)
        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            output = model(**batch)
        kept[is_on] = sum(found.values())
        del output

    assert kept[True] < 0.5 * kept[False]


def test_blocks_of_a_frozen_language_model_recompute_too(tiny_model):
    model, processor = build_model(tiny_model("mlp"), seed=1)
    model.requires_grad_(False)
    model.model.multi_modal_projector.requires_grad_(True)
    model.eval()
    counts, batch = calls_of_blocks(model), a_batch(processor)
    _, expected = loss_and_gradients(model, batch)

    set_checkpointing(model, True)
    keep_recomputing(model)
    _, found = loss_and_gradients(model, batch)

    assert counts == [3, 3]
    assert not model.model.language_model.layers[0].self_attn.training  # where a dropout would be
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-7)


def test_without_recomputing_a_frozen_language_model_stays_as_it_is(tiny_model):
    model, _ = build_model(tiny_model("mlp"), seed=1)
    model.eval()
    set_checkpointing(model, True)
    set_checkpointing(model, False)

    keep_recomputing(model)

    assert not any(module.training for module in model.modules())


@pytest.mark.parametrize(
    ("choice", "needed", "free", "expected"),
    [
        (True, 1, 100, True),
        (False, 1000, 100, False),
        ("auto", 95, 100, True),  # more than nine tenths of what is free
        ("auto", 85, 100, False),
        ("auto", None, 100, False),
        ("auto", 85, None, False),
    ],
)
def test_auto_recomputes_where_memory_asks_for_it(choice, needed, free, expected):
    assert is_wanted(choice, needed, free) is expected


def test_this_machine_has_some_memory_left():
    free = free_memory(torch.device("cpu"))

    assert free is None or 2**20 < free < 2**50
