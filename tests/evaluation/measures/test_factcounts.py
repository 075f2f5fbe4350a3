"""Counts of facts of several answerers, in one process and in several; numbers worked by hand."""

from __future__ import annotations

from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import numpy as np
import pytest

from gastrovl.clinical.taxonomy import Taxonomy
from gastrovl.evaluation.measures import factcounts
from gastrovl.evaluation.measures.factcounts import ASKED, COLUMNS, OPPOSED, begin_counts, processes

TAXONOMY = Taxonomy.load()
SITE, LESION = slice(0, 3), slice(3, 6)  # matched, replied, stated
REFERENCES = [("Gastric ulcer in the antrum.", "Gastric ulcer."), ("No polyp.",), ("A picture.",)]
REPLIES = [["Gastric ulcer.", "Polyp.", "Gastric ulcer."], [None, "No polyp.", "Two polyps."]]
TEXTS = [f"{what} of {size} mm in the {site}." for what in ("Polyp", "Ulcer", "No erosion", "Red polyp")
         for size in range(1, 40) for site in ("antrum", "fundus", "stomach")]  # fmt: skip


def test_each_answerer_has_a_row_a_conversation():
    first, second = begin_counts(REFERENCES, REPLIES, TAXONOMY)()
    assert first.shape == second.shape == (3, COLUMNS)
    assert first[0, LESION].tolist() == [1, 1, 1]  # the second reference is met in full, and names no site
    assert first[0, SITE].tolist() == [0, 0, 0]
    assert first[1, LESION].tolist() == [0, 1, 1]
    assert first[1, OPPOSED] == 1
    assert first[2, LESION].tolist() == [0, 0, 0]  # no reference states a fact
    assert second[0, LESION].tolist() == second[0, SITE].tolist() == [0, 0, 1]  # of equals the first reference counts
    assert second[1, LESION].tolist() == [1, 1, 1]
    assert first[:, ASKED].tolist() == second[:, ASKED].tolist() == [1, 1, 0]


def test_no_conversation_gives_empty_tables():
    assert [table.shape for table in begin_counts([], [[], []], TAXONOMY)()] == [(0, COLUMNS)] * 2


@pytest.fixture
def many(monkeypatch: pytest.MonkeyPatch) -> tuple[list[tuple[str, ...]], list[list[str | None]]]:
    """468 conversations, which count as thousands."""
    monkeypatch.setattr(factcounts, "FEWEST_ROWS", 100)
    monkeypatch.setattr(factcounts, "_AT_ONCE", 50)
    turned = TEXTS[::-1]
    return [(text,) for text in TEXTS], [list(turned), [None, *TEXTS[1:]]]


def test_processes_count_as_one_does(many):
    alone = begin_counts(*many, TAXONOMY)()
    with processes(2) as helpers:
        finish = begin_counts(*many, TAXONOMY, helpers)
        helpers.submit(int).result()  # behind all parts: the helper has done them
        shared = finish()
    assert np.array_equal(alone, shared)
    assert alone[0].sum() > 0


def test_what_no_helper_has_begun_is_counted_here(many):
    helpers = Helpers(lambda _: None)
    assert np.array_equal(begin_counts(*many, TAXONOMY)(), begin_counts(*many, TAXONOMY, helpers)())
    assert len(helpers.given) == 10
    assert all(future.cancelled() for future in helpers.given)


def test_parts_of_a_helper_that_died_are_counted_here(many):
    def die(future: Future[Any]) -> None:
        future.set_running_or_notify_cancel()
        future.set_exception(BrokenProcessPool("gone"))

    assert np.array_equal(begin_counts(*many, TAXONOMY)(), begin_counts(*many, TAXONOMY, Helpers(die))())


def test_few_texts_and_another_taxonomy_are_counted_here(many):
    helpers = Helpers(lambda _: None)
    other = Taxonomy(TAXONOMY.version, TAXONOMY.terms)
    assert np.array_equal(begin_counts(*many, other, helpers)(), begin_counts(*many, TAXONOMY)())
    begin_counts(REFERENCES, REPLIES, TAXONOMY, helpers)()
    begin_counts([("Polyp.",)] * 200, [["Ulcer."] * 200], TAXONOMY, helpers)()  # one text, two hundred times
    assert helpers.given == []


def test_one_worker_needs_no_helper():
    assert processes(1) is None


class Helpers:
    """Takes work like an executor and does with it what `then` does."""

    def __init__(self, then: Any) -> None:
        self.given: list[Future[Any]] = []
        self._then = then

    def submit(self, _function: Any, *_arguments: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self.given.append(future)
        self._then(future)
        return future
