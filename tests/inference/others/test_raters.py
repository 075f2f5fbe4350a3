"""People's answers: a template without the truth, one file a rater, and every slip named by its row."""

from __future__ import annotations

import csv
import json

import pytest
from typer.testing import CliRunner

from gastrovl.cli.app import app
from gastrovl.clinical.answers import BoxAnswer, LabelAnswer, ParseFailure, parse_answer
from gastrovl.clinical.taxonomy import Taxonomy
from gastrovl.core.errors import ConfigError, OutputError, RecordError
from gastrovl.core.records import read_records, write_records
from gastrovl.core.types import Conversation, Prediction, Task, Turn
from gastrovl.inference.others.raters import read_raters, write_template

TAXONOMY = Taxonomy.load()


@pytest.fixture
def conversations(tiny_data):
    """One image: CLS, REC, REG and CAP, in rows 2 to 5 of a template."""
    return tiny_data(images=1)


@pytest.fixture
def fill(tmp_path):
    """`fill(rows)` writes a CSV of dicts."""

    def write(rows, name="answers.csv", delimiter=","):
        names = list(dict.fromkeys(key for row in rows for key in row))
        with (tmp_path / name).open("w", encoding="utf-8", newline="") as stream:
            writer = csv.DictWriter(stream, names, delimiter=delimiter)
            writer.writeheader()
            writer.writerows(rows)
        return tmp_path / name

    return write


def good(**more):
    answers = {"CLS": "gastric polyp", "REC": "[125,250,500,750]", "REG": "Gastric Polyp.", "CAP": "A polyp."}
    return [{"conversation_id": f"tiny/0#{task}", "answer": text, **more} for task, text in answers.items()]


def parsed(prediction, task):
    return parse_answer(task, prediction.text, TAXONOMY, prediction.form, prediction.image_wh)


def test_answers_become_predictions_that_are_read_as_they_were_meant(fill, conversations, tmp_path):
    rows = good(seconds="2.5", confidence="0.75")

    assert read_raters(fill(rows), conversations, tmp_path / "p.jsonl") == [(tmp_path / "p.jsonl", 4)]

    predictions = list(read_records(tmp_path / "p.jsonl", Prediction))
    assert [one.text for one in predictions] == [row["answer"] for row in rows]
    assert {(one.model, one.seconds, one.confidence, one.stop_reason) for one in predictions} == {
        ("answers", 2.5, 0.75, "external")
    }
    assert parsed(predictions[2], Task.REG) == LabelAnswer(("gastric_polyp",))


def test_pixel_edges_are_of_the_original_and_are_not_rounded(fill, conversations, tmp_path):
    rows = good(x0_px="", y0_px="", x1_px="", y1_px="")
    rows[1] |= {"answer": "", "x0_px": "8", "y0_px": "16", "x1_px": "32.5", "y1_px": "48"}
    rows.insert(2, rows[1] | {"x0_px": "0", "y0_px": "0", "x1_px": "64", "y1_px": "4"})

    read_raters(fill(rows), conversations, tmp_path / "p.jsonl")

    rec = list(read_records(tmp_path / "p.jsonl", Prediction))[1]
    answer = parsed(rec, Task.REC)
    assert isinstance(answer, BoxAnswer)
    assert [box.xyxy for box in answer.boxes] == [(0.125, 0.25, 32.5 / 64, 0.75), (0, 0, 1, 0.0625)]


