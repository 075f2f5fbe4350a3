"""The served row of the parity gate: what comes over HTTP is what the checkpoint says itself."""

from __future__ import annotations

import importlib.util
import json

import pytest

from gastrovl.cli.app import main
from gastrovl.inference.parity import Row, compare, probe_questions
from gastrovl.inference.predictor import Predictor
from gastrovl.inference.question import Question
from gastrovl.model.checkpoint import build_model, save_checkpoint
from gastrovl.serving.loopback import ask_over_http

from .conftest import picture

LOOPBACK = pytest.mark.allow_hosts(["127.0.0.1"])


@pytest.fixture(scope="module")
def folder(tiny_model, tmp_path_factory):
    """A checkpoint of random weights, with regions."""
    model, processor = build_model(tiny_model("pool", "resnet"), seed=5)
    folder = tmp_path_factory.mktemp("looped") / "tiny"
    save_checkpoint(folder, model.eval(), processor, "tiny")
    return folder


@LOOPBACK
def test_what_is_served_is_what_is_said_and_a_refused_question_is_no_answer(folder):
    questions = probe_questions(None, 4)
    forged = Question(picture(1), (("user", "<image> What is it?"),))

    served = ask_over_http(folder, "cpu")([*questions, forged], 6)
    alone = Predictor.load(folder, "cpu").answer(questions, 6)

    row = compare("served", "alone", served[:4], alone)
    assert row.passes
    assert len({one.text for one in alone}) > 1
    assert served[0].confidence == pytest.approx(alone[0].confidence, rel=1e-4)
    assert served[4].text.startswith("HTTP 400: a message holds '<image>'")


@LOOPBACK
def test_the_command_asks_over_http_too(folder, monkeypatch):
    from gastrovl.inference import parity

    asked = []

    def check(checkpoint, questions, *, most_tokens, more, **_):
        asked.extend(more["served"](questions, most_tokens))
        return [compare("served", "one at a time", asked, Predictor.load(checkpoint, "cpu").answer(questions, 3))]

    monkeypatch.setattr(parity, "check_parity", check)
    with pytest.raises(SystemExit) as ended:
        main(["parity", str(folder), "--most", "2", "--tokens", "3", "--device", "cpu"])

    assert ended.value.code == 0
    assert len(asked) == 2


def test_without_the_extra_the_row_says_so(monkeypatch, tmp_path):
    from gastrovl.inference import parity

    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "uvicorn" else found(name))
    monkeypatch.setattr(parity, "check_parity", lambda *_, more, **__: [Row(name, "alone", 1, 0) for name in more])

    with pytest.raises(SystemExit) as ended:
        main(["parity", str(tmp_path), "--most", "2", "--json", str(tmp_path / "parity.json")])

    (row,) = json.loads((tmp_path / "parity.json").read_text(encoding="utf-8"))
    assert ended.value.code == 0
    assert row["way"] == "served"
    assert "uvicorn" in row["left_out"]
    assert "gastrovl[serve]" in row["left_out"]
