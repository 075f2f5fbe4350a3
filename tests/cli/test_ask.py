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

    [answer] = content["answers"]
    assert answer["text"] == "polyp"
    assert 0 < answer["confidence"] <= 1
    assert answer["stop_reason"] == "end"
    assert (content["width_px"], content["height_px"]) == (64, 64)
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


def test_several_images_and_wishes_are_answered_in_blocks(learnt, tmp_path):
    folder = learnt[1].parent
    arguments = ["ask", str(learnt[0]), str(folder / "0.png"), str(folder / "1.png"), "--device", "cpu"]
    asked = ["--classify", "--locate", "polyp", "--name", "0.1,0.2,0.5,0.7", "--draw", str(tmp_path / "drawn")]

    result = CliRunner().invoke(app, [*arguments, *asked])

    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert [line for line in lines if not line.startswith(" ")] == arguments[2:4]
    assert sum(line.startswith("  polyp:") for line in lines) == 2
    assert sum(line.startswith("  in x 0.100 to 0.500, y 0.200 to 0.700: ") for line in lines) == 2
    assert sorted(path.name for path in (tmp_path / "drawn").iterdir()) == ["0.png", "1.png"]


def test_json_of_several_images_is_one_object_a_line(learnt):
    folder = learnt[1].parent
    images = [str(folder / "0.png"), str(folder / "1.png")]

    result = CliRunner().invoke(app, ["ask", str(learnt[0]), *images, "--json", "--locate", "polyp", "--describe"])

    content = [json.loads(line) for line in result.stdout.splitlines()]
    assert [one["image"] for one in content] == images
    assert [[one["kind"] for one in about["answers"]] for about in content] == [["locate", "describe"]] * 2
    assert all(0 <= edge <= 1 for about in content for box in about["answers"][0]["boxes"] for edge in box)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "nothing is asked; expected a question in quotes"),
        (["--task", "CLS", "--describe"], "--task CLS says how a QUESTION is answered"),
        (["--name", "0.5,0.2,0.1,0.7"], "is no box; expected x0,y0,x1,y1"),
        (["--name", "left"], "'left' is no box"),
        (["--locate", " "], "nothing to locate"),
        (["nowhere.png", "What is this?"], "nowhere.png: no such image"),
        (["--locate", "polyp", "--zoom"], "a perception head that answers is needed for zoom"),
    ],
)
def test_what_cannot_be_asked_is_one_message(learnt, given, message, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["ask", str(learnt[0]), str(learnt[1].parent / "0.png"), *given])

    assert stop.value.code == 2
    assert message in " ".join(capsys.readouterr().err.split())
