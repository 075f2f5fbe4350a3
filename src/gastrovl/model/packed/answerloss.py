"""The last hidden states of answer positions to their loss, a few positions at a time: all logits never exist at once.

With a vocabulary of 150,000, one position's logits and their gradient take over a megabyte. A plain head makes them for
every position of every row, prompts and image tokens too; here only answer positions get that far, in pieces. The
gradient of a piece follows from its softmax in closed form, so it is worked out at once and the logits are let go
(the fused linear cross-entropy of Liger Kernel, Hsu et al. 2024, without a kernel of its own).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from gastrovl.core.errors import ModelInputError

CHUNK_BYTES = 64 * 2**20  # of float32 logits that exist at once


@dataclass(frozen=True)
class SoftTargets:
    """Answers whose right token is a bell over neighbouring tokens, worked out a piece at a time.

    Attributes:
        rows: Which answers, ascending, (soft,).
        middles, widths: Mean and standard deviation of each bell, in tokens from `first` on, (soft, 1).
        first, count: The ids that a bell lies on.
    """

    rows: Tensor
    middles: Tensor
    widths: Tensor
    first: int
    count: int

    @property
    def ids(self) -> slice:
        return slice(self.first, self.first + self.count)

    def within(self, part: slice) -> tuple[Tensor, Tensor]:
        """Of the answers `part`: which of them are soft, counted from its start, (k,), and their shares, (k, count)."""
        low, high = torch.searchsorted(self.rows, self.rows.new_tensor([part.start, part.stop])).tolist()
        steps = torch.arange(self.count, device=self.middles.device) - self.middles[low:high]
        return self.rows[low:high] - part.start, (-0.5 * (steps / self.widths[low:high]) ** 2).softmax(dim=1)


def answer_loss(
    states: Tensor,
    head: nn.Module,
    targets: Tensor,
    weights: Tensor | None = None,
    divisor: Tensor | float | None = None,
    *,
    soft: SoftTargets | None = None,
    chunk_bytes: int = CHUNK_BYTES,
) -> Tensor:
    """Cross-entropy of answer tokens: weighted sum over `divisor`, or over the weights' own sum when None.

    Args:
        states: Last hidden states of the positions that say an answer token, (answers, width).
        head: The output layer. A plain linear one, tied or not, is differentiated in closed form; any other (adapters
            on it, quantised, sharded by hooks) runs as it is and once more in the backward pass.
        targets: The tokens to be said, (answers,).
        weights: Of each token, (answers,); 1 when None.
        soft: Which answers are compared with a bell over tokens, in the place of their target.
        chunk_bytes: Bound on the float32 logits that exist at once; at least one position's exist.

    Returns:
        A scalar, float32.

    Raises:
        ModelInputError: There is no answer position at all (a silent NaN otherwise).
    """
    if targets.numel() == 0:
        raise ModelInputError(
            "no position of the batch is marked as answer, so there is nothing to learn from; the chat template lacks "
            "generation marks, or every dialogue was cut before its answer (raise max_length)"
        )
    scale = torch.ones_like(targets, dtype=torch.float32) if weights is None else weights.float()
    scale = scale / (scale.sum() if divisor is None else divisor)
    if _is_plain(head):
        function: Any = _LinearCrossEntropy
        loss: Tensor = function.apply(states, head.weight, head.bias, targets, scale, soft, chunk_bytes)
        return loss
    pieces = [
        checkpoint(
            _piece_loss,
            head,
            states[part],
            targets[part],
            scale[part],
            soft.within(part) if soft else None,
            soft.ids if soft else None,
            use_reentrant=False,
        )
        for part in pieces_of(len(targets), _vocabulary(head), chunk_bytes)
    ]
    return torch.stack(pieces).sum()


@torch.no_grad()
def answer_scores(
    states: Tensor, head: nn.Module, targets: Tensor, *, chunk_bytes: int = CHUNK_BYTES
) -> tuple[Tensor, Tensor]:
    """The loss of each answer token, (answers,) float32, and the token that greedy decoding would say, (answers,)."""
    losses, guesses = [], []
    for part in pieces_of(len(targets), _vocabulary(head), chunk_bytes):
        logits = head(states[part]).float()
        losses.append(nn.functional.cross_entropy(logits, targets[part], reduction="none"))
        guesses.append(logits.argmax(dim=-1))
    return torch.cat(losses), torch.cat(guesses)


def _is_plain(head: nn.Module) -> bool:
    """Whether the head is nothing but a matrix that lies here whole."""
    is_hooked = bool(head._forward_hooks or head._forward_pre_hooks or hasattr(head.weight, "ds_id"))
    return type(head) is nn.Linear and not is_hooked


def _vocabulary(head: Any) -> int:
    return int(head.out_features)


def pieces_of(answers: int, vocabulary: int, chunk_bytes: int) -> Iterator[slice]:
    """Slices of equal length, the last one apart, whose float32 logits fit into `chunk_bytes`."""
    most = max(1, chunk_bytes // (4 * vocabulary))
    count = -(-answers // most)
    length = -(-answers // count)
    for start in range(0, answers, length):
        yield slice(start, min(start + length, answers))


def _piece_loss(
    head: nn.Module,
    states: Tensor,
    targets: Tensor,
    scale: Tensor,
    soft: tuple[Tensor, Tensor] | None,
    ids: slice | None,
) -> Tensor:
    logits = head(states).float()
    losses = nn.functional.cross_entropy(logits, targets, reduction="none")
    if soft is not None:
        rows, shares = soft
        bells = logits[rows].logsumexp(dim=1) - (logits[rows][:, ids] * shares).sum(dim=1)
        losses = losses.index_put((rows,), bells)
    return (losses * scale).sum()


class _LinearCrossEntropy(torch.autograd.Function):
    """sum(scale * cross-entropy(states @ weight.T + bias)), with gradients that are made piece by piece."""

    @staticmethod
    def forward(
        ctx: Any,
        states: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        scale: Tensor,
        soft: SoftTargets | None,
        chunk_bytes: int,
    ) -> Tensor:
        wants_states, wants_weight, wants_bias = ctx.needs_input_grad[:3]
        by_states = torch.empty_like(states) if wants_states else None
        by_weight = torch.zeros_like(weight) if wants_weight else None
        by_bias = torch.zeros_like(bias) if bias is not None and wants_bias else None
        total = torch.zeros((), dtype=torch.float32, device=states.device)
        for part in pieces_of(len(targets), len(weight), chunk_bytes):
            logits = nn.functional.linear(states[part], weight, bias)  # in the dtype autocast wants
            dtype = logits.dtype
            logits = logits.float()
            place = targets[part].unsqueeze(1)
            norm = logits.logsumexp(dim=1, keepdim=True)
            said, taken = logits.gather(1, place), torch.full_like(norm, -1.0)
            if soft is not None:
                rows, shares = soft.within(part)
                said[rows] = (logits[rows, soft.ids] * shares).sum(dim=1, keepdim=True)
                taken[rows] = 0.0
            total += ((norm - said).squeeze(1) * scale[part]).sum()
            if not (wants_states or wants_weight or wants_bias):
                continue
            slope = logits.sub_(norm).exp_()  # softmax
            slope.scatter_add_(1, place, taken)
            if soft is not None:
                slope[rows, soft.ids] -= shares
            slope.mul_(scale[part].unsqueeze(1))
            if by_bias is not None:
                by_bias += slope.sum(dim=0).to(by_bias.dtype)
            slope = slope.to(dtype)
            if by_states is not None:
                by_states[part] = (slope @ weight.to(dtype)).to(states.dtype)
            if by_weight is not None and dtype == weight.dtype:
                by_weight.addmm_(slope.T, states[part].to(dtype))
            elif by_weight is not None:
                by_weight += (slope.T @ states[part].to(dtype)).to(weight.dtype)
        ctx.gradients = (by_states, by_weight, by_bias)
        return total

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.gradients is None:
            raise RuntimeError("the gradient of an answer loss is given away once; run the forward pass again")
        given = [None if part is None else part.mul_(slope.to(part.dtype)) for part in ctx.gradients]
        ctx.gradients = None  # scaled in place: a copy of the head's gradient would be as large as the head
        return (*given, None, None, None, None)
