"""A reply in words, and the boxes that are true, to what the reply is worth; a group's worths to its advantages."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from gastrovl.core import boxtext, geometry
from gastrovl.core.errors import BoxTextError
from gastrovl.core.pairing import best_pairs
from gastrovl.core.types import Box
from gastrovl.training.config import RewardConfig

_SAME = 1e-9  # rewards of a group that differ by no more are equal


@dataclass(frozen=True)
class Worth:
    """What one reply is worth.

    Attributes:
        reward: In [-penalty, 1 + parse].
        iou: Mean IoU over boxes as evaluation counts it, 0 for a reply without boxes; None where the object is absent.
        is_read: Whether the reply was boxes or the word for none.
    """

    reward: float
    iou: float | None
    is_read: bool


def worth(true: Sequence[Box], reply: str | None, config: RewardConfig) -> Worth:
    """What a reply to "where is ...?" is worth.

    | question | reply | reward |
    |---|---|---|
    | any | cannot be read, or was cut off | -penalty |
    | present | "absent" | parse - penalty |
    | present | boxes | parse + overlap ** sharpness |
    | absent | "absent" | parse + 1 |
    | absent | boxes | parse - penalty |

    The overlap is (1 + GIoU) / 2, in [0, 1] (Rezatofighi et al., CVPR 2019), of the best one-to-one pairing, and each
    box in surplus or missing counts 0: evaluation's `giou`, moved. So a box that misses by little earns more than one
    that misses by far, where the IoU of both is 0.

    Args:
        true: As the source has them; compared at the resolution of the answer text, as in evaluation.
        reply: In the form of datasets; None when it did not end.
    """
    nothing = 0.0 if true else None  # the IoU of a reply without boxes
    try:
        said = None if reply is None else boxtext.decode_boxes(reply)
    except BoxTextError:
        said = None
    if said is None:
        return Worth(-config.penalty, nothing, is_read=False)
    if bool(said) != bool(true):
        return Worth(config.parse - config.penalty, nothing, is_read=True)
    if not true:
        return Worth(config.parse + 1.0, None, is_read=True)
    rounded = boxtext.decode_boxes(boxtext.encode_boxes(true))
    overlap, iou = _overlaps(rounded, said)
    return Worth(config.parse + overlap**config.sharpness, iou, is_read=True)


def _overlaps(true: Sequence[Box], said: Sequence[Box]) -> tuple[float, float]:
    """Moved GIoU and IoU of the best pairings, over the larger number of boxes."""
    most = max(len(true), len(said))
    found = []
    for measure in (_moved_giou, geometry.iou):
        table = [[measure(a, b) for b in said] for a in true]
        found.append(math.fsum(table[row][column] for row, column in best_pairs(table)) / most)
    return found[0], found[1]


def _moved_giou(a: Box, b: Box) -> float:
    return (1.0 + geometry.giou(a, b)) / 2.0


def is_tied(rewards: Sequence[float]) -> bool:
    """Whether all replies of a group are worth the same, so that none of them can be preferred."""
    return max(rewards) - min(rewards) <= _SAME


def advantages(rewards: Sequence[float]) -> list[float]:
    """By how much each reply of a group is worth more than their mean; exactly 0 in a tied group.

    The mean of a group is the baseline (GRPO, Shao et al. 2024, arXiv:2402.03300). The difference is not divided by the
    group's standard deviation (Dr. GRPO, Liu et al. 2025, arXiv:2503.20783): boxes earn on a continuous scale, and
    where all replies lie within a hundredth of each other, that division would make last digits as important as finding
    the object.
    """
    if is_tied(rewards):
        return [0.0] * len(rewards)
    mean = math.fsum(rewards) / len(rewards)
    return [reward - mean for reward in rewards]
