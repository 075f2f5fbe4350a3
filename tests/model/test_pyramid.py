"""The pyramid tower: its map's shape, that every cell knows the frame and its own fine detail."""

from __future__ import annotations

import pytest
import torch

from gastrovl.core.errors import ConfigError
from gastrovl.model.pyramid import PyramidConfig, PyramidTower
from gastrovl.model.vision import tower_shape, tower_tokens

TINY = {
    "stem_size": 4,
    "hidden_sizes": [4, 6, 8, 10],
    "depths": [1, 1, 1, 1],
    "decoder_sizes": [6, 8],
    "output_size": 12,
}


@pytest.fixture
def tower():
    return PyramidTower(PyramidConfig(**TINY, image_size=64)).eval()


def test_the_map_is_an_eighth_of_the_image(tower):
    shape = tower_shape(tower.config, 64)
    tokens = tower_tokens(tower, shape, torch.randn(2, 3, 64, 64), layer=-1)

    assert (shape.grid_side, shape.width, shape.prefix, shape.is_convolutional) == (8, 12, 0, True)
    assert tokens.shape == (2, 64, 12)


def test_a_far_corner_and_a_single_pixel_both_reach_a_cell(tower):
    image = torch.randn(1, 3, 64, 64)
    changed, nearby = image.clone(), image.clone()
    changed[:, :, 48:, 48:] += 3.0
    nearby[:, :, 2, 2] += 3.0
    maps = [tower(one).last_hidden_state[0, :, 0, 0] for one in (image, changed, nearby)]

    assert (maps[0] - maps[1]).abs().max() > 1e-4
    assert (maps[0] - maps[2]).abs().max() > 1e-3


def test_an_image_of_another_multiple_is_refused(tower):
    with pytest.raises(ConfigError, match="no multiple of the pyramid's 32"):
        tower_shape(tower.config, 80)
