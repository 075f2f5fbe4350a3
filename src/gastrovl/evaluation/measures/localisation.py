"""Box sets, true and predicted, to overlap scores where the object is present and rejection where it is absent.

A box is compared at the resolution it is asked for: the truth passes through the text codec (bins of 1/999 of a side)
as the reply does, so the reply that repeats the true text scores exactly 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from gastrovl.core import geometry
from gastrovl.core.boxtext import BINS, from_bin
from gastrovl.core.pairing import best_pairs
from gastrovl.core.types import Box
from gastrovl.evaluation.measures.corners import areas, centre_hits, corners, gious, ious
from gastrovl.evaluation.measures.matching import bottleneck, count_pairs, overlaps
from gastrovl.evaluation.measures.measure import Flags, Floats, Measure, first_over_second, mean_measure, ratio

Boxes = tuple[Box, ...]
THRESHOLDS = (0.3, 0.5, 0.75)
# Shares of the image from which a true box is medium, and large: as a square, a quarter and a half of the side. COCO's
# pixel sizes, 0.3 % and 3 % of its images, would call 93 of 100 lesions large: of the 872 polyps of HyperKvasir and the
# 313 places of EDD2020 that stand alone in their frame, 21 % and 13 % are small by ours, 30 % and 54 % large.
SIZES = {"small": (0.0, 1 / 16), "medium": (1 / 16, 1 / 4), "large": (1 / 4, np.inf)}
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
        giou: As `iou` with the generalised IoU, each box in surplus or missing counting -1; in [-1, 1].
        hull_iou: IoU of the smallest box around all true boxes with the one around all predicted boxes.
        largest_iou: IoU of the largest true with the largest predicted box (ties: the leftmost, then the topmost).
        n_true, n_predicted, n_found: Boxes; `n_found` is how many can be paired at IoU >= 0.5.
    """

    iou: float
    worst: float
    centre_hit: float
    giou: float
    hull_iou: float
    largest_iou: float
    n_true: int
    n_predicted: int
    n_found: int


_COLUMNS = tuple(field.name for field in fields(Overlap))


def as_asked(boxes: Sequence[Box]) -> Boxes:
    """True boxes at the resolution of the answer text and in its order, as if it had been written and read."""
    ordered = boxes if len(boxes) < 2 else sorted(boxes, key=lambda box: (-box.area, *box.xyxy))
    return tuple(_snapped(box) for box in ordered)


def _snapped(box: Box) -> Box:
    x0, x1 = geometry.on_grid(box.x0, box.x1, BINS - 1)
    y0, y1 = geometry.on_grid(box.y0, box.y1, BINS - 1)
    return Box(x0=from_bin(x0), y0=from_bin(y0), x1=from_bin(x1), y1=from_bin(y1))


def overlap(true: Sequence[Box], predicted: Sequence[Box]) -> Overlap:
    """Compare the true boxes (at least one) of a conversation with the predicted ones (none if absent or unread)."""
    if not predicted:
        return Overlap(0.0, 0.0, 0.0, -1.0, 0.0, 0.0, len(true), 0, 0)
    table = overlaps(true, predicted)
    surplus = max(len(true), len(predicted))
    generalised = [[geometry.giou(a, b) for b in predicted] for a in true]
    centres = [[float(_holds_centre(a, b)) for b in predicted] for a in true]
    n_alone = surplus - min(len(true), len(predicted))
    return Overlap(
        iou=sum(table[row][column] for row, column in best_pairs(table)) / surplus,
        worst=bottleneck(table),
        centre_hit=count_pairs(centres, 1.0) / surplus,
        giou=(sum(generalised[row][column] for row, column in best_pairs(generalised)) - n_alone) / surplus,
        hull_iou=geometry.iou(geometry.hull(tuple(true)), geometry.hull(tuple(predicted))),
        largest_iou=geometry.iou(_largest(true), _largest(predicted)),
        n_true=len(true),
        n_predicted=len(predicted),
        n_found=count_pairs(table, 0.5),
    )


def outcomes(true: Sequence[Boxes], predicted: Sequence[Boxes | None]) -> dict[str, Floats]:
    """The fields of `Overlap` by name, (conversations,) each; zeros where the object is absent.

    One true and one predicted box, which is nearly every question, are compared for all conversations at once.
    """
    if len(true) != len(predicted):
        raise ValueError(f"{len(true)} truths and {len(predicted)} replies; expected as many of each")
    n_true = np.fromiter((len(boxes) for boxes in true), dtype=np.int64, count=len(true))
    n_given = np.fromiter((len(boxes or ()) for boxes in predicted), dtype=np.int64, count=len(true))
    rows = np.zeros((len(true), len(_COLUMNS)))
    is_one = (n_true == 1) & (n_given == 1)
    singles = [(a[0], b[0]) for a, b in zip(true, predicted, strict=True) if b and len(a) == len(b) == 1]
    rows[is_one] = _one_to_one([a for a, _ in singles], [b for _, b in singles])
    for index in np.flatnonzero((n_true > 0) & ~is_one).tolist():
        one = overlap(true[index], predicted[index] or ())
        rows[index] = [getattr(one, name) for name in _COLUMNS]
    return dict(zip(_COLUMNS, rows.T, strict=True))


