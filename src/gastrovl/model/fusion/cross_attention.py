"""Gated cross-attention: blocks between decoder layers that let the text look at image tokens outside its sequence.

Flamingo's blocks (Alayrac et al. 2022, section 2.2): before every k-th layer of a language model stand a
cross-attention to the image and a feed-forward layer, each behind a tanh gate that starts at 0, so that the model
begins as the language model alone. The decoder layers stay as they are: a hook before each of them runs its block,
which works for every model whose layers take their hidden states first. Nothing is kept between calls; the keys come
with each call.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from gastrovl.core.errors import ConfigError, ModelInputError

_ARGUMENT = "gating"  # what the language model hands on to its layers


class GatedBlock(nn.Module):
    """Cross-attention and feed-forward layer, each added behind its own gate."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.norm_image = nn.LayerNorm(width)
        self.q_proj = nn.Linear(width, width, bias=False)
        self.kv_proj = nn.Linear(width, 2 * width, bias=False)
        self.o_proj = nn.Linear(width, width, bias=False)
        self.gate_attention = nn.Parameter(torch.zeros(1))
        self.norm_feed = nn.LayerNorm(width)
        self.linear_1 = nn.Linear(width, 4 * width, bias=False)
        self.act = nn.GELU()
        self.linear_2 = nn.Linear(4 * width, width, bias=False)
        self.gate_feed = nn.Parameter(torch.zeros(1))

    def keys(self, images: Tensor) -> Tensor:
        """Keys and values of image tokens, (images, tokens, width) to (images, 2, heads, tokens, head width)."""
        split = self.kv_proj(self.norm_image(images)).unflatten(-1, (2, self.heads, -1))
        return split.permute(0, 2, 3, 1, 4)

    def forward(self, hidden: Tensor, keys: Tensor) -> Tensor:
        """Hidden states that have looked at their row's image.

        Args:
            hidden: (rows, length, width).
            keys: Of each row's image, as `keys` gives them.
        """
        queries = self.q_proj(self.norm(hidden)).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        read = nn.functional.scaled_dot_product_attention(queries, keys[:, 0].to(queries), keys[:, 1].to(queries))
        hidden = hidden + self.gate_attention.tanh() * self.o_proj(read.transpose(1, 2).flatten(2))
        fed: Tensor = self.linear_2(self.act(self.linear_1(self.norm_feed(hidden))))
        return hidden + self.gate_feed.tanh() * fed


@dataclass(frozen=True)
class Gating:
    """What one call of the language model needs: the blocks, and keys of (rows, blocks, 2, heads, tokens, width)."""

    blocks: Sequence[nn.Module]
    keys: Tensor


def gated_blocks(text_config: Any, every: int) -> nn.ModuleList:
    """A block for every `every`-th decoder layer, none for 0.

    Raises:
        ConfigError: The language model has fewer layers than that.
    """
    count = text_config.num_hidden_layers // every if every else 0
    if every and not count:
        raise ConfigError(
            f"connector.gated_every {every}: the language model has {text_config.num_hidden_layers} layers, so no "
            "block would be built; take a smaller number"
        )
    width, heads = text_config.hidden_size, text_config.num_attention_heads
    return nn.ModuleList([GatedBlock(width, heads) for _ in range(count)])


def attach(language_model: Any, every: int) -> None:
    """Have the decoder layers run the blocks that a call brings: block i before layer (i + 1) * every - 1."""
    for number, layer in enumerate(language_model.layers):
        block, rest = divmod(number + 1, every)
        layer.register_forward_pre_hook(partial(_look, block - 1 if rest == 0 else None), with_kwargs=True)


def gating(blocks: Any, images: Tensor | None, keys: Tensor | None = None) -> dict[str, Gating]:
    """The argument for the language model.

    Args:
        images: (rows, tokens, width), or None where `keys` are given.
        keys: What `image_keys` made of them before.
    """
    if keys is None:
        if images is None:
            raise ModelInputError(
                "a model with gated cross-attention needs pixel_values or image_keys in every call; `generate` hands "
                "the keys on by itself"
            )
        keys = image_keys(blocks, images)
    return {_ARGUMENT: Gating(blocks, keys)}


def image_keys(blocks: Any, images: Tensor) -> Tensor:
    """Keys and values of every block, (images, tokens, width) to (images, blocks, 2, heads, tokens, head width)."""
    return torch.stack([block.keys(images) for block in blocks], dim=1)


def check_rows(is_image: Tensor, images: int) -> None:
    """Raise ModelInputError unless each row, (rows, length) True at placeholders, holds one image's placeholder."""
    if len(is_image) != images or not bool((is_image.sum(dim=1) == 1).all()):
        raise ModelInputError(
            f"{images} images for {len(is_image)} rows with {int(is_image.sum())} placeholders; gated cross-attention "
            "needs one image and one placeholder in each row"
        )


def _look(number: int | None, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Before a decoder layer: run its block, and keep the argument from the layer's attention."""
    del layer
    told = kwargs.get(_ARGUMENT)
    if told is None:
        return None
    others = {name: value for name, value in kwargs.items() if name != _ARGUMENT}
    if number is None:
        return args, others
    hidden, *rest = args
    return (_looked(told, number, hidden, others.get("layout")), *rest), others


def _looked(told: Gating, number: int, hidden: Tensor, layout: Any) -> Tensor:
    """The block's output for rows, or for rows laid out as one sequence (see `shared_prefix`)."""
    block, keys = told.blocks[number], told.keys[:, number]
    if layout is None:
        found: Tensor = block(hidden, keys)
        return found
    rows = hidden[0][layout.place].view(len(keys), -1, hidden.shape[-1])  # in padding stands any token, unread
    found = block(rows, keys)
    return found.flatten(0, 1)[layout.order].unsqueeze(0)
