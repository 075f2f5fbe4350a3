"""Replies one by one to a file that survives a kill, and that belongs to one model and one file of questions."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Container, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from gastrovl.core import records
from gastrovl.core.config import Config
from gastrovl.core.errors import PredictionError
from gastrovl.core.files import lock_handle
from gastrovl.core.types import Prediction

SCHEMA = "gastrovl/predicting/1"


class Begun(Config):
    """What replies belong to: the first line of the file.

    Attributes:
        fingerprint: Of the model's weights or description; a name alone would let a retrained model's replies mix.
        conversations: SHA-256 of the file of conversations.
    """

    model: str
    fingerprint: str
    conversations: str


class PartialFile(AbstractContextManager["PartialFile"]):
    """`<output>.partial`: a line of what the replies belong to, then a line a reply; one process at a time has it.

    Args:
        told: What else the first line says of the model, for whoever reads the file without it.

    Raises:
        OutputError: Another run is writing it.
        PredictionError: It was begun by another model, or for other conversations.
        RecordError: A line is broken.
    """

    def __init__(self, path: Path, begun: Begun, told: Mapping[str, Any] | None = None) -> None:
        self.path, self._begun, self._lock = path, begun, threading.Lock()
        self._told = dict(told or {})
        self._stream: IO[bytes] | None = None

    def __enter__(self) -> PartialFile:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        stream = self.path.open("a+b")
        try:
            lock_handle(
                stream.fileno(), f"{self.path}: another run is writing it; wait for its end, or choose another -o"
            )
        except BaseException:
            stream.close()
            raise
        self._stream = stream
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._stream is not None
        is_bare = os.fstat(self._stream.fileno()).st_size <= len(self._head())
        self._stream.close()
        if is_bare:  # nothing was answered, so that nothing has to be kept
            self.path.unlink(missing_ok=True)

    def read(self, asked: Container[str]) -> dict[str, Prediction]:
        """Replies by conversation, of two the later one; a last line cut off in the middle is removed from the file."""
        assert self._stream is not None
        self._stream.seek(0)
        content = self._stream.read()
        head, lines, length = _whole_lines(content)
        if length != len(content):
            self._stream.truncate(length)
        if not head:
            self._write(self._head())
            return {}
        _check(self.path, Head.read(self.path, head).begun, self._begun)
        return _replies(self.path, lines, asked)

    def add(self, predictions: Iterable[Prediction]) -> None:
        """Append replies, so that they outlive the process; may be called by several threads."""
        lines = "".join(records.to_line(one) + "\n" for one in predictions)
        with self._lock:
            self._write(lines.encode())

    def _write(self, content: bytes) -> None:
        assert self._stream is not None
        self._stream.write(content)
        self._stream.flush()
        os.fsync(self._stream.fileno())

    def _head(self) -> bytes:
        return (json.dumps({"schema": SCHEMA, **self._begun.model_dump(), **self._told}) + "\n").encode()


@dataclass(frozen=True)
class Head:
    """The first line of such a file: what its replies belong to, and what else it says of the model."""

    begun: Begun
    told: Mapping[str, Any]

    @classmethod
    def read(cls, path: Path, line: str) -> Head:
        """Raises:
        PredictionError: It is not one of ours.
        """
        try:
            found = json.loads(line)
            if found.pop("schema") != SCHEMA:
                raise ValueError("another schema")
            begun = Begun.model_validate({name: found.pop(name) for name in Begun.model_fields})
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise PredictionError(
                f"{path}:1: does not say which model the replies are of (a file of an older version?); delete it "
                "to start over"
            ) from error
        return cls(begun, found)


def read_partial(path: Path, asked: Container[str]) -> tuple[Head, dict[str, Prediction]] | None:
    """What such a file holds, whoever is writing it; None where there is none, or its first line is not whole yet.

    Raises:
        PredictionError: Its first line is none of ours, or a reply is to what is not asked.
        RecordError: A line is broken.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    head, lines, _ = _whole_lines(content)
    return (Head.read(path, head), _replies(path, lines, asked)) if head else None


def _whole_lines(content: bytes) -> tuple[str, list[str], int]:
    """The first line, the others, and their bytes in all; what follows the last line end was cut off."""
    whole = content[: content.rfind(b"\n") + 1]  # cut first, decoded then: the cut may lie within a letter
    head, *lines = whole.decode("utf-8").split("\n")
    return head, lines[:-1], len(whole)


def _replies(path: Path, lines: Iterable[str], asked: Container[str]) -> dict[str, Prediction]:
    """Replies by conversation, of two the later one."""
    done: dict[str, Prediction] = {}
    for number, line in enumerate(lines, start=2):
        prediction = records.from_line(line, Prediction, f"{path}:{number}")
        if prediction.conversation_id not in asked:
            raise PredictionError(
                f"{path}:{number}: answers {prediction.conversation_id!r}, which is not asked now; delete the file to "
                "start over"
            )
        done[prediction.conversation_id] = prediction
    return done


def _check(path: Path, begun: Begun, mine: Begun) -> None:
    """Refuse replies of another model, or to other questions."""
    if begun == mine:
        return
    if begun.model != mine.model:
        what = f"by model {begun.model!r}, and {mine.model!r} is asked now"
    elif begun.fingerprint != mine.fingerprint:
        what = f"by {begun.model!r} with other weights or another description (trained again, or changed)"
    else:
        what = "for another state of the file of conversations"
    raise PredictionError(f"{path}:1: was begun {what}; delete the file to start over, or choose another -o")
