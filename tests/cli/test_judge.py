"""`gastrovl judge` and `gastrovl rate` from replies to a page of tables, against a server on this machine."""

from __future__ import annotations

import csv
import io
import json

import pytest
from typer.testing import CliRunner

from gastrovl.cli.app import app
from gastrovl.core.errors import ConfigError, RecordError
from gastrovl.core.records import write_records
from gastrovl.core.types import Conversation, ImageRef, Prediction, Split, Target, Task, Turn

pytestmark = pytest.mark.allow_hosts(["127.0.0.1"])
LEVELS = '{"reason": "as told", "correct": 3, "complete": 2, "harmful": 1}'


@pytest.fixture
def files(tmp_path):
    """Conversations, and replies of two models."""
    names = [f"s/{number}" for number in range(6)]
    image = ImageRef(path="0.png", width_px=8, height_px=8, sha256="0" * 64)
    write_records(
        tmp_path / "test.jsonl",
        [
            Conversation(
                id=name,
                sample_id=name,
                task=Task.CAP,
                image=image,
                source="s",
                group=name,
                split=Split.TEST,
                turns=(Turn(role="user", text="Describe."), Turn(role="assistant", text="A polyp.")),
                target=Target(terms=("gastric_polyp",)),
            )
            for name in names
        ],
    )
    for model in ("one", "two"):
        write_records(
            tmp_path / f"{model}.jsonl",
            [
                Prediction(
                    conversation_id=name,
                    text=f"A polyp {name} {len(model)}.",
                    model=model,
                    seconds=1,
                    stop_reason="end",
                )
                for name in names
            ],
        )
    return tmp_path


def gastrovl(*arguments):
    return CliRunner().invoke(app, list(map(str, arguments)), env={"COLUMNS": "200"})


def judge(files, served, *more):
    asked = ("--conversations", files / "test.jsonl", "-o", files / "out", "--resamples", "20")
    return gastrovl("judge", files / "one.jsonl", *asked, "--endpoint", served.url, "--model", "j", *more)


def test_a_rating_prints_means_notes_and_what_a_judge_is_not(files, served):
    served.answer = lambda _: LEVELS
    shown = judge(files, served)
    assert shown.exit_code == 0, shown.output
    assert "3.00 [3.00, 3.00]" in shown.stdout
    assert "A judge model is no physician" in shown.stdout
    assert "No ratings by people were given" in shown.stdout
    page = (files / "out" / "judged.md").read_text("utf-8")
    assert "A judge model is no physician" in page
    assert "| one | j | possible | 6 of 6 | 100.0% [54.1%, 100.0%] |" in page  # 0.025 ** (1 / 6)


def test_a_comparison_prints_who_is_better_and_how_much_the_place_decides(files, served):
    served.answer = lambda _: '{"reason": "", "better": "second"}'
    shown = judge(files, served, "--against", files / "two.jsonl")
    assert (
        "one better on 0 of 6 questions, two on 0, neither on 6; the same place won both times in 6 of 6"
        in shown.stdout
    )


def test_repeats_are_asked_with_other_seeds(files, served):
    served.answer = lambda _: LEVELS
    judge(files, served, "--repeats", 2, "--seed", 5)
    assert {one["seed"] for one in served.requests} == {5, 6}


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((), ConfigError, "give either --endpoint"),
        (("--endpoint", "http://127.0.0.1:1/v1"), ConfigError, "give either --endpoint"),
        (("--endpoint", "https://example.org/v1", "--model", "j"), ConfigError, "--allow-remote"),
        (("--endpoint", "http://127.0.0.1:1/v1", "--model", "j", "--task", "CLS"), RecordError, "which ask CAP"),
        (("--endpoint", "http://127.0.0.1:1/v1", "--model", "j", "--rubric", "x"), ConfigError, "not packaged"),
        (("--endpoint", "http://127.0.0.1:1/v1", "--model", "j", "--api-key-env", "NOPE_X"), ConfigError, "not set"),
    ],
)
def test_what_cannot_be_done_is_refused_before_anything_is_written(files, arguments, error, message):
    shown = gastrovl(
        "judge", files / "one.jsonl", "--conversations", files / "test.jsonl", "-o", files / "out", *arguments
    )
    assert isinstance(shown.exception, error)
    assert message in str(shown.exception)
    assert not (files / "out").exists()