def _one_to_one(true: Sequence[Box], predicted: Sequence[Box]) -> Floats:
    """`overlap` of one box each, (conversations, fields)."""
    a, b = corners(true), corners(predicted)
    found, ones = ious(a, b), np.ones(len(true))
    return np.stack([found, found, centre_hits(a, b), gious(a, b), found, found, ones, ones, found >= 0.5], axis=1)


def measures(true: Sequence[Boxes], predicted: Sequence[Boxes | None]) -> list[Measure]:
    """All scores of REC; `true` is empty where the object is absent, `predicted` None where the reply was not read.

    Present objects only:
    acc@t: share of conversations with as many predicted as true boxes and every one of them paired at IoU >= t. For one
        true box this is the usual share of samples with IoU >= t, one answer allowed.
    acc@0.5_single: acc@0.5 over the conversations with exactly one true box, comparable across datasets and papers.
    acc@0.5_hull: IoU >= 0.5 of the hull of all true boxes with the hull of all predicted ones, as in ColonINST
        and He et al. 2025. acc@0.5_largest: the same of the largest box of each.
    box_recall@0.5, box_f1@0.5: over boxes instead of conversations.
    mean_iou, giou, centre_hit: means over conversations, see `Overlap`; a missing or surplus box counts 0, or -1 in
        giou, whose range is [-1, 1]: a box that misses by little earns more than one that misses by far.
    acc@0.5_small .. _large, mean_iou_small .. _large: conversations with exactly one true box, by its size (`SIZES`);
        sizes that do not occur are left out.
    Absent and present objects, apart, so that neither "always there" nor "never there" can win:
    presence_recall: share of questions about a present object answered with a box.
    absence_rejection: share of questions about an absent object answered "absent".
    presence_balanced: mean of the two; 0.5 is what either constant answer earns.
    """
    found = outcomes(true, predicted)
    is_present = found["n_true"] > 0
    is_single = found["n_true"] == 1
    said_there = np.array([bool(boxes) for boxes in predicted], dtype=np.bool_)
    said_absent = np.array([boxes == () for boxes in predicted], dtype=np.bool_)
    is_hit = found["worst"] >= 0.5
    return [
        *(mean_measure(f"acc@{t:g}", found["worst"] >= t, is_present, _NO_PRESENT) for t in THRESHOLDS),
        mean_measure("acc@0.5_single", is_hit, is_single, _NO_SINGLE),
        mean_measure("acc@0.5_hull", found["hull_iou"] >= 0.5, is_present, _NO_PRESENT),
        mean_measure("acc@0.5_largest", found["largest_iou"] >= 0.5, is_present, _NO_PRESENT),
        *(mean_measure(name, found[key], is_present, _NO_PRESENT) for name, key in _MEANS),
        *_size_measures(true, is_single, is_hit, found["iou"]),
        *_box_measures(found, is_present),
        *_presence_measures(said_there, said_absent, is_present),
    ]


_MEANS = (("mean_iou", "iou"), ("giou", "giou"), ("centre_hit", "centre_hit"))


def curve(true: Sequence[Boxes], predicted: Sequence[Boxes | None], thresholds: Floats) -> Floats | None:
    """acc@t of the questions about present objects at each threshold, None when there is none."""
    found = outcomes(true, predicted)
    worst = np.sort(found["worst"][found["n_true"] > 0])
    if not len(worst):
        return None
    shares: Floats = (len(worst) - np.searchsorted(worst, thresholds, side="left")) / len(worst)
    return shares


def _size_measures(true: Sequence[Boxes], is_single: Flags, is_hit: Flags, iou: Floats) -> list[Measure]:
    share = np.zeros(len(true))
    share[is_single] = areas(corners([boxes[0] for boxes in true if len(boxes) == 1]))
    of_size = {name: is_single & (low <= share) & (share < high) for name, (low, high) in SIZES.items()}
    return [
        mean_measure(f"{metric}_{name}", values, rows, f"no question about a single {name} object")
        for metric, values in (("acc@0.5", is_hit), ("mean_iou", iou))
        for name, rows in of_size.items()
        if rows.any()
    ]


def _box_measures(outcome: dict[str, Floats], is_present: Flags) -> list[Measure]:
    found, true, predicted = outcome["n_found"], outcome["n_true"], outcome["n_predicted"]
    recall, f1 = np.stack([found, true], axis=1), np.stack([2 * found, true + predicted], axis=1)
    return [
        Measure("box_recall@0.5", recall, first_over_second, is_present, _NO_PRESENT),
        Measure("box_f1@0.5", f1, first_over_second, is_present, _NO_PRESENT),
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


def _largest(boxes: Sequence[Box]) -> Box:
    return min(boxes, key=lambda box: (-box.area, *box.xyxy))
