"""OpenAI's chat interface over a dialogue about images: whole or streamed, free or in the form of a typed answer."""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel
from starlette.responses import JSONResponse, StreamingResponse

from gastrovl.core.boxtext import BOX_PATTERN, decode_box
from gastrovl.core.errors import BoxTextError, GastroVLError
from gastrovl.inference.question import HELD_TASKS, Piece, Question, Reply, SaidToken
from gastrovl.serving import logs
from gastrovl.serving.beliefs import belief_given, scope_given
from gastrovl.serving.engine import Answered, Engine
from gastrovl.serving.formats import Form, form_of
from gastrovl.serving.gate import LOG
from gastrovl.serving.intake import Intake, note, parse
from gastrovl.serving.openapi import request_body
from gastrovl.serving.pictures import from_data_url
from gastrovl.serving.refusals import RefusedError, broken, of_our_own
from gastrovl.serving.schemas import (
    About,
    ChatRequest,
    Choice,
    Completion,
    ImagePart,
    LikelyToken,
    Logprobs,
    Message,
    ModelEntry,
    ModelList,
    PlacedBox,
    ReplyMessage,
    TextPart,
    TokenLogprob,
    Usage,
)
from gastrovl.serving.typed_api import placed

# What may be asked for only in the one way that greedy decoding of one reply has; (field, values that ask for it).
_ONE_WAY: tuple[tuple[str, tuple[Any, ...], str], ...] = (
    ("temperature", (None, 0), "decoding is greedy; leave it out, or set 0"),
    ("top_p", (None, 1), "decoding is greedy; leave it out, or set 1"),
    ("n", (None, 1), "greedy decoding has one reply; leave it out, or set 1"),
    ("frequency_penalty", (None, 0), "nothing but the model decides its words; leave it out, or set 0"),
    ("presence_penalty", (None, 0), "nothing but the model decides its words; leave it out, or set 0"),
    ("stop", (None, []), "a reply ends where the model ends it; leave it out"),
)


MOST_IMAGES = 8  # in a dialogue
LEAST_LOGPROB = -9999.0  # OpenAI's number for what is as good as impossible; JSON has no infinity


def openai_routes(intake: Intake, started: int) -> APIRouter:
    """`/v1/models` and `/v1/chat/completions`; `started` is the Unix time given as `created` of the models."""
    routes = APIRouter(prefix="/v1", tags=["OpenAI's interface"])

    @routes.get("/models")
    async def models() -> ModelList:
        """The models served here."""
        return ModelList(data=[ModelEntry(id=name, created=started) for name in intake.engines])

    @routes.get("/models/{model}")
    async def model(model: str) -> ModelEntry:
        """One of them."""
        if model not in intake.engines:
            raise RefusedError(404, "model_not_found", "there is no such model; see /v1/models", param="model")
        return ModelEntry(id=model, created=started)

    @routes.post("/chat/completions", response_model=Completion, openapi_extra=request_body(ChatRequest, is_form=False))
    async def chat(request: Request) -> Response:
        """The next turn of a dialogue about an image or several; as events when `stream` is true."""
        asked = parse(ChatRequest, await request.body())
        check(asked)
        engine = intake.engine(asked.model)
        form = form_of(asked)
        turns, urls = dialogue(asked.messages, intake.settings.max_characters)
        if len(urls) > 1 and form.task in HELD_TASKS:
            raise RefusedError(
                400, "invalid_image_count", f"task {form.task.value} is about one image", param="messages"
            )
        images = [await intake.image(partial(from_data_url, url, "messages"), "messages") for _, url in urls]
        question = Question(
            images[0],
            turns,
            form.task,
            wants_probabilities=form.wants_probabilities,
            schema=form.held_to,
            top_logprobs=(asked.top_logprobs or 0) if asked.logprobs else None,
            further=tuple((place, image) for (place, _), image in zip(urls[1:], images[1:], strict=True)),
        )
        form.check(question)
        check_tokens(engine, question, form)
        length, limit = await intake.measure(engine, question, asked.max_completion_tokens or asked.max_tokens)
        writer = _Writer(engine, question, form, length, limit)
        if asked.stream:
            first, pieces = await intake.stream(request, engine, question, limit)
            is_counted = bool(asked.stream_options and asked.stream_options.include_usage)
            return StreamingResponse(
                _events(request, writer, first, pieces, is_counted=is_counted), media_type="text/event-stream"
            )
        answered = await intake.ask(request, engine, question, limit)
        return JSONResponse(writer.completion(answered.reply).model_dump(mode="json"))

    return routes


