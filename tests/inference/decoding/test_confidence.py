"""The confidence of a reply, by hand."""

from __future__ import annotations

import math

import pytest
import torch

from gastrovl.inference.decoding.confidence import ReplyConfidence

IDS = torch.zeros(2, 1, dtype=torch.long)


def scores(*chances):
    """Scores whose softmax is `chances`, one row a reply."""
    return torch.tensor(chances).log() + 3.0


def test_confidence_is_the_geometric_mean_over_a_reply_own_length():
    confidence = ReplyConfidence()
    confidence(IDS, scores((0.8, 0.2), (0.5, 0.5)))
    confidence(IDS, scores((0.1, 0.9), (0.25, 0.75)))

    # the second reply has one token; what is generated behind its end does not count
    assert confidence.of_replies([2, 1]) == pytest.approx([math.sqrt(0.8 * 0.9), 0.5])


def test_scores_pass_unchanged():
    given = scores((0.8, 0.2), (0.5, 0.5))

    assert ReplyConfidence()(IDS, given) is given


def test_a_chosen_token_counts_with_the_chance_the_model_gave_it():
    def second(_, given):
        return given + torch.tensor([0.0, 100.0])

    confidence = ReplyConfidence([second])
    changed = confidence(IDS, scores((0.8, 0.2), (0.4, 0.6)))

    assert changed.argmax(dim=-1).tolist() == [1, 1]
    assert confidence.of_replies([1, 1]) == pytest.approx([0.2, 0.6])


def test_certainty_is_one_and_never_more():
    confidence = ReplyConfidence()
    confidence(IDS[:1], torch.tensor([[500.0, -500.0]]))

    assert confidence.of_replies([1]) == [1.0]
