"""What a frozen tower says of images that never change: computed once before a stage, kept in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gastrovl.training.dataset import ImageStore

_BATCH = 64


@torch.no_grad()
def tower_features(
    model: Any, images: ImageStore, paths: Sequence[str], precision: AbstractContextManager[Any]
) -> dict[str, Tensor]:
    """The tower's features of each image, (grid cells, width), on the CPU and in the precision the tower computes in.

    Args:
        model: A GastroVLForConditionalGeneration; it is put in evaluation mode.
        precision: The context the stage computes in (automatic mixed precision or none), so that the features are those
            that the stage would compute itself.
    """
    model.eval()
    device = next(model.parameters()).device
    found: dict[str, Tensor] = {}
    with precision:
        for batch in _batches(paths):
            squares = np.stack([images.square(path) for path in batch])
            features = model.model.tower_features(images.processor.pixels(squares).to(device))
            found.update(zip(batch, features.cpu(), strict=True))
    return found


def _batches(paths: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(paths), _BATCH):
        yield paths[start : start + _BATCH]
