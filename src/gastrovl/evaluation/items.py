"""Questions and a file of replies to pairs that are ready to be scored."""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gastrovl.clinical.answers import BoxAnswer, LabelAnswer, ParseFailure, TextAnswer, parse_answer
from gastrovl.clinical.taxonomy import Taxonomy
from gastrovl.core.errors import PredictionError
from gastrovl.core.types import Prediction, Task
from gastrovl.evaluation.questions import Question, numbered, read_questions

Answer = LabelAnswer | BoxAnswer | TextAnswer | ParseFailure
_QUOTED = re.compile(r"""(['"]).*\1|\[.*\]|\d+(?= digits)""", re.DOTALL)
_NAMED = 3  # ids shown in an error message
_SHORT = 200  # letters; longer replies are rarely said twice, so they are not kept for comparison


@dataclass(frozen=True, slots=True)
class Reply:
    """What became of a question: `core.types.Prediction` without its conversation's id."""

    text: str
    model: str
    confidence: float | None
    probabilities: dict[str, float] | None
    seconds: float
    stop_reason: str


@dataclass(frozen=True, slots=True)
class Item:
    """One question with its reply, read by the grammar of its task."""

    question: Question
    reply: Reply
    answer: Answer

    @property
    def is_parsed(self) -> bool:
        return not isinstance(self.answer, ParseFailure)


def read_items(predictions: Path, conversations: Path, taxonomy: Taxonomy) -> list[Item]:
    """Join replies to their questions, one to one, in the order of the conversations.

    Raises:
        RecordError: A file is missing, or a line of it is broken.
        PredictionError: A reply is missing, double, or answers no known conversation.
    """
    asked = read_questions(conversations)
    return _joined(predictions, conversations, asked, taxonomy)


def pair(asked: Sequence[Question], replies: Mapping[str, Prediction], taxonomy: Taxonomy) -> list[Item]:
    """Questions and their replies by conversation id, read by the grammar of each task; every question has one."""
    reader = _Reader(taxonomy)
    return [reader.item(one, replies[one.id]) for one in asked]


class _Reader:
    """Reads replies; what is said often is read once and kept once."""

    def __init__(self, taxonomy: Taxonomy) -> None:
        self._taxonomy = taxonomy
        self._known: dict[tuple[Task, str], Answer] = {}

    def item(self, question: Question, prediction: Prediction) -> Item:
        text = prediction.text if len(prediction.text) > _SHORT else sys.intern(prediction.text)
        reply = Reply(
            text=text,
            model=sys.intern(prediction.model),
            confidence=prediction.confidence,
            probabilities=prediction.probabilities,
            seconds=prediction.seconds,
            stop_reason=sys.intern(prediction.stop_reason),
        )
        if prediction.form is not None:
            foreign = parse_answer(question.task, text, self._taxonomy, prediction.form, prediction.image_wh)
            return Item(question, reply, foreign)
        return Item(question, reply, self._answer(question.task, text))

    def _answer(self, task: Task, text: str) -> Answer:
        if len(text) > _SHORT:
            return parse_answer(task, text, self._taxonomy)
        key = (task, text)
        if key not in self._known:
            self._known[key] = parse_answer(task, text, self._taxonomy)
        return self._known[key]


def _joined(predictions: Path, conversations: Path, asked: Sequence[Question], taxonomy: Taxonomy) -> list[Item]:
    reader = _Reader(taxonomy)
    question_of = {one.id: one for one in asked}
    items: dict[str, Item] = {}
    first_line: dict[str, int] = {}
    unknown: list[tuple[int, str]] = []
    for number, prediction in numbered(predictions, Prediction):
        key = prediction.conversation_id
        if key in first_line:
            raise PredictionError(
                f"{predictions}:{number}: a second prediction for conversation {key!r} (the first is at line "
                f"{first_line[key]}); expected exactly one. Which one counts is yours to say: delete the other line"
            )
        first_line[key] = number
        if key in question_of:
            items[key] = reader.item(question_of[key], prediction)
        else:
            unknown.append((number, key))
    if unknown:
        raise PredictionError(_about_unknown(predictions, conversations, unknown, len(first_line)))
    missing = [one.id for one in asked if one.id not in items]
    if missing:
        raise PredictionError(
            f"{predictions}: {len(missing)} of {len(asked)} conversations of {conversations} have no prediction: "
            f"{_some(missing)}. Run `gastrovl predict` again with the same output file (it goes on where it stopped); "
            "a reply that a model refused to give is written as an empty text, not left out"
        )
    return [items[one.id] for one in asked]


def _about_unknown(predictions: Path, conversations: Path, unknown: list[tuple[int, str]], total: int) -> str:
    line = unknown[0][0]
    return (
        f"{predictions}:{line}: {len(unknown)} of {total} predictions answer no conversation of {conversations}: "
        f"{_some([key for _, key in unknown])}. Pass the conversations file these predictions were made from"
    )


def _some(ids: Sequence[str]) -> str:
    shown = ", ".join(repr(name) for name in ids[:_NAMED])
    return shown if len(ids) <= _NAMED else f"{shown} and {len(ids) - _NAMED} more"


def parse_failures(items: Iterable[Item]) -> Counter[str]:
    """How often each kind of reason kept a reply from being read; what is quoted in a reason becomes an ellipsis."""
    reasons = [item.answer.reason for item in items if isinstance(item.answer, ParseFailure)]
    return Counter(_QUOTED.sub("...", reason) for reason in reasons)
