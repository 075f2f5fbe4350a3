"""How sure a reply was, read off while it is generated."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from transformers import LogitsProcessor

from gastrovl.inference.decoding.tokens import likeliest

Chooser = Callable[[Tensor, Tensor], Tensor]  # (ids so far, scores of the next token) to changed scores


class ReplyConfidence(LogitsProcessor):
    """Keeps the log-probability of every chosen token, as the model gave it before `choosers` changed the scores.

    The reply's confidence is the geometric mean of these probabilities: uncalibrated, comparable within one model.
    """

    def __init__(self, choosers: Sequence[Chooser] = (), top: int = 0) -> None:
        self._choosers, self._top = choosers, top
        self._steps: list[Tensor] = []
        self._tops: list[list[list[tuple[int, float]]]] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Called by `generate` at each step with scores of shape (replies, vocabulary)."""
        changed = scores
        for chooser in self._choosers:
            changed = chooser(input_ids, changed)
        chosen = changed.argmax(dim=-1, keepdim=True)
        self._steps.append(torch.log_softmax(scores.float(), dim=-1).gather(1, chosen).squeeze(1).cpu())
        self._tops.append(likeliest(scores.float(), self._top))
        return changed

    def of_tokens(self, row: int, length: int) -> tuple[list[float], list[list[tuple[int, float]]]]:
        """Log-probabilities of the first tokens of a reply, and the `top` likeliest tokens at each place."""
        return [float(step[row]) for step in self._steps[:length]], [step[row] for step in self._tops[:length]]

    def of_replies(self, lengths: list[int]) -> list[float]:
        """The confidence of each reply in (0, 1], given its number of generated tokens."""
        steps = torch.stack(self._steps, dim=1)  # (replies, steps)
        means = [float(steps[row, : max(length, 1)].mean()) for row, length in enumerate(lengths)]
        return [min(1.0, float(torch.tensor(mean).exp())) for mean in means]
