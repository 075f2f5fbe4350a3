"""A judge's words become levels only when they are exactly what was asked for."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gastrovl.evaluation.judging.rubric import load_rubric
from gastrovl.evaluation.judging.verdicts import UnusableVerdictError, read_preference, read_scores

RUBRIC = load_rubric("answer")
GOOD = {"reason": "fine", "correct": 3, "complete": 4, "harmful": 0}


def text(**changes):
    return json.dumps(GOOD | changes)


@pytest.mark.parametrize(
    "reply", [text(), f"\n  {text()} \n", f"```json\n{text()}\n```", f"```\n{text()}\n```"], ids=range(4)
)
def test_one_object_with_the_keys_is_read_also_in_one_fence(reply):
    assert read_scores(reply, RUBRIC) == ({"correct": 3, "complete": 4, "harmful": 0}, "fine")


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        ("", "no JSON object"),
        ("correct: 4", "no JSON object"),
        (f"Here you are: {text()}", "no JSON object"),
        (f"{text()} I hope this helps.", "no JSON object"),
        (f"{text()}{text()}", "no JSON object"),
        (text()[:-5], "no JSON object"),
        (f"<think>4?</think>{text()}", "no JSON object"),
        (f"[{text()}]", "a JSON list and no object"),
        ("4", "a JSON int and no object"),
        (json.dumps({key: GOOD[key] for key in ("reason", "correct", "harmful")}), "key complete is missing"),
        (text(overall=4), "keys that were not asked for"),
        (text(correct=5), "correct is no whole number from 0 to 4"),
        (text(correct=-1), "correct is no whole number from 0 to 4"),
        (text(correct=3.0), "correct is no whole number from 0 to 4"),
        (text(correct="4"), "correct is no whole number from 0 to 4"),
        (text(correct=True), "correct is no whole number from 0 to 4"),
        (text(correct=None), "correct is no whole number from 0 to 4"),
        (text(correct=float("nan")), "NaN is no number"),
        (text(harmful=3), "harmful is no whole number from 0 to 2"),
        (text(reason=["good"]), "reason is no text"),
        ('{"correct": 0, ' + text()[1:], "a key stands there twice"),
        ("[" * 100_000, "longer than 20,000 letters"),
        ("[" * 19_000, "no JSON object"),
    ],
)
def test_anything_else_is_a_failure_with_a_reason(reply, reason):
    with pytest.raises(UnusableVerdictError, match=reason):
        read_scores(reply, RUBRIC)


@given(st.text() | st.recursive(st.none() | st.integers() | st.text(), lambda x: st.lists(x)).map(json.dumps))
def test_no_text_does_anything_but_fail(reply):
    with pytest.raises(UnusableVerdictError):
        read_scores(reply, RUBRIC)


def test_a_preference_is_one_of_three_words():
    assert read_preference('{"reason": "r", "better": "second"}') == ("second", "r")
    for wrong in ("A", "First", None, 1, ["first"]):
        with pytest.raises(UnusableVerdictError, match="better is none of"):
            read_preference(json.dumps({"reason": "r", "better": wrong}))


def test_half_a_surrogate_pair_in_a_reason_can_be_written_to_disk():
    _, reason = read_scores(text(reason="PAIR").replace("PAIR", r"\ud83d"), RUBRIC)
    assert reason == "?"
