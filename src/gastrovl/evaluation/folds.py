"""Replies to the folds of a cross-validation, each with its own training split, to one set of questions with rivals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from gastrovl.clinical.taxonomy import Taxonomy
from gastrovl.core.errors import ConfigError, PredictionError, RecordError
from gastrovl.core.types import Split, Task
from gastrovl.evaluation.baselines.thumbnails import Thumbnails
from gastrovl.evaluation.baselines.trivial import Baseline, baselines
from gastrovl.evaluation.items import Item, read_items
from gastrovl.evaluation.questions import Question, read_questions

_NAMED = 3  # ids shown in an error message


@dataclass(frozen=True)
class Fold:
    """Questions with replies, the training split that their baselines learn from, and the folder of the images."""

    items: Sequence[Item]
    train: Sequence[Question]
    folder: Path = Path()

    @cached_property
    def ids(self) -> frozenset[str]:
        """Of the questions."""
        return frozenset(item.question.id for item in self.items)

    def of(self, split: Split, task: Task) -> list[Item]:
        """The items of one split and task."""
        return [one for one in self.items if one.question.split is split and one.question.task is task]


def read_folds(
    predictions: Sequence[Path], conversations: Sequence[Path], train: Sequence[Path], taxonomy: Taxonomy
) -> list[Fold]:
    """One fold for each predictions file; without `train`, train.jsonl beside each conversations file.

    Raises:
        ConfigError: There are not as many files of one kind as of the other.
        RecordError: A file is missing or broken.
        PredictionError: A reply is missing or double, or a question stands in two folds.
    """
    places = list(train) or [path.parent / "train.jsonl" for path in conversations]
    if not len(predictions) == len(conversations) == len(places):
        raise ConfigError(
            f"found {len(predictions)} files of predictions, {len(conversations)} of conversations and {len(places)} "
            "of training; expected as many of each, in the same order: the folds of a cross-validation"
        )
    for path in places:
        if not path.is_file():
            raise RecordError(
                f"{path}: no such file; every score stands beside trivial baselines, which are measured with the "
                "training split. Name it with --train FILE"
            )
    folds: list[Fold] = []
    for replies, asked, known in zip(predictions, conversations, places, strict=True):
        fold = Fold(read_items(replies, asked, taxonomy), read_questions(known), asked.parent)
        if double := sorted(fold.ids.intersection(*[frozenset[str]().union(*(one.ids for one in folds))])):
            raise PredictionError(
                f"{asked}: {len(double)} of its questions stand in an earlier fold, too, e.g. "
                f"{', '.join(map(repr, double[:_NAMED]))}; expected folds that divide the questions. Seeds of one "
                "division are evaluated one by one"
            )
        folds.append(fold)
    return folds


def rivals(
    folds: Sequence[Fold], split: Split, task: Task, thumbnails: Thumbnails | None, *, seed: int
) -> list[Baseline]:
    """Baselines of one split and task, each fold's answered with what its own training split knows.

    Returns:
        Those that every fold has; their answers stand in the order of the folds.
    """
    of_fold = []
    for fold in folds:
        if asked := [item.question for item in fold.of(split, task)]:
            of_fold.append({one.name: one.answers for one in baselines(task, asked, fold.train, thumbnails, seed=seed)})
    shared = [name for name in of_fold[0] if all(name in one for one in of_fold)]
    return [Baseline(name, tuple(answer for one in of_fold for answer in one[name])) for name in shared]
