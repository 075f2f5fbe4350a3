"""How sure a greedy reply was, read off while it is generated."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import LogitsProcessor


class GreedyConfidence(LogitsProcessor):
    """Keeps the log-probability of the likeliest token of every step; changes no score.

    The reply's confidence is the geometric mean of these probabilities: uncalibrated, comparable within one model.
    """

    def __init__(self) -> None:
        self._steps: list[Tensor] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Called by `generate` at each step with scores of shape (replies, vocabulary)."""
        del input_ids
        self._steps.append(torch.log_softmax(scores.float(), dim=-1).amax(dim=-1).cpu())
        return scores

    def of_replies(self, lengths: list[int]) -> list[float]:
        """The confidence of each reply in (0, 1], given its number of generated tokens."""
        steps = torch.stack(self._steps, dim=1)  # (replies, steps)
        means = [float(steps[row, : max(length, 1)].mean()) for row, length in enumerate(lengths)]
        return [min(1.0, float(torch.tensor(mean).exp())) for mean in means]
