"""What the tokens of a packed row may see of each other: the image before all, a dialogue itself, padding nothing."""

from __future__ import annotations

import torch
from torch import Tensor

PADDING = -1  # segment of positions that hold nothing
SHARED = 0  # segment of a row's image and what stands before it; its dialogues are 1, 2, ...


def block_mask(segments: Tensor) -> Tensor:
    """Where each position may look: itself and earlier positions of its own dialogue or of the shared prefix.

    Args:
        segments: (rows, length); SHARED, then the k-th dialogue's k, then PADDING.

    Returns:
        (rows, 1, length, length), True where allowed. Padding looks at itself only, so that no row is empty.
    """
    length = segments.shape[1]
    queries, keys = segments.unsqueeze(2), segments.unsqueeze(1)
    earlier = torch.ones(length, length, dtype=torch.bool, device=segments.device).tril()
    allowed = earlier & ((keys == queries) | (keys == SHARED)) & (keys != PADDING) & (queries != PADDING)
    return (allowed | torch.eye(length, dtype=torch.bool, device=segments.device)).unsqueeze(1)
