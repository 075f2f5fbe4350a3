"""A task and the answers given to it, to the measures that score them and the verdict on each answer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gastrovl.clinical.answers import BoxAnswer, LabelAnswer, ParseFailure, TextAnswer
from gastrovl.clinical.taxonomy import Taxonomy
from gastrovl.core.types import Task
from gastrovl.evaluation.items import Answer, Item
from gastrovl.evaluation.measures import (
    classification,
    confidence,
    hierarchy,
    language,
    localisation,
    ranking,
    shortanswers,
)
from gastrovl.evaluation.measures.measure import Flags, Measure
from gastrovl.evaluation.measures.weighted import AnyMeasure
from gastrovl.evaluation.questions import Question

HEADLINE = {
    Task.CLS: "accuracy",
    Task.REC: "acc@0.5",
    Task.REG: "accuracy",
    Task.CAP: "rougeL",
    Task.VQA: shortanswers.EXACT,
    Task.REPORT: "rougeL",
}
LABEL_TASKS = (Task.CLS, Task.REG)
JUDGED_TASKS = (*LABEL_TASKS, Task.REC, Task.VQA)  # whose answers are right or wrong


def measures_of(task: Task, asked: Sequence[Question], answers: Sequence[Answer]) -> list[Measure]:
    """All measures of a task over its questions and answers, in order of report.

    Raises:
        MissingExtraError: There are free texts, and the libraries that score them are not installed.
    """
    if task in LABEL_TASKS:
        true, given = true_labels(asked), given_labels(answers)
        return [*classification.measures(true, given), *hierarchy.measures(true, given, Taxonomy.load())]
    if task is Task.REC:
        return localisation.measures(true_boxes(asked), given_boxes(answers))
    wanted, texts = [one.references for one in asked], given_texts(answers)
    return shortanswers.measures(asked, wanted, texts) if task is Task.VQA else language.measures(wanted, texts)


def measures_of_replies(task: Task, items: Sequence[Item]) -> list[AnyMeasure]:
    """Measures of what replies carry beside their words, in order of report: label probabilities and confidence.

    Empty where no reply carries any, and of confidence also where no answer of the task is plainly right or wrong.
    """
    found: list[AnyMeasure] = []
    if task in LABEL_TASKS and any(item.reply.probabilities is not None for item in items):
        true = true_labels([item.question for item in items])
        found += ranking.measures(true, [item.reply.probabilities for item in items])
    if task in JUDGED_TASKS and any(item.reply.confidence is not None for item in items):
        found += confidence.measures([item.reply.confidence for item in items], verdicts(items))
    return found


def chance_of_replies(task: Task, items: Sequence[Item]) -> dict[str, float | None]:
    """What those measures are worth for one confidence and one probability of each label for all: its share."""
    found: dict[str, float | None] = {}
    if task in LABEL_TASKS:
        found |= ranking.chance(true_labels([item.question for item in items]))
    if task in JUDGED_TASKS:
        found |= confidence.trivial(verdicts([item for item in items if item.reply.confidence is not None]))
    return found


def verdicts(items: Sequence[Item]) -> Flags:
    """Whether each answer counts as right in the headline score of its task, (items,)."""
    return np.array([is_right(item.question, item.answer) for item in items], dtype=np.bool_)


def is_right(question: Question, answer: Answer) -> bool | None:
    """Whether an answer counts in the headline score of its task; None for CAP and REPORT, which are no such thing.

    REC: every box paired at IoU >= 0.5 and none in surplus, or "absent" where the object is.
    """
    if question.task in LABEL_TASKS:
        return true_labels([question]) == given_labels([answer])
    if question.task is Task.VQA:
        return shortanswers.is_match(question.references, given_texts([answer])[0])
    if question.task is not Task.REC:
        return None
    boxes = given_boxes([answer])[0]
    if not question.boxes:
        return boxes == ()
    return localisation.overlap(localisation.as_asked(question.boxes), boxes or ()).worst >= 0.5


def true_labels(asked: Sequence[Question]) -> list[classification.Labels]:
    return [frozenset(one.terms) for one in asked]


def given_labels(answers: Sequence[Answer]) -> list[classification.Labels | None]:
    return [frozenset(answer.terms) if isinstance(answer, LabelAnswer) else None for answer in answers]


def true_boxes(asked: Sequence[Question]) -> list[localisation.Boxes]:
    return [localisation.as_asked(one.boxes) for one in asked]


def given_boxes(answers: Sequence[Answer]) -> list[localisation.Boxes | None]:
    return [tuple(answer.boxes) if isinstance(answer, BoxAnswer) else None for answer in answers]


def given_texts(answers: Sequence[Answer]) -> list[str | None]:
    return [answer.text if isinstance(answer, TextAnswer) else None for answer in answers]


def unparsed(answers: Sequence[Answer]) -> Flags:
    """Which answers could not be read, (answers,)."""
    return np.array([isinstance(answer, ParseFailure) for answer in answers], dtype=np.bool_)
