"""A thread's questions to replies of an engine's queue, as a session asks them; the model itself is never touched."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Generator, Sequence
from concurrent.futures import Future

from gastrovl.inference.question import Question, Reply
from gastrovl.serving.engine import Answered, Engine
from gastrovl.serving.refusals import RefusedError, timed_out
from gastrovl.serving.settings import ServerSettings


class Queued:
    """Asks an engine within the server's limits; an `inference.session.Answering` for threads without an event loop."""

    def __init__(self, engine: Engine, settings: ServerSettings) -> None:
        self.engine, self.settings = engine, settings

    @property
    def name(self) -> str:
        return self.engine.name

    def answer(self, questions: Sequence[Question], max_new_tokens: int | None = None) -> list[Reply]:
        """Replies in the order of the questions; when one is refused, the others give up their places.

        Raises:
            RefusedError: The queue is full, the time is over, the engine is closing, or a prompt is too long.
            GastroVLError: A question cannot be put to this model.
        """
        until = time.monotonic() + self.settings.timeout_s
        waiting: list[Future[Answered]] = []
        try:
            for question in questions:
                waiting.append(
                    self.engine.submit(question, self._limit(question, max_new_tokens or question.usual_tokens))
                )
            return [one.result(max(0.0, until - time.monotonic())).reply for one in waiting]
        except TimeoutError:
            raise timed_out(self.settings.timeout_s) from None
        finally:
            for one in waiting:
                one.cancel()

    def stream(self, question: Question, max_new_tokens: int) -> Generator[str, None, Reply]:
        """The pieces of a reply as they come, then the reply; closing the generator ends the work on it.

        Raises:
            RefusedError, GastroVLError: As `answer`, at the first step or later.
        """
        limit = self._limit(question, max_new_tokens)
        loop = asyncio.new_event_loop()
        pieces = self.engine.stream(question, limit, self.settings.timeout_s)
        try:
            while isinstance(piece := loop.run_until_complete(_next(pieces)), str):
                yield piece
            return piece.reply
        finally:
            loop.run_until_complete(pieces.aclose())  # type: ignore[attr-defined]  # it is an async generator
            loop.close()

    def _limit(self, question: Question, wanted: int) -> int:
        self.engine.check_room()
        length = self.engine.model.prompt_length(question)
        room = self.engine.model.room(length)
        if room < 1:
            said = f"the prompt has {length} tokens, which leaves no room for a reply"
            raise RefusedError(400, "context_length_exceeded", said)
        return min(wanted, self.settings.max_new_tokens, room)


async def _next(pieces: AsyncIterator[str | Answered]) -> str | Answered:
    return await anext(pieces)