def fill(path, level):
    rows = list(csv.reader(io.StringIO(path.read_bytes().decode("utf-8-sig"), newline="")))
    for number, row in enumerate(rows[1:]):
        row[-4:-1] = map(str, level(number, row[4]))
    stream = io.StringIO(newline="")
    csv.writer(stream, delimiter=";").writerows(rows)
    path.write_text(stream.getvalue(), "utf-8")


def test_sheets_go_out_and_come_back_beside_the_judge(files, served):
    served.answer = lambda _: LEVELS
    predictions = (files / "one.jsonl", files / "two.jsonl")
    shown = gastrovl(
        "rate", "export", *predictions, "--conversations", files / "test.jsonl", "-o", files / "sheets", "--raters", 2
    )
    assert "keep it from them" in shown.stdout
    sheets = [files / "sheets" / "for-raters" / f"rater-{number}.csv" for number in (1, 2)]
    for sheet in sheets:
        fill(sheet, lambda _, reply: (3 if reply.endswith("3.") else 1, 2, 0))
    shown = gastrovl("rate", "import", files / "sheets", *sheets, "-o", files / "ratings.jsonl")
    assert "26 ratings of 2 raters" in shown.stdout  # 12 replies and one of them again, each
    assert judge(files, served, "--ratings", files / "ratings.jsonl").exit_code == 0
    shown = gastrovl(
        "rate", "summary", "--conversations", files / "test.jsonl", "-o", files / "summary",
        "--ratings", files / "ratings.jsonl", "--judgements", files / "out" / "judgements.jsonl", "--resamples", 20,
    )  # fmt: skip
    assert shown.exit_code == 0, shown.output
    judged = json.loads((files / "summary" / "judged.json").read_text("utf-8"))
    assert judged["schema"] == "gastrovl/judged/1"
    assert "no physician" in judged["notice"]
    assert {one["kind"] for one in judged["agreements"]} == {
        "judge, order", "judge, people", "judge, person", "person, person", "person, again", "people, all",
    }  # fmt: skip
    assert sorted(path.name for path in (files / "summary" / "plots").iterdir()) == ["agreement.png", "means.png"]


def test_a_file_of_ratings_given_twice_is_noticed(files):
    gastrovl(
        "rate", "export", files / "one.jsonl", "--conversations", files / "test.jsonl", "-o", files / "sheets",
        "--raters", 1, "--repeated", 0,
    )  # fmt: skip
    sheet = files / "sheets" / "for-raters" / "rater-1.csv"
    fill(sheet, lambda *_: (1, 2, 0))
    gastrovl("rate", "import", files / "sheets", sheet, "-o", files / "r.jsonl")
    twice = ("--ratings", files / "r.jsonl") * 2
    shown = gastrovl("rate", "summary", "--conversations", files / "test.jsonl", "-o", files / "summary", *twice)
    assert isinstance(shown.exception, RecordError)
    assert "twice in these files" in str(shown.exception)
    shown = gastrovl("rate", "import", files / "sheets", sheet, "-o", files / "r.jsonl")
    assert "--overwrite" in str(shown.exception)


def test_a_local_model_judges_and_what_it_babbles_is_no_score(files, tiny_model, tmp_path):
    from gastrovl.model.checkpoint import build_model, save_checkpoint

    save_checkpoint(tmp_path / "tiny", *build_model(tiny_model("mlp"), seed=1), "tiny")
    shown = gastrovl(
        "judge", files / "one.jsonl", "--conversations", files / "test.jsonl", "-o", files / "out",
        "--local", tmp_path / "tiny", "--device", "cpu", "--questions", 2, "--max-tokens", 16,
    )  # fmt: skip
    assert shown.exit_code == 0, shown.output
    judged = json.loads((files / "out" / "judged.json").read_text("utf-8"))
    assert (judged["failures"][0]["asked"], judged["failures"][0]["failed"], judged["means"]) == (4, 4, [])
    assert judged["judges"][0].startswith("tiny@")
