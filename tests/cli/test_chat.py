"""`gastrovl chat` typed line by line, with a tiny model that knows two images."""

from __future__ import annotations

import json

import pytest
from PIL import Image
from typer.testing import CliRunner

from gastrovl.cli.app import app
from gastrovl.inference.drawing import COLOURS


@pytest.fixture
def talk(learnt):
    """`talk(lines, ...)` types the lines after the first image is shown."""

    def run(lines, *arguments):
        command = ["chat", str(learnt[0]), str(learnt[1].parent / "0.png"), "--device", "cpu", *arguments]
        return CliRunner().invoke(app, command, input="\n".join(lines) + "\n")

    return run


def test_a_session_is_answered_drawn_rated_and_saved(talk, tmp_path):
    lines = [
        "Where is the polyp?",
        "/locate polyp",
        f"/draw {tmp_path / 'boxes.png'}",
        "/rate 1 wrong it lies in the antrum",
        f"/save {tmp_path / 'session.json'}",
        "/quit",
        "never heard",
    ]

    result = talk(lines)

    assert result.exit_code == 0, result.output
    assert "A physician decides" in " ".join(result.stdout.split())
    assert "[125,250,500,749]" in result.stdout
    content = json.loads((tmp_path / "session.json").read_text("utf-8"))
    assert content["schema"] == "gastrovl/session/1"
    first, second = content["exchanges"]
    assert (first["kind"], first["rating"], first["correction"]) == ("say", "wrong", "it lies in the antrum")
    assert (second["kind"], second["words"], second["image"]["name"]) == ("locate", "polyp", "0.png")
    assert "confidence" not in first  # it came piece by piece
    assert 0 <= second["confidence"] <= 1
    with Image.open(tmp_path / "boxes.png") as drawn:
        assert drawn.getpixel((20, 16)) == COLOURS[1]  # the upper edge; both answers are this box, the second on top


def test_a_mistake_is_said_and_the_session_goes_on(talk):
    lines = ["/image nowhere.png", "/jump", "/rate 9 right", "/rate 1 fine", "/name left", "/draw", "/classify"]

    said = " ".join(talk(lines).stdout.split())

    for part in (
        "nowhere.png: no such image",
        "no command is called '/jump'; /help lists them",
        "answer 9: expected 1 to 0",
        "expected the number of an answer and right, partly, wrong",
        "'left' is no box",
        "expected a file to write",
        "[1] ",
    ):
        assert part in said


def test_another_image_begins_another_dialogue(talk, learnt, tmp_path):
    lines = ["What does the image show?", f"/image {learnt[1].parent / '1.png'}", "What does the image show?"]

    talk(lines, "--save", str(tmp_path / "session.json"))

    content = json.loads((tmp_path / "session.json").read_text("utf-8"))
    assert [one["image"]["name"] for one in content["exchanges"]] == ["0.png", "1.png"]
    assert [one["text"] for one in content["exchanges"]] == ["polyp", "gastric ulcer"]


def test_one_more_image_joins_the_dialogue_and_is_kept_with_its_answers(talk, learnt, tmp_path):
    lines = ["/add nowhere.png", f"/add {learnt[1].parent / '1.png'}", "Where is the polyp?", "/classify"]

    result = talk([*lines, f"/save {tmp_path / 'session.json'}"])

    said = " ".join(result.stdout.split())
    assert "nowhere.png: no such image" in said
    assert "1.png: 64 x 64 px" in said
    first, second = json.loads((tmp_path / "session.json").read_text("utf-8"))["exchanges"]
    assert (first["image"]["name"], [one["name"] for one in first["further"]]) == ("0.png", ["1.png"])
    assert "further" not in second