def test_each_rater_gets_a_file(fill, conversations, tmp_path):
    rows = good(rater="anna") + good(rater="ben-2")
    rows[4] |= {"answer": "unsure"}

    done = read_raters(fill(rows, delimiter=";"), conversations, tmp_path / "raters")

    assert [(path.name, count) for path, count in done] == [("anna.jsonl", 4), ("ben-2.jsonl", 4)]
    ben = list(read_records(tmp_path / "raters" / "ben-2.jsonl", Prediction))
    assert {one.model for one in ben} == {"ben-2"}
    assert isinstance(parsed(ben[0], Task.CLS), ParseFailure)
    with pytest.raises(OutputError, match="exists already"):
        read_raters(fill(rows), conversations, tmp_path / "raters")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows[0].update(answer="a polypp"), "row 2: 'a polypp' is no label"),
        (lambda rows: rows[0].update(answer=" "), "row 2: no answer; write 'unsure'"),
        (lambda rows: rows[1].update(answer="top left"), "row 3: 'top left' holds no box"),
        (lambda rows: rows[1].update(answer="[500,250,125,750]"), "row 3: .*reversed"),
        (lambda rows: rows[1].update(answer="", x0_px="3"), "row 3: pixel edges are for REC, all four"),
        (lambda rows: rows[1].update(answer="", x0_px="3", y0_px="3", x1_px="99", y1_px="9"), "row 3: .*leaves the im"),
        (lambda rows: rows[0].update(x0_px="3", y0_px="3", x1_px="9", y1_px="9"), "row 2: pixel edges are for REC"),
        (lambda rows: rows[2].update(conversation_id="tiny/9#REG"), "row 4: no conversation 'tiny/9#REG'"),
        (lambda rows: rows.append(dict(rows[0])), "row 6: a second answer to 'tiny/0#CLS', the first stands in row 2"),
        (lambda rows: rows.pop(), r"1 of 4 questions have no row: tiny/0#CAP \(q"),
        (lambda rows: rows[0].update(confidence="80"), "row 2: confidence '80'; expected a number from 0 to 1"),
        (lambda rows: rows[0].update(seconds="-1"), "row 2: seconds '-1'; expected a number from 0 on"),
        (lambda rows: [row.update(rater="../x") for row in rows], "row 2: rater '../x'"),
        (lambda rows: [row.pop("answer") for row in rows], "expected also answer"),
        (lambda rows: rows.clear(), "expected also"),
    ],
)
def test_a_slip_is_refused_with_its_row(fill, conversations, tmp_path, change, message):
    rows = good()
    change(rows)
    with pytest.raises(RecordError, match=message):
        read_raters(fill(rows), conversations, tmp_path / "p.jsonl")
    assert not (tmp_path / "p.jsonl").exists()


def test_a_template_shows_the_questions_and_nothing_of_the_truth(conversations, tmp_path):
    asked = [
        one.model_copy(
            update={
                "id": f"set/polyps/7#{one.task}",
                "image": one.image.model_copy(update={"path": "polyps/0.png"}),
                "turns": (Turn(role="user", text="=1+1 is it?" if one.task is Task.CLS else "What?"), one.turns[1]),
            }
        )
        for one in read_records(conversations, Conversation)
    ]
    (conversations.parent / "polyps").mkdir()
    (conversations.parent / "0.png").rename(conversations.parent / "polyps/0.png")
    write_records(conversations, asked)

    assert write_template(conversations, tmp_path / "sheet.csv") == 4

    content = (tmp_path / "sheet.csv").read_text(encoding="utf-8-sig")
    assert "polyp" not in content
    assert "125,250" not in content
    with (tmp_path / "sheet.csv").open(encoding="utf-8-sig", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert rows[0]["question"] == "'=1+1 is it?"
    assert {row["answer"] for row in rows} == {""}
    pictures = {row["image"] for row in rows}
    assert [(tmp_path / one).is_file() for one in pictures] == [True]
    with pytest.raises(OutputError, match="exists already"):
        write_template(conversations, tmp_path / "sheet.csv")


def test_a_template_filled_in_comes_back(conversations, fill, tmp_path):
    write_template(conversations, tmp_path / "sheet.csv")
    with (tmp_path / "sheet.csv").open(encoding="utf-8-sig", newline="") as stream:
        rows = list(csv.DictReader(stream))
    for row, filled in zip(rows, good(), strict=True):
        row["answer"] = filled["answer"]

    read_raters(fill(rows), conversations, tmp_path / "p.jsonl")

    ids = [one.conversation_id for one in read_records(tmp_path / "p.jsonl", Prediction)]
    assert ids == [one.id for one in read_records(conversations, Conversation)]
    assert json.loads((tmp_path / "p.run.json").read_text())["replies"] == 4


def test_the_command_writes_templates_and_reads_answers(conversations, fill, tmp_path):
    run = CliRunner().invoke(app, ["predict", "--template", str(conversations), "-o", str(tmp_path / "s.csv")])
    assert "4 questions in" in run.stdout
    command = ["predict", "--from-csv", str(fill(good())), str(conversations), "-o", str(tmp_path / "p.jsonl")]
    assert "4 answers in" in CliRunner().invoke(app, command).stdout
    wrong = CliRunner().invoke(app, [*command, "--template"])
    assert isinstance(wrong.exception, ConfigError)
    wrong = CliRunner().invoke(app, ["predict", str(conversations), "-o", str(tmp_path / "q.jsonl")])
    assert "expected MODEL and CONVERSATIONS" in str(wrong.exception)
