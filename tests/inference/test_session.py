"""Sessions keep what was believed of an answer, and those saved before still read."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from gastrovl.core.types import Box
from gastrovl.inference.belief.abstention import Fallback
from gastrovl.inference.belief.verdicts import Belief, Check, ScopeAnswer
from gastrovl.inference.question import Reply
from gastrovl.inference.session import Kind, Session, SessionRecord, Wish, answers

BELIEF = Belief(
    is_calibrated=True,
    label_set=("esophagitis", "z_line"),
    level=0.9,
    is_withheld=True,
    fallback=(Fallback(term="esophageal_diseases", probability=0.95),),
    risk=0.1,
    is_assured=False,
    checks=(Check("caption", passed=False, detail="the caption names no finding"),),
    scope=ScopeAnswer("outside", "more like pictures that the model is not for", 0.5, 0.25),
)
REPLIES = {
    "CLS": Reply("esophagitis", 0.5, 0.0, "end", {"esophagitis": 0.5}, belief=BELIEF),
    "REC": Reply("[125,250,500,749]", 0.5, 0.0, "end", belief=BELIEF),
}


class Sure:
    """Answers labels and places with one belief."""

    def answer(self, questions):
        return [REPLIES[one.task] for one in questions]


@pytest.fixture
def session():
    found = Session(Sure(), "sure")
    found.show(Image.fromarray(np.full((20, 40, 3), 90, np.uint8)), "frame.jpg")
    return found


def test_a_saved_session_holds_beliefs_and_is_read_back_alike(session, tmp_path):
    said = session.ask(Wish(Kind.CLASSIFY))
    session.ask(Wish(Kind.LOCATE, "esophagitis"))
    session.save(tmp_path / "session.json")

    content = json.loads((tmp_path / "session.json").read_text("utf-8"))
    read = SessionRecord.model_validate(content)

    assert content["exchanges"][0]["belief"]["fallback"] == [{"term": "esophageal_diseases", "probability": 0.95}]
    assert content["exchanges"][0]["belief"]["scope"]["verdict"] == "outside"
    assert read == session.record()
    assert read.exchanges[0].answer == said.answer
    assert said.answer.belief == BELIEF
    assert said.calibrated


def test_a_session_saved_before_there_were_beliefs_is_read(session):
    session.ask(Wish(Kind.CLASSIFY))
    content = session.record().model_dump(mode="json", by_alias=True)
    del content["exchanges"][0]["belief"]

    assert SessionRecord.model_validate(content).exchanges[0].answer.belief is None


def test_a_streamed_answer_keeps_what_its_reply_says_of_the_picture(session):
    scope = Belief(scope=BELIEF.scope)

    def stream(*_):
        yield "a "
        yield "polyp"
        return Reply("a polyp", 0.25, 0.0, "end", belief=scope)

    assert list(session.say("What is it?", stream)) == ["a ", "polyp"]
    assert list(session.say("Sure?", lambda *_: iter(["yes"]))) == ["yes"]

    first, second = session.exchanges
    assert (first.text, first.belief, second.belief) == ("a polyp", scope, None)


def test_boxes_of_a_withheld_answer_are_drawn_as_such(session):
    session.ask(Wish(Kind.LOCATE, "esophagitis"))

    [mark] = session.marks()

    assert mark.words == "esophagitis (withheld)"
    assert mark.box == Box(x0=125 / 999, y0=250 / 999, x1=500 / 999, y1=749 / 999)


def test_all_wishes_carry_the_belief_of_their_reply(session):
    found = answers(Sure(), session.image, [Wish(Kind.CLASSIFY), Wish(Kind.LOCATE, "polyp")])

    assert [answer.belief for answer, _ in found] == [BELIEF, BELIEF]
