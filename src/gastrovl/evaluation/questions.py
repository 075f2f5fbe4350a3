"""A file of conversations to the questions that are scored, each with its truth and no more, so that a million fit."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from gastrovl.core.errors import RecordError
from gastrovl.core.records import from_line, schema_name
from gastrovl.core.types import Box, Conversation, Kind, Record, Split, Task

References = tuple[str, ...]
R = TypeVar("R", bound=Record)


@dataclass(frozen=True, slots=True)
class Picture:
    """Where an image lies, relative to the folder of its conversations, and what it is."""

    path: str
    sha256: str
    size_wh: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Question:
    """The last question of a conversation with its truth.

    Attributes:
        kind: Of VQA, which question of ours it is; None for any other.
        source, group: Dataset, and patient, exam, video or near-duplicate group.
        words: The question as it was put.
        terms, boxes: The typed truth, as in `core.types.Target`.
        references: The true text and its equally good wordings.
    """

    id: str
    sample_id: str
    task: Task
    kind: Kind | None
    image: Picture
    source: str
    group: str
    split: Split
    words: str
    terms: tuple[str, ...]
    boxes: tuple[Box, ...]
    references: References

    @property
    def answer(self) -> str:
        """The true text."""
        return self.references[0]


class _Shared:
    """Equal values kept once: thousands of questions share an image, a group, a wording or a label."""

    def __init__(self) -> None:
        self._pictures: dict[tuple[str, str], Picture] = {}
        self._tuples: dict[tuple[str, ...], tuple[str, ...]] = {}

    def picture(self, conversation: Conversation) -> Picture:
        image = conversation.image
        key = (image.path, image.sha256)
        if key not in self._pictures:
            self._pictures[key] = Picture(image.path, image.sha256, image.size_wh)
        return self._pictures[key]

    def texts(self, texts: tuple[str, ...]) -> tuple[str, ...]:
        return self._tuples.setdefault(texts, texts)


def questions_of(conversations: Iterable[Conversation]) -> Iterator[Question]:
    """The question of each conversation, in their order; equal parts are shared."""
    shared = _Shared()
    for one in conversations:
        last = one.turns[-1]
        yield Question(
            id=one.id,
            sample_id=sys.intern(one.sample_id),
            task=one.task,
            kind=one.kind,
            image=shared.picture(one),
            source=sys.intern(one.source),
            group=sys.intern(one.group),
            split=one.split,
            words=sys.intern(one.turns[-2].text),
            terms=shared.texts(one.target.terms),
            boxes=one.target.boxes,
            references=shared.texts((last.text, *last.alternatives)),
        )


def read_questions(path: Path) -> list[Question]:
    """The questions of all conversations of a file, in its order.

    Raises:
        RecordError: The file is missing, empty or broken, or an id comes twice.
    """
    first_line: dict[str, int] = {}

    def conversations() -> Iterator[Conversation]:
        for number, conversation in numbered(path, Conversation):
            if conversation.id in first_line:
                raise RecordError(
                    f"{path}:{number}: conversation {conversation.id!r} stands at line {first_line[conversation.id]} "
                    "already; ids must be unique. Build the dataset again"
                )
            first_line[conversation.id] = number
            yield conversation

    found = list(questions_of(conversations()))
    if not found:
        raise RecordError(f"{path}: holds no conversation; expected at least one to score")
    return found


def numbered(path: Path, kind: type[R]) -> Iterator[tuple[int, R]]:
    """The records of a JSONL file, one by one, each with its line number.

    Raises:
        RecordError: The file is missing, or a line is broken.
    """
    path = Path(path)
    if not path.is_file():
        raise RecordError(f"{path}: no such file; expected a JSONL file of {schema_name(kind)} records")
    with path.open(encoding="utf-8") as stream:
        for number, line in enumerate(stream, start=1):
            if line.strip():
                yield number, from_line(line, kind, f"{path}:{number}")
