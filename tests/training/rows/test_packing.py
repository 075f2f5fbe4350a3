"""Packed rows: the same loss and gradients as one row per dialogue, whatever stands beside them."""

from __future__ import annotations

import pytest
import torch

from gastrovl.core.errors import ModelInputError
from gastrovl.model.checkpoint import build_model
from gastrovl.model.gastrovl import IGNORED
from gastrovl.model.processor import Dialogue
from gastrovl.training.rows.packing import collate, pack

# Two images; the second dialogue about the first has two questions.
TURNS = (
    (
        [("user", "What does the image show?"), ("assistant", "polyp")],
        [
            ("user", "Where is the polyp?"),
            ("assistant", "[125,250,500,749]"),
            ("user", "What lies in [125,250,500,749]?"),
            ("assistant", "polyp"),
        ],
        [("user", "Describe the image."), ("assistant", "The image shows polyp.")],
    ),
    ([("user", "Name every finding."), ("assistant", "gastric ulcer")],),
)


def one_dialogue_a_row(batch):
    """The batch that the same dialogues make without packing: (dialogues per image, collated rows)."""
    rows = [pack([dialogue], [weight], 512) for dialogues in batch for dialogue, weight in dialogues]
    return collate(rows, pad_token_id=0)


def loss_and_gradients(model, batch, pixels):
    model.zero_grad()
    loss = model(pixel_values=pixels, **batch).loss
    loss.backward()
    return loss.item(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(("connector", "tower"), [("mlp", "siglip"), ("pool", "resnet"), ("query", "siglip")])
def test_packed_rows_have_the_loss_and_gradients_of_single_rows(tiny_model, connector, tower):
    model, processor = build_model(tiny_model(connector, tower), seed=1)
    model.eval()  # a ResNet's batch statistics would see some images more often without packing
    weights = (1.0, 3.0, 0.5)
    said = [
        [(processor.encode_dialogue(turns), w) for turns, w in zip(image, weights, strict=False)] for image in TURNS
    ]
    pixels = torch.randn(2, 3, 32, 32)

    rows = [pack([dialogue for dialogue, _ in image], [w for _, w in image], 512) for image in said]
    packed_loss, packed = loss_and_gradients(model, collate(rows, 0), pixels)
    single_loss, single = loss_and_gradients(model, one_dialogue_a_row(said), pixels[[0, 0, 0, 1]])

    assert packed_loss == pytest.approx(single_loss, rel=1e-5)
    assert packed.keys() == single.keys()
    for name, gradient in single.items():
        assert torch.linalg.norm(packed[name] - gradient) <= 1e-5 * max(float(gradient.norm()), 1e-3), name


def test_the_width_of_the_padding_does_not_change_loss_or_gradients(tiny_model):
    model, processor = build_model(tiny_model("mlp"), seed=1)
    row = pack([processor.encode_dialogue(turns) for turns in TURNS[0]], [1.0] * 3, 512)
    pixels = torch.randn(1, 3, 32, 32)
    narrow = collate([row], 0)
    fills = {"input_ids": 7, "position_ids": 3, "segments": -1, "labels": IGNORED, "label_weights": 0.0}
    wide = {name: torch.nn.functional.pad(value, (0, 9), value=fills[name]) for name, value in narrow.items()}

    expected_loss, expected = loss_and_gradients(model, narrow, pixels)
    loss, found = loss_and_gradients(model, wide, pixels)

    assert loss == pytest.approx(expected_loss, rel=1e-6)
    assert all(torch.allclose(found[name], value, rtol=1e-4, atol=1e-7) for name, value in expected.items())


def test_positions_restart_behind_the_image_and_labels_mark_answers():
    first = Dialogue(ids=[9, 9, 1, 2, 3], is_answer=[False, False, False, True, True], prefix=2)
    second = Dialogue(ids=[9, 9, 4, 5], is_answer=[False, False, False, True], prefix=2)

    row = pack([first, second], [1.0, 2.0], max_length=100)

    assert row.ids == [9, 9, 1, 2, 3, 4, 5]
    assert row.positions == [0, 1, 2, 3, 4, 2, 3]
    assert row.segments == [0, 0, 1, 1, 1, 2, 2]
    assert row.labels == [IGNORED, IGNORED, IGNORED, 2, 3, IGNORED, 5]
    assert row.weights == [0, 0, 0, 1.0, 1.0, 0, 2.0]


def test_dialogues_that_no_longer_fit_are_left_out():
    first = Dialogue(ids=[9, 1, 2], is_answer=[False, False, True], prefix=1)
    second = Dialogue(ids=[9, 3, 4], is_answer=[False, False, True], prefix=1)

    assert pack([first, second], [1.0, 1.0], max_length=4).ids == [9, 1, 2]
    assert pack([first, second], [1.0, 1.0], max_length=5).ids == [9, 1, 2, 3, 4]


def test_a_dialogue_longer_than_the_limit_is_refused():
    long = Dialogue(ids=[9, 1, 2], is_answer=[False, False, True], prefix=1)

    with pytest.raises(ModelInputError, match="3 tokens does not fit into max_length 2; raise it"):
        pack([long], [1.0], max_length=2)


def test_dialogues_that_start_differently_are_refused():
    first = Dialogue(ids=[9, 1, 2], is_answer=[False, False, True], prefix=1)
    other = Dialogue(ids=[8, 1, 2], is_answer=[False, False, True], prefix=1)

    with pytest.raises(ModelInputError, match="the same image and template"):
        pack([first, other], [1.0, 1.0], max_length=100)
