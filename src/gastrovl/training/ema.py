"""The weights of many steps to one running average of them, which is validated and kept in their place."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import TrainerCallback

from gastrovl.training.stages import open_tensors

FILE = "average.safetensors"  # in a saved state, beside the weights themselves


class AveragedWeights(TrainerCallback):
    """An exponential moving average of what a stage trains (Polyak and Juditsky 1992), after every optimiser step.

    The first steps count for more: after step t the average keeps min(decay, (1 + t) / (10 + t)) of itself, as
    TensorFlow does, or a short stage would end near where it began.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model, self.decay = model, decay
        self._average: dict[str, Tensor] | None = None  # until the first step, or a saved state is read

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Start from the weights as they are, unless a saved state was read."""
        del args, state, control
        self._started()

    @torch.no_grad()
    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Move the average towards the weights."""
        del args, control
        average, step = self._started(), state.global_step
        kept = min(self.decay, (1 + step) / (10 + step))
        for name, value in open_tensors(self.model).items():
            average[name] = average[name].to(value.device).lerp_(value, 1 - kept)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Within the context the model has the average; behind it, bit for bit, its own weights again."""
        own = {name: value.clone() for name, value in open_tensors(self.model).items()}
        self.apply()
        try:
            yield
        finally:
            fill(self.model, own)

    def apply(self) -> None:
        """Put the average into the model for good."""
        fill(self.model, self._started())

    def save(self, folder: Path) -> None:
        """Write the average into a saved state."""
        save_file({name: value.contiguous() for name, value in self._started().items()}, folder / FILE)

    def load(self, folder: Path) -> None:
        """Go on from a saved state."""
        self._average = load_file(folder / FILE)

    def _started(self) -> dict[str, Tensor]:
        if self._average is None:
            self._average = {name: value.clone() for name, value in open_tensors(self.model).items()}
        return self._average


@torch.no_grad()
def fill(model: nn.Module, values: dict[str, Tensor]) -> None:
    """Copy values into what a model trains, by name."""
    for name, place in open_tensors(model).items():
        place.copy_(values[name])
