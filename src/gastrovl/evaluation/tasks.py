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
    localisation,
    ranking,
    shortanswers,
    texts,
)
from gastrovl.evaluation.measures.measure import Flags, Measure
from gastrovl.evaluation.measures.texts import WORDS_ALONE, WORDS_AND_FACTS, TextScoring
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
TEXT_TASKS = (Task.CAP, Task.REPORT)
JUDGED_TASKS = (*LABEL_TASKS, Task.REC, Task.VQA)  # whose answers are right or wrong


def measures_of(
    task: Task, asked: Sequence[Question], answers: Sequence[Answer], how: TextScoring = WORDS_AND_FACTS
) -> list[Measure]:
    """All measures of a task over its questions and answers, in order of report.

    Args:
        how: By what captions and reports are scored.

    Raises:
        MissingExtraError: There are free texts, and the libraries that score them are not installed.
    """
    return measures_of_each(task, asked, [answers], how)[0]


def measures_of_each(
    task: Task, asked: Sequence[Question], answers: Sequence[Sequence[Answer]], how: TextScoring = WORDS_AND_FACTS
) -> list[list[Measure]]:
    """As `measures_of`, of several answerers of the same questions."""
    if task in TEXT_TASKS:
        return texts.measures_of_each([one.references for one in asked], [given_texts(some) for some in answers], how)
    return [_measures(task, asked, some) for some in answers]


def headline_measure(task: Task, asked: Sequence[Question], answers: Sequence[Answer]) -> Measure:
    """The measure of the headline score alone.

    Raises:
        MissingExtraError: As in `measures_of`.
    """
    return next(one for one in measures_of(task, asked, answers, WORDS_ALONE) if one.metric == HEADLINE[task])


def _measures(task: Task, asked: Sequence[Question], answers: Sequence[Answer]) -> list[Measure]:
    if task in LABEL_TASKS:
        true, given = true_labels(asked), given_labels(answers)
        return [*classification.measures(true, given), *hierarchy.measures(true, given, Taxonomy.load())]
    if task is Task.REC:
        return localisation.measures(true_boxes(asked), given_boxes(answers))
    return shortanswers.measures(asked, [one.references for one in asked], given_texts(answers))


def measures_of_replies(task: Task, items: Sequence[Item], is_right: Flags) -> list[AnyMeasure]:
    """Measures of what replies carry beside their words, in order of report: label probabilities and confidence.

    Empty where no reply carries any, and of confidence also where no answer of the task is plainly right or wrong.

    Args:
        is_right: The verdicts of `items`.
    """
    found: list[AnyMeasure] = []
    if task in LABEL_TASKS and any(item.reply.probabilities is not None for item in items):
        true = true_labels([item.question for item in items])
        found += ranking.measures(true, [item.reply.probabilities for item in items])
    if task in JUDGED_TASKS and any(item.reply.confidence is not None for item in items):
        found += confidence.measures([item.reply.confidence for item in items], is_right)
    return found


def chance_of_replies(
    task: Task, items: Sequence[Item], is_right: Flags, rows: Sequence[int]
) -> dict[str, float | None]:
    """What those measures are worth over some of the items for one confidence, and one probability of each label."""
    found: dict[str, float | None] = {}
    if task in LABEL_TASKS:
        found |= ranking.chance(true_labels([items[row].question for row in rows]))
    if task in JUDGED_TASKS:
        found |= confidence.trivial(is_right[[row for row in rows if items[row].reply.confidence is not None]])
    return found


def verdicts(task: Task, items: Sequence[Item]) -> Flags:
    """Whether each answer counts as right in the headline score of its task, (items,); none does in CAP and REPORT."""
    return _verdicts(task, [item.question for item in items], [item.answer for item in items])


def is_right(question: Question, answer: Answer) -> bool | None:
    """Whether an answer counts in the headline score of its task; None for CAP and REPORT, which are no such thing.

    REC: every box paired at IoU >= 0.5 and none in surplus, or "absent" where the object is.
    """
    return bool(_verdicts(question.task, [question], [answer])[0]) if question.task in JUDGED_TASKS else None


def _verdicts(task: Task, asked: Sequence[Question], answers: Sequence[Answer]) -> Flags:
    if task is Task.REC:
        return _found(true_boxes(asked), given_boxes(answers))
    found = [False] * len(asked)
    if task in LABEL_TASKS:
        found = [a == b for a, b in zip(true_labels(asked), given_labels(answers), strict=True)]
    elif task is Task.VQA:
        pairs = zip(asked, given_texts(answers), strict=True)
        found = [shortanswers.is_match(question.references, text) for question, text in pairs]
    return np.array(found, dtype=np.bool_)


def _found(true: Sequence[localisation.Boxes], given: Sequence[localisation.Boxes | None]) -> Flags:
    """Whether everything was found at IoU >= 0.5 and nothing else, or is said to be absent, (questions,)."""
    is_present = np.array([bool(boxes) for boxes in true], dtype=np.bool_)
    is_denied = np.array([boxes == () for boxes in given], dtype=np.bool_)
    is_hit: Flags = localisation.outcomes(true, given)["worst"] >= 0.5
    return np.where(is_present, is_hit, is_denied)


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