def check(asked: ChatRequest) -> None:
    """Refuse what cannot be done as asked, rather than do something else.

    Raises:
        RefusedError: Such a thing is asked for.
    """
    for name, allowed, why in _ONE_WAY:
        if getattr(asked, name) not in allowed:
            raise RefusedError(400, "unsupported_parameter", f"{name}: {why}", param=name)
    if asked.top_logprobs is not None and not asked.logprobs:
        raise RefusedError(400, "invalid_value", "top_logprobs: needs logprobs to be true", param="top_logprobs")


def check_tokens(engine: Engine, question: Question, form: Form) -> None:
    """Refuse log-probabilities of tokens where the reply will not be made of any.

    Raises:
        RefusedError: They are asked for, and it will not.
    """
    if question.top_logprobs is None:
        return
    if form.is_typed:
        why: str | None = "a typed answer is filled in from another reply, so that its JSON was not decoded as tokens"
    else:
        why = engine.model.why_no_tokens(question)
    if why:
        raise RefusedError(400, "unsupported_parameter", f"logprobs: {why}", param="logprobs")


def dialogue(
    messages: Sequence[Message], most_characters: int
) -> tuple[tuple[tuple[str, str], ...], list[tuple[int, str]]]:
    """The turns of a dialogue, and the URLs of its images with the places of their turns.

    Raises:
        RefusedError: The turns do not alternate, have no image or too many, or too many words.
    """
    turns: list[tuple[str, str]] = []
    urls: list[tuple[int, str]] = []
    for place, message in enumerate(messages):
        param = f"messages.{place}"
        expected = ("user", "assistant")[place % 2]
        if message.role in ("system", "developer", "tool"):
            raise RefusedError(
                400,
                "unsupported_role",
                f"the model was taught no {message.role} messages; say it as the user",
                param=f"{param}.role",
            )
        if message.role != expected:
            raise RefusedError(
                400,
                "invalid_turns",
                "expected messages of user and assistant in turn, the first from the user",
                param=f"{param}.role",
            )
        parts = [TextPart(type="text", text=message.content)] if isinstance(message.content, str) else message.content
        urls += [(place, part.image_url.url) for part in parts if isinstance(part, ImagePart)]
        text = "\n".join(part.text for part in parts if isinstance(part, TextPart)).strip()
        if not text:
            raise RefusedError(400, "empty_message", "a message has no words", param=f"{param}.content")
        turns.append((message.role, text))
    if turns[-1][0] != "user":
        raise RefusedError(400, "invalid_turns", "the last message must be the user's", param="messages")
    if not 1 <= len(urls) <= MOST_IMAGES:
        raise RefusedError(
            400,
            "invalid_image_count",
            f"found {len(urls)} images; expected 1 to {MOST_IMAGES} in a dialogue",
            param="messages",
        )
    if sum(len(text) for _, text in turns) > most_characters:
        raise RefusedError(
            400, "too_many_characters", f"the messages have more than {most_characters:,} characters", param="messages"
        )
    return tuple(turns), urls


def boxes_in(reply: Reply, size_wh: tuple[int, int]) -> list[PlacedBox]:
    """The boxes that stand in a reply, in its order; a broken one is left out."""
    boxes = []
    for found in BOX_PATTERN.finditer(reply.text):
        try:
            boxes.append(decode_box(found.group(0)))
        except BoxTextError:
            continue
    expected = reply.expected_iou if reply.expected_iou and len(reply.expected_iou) == len(boxes) else None
    return [placed(box, size_wh, expected[place] if expected else None) for place, box in enumerate(boxes)]


def logprobs_given(tokens: Sequence[SaidToken]) -> Logprobs:
    """Tokens in OpenAI's form; half a letter is shown as one that is unknown, and whole in its bytes."""
    content = []
    for one in tokens:
        likeliest = [LikelyToken(**_likely(said, log)) for said, log in one.likeliest]
        content.append(TokenLogprob(**_likely(one.said, one.log), top_logprobs=likeliest))
    return Logprobs(content=content)


def _likely(said: bytes, log: float) -> dict[str, Any]:
    return {"token": said.decode("utf-8", "replace"), "logprob": max(log, LEAST_LOGPROB), "bytes": list(said)}


