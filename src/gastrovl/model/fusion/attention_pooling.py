"""Attention pooling: any number of image tokens, each gathered from its own window of the feature grid."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def window_edges(tokens: int) -> Tensor:
    """Windows that tile the image without gap or overlap, (tokens, 4) as fractions x0, y0, x1, y1, row by row.

    As many rows as the rounded square root; each row is cut into equal windows, and the first rows take one more where
    the number does not divide. A square number gives a square grid, 7 gives rows of 3, 2 and 2.
    """
    rows = max(round(math.sqrt(tokens)), 1)
    edges = []
    for row in range(rows):
        columns = tokens // rows + (row < tokens % rows)
        edges += [(column / columns, row / rows, (column + 1) / columns, (row + 1) / rows) for column in range(columns)]
    return torch.tensor(edges)


def window_shares(tokens: int, grid_side: int) -> Tensor:
    """Which share of each window lies in each cell of the grid, (tokens, grid_side**2); every row sums to 1."""
    cuts = torch.arange(grid_side + 1) / grid_side
    edges = window_edges(tokens)
    low, high = edges[:, :2, None], edges[:, 2:, None]  # (tokens, axis, 1)
    shared = (torch.minimum(high, cuts[1:]) - torch.maximum(low, cuts[:-1])).clamp(min=0)  # (tokens, axis, side)
    shared = torch.where(shared > 1e-6, shared, 0.0)  # a window that ends where a cell begins does not look into it
    areas = (shared[:, 1, :, None] * shared[:, 0, None, :]).flatten(1)
    return areas / areas.sum(dim=1, keepdim=True)


class AttentionProjector(nn.Module):
    """Each token attends over the cells of its window, and asks with what the window shows on average.

    The image itself says where to look, which separates this from learned queries: with a flat softmax a token is the
    mean that `pool` takes. Attention pooling with the mean as query is CLIP's (Radford et al. 2021, section 2.4); here
    it is applied to each window instead of the whole image, and a cell cut by a window's border counts by the share of
    it that lies inside. Cells and windows carry learned positions.
    """

    shares: Tensor

    def __init__(self, vision_width: int, text_width: int, grid_side: int, tokens: int, heads: int = 8) -> None:
        super().__init__()
        self.tokens, self.heads = tokens, heads
        self.register_buffer("shares", window_shares(tokens, grid_side))
        self.norm = nn.LayerNorm(vision_width)
        self.q_proj = nn.Linear(vision_width, text_width)
        self.kv_proj = nn.Linear(vision_width, 2 * text_width)
        self.cell_positions = nn.Parameter(0.02 * torch.randn(grid_side * grid_side, text_width))
        self.window_positions = nn.Parameter(0.02 * torch.randn(tokens, text_width))
        self.o_proj = nn.Linear(text_width, text_width)
        self.norm_out = nn.LayerNorm(text_width)
        self.linear_1 = nn.Linear(text_width, text_width)
        self.act = nn.GELU()
        self.linear_2 = nn.Linear(text_width, text_width)

    def forward(self, features: Tensor) -> Tensor:
        """(images, grid_side**2, vision_width) to (images, tokens, text_width), window by window."""
        cells = self.norm(features)
        queries = self.q_proj(self.shares.to(cells.dtype) @ cells) + self.window_positions
        keys, values = self.kv_proj(cells).chunk(2, dim=-1)
        keys = keys + self.cell_positions
        split = (self.heads, -1)
        read = nn.functional.scaled_dot_product_attention(
            queries.unflatten(-1, split).transpose(1, 2),
            keys.unflatten(-1, split).transpose(1, 2),
            values.unflatten(-1, split).transpose(1, 2),
            attn_mask=self.shares.log().to(queries.dtype),
        )
        hidden = self.norm_out(self.window_positions + self.o_proj(read.transpose(1, 2).flatten(2)))
        projected: Tensor = hidden + self.linear_2(self.act(self.linear_1(hidden)))
        return projected
