"""Vectors of images and of their captions to a loss that draws each pair together and other pairs apart."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch import distributed as dist

ContrastiveKind = Literal["infonce", "sigmoid"]
_START: dict[ContrastiveKind, tuple[float, float]] = {  # scale and bias, as CLIP and SigLIP begin
    "infonce": (1 / 0.07, 0.0),
    "sigmoid": (10.0, -10.0),
}
_HIGHEST_SCALE = 100.0  # CLIP's limit; without one, a batch that is told apart perfectly drives the scale up for ever


class ContrastiveHead(nn.Module):
    """The learnt scale (one over the temperature) and bias of a contrastive loss; dropped after training.

    The bias belongs to the sigmoid loss; under a softmax it would change nothing.
    """

    def __init__(self) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.zeros(1))  # of one element each: FSDP takes no scalars
        self.bias = nn.Parameter(torch.zeros(1))
        self.kind: ContrastiveKind = "infonce"
        self.start("infonce")

    def start(self, kind: ContrastiveKind) -> None:
        """Set the loss and the values that it starts from, once per stage."""
        self.kind = kind
        scale, bias = _START[kind]
        with torch.no_grad():
            self.log_scale.fill_(math.log(scale))
            self.bias.fill_(bias)

    def forward(self, images: Tensor, texts: Tensor, caption_ids: Tensor) -> Tensor:
        """The loss of (pairs, width) image and text vectors against those of all processes, a scalar.

        The mean over the processes is the loss of all their pairs in one batch. No two pairs with the same caption
        count as wrong for each other: in endoscopy many images share one.

        Args:
            caption_ids: (pairs, length), the captions' tokens, 0 behind their ends.
        """
        everyone = gathered_rows(caption_ids)
        sizes, rank = _sizes(len(images), images.device)
        own = torch.arange(len(images), device=images.device) + sum(sizes[:rank])
        is_twin = _is_twin(_padded(caption_ids, everyone.shape[1]), everyone, own)
        with torch.no_grad():
            self.log_scale.clamp_(max=math.log(_HIGHEST_SCALE))
        with torch.autocast(images.device.type, enabled=False):  # a scaled cosine needs more than bfloat16's 8 bits
            images, texts = (nn.functional.normalize(vectors.float(), dim=-1) for vectors in (images, texts))
            by_image = self.log_scale.exp() * images @ gathered_rows(texts).T
            if self.kind == "sigmoid":
                losses = sigmoid_rows(by_image + self.bias, own, is_twin)
            else:
                by_text = self.log_scale.exp() * texts @ gathered_rows(images).T
                losses = (softmax_rows(by_image, own, is_twin) + softmax_rows(by_text, own, is_twin)) / 2
        return losses.sum() * len(sizes) / max(sum(sizes), 1)


def softmax_rows(logits: Tensor, own: Tensor, is_twin: Tensor) -> Tensor:
    """One direction of InfoNCE (CLIP, Radford et al. 2021), a loss for each row.

    Args:
        logits: (rows, candidates).
        own: (rows,), the right candidate of each row.
        is_twin: (rows, candidates), True where a candidate is neither right nor wrong.
    """
    return nn.functional.cross_entropy(logits.masked_fill(is_twin, -torch.inf), own, reduction="none")


def sigmoid_rows(logits: Tensor, own: Tensor, is_twin: Tensor) -> Tensor:
    """The sigmoid loss (SigLIP, Zhai et al. 2023, algorithm 1): each pair a yes or no, summed over a row's candidates.

    Arguments as in `softmax_rows`.
    """
    signs = -torch.ones_like(logits)
    signs[torch.arange(len(own), device=own.device), own] = 1.0
    return -nn.functional.logsigmoid(signs * logits).masked_fill(is_twin, 0.0).sum(dim=1)


def gathered_rows(rows: Tensor) -> Tensor:
    """The rows of all processes, in the order of their ranks, with gradients back to each; one process keeps its own.

    Args:
        rows: (some, width); both may differ from process to process, a narrower one is filled with 0 on the right.
    """
    if not _is_distributed():
        return rows
    width = torch.tensor(rows.shape[1], device=rows.device)
    dist.all_reduce(width, dist.ReduceOp.MAX)
    sizes, _ = _sizes(rows.shape[0], rows.device)
    gathered: Tensor = _Gather.apply(_padded(rows, int(width)), sizes)  # type: ignore[no-untyped-call]
    return gathered


class _Gather(torch.autograd.Function):
    """Rows of all processes; the gradient of a row is the sum of what every process says of it."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, sizes: list[int]) -> Tensor:
        ctx.sizes = sizes
        filled = rows.new_zeros(max(*sizes, 1), *rows.shape[1:])
        filled[: len(rows)] = rows
        parts = [torch.empty_like(filled) for _ in sizes]
        dist.all_gather(parts, filled)
        return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        gradient = gradients[0].contiguous()
        dist.all_reduce(gradient)
        return torch.split(gradient, ctx.sizes)[dist.get_rank()], None


def _is_distributed() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def _sizes(mine: int, device: torch.device) -> tuple[list[int], int]:
    """How many rows each process has, and which process this is."""
    if not _is_distributed():
        return [mine], 0
    counts = [torch.zeros((), dtype=torch.long, device=device) for _ in range(dist.get_world_size())]
    dist.all_gather(counts, torch.tensor(mine, device=device))
    return [int(count) for count in counts], dist.get_rank()


def _padded(rows: Tensor, width: int) -> Tensor:
    return nn.functional.pad(rows, (0, width - rows.shape[1]))


def _is_twin(mine: Tensor, everyone: Tensor, own: Tensor) -> Tensor:
    """(pairs, candidates), True where another pair has the very same caption."""
    is_twin = (mine.unsqueeze(1) == everyone.unsqueeze(0)).all(dim=-1)
    is_twin[torch.arange(len(own), device=own.device), own] = False
    return is_twin
