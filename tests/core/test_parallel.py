"""Threads change nothing but the time: order, errors at their turn, only a few items ahead."""

from __future__ import annotations

import threading
import time

import pytest

from gastrovl.core.parallel import MOST_THREADS, in_order


def test_results_come_in_the_order_of_the_items_whatever_they_take():
    def slow_first(number):
        time.sleep(0.02 if number == 0 else 0)
        return number * number

    assert list(in_order(slow_first, range(50))) == [number * number for number in range(50)]
    assert list(in_order(slow_first, [])) == []


def test_an_error_comes_at_its_turn():
    results = in_order(lambda number: 6 // (3 - number), range(100))

    assert [next(results) for _ in range(3)] == [2, 3, 6]
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_only_a_few_items_are_begun_ahead():
    begun = []
    results = in_order(lambda number: begun.append(number) or number, range(1000))

    next(results)

    assert len(begun) <= 2 * MOST_THREADS + 1
    results.close()


def test_several_threads_work_at_once(monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    meeting = threading.Barrier(2, timeout=20)

    assert sorted(in_order(lambda number: (meeting.wait(), number)[1], range(2))) == [0, 1]