class _Writer:
    """Writes one completion, whole or in chunks."""

    def __init__(self, engine: Engine, question: Question, form: Form, prompt_length: int, limit: int) -> None:
        self.engine, self.question, self.form, self.prompt_length = engine, question, form, prompt_length
        self.limit = limit
        self.id, self.created = f"chatcmpl-{uuid.uuid4().hex}", logs.now()

    def about(self, reply: Reply) -> About:
        return About(
            confidence=reply.confidence,
            calibrated=reply.belief is not None and reply.belief.is_calibrated,
            belief=belief_given(reply.belief),
            scope=scope_given(reply.belief),
            boxes=[] if self.question.further else boxes_in(reply, self.question.original_wh),
        )

    def usage(self, reply: Reply) -> Usage:
        """Tokens of the prompt, the image among them, and of the reply's text."""
        written = self.engine.model.reply_length(reply, self.limit)
        return Usage(
            prompt_tokens=self.prompt_length, completion_tokens=written, total_tokens=self.prompt_length + written
        )

    def content(self, reply: Reply) -> str:
        return self.form.content(self.engine.name, self.question, reply)

    def completion(self, reply: Reply) -> Completion:
        choice = Choice(
            message=ReplyMessage(content=self.content(reply)),
            logprobs=None if reply.tokens is None else logprobs_given(reply.tokens),
            finish_reason=_finish(reply),
        )
        return Completion(
            id=self.id,
            created=self.created,
            model=self.engine.name,
            choices=[choice],
            usage=self.usage(reply),
            gastrovl=self.about(reply),
        )

    def chunk(
        self, delta: dict[str, Any], finish: str | None = None, tokens: Sequence[SaidToken] = (), **others: Any
    ) -> dict[str, Any]:
        told = logprobs_given(tokens).model_dump() if tokens else None
        choice = {"index": 0, "delta": delta, "logprobs": told, "finish_reason": finish}
        return self._frame([choice]) | others

    def counts(self, reply: Reply) -> dict[str, Any]:
        return self._frame([]) | {"usage": self.usage(reply).model_dump()}

    def _frame(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": "chat.completion.chunk",
            "created": self.created,
            "model": self.engine.name,
            "choices": choices,
        }


async def _events(
    request: Request,
    writer: _Writer,
    first: str | Answered,
    pieces: AsyncIterator[str | Answered],
    *,
    is_counted: bool,
) -> AsyncIterator[str]:
    """The reply as server-sent events: the role, pieces of the text, why it ended, counts if asked for, [DONE]."""
    yield _event(writer.chunk({"role": "assistant", "content": ""}))
    told = 0
    try:
        async for piece in _chain(first, pieces):
            if isinstance(piece, str):
                if piece and not writer.form.is_typed:
                    tokens = piece.tokens if isinstance(piece, Piece) else ()
                    told += len(tokens)
                    yield _event(writer.chunk({"content": piece}, tokens=tokens))
                continue
            note(request, writer.engine, writer.question, piece)
            if writer.form.is_typed:
                yield _event(writer.chunk({"content": writer.content(piece.reply)}))
            about = writer.about(piece.reply).model_dump(mode="json")
            left = (piece.reply.tokens or ())[told:]  # those that say nothing, or were not told with a piece
            yield _event(writer.chunk({}, _finish(piece.reply), left, gastrovl=about))
            if is_counted:
                yield _event(writer.counts(piece.reply))
            yield "data: [DONE]\n\n"
    except Exception as error:  # the answer has begun with 200, so that the rest has to say it
        if isinstance(error, GastroVLError):
            refusal = of_our_own(error)
        else:
            refusal = error if isinstance(error, RefusedError) else broken()
        if refusal.code == "internal_error":
            request.scope[LOG].update(logs.places(error))
        request.scope[LOG]["code"] = refusal.code
        yield _event(refusal.body)


async def _chain(first: str | Answered, others: AsyncIterator[str | Answered]) -> AsyncIterator[str | Answered]:
    yield first
    async for one in others:
        yield one


def _event(content: dict[str, Any] | BaseModel) -> str:
    return f"data: {json.dumps(content, ensure_ascii=False)}\n\n"


def _finish(reply: Reply) -> Any:
    return "length" if reply.stop_reason == "length" else "stop"
