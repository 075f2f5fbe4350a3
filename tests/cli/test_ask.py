"""`gastrovl ask` with a tiny model that knows two images."""

from __future__ import annotations

import json

import pytest
from PIL import Image
from typer.testing import CliRunner

from gastrovl.cli.app import app, main


@pytest.fixture
def invoke(learnt):
    """`invoke(question, ...)` asks about the first image."""

    def run(question, *arguments):
        image = learnt[1].parent / "0.png"
        return CliRunner().invoke(app, ["ask", str(learnt[0]), str(image), question, "--device", "cpu", *arguments])

    return run


def test_the_reply_is_printed_alone_and_what_it_is_worth_beside_it(invoke):
    result = invoke("Where is the polyp?")

    assert result.exit_code == 0, result.output
    assert result.stdout == "[125,250,500,749]\n"
    assert "not calibrated" in result.stderr
    assert "A physician decides" in result.stderr


def test_json_holds_reply_confidence_and_notice(invoke):
    content = json.loads(invoke("What does the image show?", "--json").stdout)

    assert content["text"] == "polyp"
    assert 0 < content["confidence"] <= 1
    assert content["stop_reason"] == "end"
    assert "not a diagnosis" in content["notice"]


def test_boxes_are_drawn_on_a_copy(invoke, tmp_path):
    assert invoke("Where is the polyp?", "--draw", str(tmp_path / "out.png")).exit_code == 0

    with Image.open(tmp_path / "out.png") as drawn:
        assert drawn.size == (64, 64)
        assert drawn.getpixel((20, 16)) == (255, 140, 0)  # the upper edge, at a quarter of the height


def test_a_truncated_image_is_one_message(learnt, tmp_path, capsys):
    (tmp_path / "half.png").write_bytes((learnt[1].parent / "0.png").read_bytes()[:60])

    with pytest.raises(SystemExit) as stop:
        main(["ask", str(learnt[0]), str(tmp_path / "half.png"), "What does the image show?"])

    error = capsys.readouterr().err
    assert stop.value.code == 2
    assert error.startswith(f"error: {tmp_path / 'half.png'}: cannot be decoded")
