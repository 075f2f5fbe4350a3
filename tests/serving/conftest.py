"""A model that answers at once what its questions say, and servers on loopback around it."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import httpx
import numpy as np
import pytest
from PIL import Image

from gastrovl.core.errors import ModelInputError
from gastrovl.core.types import Task
from gastrovl.inference.question import Question, Reply
from gastrovl.serving.app import create_app, make_engine
from gastrovl.serving.engine import Engine
from gastrovl.serving.run import bind, make_server
from gastrovl.serving.settings import ServerSettings

STARTED = 1_700_000_000


def seen(image: Image.Image) -> str:
    """Eight letters that tell an image from any other."""
    return hashlib.sha256(image.tobytes()).hexdigest()[:8]


@dataclass
class Echo:
    """Answers CLS with a polyp, REC with a box, REG with an ulcer, and else the image's letters and the last words.

    Attributes:
        gate: Answers wait until it is set; `began` is set as soon as one waits.
        batches: The last words of each batch, in their order.
        pieces: Of a streamed reply, seconds apart from one another; `said` counts those that somebody heard.
        fails: Words at which it fails.
    """

    name: str = "echo"
    gate: threading.Event = field(default_factory=threading.Event)
    began: threading.Event = field(default_factory=threading.Event)
    batches: list[list[str]] = field(default_factory=list)
    pieces: int = 3
    pause_s: float = 0.0
    said: int = 0
    fails: str = "break down"

    def __post_init__(self) -> None:
        self.gate.set()

    def answer(self, questions, max_new_tokens):
        self.batches.append([question.turns[-1][1] for question in questions])
        self.began.set()
        assert self.gate.wait(30)
        return [self._reply(question, max_new_tokens) for question in questions]

    def stream(self, question, max_new_tokens, say):
        self.began.set()
        assert self.gate.wait(30)
        reply = self._reply(question, max_new_tokens)
        size = -(-len(reply.text) // self.pieces)
        for start in range(0, len(reply.text), size):
            if not say(reply.text[start : start + size]):
                return None
            self.said += 1
            time.sleep(self.pause_s)
        return reply

    def _reply(self, question: Question, limit: int) -> Reply:
        text = question.turns[-1][1]
        if self.fails in text:
            raise ZeroDivisionError(f"secret of {text}")
        if question.task is Task.CLS:
            return Reply("polyp", 0.75, 0.0, "end", {"polyp_unspecified": 0.75, "gastric_ulcer": 0.125})
        if question.task is Task.REC:
            return Reply("[100,200,300,400]", 0.5, 0.0, "end", presence=0.9, expected_iou=(0.625,))
        if question.task is Task.REG:
            return Reply("gastric ulcer", 0.625, 0.0, "end", {"polyp_unspecified": 0.25, "gastric_ulcer": 0.625})
        if question.schema is not None:
            return Reply(json.dumps({"schema": question.schema}), 0.25, 0.0, "end")
        words = f"{seen(question.image)} {text}".split()
        return Reply(" ".join(words[:limit]), 0.25, 0.0, "length" if len(words) > limit else "end")

    def prompt_length(self, question):
        if "<image>" in question.turns[-1][1]:
            raise ModelInputError("a message holds '<image>', which has a meaning of its own to the model; remove it")
        return 16 + sum(len(text.split()) for _, text in question.turns)

    def why_no_tokens(self, question):
        return "the perception head answers it" if question.task in (Task.CLS, Task.REC, Task.REG) else None

    def reply_length(self, reply, limit):
        return min(len(reply.text.split()), limit)

    def room(self, prompt_length):
        return 512 - prompt_length


@pytest.fixture
def echo() -> Echo:
    return Echo()


def picture(number: int = 0, size_wh: tuple[int, int] = (40, 20)) -> Image.Image:
    """Noise, different for each number."""
    pixels = np.random.default_rng(number).integers(0, 256, (size_wh[1], size_wh[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def png(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def data_url(image: Image.Image) -> str:
    return "data:image/png;base64," + base64.b64encode(png(image)).decode()


def messages(image: Image.Image, text: str = "What is it?"):
    """One user's turn in OpenAI's form."""
    shown = {"type": "image_url", "image_url": {"url": data_url(image)}}
    return [{"role": "user", "content": [shown, {"type": "text", "text": text}]}]


@dataclass
class Site:
    """A server that listens on 127.0.0.1, its engines, and a client of it."""

    url: str
    engines: list[Engine]
    client: httpx.Client


@contextmanager
def listening(models, **settings) -> Iterator[Site]:
    """Serve models until the block ends; needs the marker `allow_hosts(["127.0.0.1"])`."""
    chosen = ServerSettings(**{"port": 0, "grace_s": 2.0, **settings})
    engines = [make_engine(model, chosen) for model in models]
    with bind(chosen) as socket:
        server = make_server(create_app(engines, chosen, started=STARTED), chosen, len(engines))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [socket]}, daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{socket.getsockname()[1]}"
        try:
            until(lambda: server.started, "the server did not start")
            with httpx.Client(base_url=url, timeout=20, trust_env=False) as client:
                yield Site(url, engines, client)
        finally:
            server.should_exit = True
            thread.join(10)
    assert not thread.is_alive()


def until(holds: Callable[[], bool], complaint: str, seconds: float = 10.0) -> None:
    """Wait for what another thread does."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, complaint
        time.sleep(0.005)


@pytest.fixture(scope="module")
def browser():
    """Chromium, for tests that bear `browsing.MARKS`."""
    from .browsing import launched  # needs playwright

    with launched() as browser:
        yield browser


@pytest.fixture(scope="module")
def site():
    """A server of two models that disagree."""
    from .browsing import Second

    with listening([Echo("first"), Second("second")]) as site:
        yield site


@pytest.fixture
def page(browser, site):
    """Its web page."""
    from .browsing import opened

    with opened(browser, site.url) as page:
        yield page
