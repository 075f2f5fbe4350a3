"""The last hidden states of answer positions to the log-probability of each token said, with a gradient.

As in `answerloss`, all logits never exist at once: each piece is worked out again in the backward pass.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from gastrovl.model.packed.answerloss import CHUNK_BYTES, pieces_of


def token_logprobs(
    states: Tensor, head: Any, targets: Tensor, temperature: float = 1.0, *, chunk_bytes: int = CHUNK_BYTES
) -> Tensor:
    """The log-probability of each token, (answers,) float32.

    Args:
        states: Last hidden states of the positions that say a token, (answers, width).
        head: The output layer.
        targets: The tokens said, (answers,).
        temperature: Divides the logits, as sampling at it does.
        chunk_bytes: Bound on the float32 logits that exist at once; at least one position's exist.
    """

    def piece(some: Tensor, said: Tensor) -> Tensor:
        return -nn.functional.cross_entropy(head(some).float() / temperature, said, reduction="none")

    parts = pieces_of(len(targets), int(head.out_features), chunk_bytes)
    return torch.cat(
        [
            checkpoint(piece, states[part], targets[part], use_reentrant=False, preserve_rng_state=False)
            for part in parts
        ]
    )
