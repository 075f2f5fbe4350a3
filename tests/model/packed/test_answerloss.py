"""The chunked answer loss against plain cross-entropy: values, gradients, memory, whatever the head is."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from gastrovl.core.errors import ModelInputError
from gastrovl.model.packed import answerloss
from gastrovl.model.packed.answerloss import answer_loss, answer_scores

ANSWERS, WIDTH, VOCABULARY = 11, 6, 13
ONE_POSITION = 4 * VOCABULARY  # bytes of its logits


class Scaled(nn.Linear):
    """A head that is more than a matrix, as one with adapters is."""

    def forward(self, states):
        return 2.0 * super().forward(states)


def made(head_class=nn.Linear, bias=True):
    torch.manual_seed(5)
    head = head_class(WIDTH, VOCABULARY, bias=bias)
    states = torch.randn(ANSWERS, WIDTH, requires_grad=True)
    return head, states, torch.randint(VOCABULARY, (ANSWERS,)), torch.rand(ANSWERS) + 0.5


def gradients(loss, head, states):
    return torch.autograd.grad(loss, [states, *head.parameters()])


def test_the_loss_is_the_weighted_sum_over_the_given_divisor():
    head = nn.Linear(2, 2, bias=False)
    head.weight.data = torch.eye(2)
    logits = torch.tensor([[0.0, 0.0], [math.log(3.0), 0.0]])  # probabilities (1/2, 1/2) and (3/4, 1/4)
    targets, weights = torch.tensor([0, 1]), torch.tensor([1.0, 3.0])

    assert answer_loss(logits, head, targets).item() == pytest.approx((math.log(2) + math.log(4)) / 2)
    assert answer_loss(logits, head, targets, weights).item() == pytest.approx((math.log(2) + 3 * math.log(4)) / 4)
    assert answer_loss(logits, head, targets, weights, 10).item() == pytest.approx((math.log(2) + 3 * math.log(4)) / 10)


@pytest.mark.parametrize("chunk_bytes", [1, 3 * ONE_POSITION, 10**9])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("head_class", [nn.Linear, Scaled])
def test_loss_and_gradients_are_those_of_all_logits_at_once(head_class, bias, chunk_bytes):
    head, states, targets, weights = made(head_class, bias)
    losses = nn.functional.cross_entropy(head(states), targets, reduction="none")
    expected = (losses * weights).sum() / 7.0

    loss = answer_loss(states, head, targets, weights, 7.0, chunk_bytes=chunk_bytes)

    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=1e-7)
    for found, true in zip(
        gradients(3 * loss, head, states), gradients(3 * expected, head, states), strict=True
    ):  # times three: the slope from behind counts
        torch.testing.assert_close(found, true, rtol=1e-5, atol=1e-7)


def test_a_frozen_head_hands_the_gradient_on_and_keeps_none():
    head, states, targets, _ = made()
    head.requires_grad_(False)

    answer_loss(states, head, targets).backward()

    assert states.grad.abs().sum() > 0
    assert head.weight.grad is None


def test_a_tied_head_adds_to_the_gradient_of_the_embedding():
    head, _, targets, _ = made(bias=False)
    embedding = nn.Embedding(VOCABULARY, WIDTH)
    embedding.weight = head.weight
    states = embedding(torch.arange(ANSWERS))
    expected = torch.autograd.grad(nn.functional.cross_entropy(head(states), targets), embedding.weight)[0]

    found = torch.autograd.grad(answer_loss(embedding(torch.arange(ANSWERS)), head, targets), embedding.weight)[0]

    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("head_class", [nn.Linear, Scaled])
def test_mixed_precision_is_as_exact_as_the_plain_way(head_class):
    head, states, targets, weights = made(head_class)
    exact = gradients(answer_loss(states, head, targets, weights), head, states)

    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = answer_loss(states, head, targets, weights, chunk_bytes=4 * ONE_POSITION)
        plain = (nn.functional.cross_entropy(head(states).float(), targets, reduction="none") * weights).sum()
        plain = plain / weights.sum()

    assert loss.item() == pytest.approx(plain.item(), rel=1e-3)
    for ours, theirs, true in zip(gradients(loss, head, states), gradients(plain, head, states), exact, strict=True):
        assert (ours - true).norm() <= 1.5 * (theirs - true).norm() + 1e-3 * true.norm()


def test_no_more_logits_exist_at_once_than_asked_for(monkeypatch):
    head, states, targets, _ = made()
    seen = []
    linear = nn.functional.linear
    monkeypatch.setattr(answerloss.nn.functional, "linear", lambda *given: seen.append(linear(*given)) or seen[-1])

    answer_loss(states, head, targets, chunk_bytes=4 * ONE_POSITION)

    assert [len(logits) for logits in seen] == [4, 4, 3]  # eleven positions in three pieces of like length


def test_scores_are_losses_and_likeliest_tokens():
    head, states, targets, _ = made()
    logits = head(states)

    losses, guesses = answer_scores(states, head, targets, chunk_bytes=2 * ONE_POSITION)

    torch.testing.assert_close(losses, nn.functional.cross_entropy(logits, targets, reduction="none"))
    assert torch.equal(guesses, logits.argmax(dim=-1))


def test_nothing_to_learn_from_is_refused():
    head, states, targets, _ = made()
    with pytest.raises(ModelInputError, match="no position of the batch is marked as answer"):
        answer_loss(states[:0], head, targets[:0])


def test_a_gradient_is_given_away_once():
    head, states, targets, _ = made()
    loss = answer_loss(states, head, targets)
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="given away once"):
        loss.backward()
