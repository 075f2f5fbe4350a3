"""The engine: batches of what goes together, a bounded queue, places that are given up, and errors of one alone."""

from __future__ import annotations

import asyncio
from concurrent.futures import CancelledError

import pytest

from gastrovl.core.types import Task
from gastrovl.inference.question import Question
from gastrovl.serving.engine import Engine
from gastrovl.serving.refusals import RefusedError

from .conftest import picture, seen, until


def ask(text: str, task: Task | None = None, number: int = 0) -> Question:
    return Question(picture(number), (("user", text),), task)


@pytest.fixture
def engine(echo):
    """Not started; at most four wait, three are answered together."""
    made = Engine(echo, max_queue=4, max_batch=3, max_queued_pixels=10_000)
    yield made
    echo.gate.set()
    made.close(5.0)


@pytest.fixture
def busy(engine, echo):
    """An engine that answers `first`, and goes on when the gate is opened."""
    echo.gate.clear()
    engine.start()
    engine.submit(ask("first"), 8)
    assert echo.began.wait(5)
    return engine


def refused(code):
    return pytest.raises(RefusedError, check=lambda error: error.code == code)


def test_every_question_gets_its_own_reply(engine):
    futures = [engine.submit(ask(f"number {n}", number=n), 8) for n in range(4)]
    engine.start()

    texts = [future.result(5).reply.text for future in futures]

    assert texts == [f"{seen(picture(n))} number {n}" for n in range(4)]


def test_what_came_while_a_batch_ran_makes_the_next_one_up_to_the_limit(busy, echo):
    futures = [busy.submit(ask(text), 8) for text in ("a", "b", "c", "d")]
    echo.gate.set()

    sizes = [future.result(5).batch for future in futures]

    assert echo.batches == [["first"], ["a", "b", "c"], ["d"]]
    assert sizes == [3, 3, 3, 1]


def test_the_oldest_question_goes_first_and_only_its_like_join_it(busy, echo):
    futures = [
        busy.submit(ask("a", Task.CLS), 8),
        busy.submit(ask("b"), 8),
        busy.submit(ask("c", Task.CLS), 8),
        busy.submit(ask("d", Task.CLS), 9),  # another limit of tokens
    ]
    echo.gate.set()
    for future in futures:
        future.result(5)

    assert echo.batches == [["first"], ["a", "c"], ["b"], ["d"]]


def test_one_question_more_than_the_queue_holds_is_refused(busy):
    for number in range(4):
        busy.submit(ask(str(number)), 8)

    with refused("queue_full"):
        busy.submit(ask("one more"), 8)
    with refused("queue_full"):
        busy.check_room()


def test_large_images_fill_the_queue_by_their_pixels(busy):
    large = Question(picture(1, (100, 60)), (("user", "large"),))
    busy.submit(large, 8)

    with refused("queue_full"):
        busy.submit(large, 8)  # 12,000 of 10,000 pixels
    busy.submit(ask("small"), 8)


def test_an_image_larger_than_the_whole_budget_is_answered_when_nothing_waits(engine):
    future = engine.submit(Question(picture(1, (200, 60)), (("user", "large"),)), 8)
    engine.start()

    assert future.result(5).reply.text.endswith("large")


def test_a_cancelled_question_gives_its_place_to_the_next(busy, echo):
    futures = [busy.submit(ask(str(number)), 8) for number in range(4)]

    assert futures[1].cancel()
    busy.submit(ask("another"), 8)
    echo.gate.set()
    until(lambda: busy.waiting == 0, "the queue does not empty")
    futures[3].result(5)

    assert "1" not in [text for batch in echo.batches for text in batch]


def test_a_bad_question_does_not_take_its_batch_along(busy, echo):
    futures = [busy.submit(ask(text), 8) for text in ("a", "please break down", "c")]
    echo.gate.set()

    assert futures[0].result(5).reply.text.endswith(" a")
    assert futures[2].result(5).reply.text.endswith(" c")
    with pytest.raises(ZeroDivisionError):
        futures[1].result(5)
    assert busy.submit(ask("still there"), 8).result(5).reply.text.endswith("there")


def test_asking_ends_after_its_time_and_leaves_the_queue(busy):
    async def both():
        with refused("timeout"):
            await busy.ask(ask("late"), 8, 0.05)

    asyncio.run(both())
    assert busy.waiting == 0


def test_a_coroutine_that_is_cancelled_leaves_the_queue(busy):
    async def give_up():
        task = asyncio.create_task(busy.ask(ask("abandoned"), 8, 30.0))
        while busy.waiting == 0:
            await asyncio.sleep(0.005)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(give_up())
    assert busy.waiting == 0


def test_a_stream_gives_its_pieces_and_then_the_whole_reply(engine):
    engine.start()

    async def read():
        return [piece async for piece in engine.stream(ask("one two three"), 8, 5.0)]

    *pieces, whole = asyncio.run(read())

    assert len(pieces) == 3
    assert "".join(pieces) == whole.reply.text == f"{seen(picture())} one two three"


def test_a_stream_that_nobody_reads_any_more_stops_the_work_on_it(engine, echo):
    echo.pieces, echo.pause_s = 20, 0.05
    engine.start()

    async def read_one():
        stream = engine.stream(ask("one two three four"), 8, 5.0)
        await anext(stream)
        await stream.aclose()

    asyncio.run(read_one())
    until(lambda: engine.running == 0, "the worker goes on for nobody")

    assert echo.said < 20


def test_a_stream_ends_after_its_time(engine, echo):
    echo.pieces, echo.pause_s = 20, 0.05
    engine.start()

    async def read():
        return [piece async for piece in engine.stream(ask("one two three four"), 8, 0.1)]

    with refused("timeout"):
        asyncio.run(read())


def test_closing_answers_what_waits_and_takes_nothing_new(busy, echo):
    future = busy.submit(ask("waiting"), 8)
    echo.gate.set()

    busy.close(5.0)

    assert future.result(0).reply.text.endswith("waiting")
    assert not busy.is_ready
    with refused("shutting_down"):
        busy.submit(ask("late"), 8)


def test_closing_refuses_what_cannot_be_answered_in_time(busy):
    future = busy.submit(ask("waiting"), 8)
    gone = busy.submit(ask("gone"), 8)
    gone.cancel()

    busy.close(0.05)

    with refused("shutting_down"):
        future.result(0)
    with pytest.raises(CancelledError):
        gone.result(0)
