"""A checkpoint to a way of asking it over HTTP, through a server of this process: what `gastrovl parity` compares."""

from __future__ import annotations

import base64
import http.client
import io
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gastrovl.core.errors import EndpointError
from gastrovl.core.images import MAX_PIXELS
from gastrovl.inference.question import Question, Reply
from gastrovl.serving.engine import Model
from gastrovl.serving.run import bind, check_extra, make_server
from gastrovl.serving.settings import ServerSettings

AT_ONCE = 8  # questions under way, so that the server answers them together
TIMEOUT_S = 3600.0
START_S = 60.0
HEADERS = {"Content-Type": "application/json"}


def ask_over_http(folder: Path, device: str | None = None) -> Callable[[Sequence[Question], int], list[Reply]]:
    """What answers as `Predictor.answer` does, by a server on a free port that lives as long as one call.

    Texts and confidences come over the wire; a question that the server refuses has its error as the reply.

    Raises:
        MissingExtraError: A library of the extra `serve` is not installed.
        CheckpointError: By the call: the checkpoint cannot be loaded.
        EndpointError: By the call: the server did not start.
    """
    check_extra()

    def answer(questions: Sequence[Question], max_new_tokens: int) -> list[Reply]:
        from gastrovl.inference.predictor import Predictor
        from gastrovl.serving.checkpoints import ServedCheckpoint

        model = ServedCheckpoint(Predictor.load(folder, device, dtype="float32"))
        settings = ServerSettings(
            port=0,
            max_queue=2 * AT_ONCE,
            max_new_tokens=max_new_tokens,
            max_pixels=MAX_PIXELS,
            max_body_bytes=2**30,
            max_characters=10**6,
            timeout_s=TIMEOUT_S,
            body_timeout_s=TIMEOUT_S,
            grace_s=1.0,
        )
        with listening(model, settings) as address, ThreadPoolExecutor(AT_ONCE) as threads:
            return list(threads.map(lambda one: _ask(address, model.name, one, max_new_tokens), questions))

    return answer


@contextmanager
def listening(model: Model, settings: ServerSettings) -> Iterator[tuple[str, int]]:
    """(host, port) of a server of this model in a thread of its own, until the block ends.

    Raises:
        EndpointError: It did not start.
    """
    from gastrovl.serving.app import create_app, make_engine

    with bind(settings) as socket:
        server = make_server(create_app([make_engine(model, settings)], settings), settings)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [socket]}, name="server", daemon=True)
        thread.start()
        try:
            end = time.monotonic() + START_S
            while not server.started:
                if not thread.is_alive() or time.monotonic() > end:
                    raise EndpointError(f"the server did not start within {START_S:g} s")
                time.sleep(0.01)
            host, port = socket.getsockname()[:2]
            yield host, port
        finally:
            server.should_exit = True
            thread.join(START_S)


def _ask(address: tuple[str, int], model: str, question: Question, max_new_tokens: int) -> Reply:
    connection = http.client.HTTPConnection(*address, timeout=TIMEOUT_S)
    try:
        connection.request("POST", "/v1/chat/completions", _body(model, question, max_new_tokens), HEADERS)
        answer = connection.getresponse()
        content = json.loads(answer.read())
    finally:
        connection.close()
    if answer.status != 200:
        return Reply(f"HTTP {answer.status}: {content['error']['message']}", 0.0, 0.0, "end")
    choice = content["choices"][0]
    is_cut = choice["finish_reason"] == "length"
    confidence = content["gastrovl"]["confidence"]
    return Reply(choice["message"]["content"], confidence, 0.0, "length" if is_cut else "end")


def _body(model: str, question: Question, max_new_tokens: int) -> bytes:
    """A question in OpenAI's form, its image without loss."""
    stream = io.BytesIO()
    question.image.save(stream, "PNG")
    url = "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()
    said: list[dict[str, Any]] = [{"role": role, "content": text} for role, text in question.turns]
    shown = {"type": "image_url", "image_url": {"url": url}}
    said[0]["content"] = [shown, {"type": "text", "text": said[0]["content"]}]
    task = {} if question.task is None else {"task": question.task.value}
    asked = {"model": model, "messages": said, "max_tokens": max_new_tokens} | task
    return json.dumps(asked).encode()
