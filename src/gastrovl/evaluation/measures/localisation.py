"""Box sets, true and predicted, to overlap scores where the object is present and rejection where it is absent.

A box is compared at the resolution it is asked for: the truth passes through the text codec (bins of 1/999 of a side)
as the reply does, so the reply that repeats the true text scores exactly 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gastrovl.core.boxtext import decode_boxes, encode_boxes
from gastrovl.core.types import Box
from gastrovl.evaluation.measures.matching import best_pairs, bottleneck, count_pairs, overlaps
from gastrovl.evaluation.measures.measure import Flags, Floats, Measure, first_over_second, mean_measure, ratio

Boxes = tuple[Box, ...]
THRESHOLDS = (0.3, 0.5, 0.75)
_NO_PRESENT = "no question about an object that is present"
_NO_ABSENT = "no question about an object that is absent"
_NO_SINGLE = "no question about an object that is present exactly once"


@dataclass(frozen=True)
class Overlap:
    """One conversation about a present object.

    Attributes:
        iou: Summed IoU of the best one-to-one pairing over max(number of true, number of predicted boxes).
        worst: The greatest t at which every box, true and predicted, is paired at IoU >= t; 0 if their numbers differ.
        centre_hit: Share (same denominator as `iou`) of pairs with the predicted centre inside the true box.
        n_true, n_predicted, n_found: Boxes; `n_found` is how many can be paired at IoU >= 0.5.
    """

    iou: float
    worst: float
    centre_hit: float
    n_true: int
    n_predicted: int
    n_found: int


def as_asked(boxes: Sequence[Box]) -> Boxes:
    """True boxes at the resolution of the answer text."""
    return decode_boxes(encode_boxes(boxes))


def overlap(true: Sequence[Box], predicted: Sequence[Box]) -> Overlap:
    """Compare the true boxes (at least one) of a conversation with the predicted ones (none if absent or unread)."""
    if not predicted:
        return Overlap(0.0, 0.0, 0.0, len(true), 0, 0)
    table = overlaps(true, predicted)
    if len(true) == 1 and len(predicted) == 1:
        only = table[0][0]
        return Overlap(only, only, float(_holds_centre(true[0], predicted[0])), 1, 1, int(only >= 0.5))
    surplus = max(len(true), len(predicted))
    centres = [[float(_holds_centre(a, b)) for b in predicted] for a in true]
    return Overlap(
        iou=sum(table[row][column] for row, column in best_pairs(table)) / surplus,
        worst=bottleneck(table),
        centre_hit=count_pairs(centres, 1.0) / surplus,
        n_true=len(true),
        n_predicted=len(predicted),
        n_found=count_pairs(table, 0.5),
    )


def measures(true: Sequence[Boxes], predicted: Sequence[Boxes | None]) -> list[Measure]:
    """All scores of REC; `true` is empty where the object is absent, `predicted` None where the reply was not read.

    Present objects only:
    acc@t: share of conversations with as many predicted as true boxes and every one of them paired at IoU >= t. For one
        true box this is the usual share of samples with IoU >= t, one answer allowed.
    acc@0.5_single: acc@0.5 over the conversations with exactly one true box, comparable across datasets and papers.
    box_recall@0.5, box_f1@0.5: over boxes instead of conversations.
    mean_iou, centre_hit: means over conversations, see `Overlap`; a missing or surplus box counts as zero.
    Absent and present objects, apart, so that neither "always there" nor "never there" can win:
    presence_recall: share of questions about a present object answered with a box.
    absence_rejection: share of questions about an absent object answered "absent".
    presence_balanced: mean of the two; 0.5 is what either constant answer earns.
    """
    is_present = np.array([bool(boxes) for boxes in true], dtype=np.bool_)
    is_single = np.array([len(boxes) == 1 for boxes in true], dtype=np.bool_)
    found = _outcomes(true, predicted)
    iou, worst, centre = found[:, 0], found[:, 1], found[:, 2]
    said_there = np.array([bool(boxes) for boxes in predicted], dtype=np.bool_)
    said_absent = np.array([boxes == () for boxes in predicted], dtype=np.bool_)
    return [
        *(mean_measure(f"acc@{t:g}", worst >= t, is_present, _NO_PRESENT) for t in THRESHOLDS),
        mean_measure("acc@0.5_single", worst >= 0.5, is_single, _NO_SINGLE),
        mean_measure("mean_iou", iou, is_present, _NO_PRESENT),
        mean_measure("centre_hit", centre, is_present, _NO_PRESENT),
        *_box_measures(found[:, 3:], is_present),
        *_presence_measures(said_there, said_absent, is_present),
    ]


def curve(true: Sequence[Boxes], predicted: Sequence[Boxes | None], thresholds: Floats) -> Floats | None:
    """acc@t of the questions about present objects at each threshold, None when there is none."""
    pairs = [(a, b or ()) for a, b in zip(true, predicted, strict=True) if a]
    if not pairs:
        return None
    worst = np.array([overlap(a, b).worst for a, b in pairs])
    shares: Floats = (worst[None, :] >= thresholds[:, None]).mean(axis=1)
    return shares


def _outcomes(true: Sequence[Boxes], predicted: Sequence[Boxes | None]) -> NDArray[np.float64]:
    """IoU, worst, centre hit, found, true and predicted boxes per conversation; zeros where the object is absent."""
    rows = np.zeros((len(true), 6))
    for index, (boxes, reply) in enumerate(zip(true, predicted, strict=True)):
        if boxes:
            one = overlap(boxes, reply or ())
            rows[index] = (one.iou, one.worst, one.centre_hit, one.n_found, one.n_true, one.n_predicted)
    return rows


def _box_measures(counts: Floats, is_present: Flags) -> list[Measure]:
    found, true, predicted = counts[:, 0], counts[:, 1], counts[:, 2]
    return [
        Measure("box_recall@0.5", np.stack([found, true], axis=1), first_over_second, is_present, _NO_PRESENT),
        Measure(
            "box_f1@0.5", np.stack([2 * found, true + predicted], axis=1), first_over_second, is_present, _NO_PRESENT
        ),
    ]


def _presence_measures(said_there: Flags, said_absent: Flags, is_present: Flags) -> list[Measure]:
    both = np.stack([said_there & is_present, is_present, said_absent & ~is_present, ~is_present], axis=1)
    everything = np.ones(len(is_present), dtype=np.bool_)
    return [
        mean_measure("presence_recall", said_there, is_present, _NO_PRESENT),
        mean_measure("absence_rejection", said_absent, ~is_present, _NO_ABSENT),
        Measure(
            "presence_balanced",
            both.astype(np.float64),
            _balanced,
            everything,
            "needs questions about present and about absent objects",
        ),
    ]


def _balanced(sums: Floats) -> Floats:
    mean: Floats = (ratio(sums[:, 0], sums[:, 1]) + ratio(sums[:, 2], sums[:, 3])) / 2
    return mean


def _holds_centre(true: Box, predicted: Box) -> bool:
    x, y = (predicted.x0 + predicted.x1) / 2, (predicted.y0 + predicted.y1) / 2
    return true.x0 <= x <= true.x1 and true.y0 <= y <= true.y1
