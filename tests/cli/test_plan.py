"""`gastrovl train --plan` and Ctrl-C: what they print, at 80 columns, and what they leave."""

from __future__ import annotations

import io
import json

import pytest
import yaml
from rich.console import Console
from typer.testing import CliRunner

from gastrovl.cli import plan as shown
from gastrovl.cli.app import app, main
from gastrovl.core.errors import ConfigError
from gastrovl.training import stagerun
from gastrovl.training import train as train_module
from gastrovl.training.config import TrainConfig
from gastrovl.training.planning import devices
from gastrovl.training.planning.devices import DEVICES, Device
from gastrovl.training.planning.estimate import estimate
from gastrovl.training.watching.joblog import JsonlLog

STAGES = [
    {"name": "align", "tasks": ["CAP"], "trains": ["projector"], "learning_rate": 1e-3, "steps": 2},
    {"name": "talk", "tasks": ["CLS"], "trains": ["language"], "learning_rate": 1e-3, "steps": 4},
]


@pytest.fixture
def written(tiny_data, tiny_model, tmp_path):
    """A YAML file of two short stages that save a state every second step."""
    model = tiny_model("mlp").model_dump(mode="json", exclude_none=True)
    content = {"name": "tiny", "model": model, "train": str(tiny_data(images=2)), "stages": STAGES}
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(content | {"log_every": 1, "save_every": 2}), encoding="utf-8")
    return path


def test_a_plan_is_printed_and_written_without_an_output_folder(written, tmp_path, monkeypatch):
    monkeypatch.setattr(
        devices, "this_machine", lambda: Device("this machine", 8 * 10**9, 1e10, 1e11, 1e9, is_cpu=True)
    )
    before = sorted(tmp_path.rglob("*"))

    result = CliRunner().invoke(app, ["train", str(written), "--plan", "--json", str(tmp_path / "plan.json")])

    assert result.exit_code == 0, result.output
    for words in ("an estimate", "gradient checkpointing", "this machine", "H100", "What this rests on", "frozen"):
        assert words in result.stdout
    assert [stage["name"] for stage in json.loads((tmp_path / "plan.json").read_text(encoding="utf-8"))["stages"]] == [
        "align",
        "talk",
    ]
    assert sorted(tmp_path.rglob("*")) == sorted([*before, tmp_path / "plan.json"])


def test_a_plan_is_no_wider_than_eighty_columns(written):
    settings = TrainConfig.model_validate(yaml.safe_load(written.read_text(encoding="utf-8")))
    stream = io.StringIO()

    shown.print_plan(estimate(settings), DEVICES, Console(file=stream, width=80))

    lines = stream.getvalue().splitlines()
    assert len(lines) > 40
    assert max(map(len, lines)) <= 80
    assert not [line for line in lines if "…" in line]


def test_training_needs_an_output_and_json_needs_a_plan(written, tmp_path):
    for arguments in ([], ["-o", str(tmp_path / "run"), "--json", str(tmp_path / "plan.json")]):
        error = CliRunner().invoke(app, ["train", str(written), *arguments]).exception
        assert isinstance(error, ConfigError)
        assert str(error) == "give -o OUTPUT, the checkpoint folder to make; --json goes with --plan only"


class Interrupted(JsonlLog):
    """Ctrl-C after the third step of the second stage."""

    def on_log(self, args, state, control, logs=None, **others):
        super().on_log(args, state, control, logs, **others)
        if self.stage == "talk" and state.global_step == 3:
            raise KeyboardInterrupt


def test_ctrl_c_says_what_is_kept_and_the_command_that_goes_on(written, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(stagerun, "JsonlLog", Interrupted)
    with pytest.raises(SystemExit) as stop:
        main(["train", str(written), "-o", str(tmp_path / "run"), "--set", "seed=8"])

    assert stop.value.code == 130
    said = capsys.readouterr().err.strip().splitlines()
    assert said == [
        "interrupted. finished stages are kept (align). stage talk is kept up to step 2. go on with: "
        f"gastrovl train {written} -o {tmp_path / 'run'} --set=seed=8 --resume"
    ]
    monkeypatch.undo()
    result = CliRunner().invoke(app, ["train", str(written), "-o", str(tmp_path / "run"), "--set=seed=8", "--resume"])
    assert result.exit_code == 0, result.output
    assert "stage 1 align: done before" in result.stdout


def test_ctrl_c_before_the_first_state_says_that_the_stage_begins_anew(written, tmp_path, monkeypatch, capsys):
    def die(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(train_module, "run_stage", die)
    with pytest.raises(SystemExit) as stop:
        main(["train", str(written), "-o", str(tmp_path / "run")])

    assert stop.value.code == 130
    assert (
        "interrupted. stage align has no saved state yet and will begin anew. go on with: " in capsys.readouterr().err
    )
