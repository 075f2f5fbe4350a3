"""Scored questions and the source or camera of each, to scores by group, the worst one, and the gap between them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from enum import StrEnum

import numpy as np
from pydantic import Field

from gastrovl.core.types import Record, Split, Task
from gastrovl.evaluation.items import Item
from gastrovl.evaluation.measures.measure import mean_measure, value
from gastrovl.evaluation.questions import Question
from gastrovl.evaluation.robustness.drops import Draws, by_task, headline
from gastrovl.evaluation.statistics.intervals import LEVEL, Interval, intervals

MIN_QUESTIONS = 5  # of a group that may be called the best or the worst; a score of fewer says nothing


class GroupBy(StrEnum):
    """What tells devices and centres apart.

    SIZE: width x height of the original image, which processors and exports fix; the only trace of a device in sets
    that state none.
    """

    SOURCE = "source"
    SIZE = "size"


class GroupScore(Record):
    """The headline score of the questions of one group, with its 95 % interval."""

    group: str
    n: int = Field(ge=0)
    value: float | None
    low: float | None
    high: float | None
    reason: str | None = None


class Shift(Record):
    """The groups of one task.

    Attributes:
        groups: By name.
        worst, best: Names among the groups of at least `MIN_QUESTIONS`; None where there are fewer than two such.
        gap: Score of the best less that of the worst; `gap_low` and `gap_high` are its 95 % interval for these two as
            named. They were chosen by their scores, so that chance alone makes a gap.
    """

    task: Task
    split: Split
    metric: str
    by: GroupBy
    groups: tuple[GroupScore, ...]
    worst: str | None
    best: str | None
    gap: float | None
    gap_low: float | None
    gap_high: float | None


def shifts(items: Sequence[Item], by: GroupBy, draws: Draws) -> list[Shift]:
    """Scores by group for each task and split of an evaluation.

    Raises:
        MissingExtraError: A library that scores texts is not installed.
    """
    return [_shift(task, split, some, by, draws) for (split, task), some in by_task(items).items()]


def group_of(question: Question, by: GroupBy) -> str:
    """Name of the group that a question belongs to."""
    return question.source if by is GroupBy.SOURCE else "{}x{}".format(*question.image.size_wh)


def _shift(task: Task, split: Split, items: Sequence[Item], by: GroupBy, draws: Draws) -> Shift:
    credits = headline(task, items)
    rows: dict[str, list[int]] = defaultdict(list)
    for row, item in enumerate(items):
        if credits.applies[row]:
            rows[group_of(item.question, by)].append(row)
    scores: dict[str, GroupScore] = {}
    found: dict[str, Interval] = {}
    for place, name in enumerate(sorted(rows)):
        chosen = np.isin(np.arange(len(items)), rows[name])
        measure = mean_measure(credits.metric, credits.earned, chosen, "no question to score")
        # Another seed for each group, so that replicates of two groups are independent draws.
        patients = [item.question.group for item in items]
        seed = draws.seed + place
        found[name] = intervals([measure], patients, resamples=draws.resamples, seed=seed, rows=chosen)[0]
        scores[name] = GroupScore(
            group=name,
            n=len(rows[name]),
            value=value(measure),
            low=found[name].low,
            high=found[name].high,
            reason=found[name].reason,
        )
    ranked = sorted(
        (one for one in scores.values() if one.n >= MIN_QUESTIONS), key=lambda one: (one.value or 0.0, one.group)
    )
    worst, best = (ranked[0], ranked[-1]) if len(ranked) > 1 else (None, None)
    low, high = _bounds(found[best.group], found[worst.group]) if worst and best else (None, None)
    return Shift(
        task=task,
        split=split,
        metric=credits.metric,
        by=by,
        groups=tuple(scores.values()),
        worst=worst.group if worst else None,
        best=best.group if best else None,
        gap=(best.value or 0.0) - (worst.value or 0.0) if worst and best else None,
        gap_low=low,
        gap_high=high,
    )


def _bounds(best: Interval, worst: Interval) -> tuple[float | None, float | None]:
    """Percentile bounds of the difference of two scores whose groups were drawn apart."""
    if best.replicates is None or worst.replicates is None:
        return None, None
    low, high = np.nanquantile(best.replicates - worst.replicates, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
