"""`gastrovl robustness` and `gastrovl shift` with a tiny model that knows its eight conversations."""

from __future__ import annotations

import shutil

import pytest
from typer.testing import CliRunner

from gastrovl.cli.app import app
from gastrovl.core.errors import ConfigError
from gastrovl.core.records import read_records, write_records
from gastrovl.core.types import Conversation, Task
from gastrovl.evaluation.robustness.record import Family, read_robustness


def invoke(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def test_a_checkpoint_is_asked_clean_corrupted_and_misled(learnt, tmp_path):
    checkpoint, conversations = learnt
    options = ["--corruptions", "under_exposure", "--levels", "5", "--leading", "irrelevant_context", "--tasks", "rec"]

    result = invoke(
        "robustness",
        checkpoint,
        conversations,
        "-o",
        tmp_path / "out",
        *options,
        "--resamples",
        "20",
        "--device",
        "cpu",
    )

    assert result.exit_code == 0, result.output
    assert "clean 100.0 %, mean under corruption" in result.stdout
    assert "worst" in result.stdout
    found = read_robustness(tmp_path / "out" / "robustness.json")
    assert {one.value for one in found.scores if one.family is Family.CLEAN} == {1.0}
    assert {one.name for one in found.scores} >= {"clean", "under_exposure", "irrelevant_context"}
    assert found.models == ("learnt",)


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--corruptions", "fog", "--corruptions: 'fog' does not exist; expected some of motion_blur"),
        ("--levels", "0,1", "--levels: '0' does not exist"),
        ("--leading", "bribe", "--leading: 'bribe' does not exist; expected some of false_suggestion"),
        ("--tasks", "cls,sing", "--tasks: 'SING' does not exist"),
    ],
)
def test_an_unknown_name_stops_before_the_model_is_opened(tmp_path, option, value, message):
    result = invoke("robustness", tmp_path, tmp_path / "test.jsonl", "-o", tmp_path / "out", option, value)
    assert isinstance(result.exception, ConfigError)
    assert message in str(result.exception)


def test_scores_are_grouped_by_the_size_of_images(learnt, tmp_path):
    checkpoint, conversations = learnt[0], tmp_path / "data" / "rec.jsonl"
    shutil.copytree(learnt[1].parent, conversations.parent)
    rows = list(read_records(learnt[1], Conversation))
    write_records(conversations, [one for one in rows if one.task is Task.REC])
    replies = tmp_path / "replies.jsonl"
    assert invoke("predict", checkpoint, conversations, "-o", replies, "--device", "cpu").exit_code == 0

    words = ("--conversations", conversations, "--by", "size", "-o", tmp_path / "shift.json", "--resamples", "20")
    result = invoke("shift", "groups", replies, *words)

    assert result.exit_code == 0, result.output
    assert "by size" in result.stdout
    assert "gastrovl/shift/1" in (tmp_path / "shift.json").read_text("utf-8")
    assert isinstance(invoke("shift", "groups", replies, *words[:2], "--by", "colour").exception, ConfigError)
