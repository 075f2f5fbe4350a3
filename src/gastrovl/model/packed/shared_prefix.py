"""Attention of rows that hold several dialogues about one image, without the pairs and the padding nobody needs.

A row is its image and then its dialogues, each of which sees the image and itself. Under a mask over whole rows most
pairs are computed and thrown away, and every row is as long as the longest. Here the images of a batch stand first,
behind them its dialogues, sorted into groups of like length: within a group, attention is two small dense products.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AttentionInterface

from gastrovl.model.packed.flex import FLEX_NAME, FlexLayout, flex_layout
from gastrovl.model.packed.rows import block_mask

_ROWS = 8  # in a group at most: fewer would pad less, and take more calls
# Matrix products are compiled for each shape they meet: lengths are rounded up so that shapes come again.
_LENGTH_STEP = 4
_TOKENS_STEP = 64
# Positions of padded rows to laid out ones from which on groups were faster (docs/experiments.md): in float32, and in
# bfloat16, where PyTorch's masked attention on a CPU is slower.
_WORTH, _WORTH_MIXED = 1.15, 1.02
_NAME = "gastrovl_shared_prefix"


class Backend(StrEnum):
    """How the attention of packed rows is worked out.

    `groups`: dense products over rows and dialogues of like length. `flex`: all rows as one sequence without padding
    under a block-sparse mask, in a compiled kernel on a GPU. `mask`: padded rows under a dense mask, anywhere.
    """

    AUTO = "auto"
    GROUPS = "groups"
    FLEX = "flex"
    MASK = "mask"


@dataclass(frozen=True)
class SharedPrefix:
    """Where the tokens of (rows, length) stand in one long sequence without rows.

    Attributes:
        order: (tokens,), the place of each token in the flattened rows: all prefixes, all dialogues, some padding.
        place: (rows * length,), the inverse; undefined for padding that is left out.
        prefixes: How many rows, and of how many tokens the prefix of each.
        groups: Of each group of dialogues, in order: the first row, how many rows, one dialogue each, and of how many
            tokens.
    """

    order: Tensor
    place: Tensor
    prefixes: tuple[int, int]
    groups: tuple[tuple[int, int, int], ...]


def shared_prefix(segments: Tensor) -> SharedPrefix | None:
    """How to lay out rows; None where rows share prefixes of different length, or one has no dialogue.

    Args:
        segments: (rows, length); SHARED, then the k-th dialogue's k, then PADDING, each in one piece.
    """
    segment = segments.cpu().numpy()
    rows, length = segment.shape
    prefix = int((segment[0] == 0).sum())
    dialogues = []  # of each row, (length, start) from the longest on
    for row in segment:
        starts = np.flatnonzero(np.diff(row, prepend=0) != 0)
        starts = starts[row[starts] > 0]
        ends = np.append(starts[1:], (row >= 0).sum())
        if not len(starts) or starts[0] != prefix:
            return None
        dialogues.append(sorted(zip((ends - starts).tolist(), starts.tolist(), strict=True), reverse=True))
    like = sorted(range(rows), key=lambda row: (len(dialogues[row]), dialogues[row][0]), reverse=True)
    order = [(np.array(like)[:, None] * length + np.arange(prefix)).reshape(-1)]
    groups = []
    for first in range(0, rows, _ROWS):
        some = like[first : first + _ROWS]
        for rank in range(len(dialogues[some[0]])):
            members = [row for row in some if len(dialogues[row]) > rank]
            lengths, starts = np.array([dialogues[row][rank] for row in members]).T[..., None]
            longest = _round_up(int(lengths.max()), _LENGTH_STEP)
            offsets = np.minimum(np.arange(longest), lengths - 1)  # padding repeats the last token, unread
            order.append((np.array(members)[:, None] * length + starts + offsets).reshape(-1))
            groups.append((first, len(members), longest))
    tokens = sum(map(len, order))
    order.append(np.repeat(order[-1][-1:], _round_up(tokens, _TOKENS_STEP) - tokens))
    flat = np.concatenate(order)
    place = np.zeros(rows * length, dtype=np.int64)
    place[flat[::-1]] = np.arange(len(flat))[::-1]  # the first of repeated tokens is the one that is read
    return SharedPrefix(torch.from_numpy(flat), torch.from_numpy(place), (rows, prefix), tuple(groups))


def _round_up(number: int, step: int) -> int:
    return -(-number // step) * step


def supports(language_model: Any) -> bool:
    """Whether a language model takes its attention from outside and looks back without limit."""
    config = language_model.config
    is_plain = not any(getattr(config, name, None) for name in ("sliding_window", "attn_logit_softcapping"))
    return bool(getattr(language_model, "_supports_attention_backend", False)) and is_plain


def answering_states(
    language_model: Any,
    embedded: Tensor,
    position_ids: Tensor,
    segments: Tensor,
    is_read: Tensor,
    backend: Backend = Backend.AUTO,
    **told: Any,
) -> Tensor:
    """The last hidden states at the positions that are read, row by row, (positions, width).

    Args:
        embedded: (rows, length, width). position_ids, segments: (rows, length). is_read: (rows, length), bool.
        backend: How attention is worked out; all give the same states. AUTO takes `groups` on a CPU where model and
            rows allow it and padding would cost more than small products do, and `mask` elsewhere. `groups` and `flex`
            fall back to `mask` for a model that hands its attention to nobody or looks back only so far; `groups` also
            where the rows' prefixes differ in length.
    """
    is_free = backend is Backend.AUTO
    if is_free:
        backend = Backend.GROUPS if embedded.device.type == "cpu" else Backend.MASK
    layout: SharedPrefix | FlexLayout | None = None
    if backend is not Backend.MASK and supports(language_model):
        layout = shared_prefix(segments) if backend is Backend.GROUPS else flex_layout(segments)
    worth = _WORTH_MIXED if torch.is_autocast_enabled(embedded.device.type) else _WORTH
    if is_free and layout is not None and segments.numel() < worth * len(layout.order):
        layout = None  # rows of like length: one masked product is faster than many small ones
    if layout is None:
        states: Tensor = language_model(
            inputs_embeds=embedded,
            attention_mask=block_mask(segments),
            position_ids=position_ids,
            use_cache=False,
            **told,
        ).last_hidden_state
        return states[is_read]
    with attention_named(language_model.config, _NAME if isinstance(layout, SharedPrefix) else FLEX_NAME):
        states = language_model(
            inputs_embeds=embedded.flatten(0, 1)[layout.order].unsqueeze(0),
            position_ids=position_ids.flatten()[layout.order].unsqueeze(0),
            use_cache=False,
            layout=layout,
            **told,
        ).last_hidden_state[0]
    return states[layout.place[is_read.flatten()]]


@contextmanager
def attention_named(config: Any, name: str) -> Iterator[None]:
    """Within, the model's layers call the attention function registered under `name`."""
    before = config._attn_implementation
    config._attn_implementation = name
    try:
        yield
    finally:
        config._attn_implementation = before


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float,
    dropout: float = 0.0,
    layout: SharedPrefix,
    **others: Any,
) -> tuple[Tensor, None]:
    """One layer's attention over laid out tokens, (1, heads, tokens, head width) to (1, tokens, heads, head width)."""
    del module, attention_mask, others
    repeats = query.shape[1] // key.shape[1]
    if repeats > 1:
        key, value = key.repeat_interleave(repeats, dim=1), value.repeat_interleave(repeats, dim=1)
    shapes = (layout.prefixes, *((count, length) for _, count, length in layout.groups))
    rest = len(layout.order) - sum(count * length for count, length in shapes)
    queries, keys, values = (_split(part[0].transpose(0, 1), shapes, rest) for part in (query, key, value))
    found = [_causal(queries[0], keys[0], values[0], scaling, dropout)]
    for number, (first, count, _) in enumerate(layout.groups, start=1):
        seen, read = (torch.cat([part[0][first : first + count], part[number]], dim=2) for part in (keys, values))
        found.append(_causal(queries[number], seen, read, scaling, dropout))
    found.append(query.new_zeros(rest, *found[0].shape[1:]))
    return torch.cat(found).unsqueeze(0), None


def _split(tokens: Tensor, shapes: Sequence[tuple[int, int]], rest: int) -> list[Tensor]:
    """(tokens, heads, width) as one (rows, heads, length, width) for each (rows, length), without the last `rest`."""
    *parts, _ = torch.split(tokens, [*(rows * length for rows, length in shapes), rest])
    return [part.view(*shape, *part.shape[1:]).transpose(1, 2) for part, shape in zip(parts, shapes, strict=True)]


def _causal(query: Tensor, key: Tensor, value: Tensor, scaling: float, dropout: float) -> Tensor:
    """Attention of (rows, heads, queries, width) to keys of which the last `queries` are their own.

    Returns:
        (rows * queries, heads, width).
    """
    queries, keys = query.shape[2], key.shape[2]
    past = torch.ones(queries, keys, dtype=query.dtype, device=query.device).tril(keys - queries)
    scores = (query * scaling) @ key.transpose(2, 3) + past.log()
    weights = scores.softmax(dim=-1, dtype=torch.float32).to(query.dtype)
    return (nn.functional.dropout(weights, dropout) @ value).transpose(1, 2).flatten(0, 1)


AttentionInterface.register(_NAME, _attend)
