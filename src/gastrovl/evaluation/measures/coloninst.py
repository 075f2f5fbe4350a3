"""Texts in the form of ColonINST to the scores its published evaluator gives, flaws included: for comparison only.

What is known of that evaluator (of ColonGPT; its results are the ones quoted for it) and how ours differs:

- CLS, REG: lower-cased texts must be equal, so a space or a full stop more is wrong. Ours reads a reply by a grammar
  in which synonyms count.
- CLS, REG: one share over all records. Ours also scores by dataset, as unweighted mean, balanced, with intervals.
- Two labels in one image are two records, each with one right label. Ours compares sets of labels.
- REC: several boxes of a label are one hull. Ours pairs them one to one, and has `acc@0.5_hull` beside it.
- REC: whole pixels of the original image, where a side is last - first + 1 pixels. Ours: fractions, continuous areas.
- REC: a reply without four integers has IoU 0 and is not counted apart. Ours counts it, with the reason.
- REC: the number of hits is divided by four times the number of records. Ours is a share of the true boxes.

The fourfold division reads like a mistake for the four numbers of a box: a perfect model earns 0.25. We do not have its
code; that a hit means IoU >= 0.5, that a reply with more than four integers is as good as one with none, and that the
corners are taken as they stand, are our reading. Nothing here is part of a report unless somebody asks for it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from gastrovl.core import geometry
from gastrovl.core.boxtext import encode_coloninst
from gastrovl.core.errors import PredictionError
from gastrovl.core.types import Box, Task
from gastrovl.evaluation.measures.measure import Measure, first_over_second, mean_measure

ACCURACY, MEAN_IOU, RECALL = "coloninst_accuracy", "coloninst_mean_iou", "coloninst_recall"
TASKS = (Task.CLS, Task.REC, Task.REG)
PixelBox = tuple[int, int, int, int]
_HIT = 0.5
_INTEGER = re.compile(r"\d+", re.ASCII)
_MAX_DIGITS = 9  # no image is wider; int() refuses thousands of digits
_NOTHING = "no conversation to score"


def coloninst_compatible(task: Task, true: Sequence[str], replies: Sequence[str]) -> list[Measure]:
    """The predecessor's scores of one task, see the top of this module.

    CLS, REG: coloninst_accuracy. REC: coloninst_mean_iou, which is the number published for it, and coloninst_recall,
    which cannot exceed 0.25.

    Args:
        true: Answers as ColonINST writes them: a lower-case label, or one box as `{<xmin><ymin><xmax><ymax>}`.
        replies: As they came, in the same form; for boxes of ours, `in_pixels` writes it.

    Raises:
        PredictionError: The task is another, or a true answer of REC does not hold four integers.
    """
    applies = np.ones(len(true), dtype=np.bool_)
    if task in (Task.CLS, Task.REG):
        is_right = np.array([a.lower() == b.lower() for a, b in zip(true, replies, strict=True)], dtype=np.bool_)
        return [mean_measure(ACCURACY, is_right, applies, _NOTHING)]
    if task is not Task.REC:
        raise PredictionError(f"the evaluator of ColonINST knows {', '.join(TASKS)}; {task} has no score there")
    boxes = [_true_box(text) for text in true]
    ious = np.array([iou_of_reply(a, b) for a, b in zip(boxes, replies, strict=True)], dtype=np.float64)
    hits = np.stack([ious >= _HIT, np.full(len(ious), 4.0)], axis=1).astype(np.float64)
    return [
        mean_measure(MEAN_IOU, ious, applies, _NOTHING),
        Measure(RECALL, hits, first_over_second, applies, _NOTHING),
    ]


def in_pixels(boxes: Sequence[Box] | None, size_wh: tuple[int, int]) -> str:
    """Boxes in our fractions as the one box a ColonINST record has: their hull in whole pixels; "" where there is none.

    Args:
        size_wh: Of the original image, in pixels.
    """
    return encode_coloninst(geometry.hull(tuple(boxes)), size_wh) if boxes else ""


def iou_of_reply(true: PixelBox, reply: str) -> float:
    """IoU of a reply's box, 0 where the reply does not hold exactly four integers."""
    box = four_integers(reply)
    return 0.0 if box is None else pixel_iou(true, box)


def four_integers(text: str) -> PixelBox | None:
    """The integers of a text, signs ignored, if there are four of at most nine digits each."""
    found = _INTEGER.findall(text)
    if len(found) != 4 or max(map(len, found)) > _MAX_DIGITS:
        return None
    x0, y0, x1, y1 = map(int, found)
    return x0, y0, x1, y1


def pixel_iou(a: PixelBox, b: PixelBox) -> float:
    """IoU of boxes whose corners are the first and last pixel inside, so a side is last - first + 1 pixels.

    Boxes that only touch overlap by a row of pixels. A reversed box has no area.
    """
    width = min(a[2], b[2]) - max(a[0], b[0]) + 1
    height = min(a[3], b[3]) - max(a[1], b[1]) + 1
    overlap = max(width, 0) * max(height, 0)
    union = _area(a) + _area(b) - overlap
    return overlap / union if overlap and union > 0 else 0.0


def _area(box: PixelBox) -> int:
    return max(box[2] - box[0] + 1, 0) * max(box[3] - box[1] + 1, 0)


def _true_box(text: str) -> PixelBox:
    box = four_integers(text)
    if box is None:
        raise PredictionError(f"true answer {text!r} does not hold four integers; expected `{{<x0><y0><x1><y1>}}`")
    return box
