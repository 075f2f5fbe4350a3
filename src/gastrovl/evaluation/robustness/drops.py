"""Replies to changed questions and to the same ones unchanged, to scores, paired drops and how often a trap works.

The one place where this stage meets the scoring of answers.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gastrovl.clinical.answers import BoxAnswer, LabelAnswer
from gastrovl.core.types import Split, Task
from gastrovl.evaluation import tasks
from gastrovl.evaluation.baselines.trivial import baselines
from gastrovl.evaluation.items import Answer, Item
from gastrovl.evaluation.measures.measure import Flags, Floats, mean_measure, value
from gastrovl.evaluation.questions import Question
from gastrovl.evaluation.robustness.cells import Cell
from gastrovl.evaluation.robustness.leading import Led, Trap, is_followed
from gastrovl.evaluation.robustness.record import CellScore, Family, Summary
from gastrovl.evaluation.statistics.intervals import Interval, intervals

RIGHT = "right"
Key = tuple[Split, Task]


@dataclass(frozen=True)
class Credits:
    """What each reply earns in one metric.

    Attributes:
        earned: In [0, 1], (items,).
        applies: Whether the metric is about the question, (items,).
    """

    metric: str
    earned: Floats
    applies: Flags


@dataclass(frozen=True)
class Draws:
    """How intervals are made."""

    resamples: int
    seed: int


def by_task(items: Sequence[Item]) -> dict[Key, list[Item]]:
    """Items by split and task, in the order of their enumerations."""
    found: dict[Key, list[Item]] = {(split, task): [] for split in Split for task in Task}
    for item in items:
        found[item.question.split, item.question.task].append(item)
    return {key: some for key, some in found.items() if some}


def headline(task: Task, items: Sequence[Item]) -> Credits:
    """What each reply earns in the headline metric of its task, which is a plain mean for every task.

    Raises:
        MissingExtraError: A library that scores texts is not installed.
    """
    return _headline(task, [item.question for item in items], [item.answer for item in items])


def _headline(task: Task, asked: Sequence[Question], answers: Sequence[Answer]) -> Credits:
    found = tasks.headline_measure(task, asked, answers)
    earned = np.asarray(found.counts[:, 0], dtype=np.float64)
    return Credits(found.metric, earned, np.asarray(found.counts[:, 1] > 0, dtype=np.bool_))


def rightness(task: Task, items: Sequence[Item]) -> Credits:
    """Whether each reply is right, absent things included; the headline metric where no answer is right or wrong."""
    if task not in tasks.JUDGED_TASKS:
        return headline(task, items)
    everything = np.ones(len(items), dtype=np.bool_)
    return Credits(RIGHT, tasks.verdicts(task, items).astype(np.float64), everything)


class Scorer:
    """Scores cells of one measurement against its unchanged questions.

    Args:
        clean: Replies to the unchanged questions.
        train: Questions that trivial baselines know; empty for none.
        led: By trap, what it suggests for each question.
    """

    def __init__(
        self, clean: Sequence[Item], train: Sequence[Question], led: Mapping[Trap, Sequence[Led]], draws: Draws
    ) -> None:
        self._clean = {item.question.id: item for item in clean}
        self._train = train
        self._led = {trap: {one.conversation.id: one for one in some} for trap, some in led.items()}
        self._draws = draws
        self._corrupted: dict[Key, list[tuple[CellScore, Credits]]] = defaultdict(list)
        self._rivals: dict[tuple[Key, tuple[str, ...], str], tuple[str, float] | None] = {}

    def score(self, cell: Cell, items: Sequence[Item]) -> list[CellScore]:
        """One score a task and split.

        Args:
            items: Replies to the questions of the cell, whose ids are those of the unchanged ones.
        """
        return [self._score(cell, key, some) for key, some in by_task(items).items()]

    def _score(self, cell: Cell, key: Key, items: Sequence[Item]) -> CellScore:
        task = key[1]
        credit = headline if cell.family in (Family.CLEAN, Family.CORRUPTION) else rightness
        plain = [self._clean[item.question.id] for item in items]
        now, before = credit(task, items), credit(task, plain)
        differences = before.earned - now.earned
        level, drop = self._means(items, now.metric, [now.earned, differences], now.applies)
        best = self._best_rival(key, plain, now)
        score = CellScore(
            family=cell.family,
            name=cell.name,
            level=cell.level,
            task=task,
            split=key[0],
            metric=now.metric,
            n=int(now.applies.sum()),
            n_unparsed=sum(not item.is_parsed for item, counts in zip(items, now.applies, strict=True) if counts),
            value=level[0],
            low=level[1].low,
            high=level[1].high,
            baseline_name=best[0] if best else None,
            baseline=best[1] if best else None,
            reason="no question to score" if level[0] is None else level[1].reason,
        )
        if cell.family is not Family.CLEAN and level[0] is not None and drop[0] is not None:
            clean = level[0] + drop[0]
            score = score.model_copy(
                update={
                    "clean": clean,
                    "drop": drop[0],
                    "drop_low": drop[1].low,
                    "drop_high": drop[1].high,
                    "relative_drop": drop[0] / clean if clean > 0 else None,
                }
            )
        if cell.family is Family.CORRUPTION:
            self._corrupted[key].append((score, now))
        if cell.family is Family.LEADING:
            score = score.model_copy(update=self._followed(Trap(cell.name), task, items, plain))
        return score

    def _followed(
        self, trap: Trap, task: Task, items: Sequence[Item], plain: Sequence[Item]
    ) -> dict[str, float | None]:
        suggested = [self._led[trap][item.question.id].suggested for item in items]
        if not all(suggested):
            return {}
        now, before = (
            np.array([_follows(trap, task, str(said), item) for said, item in zip(suggested, some, strict=True)], float)
            for some in (items, plain)
        )
        everything = np.ones(len(items), dtype=np.bool_)
        share, unasked = self._means(items, "followed", [now, before], everything)
        return {
            "followed": share[0],
            "followed_low": share[1].low,
            "followed_high": share[1].high,
            "followed_unasked": unasked[0],
        }

    def summaries(self) -> list[Summary]:
        """All corruptions scored so far, together, for each task and split."""
        found = []
        for (split, task), cells in self._corrupted.items():
            items = [
                item for item in self._clean.values() if (item.question.split, item.question.task) == (split, task)
            ]
            clean = headline(task, items)
            mean = np.mean([credits.earned for _, credits in cells], axis=0)
            corrupted, before = self._means(items, clean.metric, [mean, clean.earned], clean.applies)
            defined = [score for score, _ in cells if score.value is not None]
            worst = min(defined, key=lambda score: score.value or 0.0, default=None)
            has_drop = corrupted[0] is not None and before[0]
            found.append(
                Summary(
                    task=task,
                    split=split,
                    metric=clean.metric,
                    clean=before[0],
                    mean_corrupted=corrupted[0],
                    low=corrupted[1].low,
                    high=corrupted[1].high,
                    relative_drop=1 - (corrupted[0] or 0.0) / (before[0] or 1.0) if has_drop else None,
                    worst_name=worst.name if worst else None,
                    worst_level=worst.level if worst else None,
                    worst=worst.value if worst else None,
                )
            )
        return found

    def _means(
        self, items: Sequence[Item], metric: str, columns: Sequence[Floats], applies: Flags
    ) -> list[tuple[float | None, Interval]]:
        """The mean of each column with its interval; all see the same draws of groups."""
        measures = [mean_measure(metric, column, applies, "no question to score") for column in columns]
        groups = [item.question.group for item in items]
        found = intervals(measures, groups, resamples=self._draws.resamples, seed=self._draws.seed)
        return [(value(measure), interval) for measure, interval in zip(measures, found, strict=True)]

    def _best_rival(self, key: Key, plain: Sequence[Item], credits: Credits) -> tuple[str, float] | None:
        """The best trivial baseline on the questions; blind to images, so one for all levels of all corruptions."""
        asked = [item.question for item in plain]
        known = (key, tuple(one.id for one in asked), credits.metric)
        if known not in self._rivals:
            found = [
                (rival.name, self._rival_score(key[1], plain, rival.answers, credits.metric))
                for rival in baselines(key[1], asked, self._train, None, seed=self._draws.seed)
            ]
            defined = [(name, score) for name, score in found if score is not None]
            self._rivals[known] = max(defined, key=lambda pair: pair[1], default=None)
        return self._rivals[known]

    def _rival_score(self, task: Task, plain: Sequence[Item], answers: Sequence[Answer], metric: str) -> float | None:
        given = [Item(item.question, item.reply, answer) for item, answer in zip(plain, answers, strict=True)]
        credits = rightness(task, given) if metric == RIGHT else headline(task, given)
        return value(mean_measure(metric, credits.earned, credits.applies, "no question to score"))


def _follows(trap: Trap, task: Task, suggested: str, item: Item) -> bool:
    answer = item.answer
    return is_followed(
        trap,
        task,
        suggested,
        labels=answer.terms if isinstance(answer, LabelAnswer) else None,
        has_boxes=isinstance(answer, BoxAnswer) and bool(answer.boxes),
    )
