"""A record checks its own conventions when it is made, and cannot be changed afterwards."""

from __future__ import annotations

import math

import pytest
from pydantic import ValidationError

from gastrovl.core.errors import GeometryError
from gastrovl.core.types import Box, Conversation, Finding, ImageRef, Prediction, Split, Target, Task, Turn

IMAGE = ImageRef(path="images/a.jpg", width_px=640, height_px=480, sha256="0" * 64)
ASK = Turn(role="user", text="What is this?")
ANSWER = Turn(role="assistant", text="antrum")


def _conversation(turns: tuple[Turn, ...]) -> Conversation:
    return Conversation(id="c", sample_id="s", task=Task.CLS, image=IMAGE, source="drawn", group="g",
                        split=Split.TEST, turns=turns, target=Target(terms=("antrum",)))  # fmt: skip


@pytest.mark.parametrize("corners", [(-0.01, 0, 1, 1), (0, 0, 1.01, 1), (0, math.nan, 1, 1), (0, 0, math.inf, 1)])
def test_a_box_outside_the_image_is_refused(corners):
    x0, y0, x1, y1 = corners
    with pytest.raises(GeometryError, match=r"leaves \[0, 1\]"):
        Box(x0=x0, y0=y0, x1=x1, y1=y1)


@pytest.mark.parametrize("corners", [(0.5, 0, 0.4, 1), (0.5, 0, 0.5, 1), (0, 0.9, 1, 0.1), (0, 0, 1e-200, 1e-200)])
def test_a_reversed_or_empty_box_is_refused_with_the_likely_cause(corners):
    x0, y0, x1, y1 = corners
    with pytest.raises(GeometryError, match=r"reversed or empty.*box_order: xywh"):
        Box(x0=x0, y0=y0, x1=x1, y1=y1)


def test_the_area_of_a_box_is_its_share_of_the_image():
    assert Box(x0=0.25, y0=0.5, x1=0.75, y1=1.0).area == 0.25  # 0.5 x 0.5


def test_a_record_cannot_be_changed():
    box = Box(x0=0, y0=0, x1=1, y1=1)
    with pytest.raises(ValidationError, match="frozen"):
        box.x0 = 0.5


def test_an_unknown_field_is_refused():
    with pytest.raises(ValidationError, match="Extra inputs"):
        Finding(term="polyp_unspecified", sight="stomach")


def test_the_size_of_an_image_is_width_then_height():
    assert IMAGE.size_wh == (640, 480)


def test_the_answer_of_a_conversation_is_its_last_turn():
    later = Turn(role="assistant", text="no")
    assert _conversation((ASK, ANSWER, Turn(role="user", text="Any lesion?"), later)).answer == "no"


@pytest.mark.parametrize("turns", [(ANSWER, ASK), (ASK, ASK), (ASK, ANSWER, ASK), (ASK, ANSWER, ANSWER, ANSWER)])
def test_turns_that_do_not_alternate_are_refused(turns):
    with pytest.raises(ValidationError, match="expected user and assistant in turn, ending with assistant"):
        _conversation(turns)


@pytest.mark.parametrize("confidence", [-0.1, 1.1, math.nan])
def test_a_confidence_outside_zero_to_one_is_refused(confidence):
    with pytest.raises(ValidationError, match="confidence"):
        Prediction(conversation_id="c", text="antrum", confidence=confidence, model="m", seconds=0, stop_reason="end")
