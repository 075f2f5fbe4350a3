"""Connectors that change the number of vision tokens: pooled grids and learned queries, both told where they look."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class PooledProjector(nn.Module):
    """Average the feature grid onto one or several smaller grids, add a learned 2-D position, project with an MLP.

    ColonGPT's adapter (Ji et al. 2024) with grids (14, 7, 1) is one case; its ablation lost five points of mean IoU
    without the positional signal, so positions are always there.
    """

    def __init__(self, vision_width: int, text_width: int, grid_side: int, grids: tuple[int, ...]) -> None:
        super().__init__()
        self.grid_side = grid_side
        self.grids = grids
        self.norm = nn.LayerNorm(vision_width)
        self.linear_1 = nn.Linear(vision_width, text_width)
        self.act = nn.GELU()
        self.linear_2 = nn.Linear(text_width, text_width)
        self.rows = nn.ParameterList([nn.Parameter(0.02 * torch.randn(side, 1, text_width)) for side in grids])
        self.columns = nn.ParameterList([nn.Parameter(0.02 * torch.randn(1, side, text_width)) for side in grids])

    @property
    def tokens(self) -> int:
        return sum(side * side for side in self.grids)

    def forward(self, features: Tensor) -> Tensor:
        """(images, grid_side**2, vision_width) to (images, tokens, text_width), finest grid as given first."""
        images, _, width = features.shape
        grid = self.norm(features).transpose(1, 2).reshape(images, width, self.grid_side, self.grid_side)
        pooled = []
        for side, rows, columns in zip(self.grids, self.rows, self.columns, strict=True):
            cells = grid if side == self.grid_side else nn.functional.adaptive_avg_pool2d(grid, side)
            hidden = self.linear_1(cells.flatten(2).transpose(1, 2)) + (rows + columns).flatten(0, 1)
            pooled.append(self.linear_2(self.act(hidden)))
        return torch.cat(pooled, dim=1)


def pool_regions(tokens: Tensor, boxes: Tensor, side: int) -> Tensor:
    """The mean of the image tokens inside each box, weighted by the area they share with it.

    Args:
        tokens: (images, at least side**2, width); the first side**2 form the grid, row by row from the top left.
        boxes: (images, boxes, 4) as fractions x0, y0, x1, y1.

    Returns:
        (images, boxes, width); zeros for a box without area.
    """
    edges = torch.arange(side + 1, device=boxes.device, dtype=boxes.dtype) / side
    low, high = boxes[..., :2, None], boxes[..., 2:, None]  # (images, boxes, axis, 1)
    shared = (torch.minimum(high, edges[1:]) - torch.maximum(low, edges[:-1])).clamp(min=0)  # (.., axis, side)
    weights = (shared[..., 1, :, None] * shared[..., 0, None, :]).flatten(-2)
    weights = weights / weights.sum(dim=-1, keepdim=True).clamp(min=1e-9)
    return weights.to(tokens.dtype) @ tokens[:, : side * side]


class QueryProjector(nn.Module):
    """Read the feature grid with learned queries through `depth` cross-attention blocks.

    One block is BLIP-2's Q-Former with one layer (Li et al. 2023). Further blocks let the queries see each other beside
    the grid, as in Flamingo's perceiver resampler (Alayrac et al. 2022).
    """

    def __init__(
        self, vision_width: int, text_width: int, grid_side: int, queries: int, depth: int = 1, heads: int = 8
    ) -> None:
        super().__init__()
        self.tokens = queries
        self.norm = nn.LayerNorm(vision_width)
        self.keys = nn.Linear(vision_width, text_width)
        self.positions = nn.Parameter(0.02 * torch.randn(grid_side * grid_side, text_width))
        self.queries = nn.Parameter(0.02 * torch.randn(queries, text_width))
        self.attention = nn.MultiheadAttention(text_width, heads, batch_first=True)
        self.norm_out = nn.LayerNorm(text_width)
        self.linear_1 = nn.Linear(text_width, text_width)
        self.act = nn.GELU()
        self.linear_2 = nn.Linear(text_width, text_width)
        self.further = nn.ModuleList([_QueryBlock(text_width, heads) for _ in range(depth - 1)])

    def forward(self, features: Tensor) -> Tensor:
        """(images, grid_side**2, vision_width) to (images, queries, text_width)."""
        keys = self.keys(self.norm(features)) + self.positions
        queries = self.queries.expand(features.shape[0], -1, -1)
        read, _ = self.attention(queries, keys, keys, need_weights=False)
        hidden = self.norm_out(queries + read)
        hidden = hidden + self.linear_2(self.act(self.linear_1(hidden)))
        for block in self.further:
            hidden = block(hidden, keys)
        return hidden


class _QueryBlock(nn.Module):
    """One more look of the queries at the grid and at each other."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.norm_feed = nn.LayerNorm(width)
        self.linear_1 = nn.Linear(width, width)
        self.act = nn.GELU()
        self.linear_2 = nn.Linear(width, width)

    def forward(self, hidden: Tensor, keys: Tensor) -> Tensor:
        queries = self.norm(hidden)
        seen = torch.cat([keys, queries], dim=1)
        hidden = hidden + self.attention(queries, seen, seen, need_weights=False)[0]
        projected: Tensor = hidden + self.linear_2(self.act(self.linear_1(self.norm_feed(hidden))))
        return projected
