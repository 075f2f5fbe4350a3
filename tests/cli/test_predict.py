"""`gastrovl predict` with a tiny model that knows its eight conversations."""

from __future__ import annotations

import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gastrovl.cli.app import app, main
from gastrovl.core.errors import ConfigError, OutputError, PredictionError
from gastrovl.core.records import read_records
from gastrovl.core.types import Conversation, Prediction
from gastrovl.inference.predictor import pick_device


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


def alike(one, other):
    """Whether two files hold the same replies; seconds differ, and so does rounding where batches were others."""
    pairs = list(zip(read_records(one, Prediction), read_records(other, Prediction), strict=True))
    assert all(math.isclose(mine.confidence, theirs.confidence, abs_tol=1e-5) for mine, theirs in pairs)
    moving = {"seconds", "confidence", "probabilities"}
    return all(mine.model_dump(exclude=moving) == theirs.model_dump(exclude=moving) for mine, theirs in pairs)


def test_parts_are_answered_one_by_one_and_the_last_makes_the_file(learnt, tmp_path):
    invoke(*learnt, tmp_path / "whole.jsonl")

    first = invoke(*learnt, tmp_path / "out.jsonl", "--shard", "1/2")
    assert f"shard 1/2: 4 questions answered, 4 of them now; {tmp_path / 'out.jsonl'} is written when" in first.stdout
    assert not (tmp_path / "out.jsonl").exists()
    last = invoke(*learnt, tmp_path / "out.jsonl", "--shard", "2/2")

    assert f"4 replies in {tmp_path / 'out.jsonl'}" in last.stdout
    assert "8 replies; 4 asked now" in last.stdout
    assert alike(tmp_path / "out.jsonl", tmp_path / "whole.jsonl")


def test_parts_are_joined_without_the_model(learnt, tmp_path):
    output = tmp_path / "out.jsonl"
    for number in (1, 2):
        invoke(*learnt, tmp_path / str(number) / "out.jsonl", "--shard", f"{number}/2")
    (tmp_path / "1" / "out.jsonl.1-of-2.partial").rename(tmp_path / "out.jsonl.1-of-2.partial")
    join = ["predict", "--join", str(learnt[1]), "-o", str(output)]

    missing = CliRunner().invoke(app, join)
    assert isinstance(missing.exception, PredictionError)
    assert "shard 2/2 has 4 of 4 questions open" in str(missing.exception)
    (tmp_path / "2" / "out.jsonl.2-of-2.partial").rename(tmp_path / "out.jsonl.2-of-2.partial")

    assert f"8 replies in {output}" in CliRunner().invoke(app, join).stdout
    assert len(list(read_records(output, Prediction))) == 8


def test_parts_that_cannot_be_meant_are_refused(learnt, tmp_path, monkeypatch):
    output = tmp_path / "out.jsonl"

    assert "such as 2/8" in str(invoke(*learnt, output, "--shard", "3/2").exception)
    assert "expected CONVERSATIONS alone" in str(invoke(*learnt, output, "--join").exception)
    both = CliRunner().invoke(app, ["predict", str(learnt[1]), "-o", str(output), "--join", "--shard", "1/2"])
    assert "divides the questions to a model" in str(both.exception)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    assert "a launcher started 2 processes" in str(invoke(*learnt, output, "--shard", "1/2").exception)
    assert list(tmp_path.glob("out*")) == []


def test_each_process_of_a_launcher_takes_a_gpu_of_its_own(monkeypatch):
    taken = []
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr("torch.cuda.set_device", lambda device: taken.append(str(device)))

    assert str(pick_device(None)) == "cuda"
    for rank, name in enumerate(["cuda:0", "cuda:1", "cuda:0"]):
        monkeypatch.setenv("WORLD_SIZE", "3")
        monkeypatch.setenv("LOCAL_RANK", str(rank))
        assert str(pick_device(None)) == str(pick_device("cuda")) == name
    assert str(pick_device("cuda:1")) == "cuda:1"
    assert str(pick_device("cpu")) == "cpu"
    assert taken == ["cuda:0", "cuda:0", "cuda:1", "cuda:1", "cuda:0", "cuda:0"]


def test_torchrun_divides_a_file_among_its_processes(learnt, tmp_path):
    invoke(*learnt, tmp_path / "whole.jsonl")
    path = os.pathsep.join(filter(None, (str(Path(__file__).parents[2] / "src"), os.environ.get("PYTHONPATH"))))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    asked = ["-m", "gastrovl", "predict", *map(str, learnt), "-o", str(tmp_path / "out.jsonl"), "--device", "cpu"]

    said = subprocess.run(
        [*command, *asked],
        env=os.environ | {"PYTHONPATH": path, "PYTHONWARNINGS": "ignore"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )

    assert said.returncode == 0, said.stderr
    assert said.stdout.count("4 questions answered, 4 of them now") in (0, 1)  # of two that end at once both may join
    assert "8 replies; 4 asked now" in said.stdout
    assert alike(tmp_path / "out.jsonl", tmp_path / "whole.jsonl")
    assert sorted(one.name for one in tmp_path.glob("out*")) == ["out.jsonl", "out.run.json"]
