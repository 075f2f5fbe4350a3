"""The pre-activation tower: its map's shape, its order of norm and convolution."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from gastrovl.model.preactivation import PreactivationConfig, PreactivationTower
from gastrovl.model.vision import load_tower, tower_shape, tower_tokens

TINY = {"embedding_size": 4, "hidden_sizes": [8, 12], "depths": [1, 2]}


@pytest.fixture
def tower():
    """A tower whose running statistics are not those of a fresh one, so that a norm left out would show."""
    made = PreactivationTower(PreactivationConfig(**TINY))
    made.train()(torch.randn(8, 3, 32, 32) * 2 + 1)
    return made.eval()


def test_the_stem_quarters_the_image_and_every_stage_but_the_first_halves_it(tower):
    shape = tower_shape(tower.config, 40)
    tokens = tower_tokens(tower, shape, torch.randn(2, 3, 40, 40), layer=-1)

    assert (shape.grid_side, shape.width, shape.prefix, shape.is_convolutional) == (5, 12, 0, True)
    assert tokens.shape == (2, 25, 12)
    assert [one.shape[-1] for one in tower(torch.randn(1, 3, 40, 40)).hidden_states] == [10, 10, 5]


def test_a_block_norms_and_rectifies_before_it_convolves_and_nothing_after_the_sum(tower):
    block, x = tower.stages[1][1], torch.randn(1, 12, 4, 4)

    def step(values, norm, weight, padding):
        scale = norm.weight / (norm.running_var + norm.eps).sqrt()
        normed = (values - norm.running_mean[:, None, None]) * scale[:, None, None] + norm.bias[:, None, None]
        return F.conv2d(normed.clamp(min=0), weight, padding=padding)

    by_hand = step(x, block.norm1, block.conv1.weight, 0)
    by_hand = step(by_hand, block.norm2, block.conv2.weight, 1)
    by_hand = x + step(by_hand, block.norm3, block.conv3.weight, 0)

    assert torch.allclose(block(x), by_hand, atol=1e-5)
    assert by_hand.min() < 0


def test_a_folder_of_it_loads_by_its_type(tower, tmp_path):
    tower.save_pretrained(tmp_path)
    pixels = torch.randn(1, 3, 32, 32)

    again = load_tower(str(tmp_path)).eval()

    assert isinstance(again, PreactivationTower)
    assert torch.equal(tower(pixels).last_hidden_state, again(pixels).last_hidden_state)
