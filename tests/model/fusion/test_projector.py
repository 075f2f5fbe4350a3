"""Connectors that change the number of tokens: sizes, order, and that they know where they look."""

from __future__ import annotations

import pytest
import torch

from gastrovl.model.fusion.projector import PooledProjector, QueryProjector, pool_regions


def test_colongpt_grids_make_246_tokens():
    projector = PooledProjector(vision_width=8, text_width=6, grid_side=27, grids=(14, 7, 1))

    assert projector.tokens == 14 * 14 + 7 * 7 + 1 == 246
    assert projector(torch.randn(2, 27 * 27, 8)).shape == (2, 246, 6)


def test_each_pooled_token_sees_its_own_cell_only():
    projector = PooledProjector(vision_width=8, text_width=6, grid_side=4, grids=(2,))
    features = torch.randn(1, 16, 8)
    changed = features.clone()
    changed[0, 3] += 1.0 + torch.arange(8)  # row 0, column 3: inside the upper right quarter, the second token

    moved = (projector(features) - projector(changed)).abs().sum(dim=-1) > 1e-6

    assert moved.tolist() == [[False, True, False, False]]


def test_pooled_tokens_of_a_blank_image_differ_by_their_place():
    projector = PooledProjector(vision_width=8, text_width=6, grid_side=4, grids=(2,))

    tokens = projector(torch.ones(1, 16, 8))[0]

    assert len({tuple(token.tolist()) for token in tokens}) == 4


def test_queries_give_as_many_tokens_as_asked_and_know_places():
    projector = QueryProjector(vision_width=8, text_width=16, grid_side=4, queries=5)
    features = torch.randn(2, 16, 8)

    tokens = projector(features)
    shuffled = projector(features.flip(1))

    assert tokens.shape == (2, 5, 16)
    assert not torch.allclose(tokens, shuffled, atol=1e-5)


def test_a_region_is_the_mean_of_its_cells_weighted_by_shared_area():
    tokens = torch.tensor([[[1.0], [2.0], [3.0], [4.0], [99.0]]])  # a 2 x 2 grid and one token more
    boxes = torch.tensor([[[0.0, 0.0, 0.5, 0.5], [0.25, 0.0, 0.75, 0.5], [0.4, 0.5, 1.0, 1.0], [0.3, 0.3, 0.3, 0.3]]])

    found = pool_regions(tokens, boxes, side=2)

    assert found[0, :, 0].tolist() == pytest.approx([1.0, 1.5, (0.1 * 3 + 0.5 * 4) / 0.6, 0.0])


def test_a_region_within_one_cell_is_that_cell():
    tokens = torch.randn(1, 16, 8)

    found = pool_regions(tokens, torch.tensor([[[0.51, 0.26, 0.52, 0.27]]]), side=4)

    assert torch.allclose(found[0, 0], tokens[0, 6], atol=1e-5)
