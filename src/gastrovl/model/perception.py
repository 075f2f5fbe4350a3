"""A head on the tower's own map that locates what it is asked for, says whether it is there, and names regions.

It runs beside the language model: a query, made of the hidden state in which the model would begin to answer or of the
words of a term's name, meets every cell of the map once. A mask is the likeness of the query with each fine cell (as in
MaskFormer, Cheng et al., NeurIPS 2021); a box is read in every cell, by weights that the query gives, and comes with
the IoU that the head expects of it (as in FCOS, Tian et al., ICCV 2019, and IoU-Net, Jiang et al., ECCV 2018). So a box
costs one forward pass and no decoding.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

_QUERY = 64  # channels in which queries and cells are compared
_READ = 5  # of a cell: distances to the four sides of its box, and the IoU expected of it
_REACH = 0.25  # side lengths are read in this unit, a share of the image


@dataclass(frozen=True)
class SeenMap:
    """What the head keeps of images until it is asked, with `side` cells a side.

    Attributes:
        keys: (images, channels, upscale * side, upscale * side), compared with queries for masks.
        cells: (images, width, side, side), in which boxes are read and regions are pooled.
        frame: (images, width), the mean of `cells`.
    """

    keys: Tensor
    cells: Tensor
    frame: Tensor

    @property
    def side(self) -> int:
        return self.cells.shape[-1]


@dataclass(frozen=True)
class Located:
    """What the head says of pairs of an image and a query.

    Attributes:
        masks: Logits, (pairs, fine side, fine side).
        boxes: In each cell, as fractions x0, y0, x1, y1 that may leave the image, (pairs, side, side, 4).
        qualities: Logits of the IoU expected of each cell's box, (pairs, side, side).
        presence: Logits of the thing being there at all, (pairs,).
    """

    masks: Tensor
    boxes: Tensor
    qualities: Tensor
    presence: Tensor


class PerceptionHead(nn.Module):
    """Queries and tower features to masks, boxes, presence and names.

    Args:
        vision_width: Channels of the tower's features.
        text_width: Channels of the language model.
        grid_side: Side of the tower's grid, in cells.
        width: Channels of the head.
        upscale: How many times finer masks are than the grid, along each side.
    """

    def __init__(self, vision_width: int, text_width: int, grid_side: int, width: int = 96, upscale: int = 2) -> None:
        super().__init__()
        self.grid_side, self.fine_side = grid_side, grid_side * upscale
        self.norm = nn.LayerNorm(vision_width)
        self.neck = nn.Sequential(_block(vision_width, width), _block(width, width))
        self.keys = nn.Sequential(nn.Conv2d(width, _QUERY * upscale**2, 1), nn.PixelShuffle(upscale))
        self.of_name = nn.Sequential(nn.LayerNorm(text_width), nn.Linear(text_width, _QUERY))
        self.of_state = nn.Sequential(
            nn.LayerNorm(text_width), nn.Linear(text_width, text_width), nn.GELU(), nn.Linear(text_width, _QUERY)
        )
        self.mask_scale = nn.Parameter(torch.tensor(0.0))
        self.mask_bias = nn.Parameter(torch.tensor(-2.0))
        self.box = nn.Linear(_QUERY, _READ * width)
        self.box_bias = nn.Parameter(torch.zeros(_READ))
        self.is_there = nn.Sequential(nn.Linear(_QUERY + 2 * width, width), nn.GELU(), nn.Linear(width, 1))
        self.region = nn.Sequential(
            nn.LayerNorm(2 * width + 4), nn.Linear(2 * width + 4, 2 * width), nn.GELU(), nn.Dropout(0.2),
            nn.Linear(2 * width, _QUERY),
        )  # fmt: skip
        self.region_scale = nn.Parameter(torch.tensor(0.0))

    def look(self, features: Tensor) -> SeenMap:
        """What is kept of tower features, (images, grid_side ** 2, vision_width), for any number of queries."""
        grid = self.norm(features).transpose(1, 2).reshape(len(features), -1, self.grid_side, self.grid_side)
        cells = self.neck(grid)
        return SeenMap(self.keys(cells), cells, cells.mean(dim=(2, 3)))

    def locate(self, seen: SeenMap, images: Tensor, queries: Tensor) -> Located:
        """Answers to queries, (pairs, channels), about the images of those numbers, (pairs,)."""
        width, side = seen.cells.shape[1], seen.side
        pairs = _Pairs(images, len(seen.cells))
        masks = self._likeness(pairs, seen.keys, queries)
        coarse = nn.functional.avg_pool2d(masks[:, None], masks.shape[-1] // side)[:, 0]
        weights = self.box(queries).reshape(-1, _READ, width) / width**0.5
        read = pairs.products(weights, seen.cells) + self.box_bias[:, None, None]
        reach = nn.functional.softplus(read[:, :4]) * _REACH
        middles = (torch.arange(side, device=read.device, dtype=read.dtype) + 0.5) / side
        x, y = middles[None, None, :], middles[None, :, None]
        boxes = torch.stack([x - reach[:, 0], y - reach[:, 1], x + reach[:, 2], y + reach[:, 3]], dim=-1)
        return Located(masks, boxes, read[:, 4], self._presence(pairs, seen, queries, coarse))

    def presence(self, seen: SeenMap, images: Tensor, queries: Tensor) -> Tensor:
        """The same, of presence alone: logits, (pairs,)."""
        pairs = _Pairs(images, len(seen.cells))
        keys = nn.functional.avg_pool2d(seen.keys, seen.keys.shape[-1] // seen.side)
        return self._presence(pairs, seen, queries, self._likeness(pairs, keys, queries))

    def _likeness(self, pairs: _Pairs, keys: Tensor, queries: Tensor) -> Tensor:
        return pairs.products(queries / _QUERY**0.5, keys) * self.mask_scale.exp() + self.mask_bias

    def _presence(self, pairs: _Pairs, seen: SeenMap, queries: Tensor, coarse: Tensor) -> Tensor:
        """From what the cells most like the query show, and the frame."""
        looks = coarse.flatten(1).softmax(dim=-1).unflatten(-1, coarse.shape[1:])
        found = pairs.gathered(looks, seen.cells)
        said: Tensor = self.is_there(torch.cat([queries, found, seen.frame[pairs.images]], dim=-1))
        return said[:, 0]

    def name(self, seen: SeenMap, images: Tensor, boxes: Tensor, names: Tensor) -> Tensor:
        """How well each name fits each region: logits (regions, names).

        Args:
            images: The image of each region, (regions,).
            boxes: As fractions x0, y0, x1, y1, (regions, 4).
            names: Queries of the names, (names, channels).
        """
        rows, columns = (_shares(boxes[:, [1, 3]], seen.side), _shares(boxes[:, [0, 2]], seen.side))
        inside = _Pairs(images, len(seen.cells)).gathered(rows[:, :, None] * columns[:, None, :], seen.cells)
        said = self.region(torch.cat([inside, seen.frame[images], boxes.to(inside.dtype)], dim=-1))
        return said @ names.T / _QUERY**0.5 * self.region_scale.exp()


class _Pairs:
    """Pairs of an image and something else, laid out image by image so that products with maps are dense."""

    def __init__(self, images: Tensor, count: int) -> None:
        self.images, self.count = images, count
        each = torch.bincount(images, minlength=count)
        self.most = int(each.max()) if len(images) else 0
        order = torch.argsort(images, stable=True)
        first = each.cumsum(0) - each
        self.slots = torch.empty_like(images)
        self.slots[order] = torch.arange(len(images), device=images.device) - first[images[order]]

    def _laid(self, values: Tensor) -> Tensor:
        """(pairs, ...) to (images, most, ...)."""
        empty = values.new_zeros(self.count, self.most, *values.shape[1:])
        return empty.index_put((self.images, self.slots), values)

    def products(self, vectors: Tensor, maps: Tensor) -> Tensor:
        """(pairs, [read,] channels) with (images, channels, side, side) to (pairs, [read,] side, side)."""
        laid = self._laid(vectors)
        found = laid.flatten(1, -2) @ maps.flatten(2)
        shape = (*laid.shape[1:-1], *maps.shape[-2:])
        return found.reshape(self.count, *shape)[self.images, self.slots]

    def gathered(self, weights: Tensor, maps: Tensor) -> Tensor:
        """(pairs, side, side) with (images, channels, side, side) to (pairs, channels): weighted sums over cells."""
        laid = self._laid(weights.to(maps.dtype))
        return (laid.flatten(2) @ maps.flatten(2).transpose(1, 2))[self.images, self.slots]


def _shares(ends: Tensor, side: int) -> Tensor:
    """How much of each interval, (regions, 2) as fractions, lies in each of `side` cells; sums to 1."""
    edges = torch.arange(side + 1, device=ends.device, dtype=ends.dtype) / side
    shared = (torch.minimum(ends[:, 1:], edges[1:]) - torch.maximum(ends[:, :1], edges[:-1])).clamp(min=0)
    return shared / shared.sum(dim=-1, keepdim=True).clamp(min=1e-9)


def _block(before: int, size: int) -> nn.Sequential:
    convolution = nn.Conv2d(before, size, 3, 1, 1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(size), nn.ReLU(inplace=True))
