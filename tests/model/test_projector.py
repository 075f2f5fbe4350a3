"""Connectors that change the number of tokens: sizes, order, and that they know where they look."""

from __future__ import annotations

import torch

from gastrovl.model.projector import PooledProjector, QueryProjector


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
