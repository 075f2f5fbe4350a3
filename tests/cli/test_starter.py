"""`starter` in the place of a checkpoint, from drawing a frame to a picture with its box."""

from __future__ import annotations

import json

import pytest
from PIL import Image
from typer.testing import CliRunner

from gastrovl.cli.app import app
from gastrovl.inference.starter import REMARK


@pytest.fixture
def invoke(tmp_path, monkeypatch):
    """`invoke(words)` in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return lambda *words, **more: CliRunner().invoke(app, list(words), **more)


@pytest.fixture
def frame(invoke):
    assert invoke("data", "draw", "frames", "--images", "4").exit_code == 0
    return "frames/images/drawn-00003.jpg"


def test_a_drawn_frame_is_answered_with_a_box_on_a_picture(invoke, frame, tmp_path):
    result = invoke("ask", "starter", frame, "--locate", "gastric polyp", "--draw", "boxes.png", "--device", "cpu")

    assert result.exit_code == 0, result.output
    assert "x 0." in result.stdout
    assert REMARK in result.stderr.splitlines()
    with Image.open(tmp_path / "boxes.png") as drawn, Image.open(tmp_path / frame) as given:
        assert drawn.size == given.size
        assert (255, 140, 0) in {colour for _, colour in drawn.getcolors(drawn.width * drawn.height)}


def test_json_stays_alone_on_standard_output(invoke, frame):
    result = invoke("ask", "starter", frame, "--classify", "--json", "--device", "cpu")

    assert json.loads(result.stdout)["answers"][0]["terms"]
    assert result.stderr.strip().endswith(REMARK)


def test_chat_begins_with_what_it_is(invoke, frame):
    result = invoke("chat", "starter", frame, "--device", "cpu", input="/locate gastric polyp\n/quit\n")

    assert result.exit_code == 0, result.output
    assert REMARK in " ".join(result.stdout.split())


def test_predictions_say_what_made_them(invoke, tmp_path, tiny_data):
    conversations = tiny_data(images=1)
    result = invoke("predict", "starter", str(conversations), "-o", "said.jsonl", "--device", "cpu")

    assert result.exit_code == 0, result.output
    assert REMARK in result.stdout.splitlines()
    assert '"starter"' in (tmp_path / "said.jsonl").read_text(encoding="utf-8")


def test_a_server_says_so_before_it_listens(invoke, monkeypatch):
    asked = []
    monkeypatch.setattr("gastrovl.serving.run.serve_checkpoints", lambda folders, *_, **__: asked.append(folders))

    result = invoke("serve", "starter", "--model", "again=starter")

    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines().count(REMARK) == 1
    assert len(asked[0]) == 2


@pytest.mark.usefixtures("frame")
def test_drawn_frames_are_not_written_over_others(invoke):
    result = invoke("data", "draw", "frames")

    assert result.exit_code != 0
    assert "already holds files" in str(result.exception)
