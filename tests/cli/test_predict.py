"""`gastrovl predict` with a tiny model that knows its eight conversations."""

from __future__ import annotations

import shutil

import pytest
from typer.testing import CliRunner

from gastrovl.cli.app import app, main
from gastrovl.core.errors import ConfigError, OutputError
from gastrovl.core.records import read_records
from gastrovl.core.types import Conversation, Prediction


def invoke(checkpoint, conversations, output, *arguments):
    command = ["predict", str(checkpoint), str(conversations), "-o", str(output), "--device", "cpu", *arguments]
    return CliRunner().invoke(app, command)


def test_every_conversation_is_answered(learnt, tmp_path):
    checkpoint, conversations = learnt

    result = invoke(checkpoint, conversations, tmp_path / "out.jsonl", "--batch-size", "3")

    assert result.exit_code == 0, result.output
    assert f"8 replies in {tmp_path / 'out.jsonl'}" in result.stdout
    assert "not a diagnosis" in result.stdout
    predictions = list(read_records(tmp_path / "out.jsonl", Prediction))
    assert [one.text for one in predictions] == [one.answer for one in read_records(conversations, Conversation)]
    assert {one.model for one in predictions} == {"learnt"}


def test_what_is_there_is_replaced_only_when_asked(learnt, tmp_path):
    (tmp_path / "out.jsonl").write_text("mine", encoding="utf-8")

    assert isinstance(invoke(*learnt, tmp_path / "out.jsonl").exception, OutputError)
    assert invoke(*learnt, tmp_path / "out.jsonl", "--overwrite").exit_code == 0
    assert len(list(read_records(tmp_path / "out.jsonl", Prediction))) == 8


@pytest.mark.parametrize(
    ("device", "message"), [("gpu", "'gpu' does not exist; take cpu or cuda"), ("cuda:9", "PyTorch finds no GPU here")]
)
def test_a_device_that_is_not_there_is_named(learnt, tmp_path, device, message, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)

    result = invoke(*learnt, tmp_path / "out.jsonl", "--device", device)

    assert message in str(result.exception)


def test_a_checkpoint_of_another_version_is_one_message(learnt, tmp_path, capsys):
    shutil.copytree(learnt[0], tmp_path / "old")
    card = tmp_path / "old" / "gastrovl.json"
    card.write_text(card.read_text(encoding="utf-8").replace('"version": 1', '"version": 0'), encoding="utf-8")

    with pytest.raises(SystemExit) as stop:
        main(["predict", str(tmp_path / "old"), str(learnt[1]), "-o", str(tmp_path / "out.jsonl")])

    error = capsys.readouterr().err
    assert stop.value.code == 2
    assert error.startswith(f"error: {card}: checkpoint layout version 0, this gastrovl reads version 1")
    assert "Traceback" not in error
    assert not (tmp_path / "out.jsonl").exists()


def test_what_a_model_without_a_perception_head_cannot_do_is_refused(learnt, tmp_path):
    for option in (["--zoom"], ["--views", "4"], ["--zoom", "--no-head"]):
        result = invoke(*learnt, tmp_path / "out.jsonl", *option)

        assert isinstance(result.exception, ConfigError)
        assert "perception head" in str(result.exception)
    assert isinstance(invoke(*learnt, tmp_path / "out.jsonl", "--views", "3").exception, ConfigError)
    assert not (tmp_path / "out.jsonl").exists()
