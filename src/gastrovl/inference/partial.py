"""Replies one by one to a file that survives a kill, and that belongs to one model and one file of questions."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Container, Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import IO

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

    Raises:
        OutputError: Another run is writing it.
        PredictionError: It was begun by another model, or for other conversations.
        RecordError: A line is broken.
    """

    def __init__(self, path: Path, begun: Begun) -> None:
        self.path, self._begun, self._lock = path, begun, threading.Lock()
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
        content = self._stream.read()  # cut first, decoded then: the cut may lie within a letter
        whole = content[: content.rfind(b"\n") + 1]
        if whole != content:
            self._stream.truncate(len(whole))
        if not whole:
            self._write(self._head())
            return {}
        head, *lines = whole.decode("utf-8").split("\n")[:-1]
        self._check(head)
        done: dict[str, Prediction] = {}
        for number, line in enumerate(lines, start=2):
            prediction = records.from_line(line, Prediction, f"{self.path}:{number}")
            if prediction.conversation_id not in asked:
                raise PredictionError(
                    f"{self.path}:{number}: answers {prediction.conversation_id!r}, which is not asked now; delete the "
                    "file to start over"
                )
            done[prediction.conversation_id] = prediction
        return done

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
        return (json.dumps({"schema": SCHEMA, **self._begun.model_dump()}) + "\n").encode()

    def _check(self, head: str) -> None:
        """Refuse replies of another model, or to other questions."""
        try:
            found = json.loads(head)
            begun = Begun.model_validate({name: found[name] for name in Begun.model_fields})
            is_ours = found.get("schema") == SCHEMA
        except (ValueError, KeyError, TypeError):
            is_ours = False
        if not is_ours:
            raise PredictionError(
                f"{self.path}:1: does not say which model the replies are of (a file of an older version?); delete it "
                "to start over"
            )
        if begun == self._begun:
            return
        mine = self._begun
        if begun.model != mine.model:
            what = f"by model {begun.model!r}, and {mine.model!r} is asked now"
        elif begun.fingerprint != mine.fingerprint:
            what = f"by {begun.model!r} with other weights or another description (trained again, or changed)"
        else:
            what = "for another state of the file of conversations"
        raise PredictionError(f"{self.path}:1: was begun {what}; delete the file to start over, or choose another -o")
