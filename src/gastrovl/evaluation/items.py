"""A file of conversations and a file of replies to pairs that are ready to be scored."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from gastrovl.clinical.answers import BoxAnswer, LabelAnswer, ParseFailure, TextAnswer, parse_answer
from gastrovl.clinical.taxonomy import Taxonomy
from gastrovl.core.errors import PredictionError, RecordError
from gastrovl.core.records import from_line, schema_name
from gastrovl.core.types import Conversation, Prediction, Record

Answer = LabelAnswer | BoxAnswer | TextAnswer | ParseFailure
R = TypeVar("R", bound=Record)
_QUOTED = re.compile(r"""(['"]).*\1|\[.*\]""", re.DOTALL)
_NAMED = 3  # ids shown in an error message


@dataclass(frozen=True)
class Item:
    """One question with its reply, read by the grammar of its task."""

    conversation: Conversation
    prediction: Prediction
    answer: Answer

    @property
    def is_parsed(self) -> bool:
        return not isinstance(self.answer, ParseFailure)


def read_conversations(path: Path) -> list[Conversation]:
    """All conversations of a file, in its order.

    Raises:
        RecordError: The file is missing, empty or broken, or an id comes twice.
    """
    lines = _read_numbered(path, Conversation)
    if not lines:
        raise RecordError(f"{path}: holds no conversation; expected at least one to score")
    first_line: dict[str, int] = {}
    for number, conversation in lines:
        if conversation.id in first_line:
            raise RecordError(
                f"{path}:{number}: conversation {conversation.id!r} stands at line {first_line[conversation.id]} "
                "already; ids must be unique. Build the dataset again"
            )
        first_line[conversation.id] = number
    return [conversation for _, conversation in lines]


def read_items(predictions: Path, conversations: Path, taxonomy: Taxonomy) -> list[Item]:
    """Join replies to their questions, one to one, in the order of the conversations.

    Raises:
        RecordError: A file is missing, or a line of it is broken.
        PredictionError: A reply is missing, double, or answers no known conversation.
    """
    asked = read_conversations(conversations)
    return pair(asked, _join(predictions, conversations, asked), taxonomy)


def pair(asked: Sequence[Conversation], replies: Mapping[str, Prediction], taxonomy: Taxonomy) -> list[Item]:
    """Questions and their replies by conversation id, read by the grammar of each task; every question has one."""
    return [Item(one, replies[one.id], parse_answer(one.task, replies[one.id].text, taxonomy)) for one in asked]


def _join(predictions: Path, conversations: Path, asked: Sequence[Conversation]) -> dict[str, Prediction]:
    known = {one.id for one in asked}
    replies: dict[str, Prediction] = {}
    first_line: dict[str, int] = {}
    unknown: list[tuple[int, str]] = []
    for number, prediction in _read_numbered(predictions, Prediction):
        key = prediction.conversation_id
        if key in first_line:
            raise PredictionError(
                f"{predictions}:{number}: a second prediction for conversation {key!r} (the first is at line "
                f"{first_line[key]}); expected exactly one. Which one counts is yours to say: delete the other line"
            )
        first_line[key] = number
        if key in known:
            replies[key] = prediction
        else:
            unknown.append((number, key))
    if unknown:
        raise PredictionError(_about_unknown(predictions, conversations, unknown, len(first_line)))
    missing = [one.id for one in asked if one.id not in replies]
    if missing:
        raise PredictionError(
            f"{predictions}: {len(missing)} of {len(asked)} conversations of {conversations} have no prediction: "
            f"{_some(missing)}. Run `gastrovl predict` again with the same output file (it goes on where it stopped); "
            "a reply that a model refused to give is written as an empty text, not left out"
        )
    return replies


def _about_unknown(predictions: Path, conversations: Path, unknown: list[tuple[int, str]], total: int) -> str:
    line = unknown[0][0]
    return (
        f"{predictions}:{line}: {len(unknown)} of {total} predictions answer no conversation of {conversations}: "
        f"{_some([key for _, key in unknown])}. Pass the conversations file these predictions were made from"
    )


def _some(ids: Sequence[str]) -> str:
    shown = ", ".join(repr(name) for name in ids[:_NAMED])
    return shown if len(ids) <= _NAMED else f"{shown} and {len(ids) - _NAMED} more"


def _read_numbered(path: Path, kind: type[R]) -> list[tuple[int, R]]:
    path = Path(path)
    if not path.is_file():
        raise RecordError(f"{path}: no such file; expected a JSONL file of {schema_name(kind)} records")
    with path.open(encoding="utf-8") as stream:
        return [
            (number, from_line(line, kind, f"{path}:{number}"))
            for number, line in enumerate(stream, start=1)
            if line.strip()
        ]


def parse_failures(items: Sequence[Item]) -> Counter[str]:
    """How often each kind of reason kept a reply from being read; what is quoted in a reason becomes an ellipsis."""
    reasons = [item.answer.reason for item in items if isinstance(item.answer, ParseFailure)]
    return Counter(_QUOTED.sub("...", reason) for reason in reasons)
