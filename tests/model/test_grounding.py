"""The grounding head: box loss by hand, unknown things carry no loss, it leaves before a checkpoint is written."""

from __future__ import annotations

import math

import pytest
import torch

from gastrovl.core.errors import ConfigError
from gastrovl.model.checkpoint import build_model
from gastrovl.model.grounding import UNKNOWN, GroundingHead, GroundingTargets, box_loss, choice_loss

NO_BOX = [math.nan] * 4


def test_perfect_boxes_have_no_loss():
    boxes = torch.tensor([[[0.1, 0.2, 0.5, 0.9], [0.0, 0.0, 1.0, 1.0]]])

    assert box_loss(boxes, boxes).item() == pytest.approx(0.0, abs=1e-6)


def test_box_loss_is_as_worked_by_hand():
    # Guess: left half. Truth: right half. L1 = (0.5 + 0 + 0.5 + 0) / 4 = 0.25; IoU 0, union = cover = 1, so GIoU 0.
    guess = torch.tensor([[[0.0, 0.0, 0.5, 1.0], [0.3, 0.3, 0.4, 0.4]]])
    truth = torch.tensor([[[0.5, 0.0, 1.0, 1.0], NO_BOX]])

    assert box_loss(guess, truth).item() == pytest.approx(5 * 0.25 + 1.0)


def test_overlapping_boxes_count_their_generalised_iou():
    # Guess x 0-0.5, truth x 0.25-0.75 of full height: overlap 0.25, union 0.75, cover 0.75: GIoU = IoU = 1/3.
    guess, truth = torch.tensor([[[0.0, 0.0, 0.5, 1.0]]]), torch.tensor([[[0.25, 0.0, 0.75, 1.0]]])

    assert box_loss(guess, truth).item() == pytest.approx(5 * 0.125 + (1 - 1 / 3))


def test_cells_without_a_box_give_no_loss_and_finite_gradients():
    boxes = torch.rand(1, 2, 4, requires_grad=True)

    loss = box_loss(boxes, torch.tensor([[NO_BOX, NO_BOX]]))
    loss.backward()

    assert loss.item() == 0.0
    assert not boxes.grad.any()


def test_what_is_unknown_carries_no_loss():
    head = GroundingHead(width=4, cells=2)
    targets = GroundingTargets(
        term_ids=torch.zeros(3, 1),
        term_mask=torch.ones(3, 1),
        image_terms=torch.full((1, 3), UNKNOWN),
        cell_terms=torch.full((1, 2, 3), UNKNOWN),
        cell_boxes=torch.tensor([[NO_BOX, NO_BOX]]),
    )

    assert head(torch.randn(1, 2, 4), torch.randn(3, 4), targets).item() == 0.0


def test_a_known_absence_at_the_start_costs_what_its_logit_says():
    head = GroundingHead(width=4, cells=1)
    torch.nn.init.zeros_(head.summary.weight)
    torch.nn.init.zeros_(head.summary.bias)  # a zero vector has similarity 0 with every word: the logit is the bias, -3
    targets = GroundingTargets(
        term_ids=torch.zeros(1, 1),
        term_mask=torch.ones(1, 1),
        image_terms=torch.zeros(1, 1),
        cell_terms=torch.full((1, 1, 1), UNKNOWN),
        cell_boxes=torch.tensor([[NO_BOX]]),
    )

    loss = head(torch.randn(1, 1, 4), torch.randn(1, 4), targets)

    assert loss.item() == pytest.approx(math.log(1 + math.exp(-3)), rel=1e-5)


@pytest.mark.parametrize(("connector", "tower", "cells"), [("pool", "resnet", 16), ("mlp", "siglip", 16)])
def test_the_head_reads_the_finest_grid(tiny_model, connector, tower, cells):
    model, _ = build_model(tiny_model(connector, tower), seed=1)

    model.add_grounding_head()

    assert model.grounding.cells == cells
    model.drop_grounding_head()
    assert not any("grounding" in name for name in model.state_dict())


def test_learned_queries_have_no_grid_to_ground(tiny_model):
    model, _ = build_model(tiny_model("query"), seed=1)

    with pytest.raises(ConfigError, match="connector `query` with 4 tokens has none, use mlp or pool"):
        model.add_grounding_head()


def test_the_choice_among_terms_counts_only_where_something_is_shown_and_known():
    logits = torch.log(torch.tensor([[[1.0, 3.0, 4.0], [5.0, 1.0, 1.0], [2.0, 6.0, 2.0]]]))
    truth = torch.tensor([[[1.0, 0.0, UNKNOWN], [0.0, 0.0, 0.0], [1.0, 1.0, 0.0]]])

    # cell 0: 1 of 1 + 3 (the third term is unknown); cell 1 shows nothing; cell 2: 2 + 6 of 10
    expected = -(math.log(1 / 4) + math.log(8 / 10)) / 2
    assert choice_loss(logits, truth).item() == pytest.approx(expected)


def test_without_anything_shown_there_is_no_choice_and_no_gradient():
    logits = torch.randn(1, 2, 3, requires_grad=True)

    loss = choice_loss(logits, torch.zeros(1, 2, 3))
    loss.backward()

    assert loss.item() == 0
    assert torch.equal(logits.grad, torch.zeros_like(logits))
    shown = torch.tensor([[[1.0, UNKNOWN, 0.0], [0.0, 0.0, 0.0]]])
    choice_loss(logits, shown).backward()
    assert logits.grad.isfinite().all()
