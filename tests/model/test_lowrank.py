"""Fused adapters give what PEFT gives: outputs, gradients, dropout; and go its way where they must."""

from __future__ import annotations

import copy

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from gastrovl.model.lowrank import fuse_adapters


class Pair(nn.Module):
    """Two layers, one with a bias."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(6, 10), nn.Linear(10, 4, bias=False)

    def forward(self, x):
        return self.second(self.first(x).tanh())


def adapted(dropout=0.0):
    """PEFT's model with adapters that say something, and the same fused."""
    torch.manual_seed(2)
    config = LoraConfig(r=3, lora_alpha=6, lora_dropout=dropout, target_modules=["first", "second"])
    plain = get_peft_model(Pair(), config)
    for name, parameter in plain.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter)
    fused = copy.deepcopy(plain)
    assert fuse_adapters(fused) == 2
    return plain, fused


def outcome(model, x, seed=0, dtype=None):
    """Output and gradients of the input and of every open weight."""
    x = x.clone().requires_grad_()
    torch.manual_seed(seed)
    with torch.autocast("cpu", dtype=dtype, enabled=dtype is not None):
        found = model(x)
    found.float().square().sum().backward()
    return [found.detach().float(), x.grad, *(p.grad for p in model.parameters() if p.requires_grad)]


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_outputs_and_gradients_are_those_of_peft(dropout):
    plain, fused = adapted(dropout)
    x = torch.randn(2, 5, 6)

    for found, expected in zip(outcome(fused, x), outcome(plain, x), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_mixed_precision_is_as_exact_as_that_of_peft():
    plain, fused = adapted()
    x = torch.randn(2, 5, 6)
    exact = outcome(copy.deepcopy(plain), x)

    both = zip(outcome(fused, x, dtype=torch.bfloat16), outcome(plain, x, dtype=torch.bfloat16), exact, strict=True)
    for found, theirs, true in both:
        assert found.dtype == theirs.dtype
        assert (found - true).norm() <= 1.5 * (theirs - true).norm() + 1e-3 * true.norm()


def test_an_adapter_that_is_off_or_merged_goes_the_way_of_peft():
    plain, fused = adapted()
    x = torch.randn(3, 6)

    with plain.disable_adapter(), fused.disable_adapter():
        assert torch.equal(plain(x), fused(x))
    before = fused(x)
    merged = fused.merge_and_unload()
    torch.testing.assert_close(merged(x), before, rtol=1e-5, atol=1e-6)


def test_a_layer_that_trains_itself_keeps_its_gradient():
    _, fused = adapted()
    weight = fused.base_model.model.first.base_layer.weight.requires_grad_()

    outcome(fused, torch.randn(3, 6))

    assert weight.grad.abs().sum() > 0


def test_a_copy_computes_with_its_own_weights():
    _, fused = adapted()
    other = copy.deepcopy(fused)
    x = torch.randn(3, 6)
    before = fused(x)
    for parameter in other.parameters():
        nn.init.zeros_(parameter)

    assert torch.equal(fused(x), before)
    assert not other(x).any()
