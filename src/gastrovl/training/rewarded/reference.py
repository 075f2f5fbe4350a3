"""The model as it was when a stage began, put back for a moment so that it can be asked."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from gastrovl.training.ema import fill
from gastrovl.training.stages import open_tensors


class Reference:
    """A copy of what the stage trains.

    Switching adapters off would give another model: the one before an earlier stage taught them. A resumed stage begins
    from the same weights before it reads its saved state, so the copy is in no saved state.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self._kept: dict[str, Tensor] = {name: value.clone() for name, value in open_tensors(model).items()}

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Within the block the model is the reference; behind it, bit for bit, itself again.

        Only before a forward pass with gradients: those hold on to the weights they were computed with.
        """
        own = {name: value.clone() for name, value in open_tensors(self.model).items()}
        fill(self.model, self._kept)
        try:
            yield
        finally:
            fill(self.model, own)
