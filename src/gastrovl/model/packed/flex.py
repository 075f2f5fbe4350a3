"""All rows of a batch as one sequence without padding, attended by FlexAttention under a block-sparse mask.

The mask of FlexAttention (Dong et al. 2024) is a function of two places, compiled into the kernel; which blocks of 128
tokens have to be looked at follows from where rows begin, so that no tokens x tokens mask is ever made.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask, flex_attention
from transformers import AttentionInterface

from gastrovl.model.packed.rows import PADDING, SHARED, block_mask

FLEX_NAME = "gastrovl_flex"
_BLOCK = 128
_TRIAL_TOLERANCE = 2e-2  # of half precision, relative to the largest value


@dataclass(frozen=True)
class FlexLayout:
    """Where the tokens of (rows, length) stand in one long sequence, and who sees whom there.

    Attributes:
        order: (tokens,), the place of each token in the flattened rows; the last ones repeat a token, unread, so that
            the length is one of few.
        place: (rows * length,), the inverse; undefined for padding.
        mask: Over the sequence.
    """

    order: Tensor
    place: Tensor
    mask: BlockMask


def flex_layout(segments: Tensor) -> FlexLayout:
    """How to lay out rows.

    Args:
        segments: (rows, length); SHARED, then the k-th dialogue's k, then PADDING, each in one piece.
    """
    rows, length = segments.shape
    device = segments.device
    order = (segments.flatten() != PADDING).nonzero().squeeze(1)
    held = len(order)
    tokens = bucket(held)
    place = torch.zeros(rows * length, dtype=torch.long, device=device)
    place[order] = torch.arange(held, device=device)
    filler = torch.arange(tokens - held, device=device)
    row = torch.cat([order // length, -1 - filler])  # each filler token is a row of its own
    segment = torch.cat([segments.flatten()[order], torch.full_like(filler, SHARED)])
    order = torch.cat([order, order[-1:].expand(tokens - held)])

    def sees(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        del batch, head
        is_own = (segment[key] == SHARED) | (segment[key] == segment[query])
        return (row[key] == row[query]) & (key <= query) & is_own

    return FlexLayout(order, place, BlockMask.from_kv_blocks(*_blocks(row), BLOCK_SIZE=_BLOCK, mask_mod=sees))


def bucket(tokens: int) -> int:
    """`tokens` rounded up to one of at most four lengths an octave: a kernel is compiled for each length it meets."""
    step = max(_BLOCK, 2 ** (tokens.bit_length() - 3))
    return -(-tokens // step) * step


def _blocks(row: Tensor) -> tuple[Tensor, Tensor]:
    """Of each block of queries: how many blocks of keys it looks at, and which; (1, 1, blocks), (1, 1, blocks, blocks).

    A query looks back as far as its row begins, so a block of them as far as the row of its first one does.
    """
    count = len(row) // _BLOCK
    is_first = torch.cat([row.new_ones(1, dtype=torch.bool), row[1:] != row[:-1]])
    starts = torch.where(is_first, torch.arange(len(row), device=row.device), 0).cummax(dim=0).values
    block = torch.arange(count, device=row.device)
    first = starts[::_BLOCK] // _BLOCK
    number = (block - first + 1).to(torch.int32)
    which = (first[:, None] + block[None, :]).clamp(max=count - 1).to(torch.int32)
    return number[None, None], which[None, None]


@functools.cache
def _kernel(device_type: str) -> Any:
    kernel: Any = torch.compile(flex_attention) if device_type == "cuda" else flex_attention
    return kernel


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float,
    layout: FlexLayout,
    **others: Any,
) -> tuple[Tensor, None]:
    """One layer's attention over laid out tokens, (1, heads, tokens, head width) to (1, tokens, heads, head width)."""
    del module, attention_mask, others
    found = _kernel(query.device.type)(
        query, key, value, block_mask=layout.mask, scale=scaling, enable_gqa=query.shape[1] != key.shape[1]
    )
    return found.transpose(1, 2), None


def why_not_flex(config: Any, device: torch.device, dtype: torch.dtype) -> str | None:
    """Why FlexAttention cannot serve a language model here, None when it can: a trial against a dense mask decides.

    Args:
        config: The language model's. dtype: What its attention computes in.
    """
    if device.type != "cuda":
        return "FlexAttention has no backward pass on a CPU"
    if getattr(config, "attention_dropout", 0.0):
        return "FlexAttention knows no dropout"
    heads = config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    held = getattr(config, "num_key_value_heads", None) or heads
    segments = torch.tensor([[SHARED] * 90 + [1] * 20 + [2] * 25, [SHARED] * 90 + [1] * 30 + [PADDING] * 15])
    segments = segments.to(device)
    generator = torch.Generator(device).manual_seed(0)
    query, key, value = (
        torch.randn(*segments.shape, number, width, device=device, dtype=dtype, generator=generator)
        for number in (heads, held, held)
    )
    try:
        ours, expected = (attend(query, key, value, segments) for attend in (_tried, _expected))
    except Exception as error:  # whatever the compiler or the card says: training can do without
        return f"its trial failed ({type(error).__name__}: {str(error).splitlines()[0][:200]})"
    for found, true in zip(ours, expected, strict=True):
        if float((found - true).abs().max()) > _TRIAL_TOLERANCE * float(true.abs().max()):
            return "its trial gave other values than a dense mask"
    return None


def _tried(query: Tensor, key: Tensor, value: Tensor, segments: Tensor) -> list[Tensor]:
    layout = flex_layout(segments)
    parts = [part.flatten(0, 1)[layout.order].transpose(0, 1)[None] for part in (query, key, value)]
    return _outcome(
        lambda q, k, v: _attend(nn.Identity(), q, k, v, None, scaling=query.shape[-1] ** -0.5, layout=layout)[0][0][
            : int((segments != PADDING).sum())
        ],
        parts,
    )


def _expected(query: Tensor, key: Tensor, value: Tensor, segments: Tensor) -> list[Tensor]:
    repeats = query.shape[2] // key.shape[2]
    mask = block_mask(segments)

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        k, v = k.repeat_interleave(repeats, dim=1), v.repeat_interleave(repeats, dim=1)
        found = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return found.transpose(1, 2)[segments != PADDING]

    return _outcome(attend, [part.transpose(1, 2) for part in (query, key, value)])


def _outcome(attend: Callable[[Tensor, Tensor, Tensor], Tensor], parts: list[Tensor]) -> list[Tensor]:
    """What attention gives and the norm of its slope by each input, in float32."""
    parts = [part.detach().clone().requires_grad_(part.device.type == "cuda") for part in parts]
    found = attend(*parts)
    if not found.requires_grad:
        return [found.float()]
    slopes = torch.autograd.grad(found.float().square().sum(), parts)
    return [found.detach().float(), *(slope.float().norm()[None] for slope in slopes)]


AttentionInterface.register(FLEX_NAME, _attend)
