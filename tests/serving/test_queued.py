"""Sessions of threads that ask through an engine's queue."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gastrovl.core.errors import ModelInputError
from gastrovl.core.types import Task
from gastrovl.inference.question import MAX_NEW_TOKENS, Question
from gastrovl.inference.session import Kind, Session, Wish, answers
from gastrovl.serving.app import make_engine
from gastrovl.serving.queued import Queued
from gastrovl.serving.refusals import RefusedError
from gastrovl.serving.settings import ServerSettings

from .conftest import picture, seen, until


@pytest.fixture
def asked(echo):
    """`asked(timeout_s=...)` starts an engine and gives what a session may ask."""
    engines = []

    def start(**settings):
        chosen = ServerSettings(**settings)
        engines.append(make_engine(echo, chosen))
        engines[-1].start()
        return Queued(engines[-1], chosen)

    yield start
    echo.gate.set()
    for engine in engines:
        engine.close(5.0)


def words(text: str, number: int = 0) -> Question:
    return Question(picture(number), (("user", text),))


def test_a_session_is_answered_through_the_queue(asked):
    session = Session(asked(), "echo")
    session.show(picture(3), "a.png")

    labels, place = session.ask(Wish(Kind.CLASSIFY)), session.ask(Wish(Kind.LOCATE, "polyp"))
    pieces = list(session.say("What is it?", session.model.stream))

    assert (labels.terms, labels.confidence) == (("polyp_unspecified",), 0.75)
    assert (len(place.boxes), place.presence) == (1, 0.9)
    assert len(pieces) == 3
    assert "".join(pieces) == session.exchanges[-1].text == f"{seen(picture(3))} What is it?"


def test_wishes_that_wait_together_keep_their_order(asked, echo):
    wishes = [Wish(Kind.DESCRIBE), Wish(Kind.CLASSIFY), Wish(Kind.LOCATE, "polyp")]

    found = answers(asked(), picture(), wishes)

    assert [answer.text.split()[-1] for answer, _ in found] == ["image.", "polyp", "[100,200,300,400]"]
    assert sum(map(len, echo.batches)) == 3


def test_a_reply_is_no_longer_than_the_server_lets_it_be(asked):
    [reply] = asked(max_new_tokens=2).answer([words("one two three")], 50)

    assert reply.text == f"{seen(picture())} one"
    assert reply.stop_reason == "length"


def test_a_reply_without_a_limit_has_the_usual_room_of_its_task(asked):
    long = "word " * 220

    [free] = asked().answer([words(long)])
    [report] = asked().answer([replace(words(long), task=Task.REPORT)])

    assert len(free.text.split()) == MAX_NEW_TOKENS[Task.VQA] == 192
    assert len(report.text.split()) == 221  # what the picture is called, and all words


def test_a_prompt_without_room_for_a_reply_is_refused(asked):
    with pytest.raises(RefusedError, match="the prompt has 516 tokens"):
        asked().answer([words("word " * 500)], 50)


def test_a_mark_of_the_chat_template_never_reaches_the_model(asked, echo):
    with pytest.raises(ModelInputError, match="holds '<image>'"):
        asked().answer([words("an <image> in words")], 50)
    assert echo.batches == []


def test_when_the_time_is_over_all_places_are_given_up(asked, echo):
    echo.gate.clear()
    model = asked(timeout_s=0.2, max_batch=1)

    with pytest.raises(RefusedError, match=r"no answer within 0\.2 s"):
        model.answer([words("first"), words("second"), words("third")], 50)

    assert model.engine.waiting == 0


def test_when_one_question_is_refused_the_others_give_up_their_places(asked, echo):
    echo.gate.clear()
    model = asked(max_queue=2, max_batch=1)
    blocking = model.engine.submit(words("in the way"), 50)
    until(echo.began.is_set, "the engine did not begin")

    with pytest.raises(RefusedError, match="too many questions"):
        model.answer([words("first"), words("second"), words("third")], 50)

    assert model.engine.waiting == 0
    echo.gate.set()
    assert blocking.result(5).reply.text.endswith("in the way")


def test_a_stream_that_nobody_reads_on_is_ended(asked, echo):
    echo.pieces, echo.pause_s = 1000, 0.005
    model = asked()
    pieces = model.stream(words("a long story " * 30), 300)

    next(pieces)
    pieces.close()

    until(lambda: model.engine.running == 0, "the stream runs on")
    assert echo.said < 100  # of some 400 pieces


def test_a_failure_of_the_model_reaches_the_one_who_streams(asked):
    with pytest.raises(ZeroDivisionError):
        list(asked().stream(words("break down"), 50))
