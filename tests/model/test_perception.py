"""The perception head: pairs are answered alone as together, losses by hand, a checkpoint keeps it whole."""

from __future__ import annotations

import math

import pytest
import torch

from gastrovl.core.errors import ConfigError, ModelInputError
from gastrovl.model.checkpoint import build_model, load_checkpoint, read_card, save_checkpoint
from gastrovl.model.config import PerceptionConfig
from gastrovl.model.grounding import overlaps
from gastrovl.model.perception import PerceptionHead
from gastrovl.model.perception_loss import cell_boxes, dice_loss

NO_BOX = [math.nan] * 4


@pytest.fixture
def head():
    return PerceptionHead(vision_width=12, text_width=16, grid_side=4, width=8, upscale=2).eval()


@pytest.fixture
def seen(head):
    return head.look(torch.randn(3, 16, 12))


def test_shapes_are_those_promised(head, seen):
    found = head.locate(seen, torch.tensor([0, 2, 2, 1]), torch.randn(4, 64))

    assert seen.keys.shape == (3, 64, 8, 8)
    assert found.masks.shape == (4, 8, 8)
    assert found.boxes.shape == (4, 4, 4, 4)
    assert found.qualities.shape == (4, 4, 4)
    assert found.presence.shape == (4,)
    assert head.name(
        seen, torch.tensor([1, 1]), torch.tensor([[0.0, 0.0, 0.5, 1.0]] * 2), torch.randn(5, 64)
    ).shape == (2, 5)


def test_pairs_in_any_order_are_answered_as_each_alone(head, seen):
    images, queries = torch.tensor([2, 0, 2, 2, 1, 0]), torch.randn(6, 64)
    together = head.locate(seen, images, queries)
    for number in range(6):
        alone = head.locate(seen, images[number : number + 1], queries[number : number + 1])
        for name in ("masks", "boxes", "qualities", "presence"):
            assert torch.allclose(getattr(together, name)[number], getattr(alone, name)[0], atol=1e-5), name


def test_presence_alone_is_that_of_locating(head, seen):
    images, queries = torch.tensor([0, 1, 1, 2]), torch.randn(4, 64)

    assert torch.allclose(head.presence(seen, images, queries), head.locate(seen, images, queries).presence, atol=1e-5)


def test_a_box_holds_the_cell_it_is_read_in(head, seen):
    boxes = head.locate(seen, torch.tensor([0, 1]), torch.randn(2, 64)).boxes
    middles = (torch.arange(4) + 0.5) / 4

    assert (boxes[..., 0] < middles[None, None, :]).all()
    assert (boxes[..., 2] > middles[None, None, :]).all()
    assert (boxes[..., 1] < middles[None, :, None]).all()
    assert (boxes[..., 3] > middles[None, :, None]).all()


def test_a_region_is_named_by_what_lies_inside_it(head, seen):
    """What is outside reaches a name through the frame's mean alone, so a frame of equal mean gives equal names."""
    names = torch.randn(4, 64)
    turned = type(seen)(seen.keys, seen.cells.clone(), seen.frame)
    turned.cells[:, :, :, 2:] = turned.cells[:, :, :, 2:].flip(-1)  # the right half, mirrored
    left, right = torch.tensor([[0.0, 0.0, 0.5, 1.0]]), torch.tensor([[0.5, 0.0, 0.75, 1.0]])
    image = torch.tensor([1])

    assert torch.equal(head.name(seen, image, left, names), head.name(turned, image, left, names))
    assert not torch.allclose(head.name(seen, image, right, names), head.name(turned, image, right, names))


def test_overlaps_are_as_worked_by_hand():
    # Left half against x 0.25-0.75: shared 0.25, union 0.75, cover 0.75. Left against right half: union = cover = 1.
    boxes = torch.tensor([[0.0, 0.0, 0.5, 1.0], [0.0, 0.0, 0.5, 1.0], [0.0, 0.0, 0.25, 1.0]])
    true = torch.tensor([[0.25, 0.0, 0.75, 1.0], [0.5, 0.0, 1.0, 1.0], [0.75, 0.0, 1.0, 1.0]])

    iou, generalised = overlaps(boxes, true)

    assert iou.tolist() == pytest.approx([1 / 3, 0.0, 0.0])
    assert generalised.tolist() == pytest.approx([1 / 3, 0.0, -0.5])


def test_dice_is_as_worked_by_hand():
    # Half of four pixels said surely, one of the two true ones among them: 1 - (2 * 1 + 1) / (2 + 2 + 1) = 0.4.
    logits = torch.tensor([[[20.0, 20.0], [-20.0, -20.0]]])
    masks = torch.tensor([[[1.0, 0.0], [1.0, 0.0]]])

    assert dice_loss(logits, masks).item() == pytest.approx(0.4, abs=1e-6)


def test_cells_in_the_middle_of_a_box_learn_it_and_the_smallest_wins():
    # Of 4 cells a side, middles at 1/8, 3/8, 5/8, 7/8. The large box spans everything: its middle part is 0.15-0.85,
    # cells 1 and 2 of each side. The small one, 0.5-0.75, has the middle 0.5375-0.7125: cell 2 alone.
    large, small = [0.0, 0.0, 1.0, 1.0], [0.5, 0.5, 0.75, 0.75]
    found = cell_boxes(torch.tensor([[large, small], [large, NO_BOX], [NO_BOX, NO_BOX]]), side=4)

    assert (~found[0, ..., 0].isnan()).nonzero().tolist() == [[1, 1], [1, 2], [2, 1], [2, 2]]
    assert found[0, 2, 2].tolist() == small
    assert found[0, 1, 2].tolist() == large
    assert found[1, 2, 2].tolist() == large
    assert found[2].isnan().all()


def test_a_box_smaller_than_a_cell_is_learnt_in_the_cell_it_lies_in():
    found = cell_boxes(torch.tensor([[[0.05, 0.55, 0.06, 0.56]]]), side=4)

    assert (~found[0, ..., 0].isnan()).nonzero().tolist() == [[2, 0]]


@pytest.mark.parametrize("tower", ["siglip", "resnet"])
def test_a_checkpoint_keeps_the_head_and_what_it_has_learnt(tiny_model, tmp_path, tower):
    config = tiny_model("pool", tower, perception=PerceptionConfig(width=8))
    model, processor = build_model(config, seed=1)
    save_checkpoint(tmp_path, model, processor, "tiny", recognised={"polyp_unspecified": "polyp"}, locates=True)

    again, _, card = load_checkpoint(tmp_path)

    assert card == read_card(tmp_path)
    assert (card.recognised, card.locates) == ({"polyp_unspecified": "polyp"}, True)
    for (name, one), (_, other) in zip(
        model.perception.state_dict().items(), again.perception.state_dict().items(), strict=True
    ):
        assert torch.equal(one, other), name


def test_a_model_without_the_head_says_so(tiny_model):
    model, _ = build_model(tiny_model("pool"), seed=1)

    with pytest.raises(ModelInputError, match="no such head"):
        model.perceive(torch.zeros(1, 1), torch.ones(1, 1), torch.zeros(1, 3, 32, 32))


def test_a_plain_llava_model_cannot_hold_the_head(tiny_model):
    with pytest.raises(ConfigError, match="a perception head"):
        build_model(tiny_model("mlp", perception=PerceptionConfig()), seed=1)
