"""Attention pooling: windows that tile the image for any number of tokens, each reading its own cells only."""

from __future__ import annotations

import pytest
import torch

from gastrovl.model.fusion.attention_pooling import AttentionProjector, window_edges, window_shares


def test_seven_windows_are_rows_of_three_two_and_two():
    edges = window_edges(7)

    third = 1 / 3
    assert edges[:3].tolist() == [pytest.approx([n / 3, 0, (n + 1) / 3, third]) for n in range(3)]
    assert edges[3:5].tolist() == [pytest.approx([n / 2, third, (n + 1) / 2, 2 * third]) for n in range(2)]
    assert edges[5:].tolist() == [pytest.approx([n / 2, 2 * third, (n + 1) / 2, 1]) for n in range(2)]


@pytest.mark.parametrize("tokens", [*range(1, 40), 64, 246])
def test_windows_tile_the_image(tokens):
    x0, y0, x1, y1 = window_edges(tokens).double().T
    middles = torch.stack([(x0 + x1) / 2, (y0 + y1) / 2], dim=1)
    x, y = middles[:, None, 0], middles[:, None, 1]
    inside = (x > x0) & (x < x1) & (y > y0) & (y < y1)

    assert len(x0) == tokens
    assert float(((x1 - x0) * (y1 - y0)).sum()) == pytest.approx(1, abs=1e-5)
    assert inside.sum(dim=1).tolist() == [1] * tokens  # with an area of 1 in all: no gap, no overlap


def test_a_window_takes_a_cell_by_the_share_of_itself_that_lies_in_it():
    # 3 windows: one row each of 2 and 1 columns; on a grid of 2 x 2 cells the third is the lower half
    assert window_shares(3, 2).tolist() == [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0.5, 0.5]]
    # one window of 3 x 3 on a grid of 2 x 2: the middle one lies in all four, the left upper one in one
    shares = window_shares(9, 2)
    assert shares[4].tolist() == pytest.approx([0.25] * 4)
    assert shares[0].tolist() == pytest.approx([1, 0, 0, 0])
    assert shares[1].tolist() == pytest.approx([0.5, 0.5, 0, 0], abs=1e-5)


@pytest.mark.parametrize("tokens", [1, 2, 5, 7, 16, 30])
def test_any_number_of_tokens_comes_out_also_more_than_there_are_cells(tokens):
    projector = AttentionProjector(vision_width=8, text_width=16, grid_side=4, tokens=tokens)
    found = projector(torch.randn(2, 16, 8))

    assert found.shape == (2, tokens, 16)
    assert found.isfinite().all()
    assert len({tuple(token.tolist()) for token in projector(torch.ones(1, 16, 8))[0]}) == tokens  # they know places


def test_each_token_sees_its_own_window_only():
    projector = AttentionProjector(vision_width=8, text_width=16, grid_side=4, tokens=4)
    features = torch.randn(1, 16, 8)
    changed = features.clone()
    changed[0, 3] += 1.0 + torch.arange(8)  # row 0, column 3: in the upper right window

    moved = (projector(features) - projector(changed)).abs().sum(dim=-1) > 1e-6

    assert moved.tolist() == [[False, True, False, False]]


def test_a_token_attends_by_what_its_window_shows():
    """With keys that copy the features and a query that is their mean, the cell most like the mean weighs most."""
    projector = AttentionProjector(vision_width=8, text_width=8, grid_side=2, tokens=1, heads=1)
    projector.norm = torch.nn.Identity()
    projector.norm_out = torch.nn.Identity()
    with torch.no_grad():
        for layer in (projector.q_proj, projector.o_proj):
            layer.weight.copy_(torch.eye(8))
            layer.bias.zero_()
        projector.kv_proj.weight.copy_(torch.cat([torch.eye(8), torch.eye(8)]))
        for parameter in (projector.kv_proj.bias, projector.cell_positions, projector.window_positions):
            parameter.zero_()
        projector.linear_2.weight.zero_()
        projector.linear_2.bias.zero_()
    one, other = torch.eye(8)[0], torch.eye(8)[1]
    mean = 0.75 * one + 0.25 * other  # its dot product with `one` is 3/4, with `other` 1/4
    weights = torch.tensor([0.75, 0.75, 0.75, 0.25]).div(8**0.5).softmax(dim=0)

    found = projector(torch.stack([one, one, one, other])[None])

    assert torch.allclose(found[0, 0], weights[:3].sum() * one + weights[3] * other, atol=1e-6)
    assert not torch.allclose(found[0, 0], mean, atol=1e-3)
