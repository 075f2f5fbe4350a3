"""Replies to one question in several wordings, to how far the wording decides what is answered."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from gastrovl.core.errors import PredictionError
from gastrovl.core.types import Box
from gastrovl.evaluation.measures.localisation import overlap
from gastrovl.evaluation.measures.measure import Floats, Measure, mean_measure, ratio

CONSISTENCY, FLIP_RATE = "consistency", "flip_rate"
ALL_WORDINGS, WORST_WORDING, SPREAD = "right_in_all_wordings", "worst_wording_accuracy", "accuracy_spread"
LOWER_IS_BETTER = frozenset({FLIP_RATE, SPREAD})
_NO_PAIR = "no question was asked in two wordings"
_NO_VERDICT = "no question in two wordings whose answer is right or wrong"


@dataclass(frozen=True, slots=True)
class Said:
    """A reply to one wording of a question.

    Attributes:
        question: The wording, as it was asked.
        answer: What was understood of the reply; None where it could not be read.
        is_right: None where no answer is plainly right or wrong (captions).
        group: Patient, exam or video of the image.
    """

    question: str
    answer: Hashable
    is_right: bool | None
    group: str


@dataclass(frozen=True, slots=True)
class Asked:
    """One question with its reply to each wording, in the order of the variants; None where it was not reworded."""

    id: str
    group: str
    said: tuple[Said | None, ...]


def paired(variants: Mapping[str, Mapping[str, Said]]) -> list[Asked]:
    """Questions that were asked in at least two wordings, with the replies to each.

    A dataset folder has the questions of `val.jsonl` once more in `val_reworded.jsonl`, under the same conversation ids
    (`data.composing.reworded` names the file). Questions that a source asks itself stand in both in the same words:
    such a repetition is left out, for it says nothing about wordings.

    Args:
        variants: By name of the variant, e.g. "val" and "val_reworded", the replies by conversation id. The first one
            decides which questions there are.

    Raises:
        PredictionError: There are fewer than two variants, one has questions that the first lacks, or a question
            belongs to different groups.
    """
    names = list(variants)
    if len(names) < 2:
        raise PredictionError(f"replies to {names} only; expected at least two sets of wordings of the same questions")
    first = variants[names[0]]
    for name in names[1:]:
        if unknown := [key for key in variants[name] if key not in first]:
            raise PredictionError(
                f"{name}: {len(unknown)} questions are not among those of {names[0]}, e.g. {unknown[0]!r}; expected "
                "the same conversation ids. Use files of one build of the dataset"
            )
    found = [_asked(key, [variants[name].get(key) for name in names]) for key in first]
    return [one for one in found if sum(said is not None for said in one.said) > 1]


def measures(
    asked: Sequence[Asked], names: Sequence[str], same: Callable[[Any, Any], bool] | None = None
) -> list[Measure]:
    """Scores over questions (not over replies), (questions,) each; their groups are those of `asked`.

    consistency: mean over questions of the share of pairs of wordings that are answered alike. An unread reply is like
        no other, not even another unread one.
    flip_rate: share of questions that are right in one wording and wrong in another; lower is better.
    right_in_all_wordings: share of questions that are right however they are asked.
    worst_wording_accuracy, accuracy_spread: the lowest accuracy among the variants, and the highest minus the lowest;
        of the spread, lower is better. Chance alone keeps it above 0.
    A model that always says the same is fully consistent: read these beside accuracy.

    Args:
        names: Of the variants, in the order of `said`.
        same: Whether two answers that were read are alike; default: equal. For boxes: `same_boxes`.
    """
    is_same = same or _equal
    rights = np.array([[_verdict(said) for said in one.said] for one in asked], dtype=np.float64)
    rights = rights.reshape(len(asked), len(names))
    has_verdict = (~np.isnan(rights)).sum(axis=1) > 1
    is_any, is_all = (rights == 1).any(axis=1), ~(rights == 0).any(axis=1)
    alike = np.array([_share_alike(one, is_same) for one in asked], dtype=np.float64)
    everything = np.ones(len(asked), dtype=np.bool_)
    of_variant = np.where(has_verdict[:, None], np.concatenate([rights == 1, ~np.isnan(rights)], axis=1), False)
    return [
        mean_measure(CONSISTENCY, alike, everything, _NO_PAIR),
        mean_measure(FLIP_RATE, is_any & ~is_all, has_verdict, _NO_VERDICT),
        mean_measure(ALL_WORDINGS, is_all, has_verdict, _NO_VERDICT),
        Measure(WORST_WORDING, of_variant.astype(np.uint8), _lowest, has_verdict, _NO_VERDICT),
        Measure(SPREAD, of_variant.astype(np.uint8), _spread, has_verdict, _NO_VERDICT),
    ]


def same_boxes(a: Sequence[Box], b: Sequence[Box]) -> bool:
    """Whether two sets of boxes are as many and can be paired at IoU >= 0.5; "absent" is like "absent" only."""
    return bool(a) == bool(b) and (not a or overlap(a, b).worst >= 0.5)


def _asked(key: str, said: Sequence[Said | None]) -> Asked:
    kept: list[Said | None] = []
    seen: set[str] = set()
    for one in said:
        kept.append(None if one is None or one.question in seen else one)
        if one is not None:
            seen.add(one.question)
    groups = {one.group for one in kept if one is not None}
    if len(groups) > 1:
        raise PredictionError(
            f"question {key!r} belongs to groups {sorted(groups)}; expected one. Use files of one build"
        )
    return Asked(key, groups.pop(), tuple(kept))


def _equal(a: Hashable, b: Hashable) -> bool:
    return a == b


def _verdict(said: Said | None) -> float:
    return float("nan") if said is None or said.is_right is None else float(said.is_right)


def _share_alike(one: Asked, is_same: Callable[[Any, Any], bool]) -> float:
    pairs = list(combinations([said.answer for said in one.said if said is not None], 2))
    return sum(a is not None and b is not None and is_same(a, b) for a, b in pairs) / len(pairs)


def _accuracies(sums: Floats) -> Floats:
    """Right replies and replies of each variant, (rows, 2 x variants), to accuracies, (rows, variants)."""
    right, replies = np.split(sums, 2, axis=1)
    return ratio(right, replies)


def _lowest(sums: Floats) -> Floats:
    found: Floats = np.fmin.reduce(_accuracies(sums), axis=1)  # NaN only where no variant has a reply
    return found


def _spread(sums: Floats) -> Floats:
    found: Floats = np.fmax.reduce(_accuracies(sums), axis=1) - _lowest(sums)
    return found
