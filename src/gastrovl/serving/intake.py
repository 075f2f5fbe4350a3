"""A request behind the gate to a reply of an engine: parsed strictly, its image decoded, its prompt measured."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, TypeVar

import anyio.to_thread
from PIL import Image
from pydantic import BaseModel, ValidationError
from starlette.requests import Request

from gastrovl.core.errors import GastroVLError
from gastrovl.inference.question import MAX_NEW_TOKENS, Question
from gastrovl.serving import pictures
from gastrovl.serving.engine import Answered, Engine
from gastrovl.serving.gate import LOG
from gastrovl.serving.refusals import RefusedError, client_gone, of_our_own
from gastrovl.serving.settings import ServerSettings

M = TypeVar("M", bound=BaseModel)
T = TypeVar("T")
DECODERS = 2  # images decoded at once


def parse(kind: type[M], content: bytes | dict[str, Any]) -> M:
    """JSON, or the fields of a form, as `kind`.

    Raises:
        RefusedError: It is not; what the client sent is not quoted.
    """
    try:
        return kind.model_validate_json(content) if isinstance(content, bytes) else kind.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        param = ".".join(str(part) for part in first["loc"])[:200] or None
        if first["type"] == "json_invalid":
            raise RefusedError(400, "invalid_json", "the body is not JSON") from None
        code = "unknown_parameter" if first["type"] == "extra_forbidden" else "invalid_value"
        said = "is no parameter of this server" if code == "unknown_parameter" else first["msg"]
        raise RefusedError(400, code, f"{param or 'the body'}: {said}"[:500], param=param) from None
    except GastroVLError as error:
        raise RefusedError(400, "invalid_value", str(error)[:500]) from None


class Intake:
    """What all endpoints share: the engines by name, and the way from a request to a reply."""

    def __init__(self, engines: Sequence[Engine], settings: ServerSettings) -> None:
        self.engines, self.settings = {engine.name: engine for engine in engines}, settings
        self._decoders = anyio.CapacityLimiter(DECODERS)

    def engine(self, name: str | None) -> Engine:
        """The engine of that name, the first one for None, with room for a question.

        Raises:
            RefusedError: There is none, or it takes no question now.
        """
        name = next(iter(self.engines)) if name is None else name
        if name not in self.engines:
            raise RefusedError(404, "model_not_found", "there is no such model; see /v1/models", param="model")
        self.engines[name].check_room()
        return self.engines[name]

    async def image(self, read: Callable[[], bytes], param: str) -> Image.Image:
        """The image in the bytes that `read` finds in a request.

        Raises:
            RefusedError: It cannot be had from there.
        """

        def work() -> Image.Image:
            return pictures.decode(read(), param, self.settings.max_pixels)

        return await anyio.to_thread.run_sync(work, limiter=self._decoders)

    async def measure(self, engine: Engine, question: Question, wanted: int | None) -> tuple[int, int]:
        """Tokens of the prompt, and how many the reply may have.

        Args:
            wanted: The client's own limit; a lower one of ours holds.

        Raises:
            RefusedError: The model cannot be asked so, or the prompt is too long for it.
        """
        try:
            length = await anyio.to_thread.run_sync(engine.model.prompt_length, question)
        except GastroVLError as error:
            raise of_our_own(error) from None
        room = engine.model.room(length)
        if room < 1:
            raise RefusedError(
                400,
                "context_length_exceeded",
                f"the prompt has {length} tokens, which leaves no room for a reply",
                param="messages",
            )
        usual = MAX_NEW_TOKENS[question.task] if question.task else self.settings.max_new_tokens
        return length, min(wanted or usual, self.settings.max_new_tokens, room)

    async def ask(self, request: Request, engine: Engine, question: Question, limit: int) -> Answered:
        """The reply; a client that goes away meanwhile gives up its place.

        Raises:
            RefusedError: There is none in time, or no room for the question.
        """
        answered = await _while_connected(request, engine.ask(question, limit, self.settings.timeout_s))
        note(request, engine, question, answered)
        return answered

    async def stream(
        self, request: Request, engine: Engine, question: Question, limit: int
    ) -> tuple[str | Answered, AsyncIterator[str | Answered]]:
        """The first piece of the reply, and an iterator over the others and the whole.

        Raises:
            RefusedError: As `ask`; what goes wrong later is raised by the iterator.
        """
        pieces = engine.stream(question, limit, self.settings.timeout_s)
        return await _while_connected(request, anext(pieces)), pieces


def note(request: Request, engine: Engine, question: Question, answered: Answered) -> None:
    """Say in the request's log line what was asked, in numbers."""
    width, height = question.original_wh
    request.scope[LOG].update(
        model=engine.name,
        task=question.task.value if question.task else None,
        image_px=[width, height],
        turns=len(question.turns),
        waited_ms=round(answered.waited_s * 1000, 1),
        batch=answered.batch,
        stop_reason=answered.reply.stop_reason,
    )


async def _while_connected(request: Request, work: Awaitable[T]) -> T:
    """The result of `work`, which is cancelled when the client goes away."""
    working = asyncio.ensure_future(work)
    watching = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait((working, watching), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise client_gone()
        return working.result()
    except GastroVLError as error:
        raise of_our_own(error) from None
    finally:
        for task in (working, watching):
            task.cancel()
        await asyncio.gather(working, watching, return_exceptions=True)


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
