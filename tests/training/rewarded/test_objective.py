"""The policy's loss: its slope and the divergence, worked by hand."""

from __future__ import annotations

import math

import pytest
import torch

from gastrovl.training.rewarded.objective import policy_loss


def test_the_slope_is_minus_what_was_gained_plus_that_of_the_divergence():
    said = torch.tensor([-1.0, -2.0, -0.5], requires_grad=True)
    reference = torch.tensor([-1.0, -1.0, -1.5])  # r = 0, 1, -1

    found = policy_loss(said, torch.tensor([0.6, -0.4, -0.4]), reference, kl=0.1)
    found.loss.backward()

    divergence = (math.e - 2) + 1 / math.e  # exp(r) - r - 1 at 0, 1 and -1
    assert float(found.divergence) == pytest.approx(divergence)
    assert found.loss.item() == pytest.approx(0.1 * divergence)
    # d/dsaid of exp(r) - r - 1 is 1 - exp(r).
    expected = [-0.6, 0.4 + 0.1 * (1 - math.e), 0.4 + 0.1 * (1 - 1 / math.e)]
    assert said.grad.tolist() == pytest.approx(expected)


def test_without_a_reference_only_what_was_gained_counts():
    said = torch.tensor([-1.0, -2.0], requires_grad=True)

    found = policy_loss(said, torch.tensor([0.5, -0.5]), None, kl=0.1)
    found.loss.backward()

    assert (found.loss.item(), found.divergence.item()) == (0.0, 0.0)
    assert said.grad.tolist() == [-0.5, 0.5]


def test_a_step_towards_the_slope_makes_the_better_reply_likelier():
    logits = torch.zeros(3, requires_grad=True)
    said = logits.log_softmax(dim=0)[[0, 1, 2]]

    policy_loss(said, torch.tensor([0.6, -0.2, -0.4]), None, kl=0.0).loss.backward()

    after = (logits.detach() - 0.1 * logits.grad).softmax(dim=0)
    assert after[0] > 1 / 3 > after[1] > after[2]
