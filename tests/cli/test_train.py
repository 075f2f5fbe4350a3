"""`gastrovl train` on four drawn images: what it says, what it leaves, how it complains."""

from __future__ import annotations

import json

import pytest
import yaml
from typer.testing import CliRunner

from gastrovl.cli.app import app, main
from gastrovl.core.errors import ConfigError, OutputError


@pytest.fixture
def written(tiny_data, tiny_model, tmp_path):
    """A YAML file of two short stages."""
    content = {
        "name": "tiny",
        "model": tiny_model("mlp").model_dump(mode="json", exclude_none=True),
        "train": str(tiny_data(images=2)),
        "log_every": 1,
        "stages": [
            {"name": "align", "tasks": ["CAP"], "trains": ["projector"], "learning_rate": 1e-3, "steps": 2},
            {"name": "all", "tasks": ["CLS", "REC"], "trains": ["language"], "learning_rate": 1e-3, "steps": 1},
        ],
    }
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


def invoke(path, *arguments):
    return CliRunner().invoke(app, ["train", str(path), *arguments])


def test_training_says_what_learns_and_where_the_result_lies(written, tmp_path):
    result = invoke(written, "-o", str(tmp_path / "run"), "--set", "stages.1.steps=2")

    assert result.exit_code == 0, result.output
    assert "stage 1 align: CAP; 2 steps" in result.stdout
    assert "stage 2 all: CLS, REC; 2 steps" in result.stdout
    assert "frozen" in result.stdout
    assert f"checkpoint in {tmp_path / 'run'}" in result.stdout
    assert (tmp_path / "run" / "model.safetensors").is_file()
    steps = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [(line["stage"], line["step"]) for line in steps if "loss" in line] == [
        ("align", 1),
        ("align", 2),
        ("all", 1),
        ("all", 2),
    ]


def test_a_misspelt_key_is_refused_before_anything_is_written(written, tmp_path):
    error = invoke(written, "-o", str(tmp_path / "run"), "--set", "stages.0.stepz=5").exception

    assert isinstance(error, ConfigError)
    assert "did you mean 'steps'?" in str(error)
    assert not (tmp_path / "run").exists()


def test_a_run_is_not_overwritten(written, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").write_text("mine", encoding="utf-8")

    assert isinstance(invoke(written, "-o", str(tmp_path / "run")).exception, OutputError)
    assert isinstance(invoke(written, "-o", str(tmp_path / "new"), "--resume").exception, OutputError)


def test_an_error_is_one_message_and_exit_code_two(written, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["train", str(written), "-o", str(tmp_path / "run"), "--set", "train=none.jsonl"])

    assert stop.value.code == 2
    message = "error: none.jsonl: no such file; expected a JSONL file of gastrovl/conversation/1 records"
    assert capsys.readouterr().err.strip() == message
