"""Trackers: every number arrives, each stage is a run of its own, and nothing private is told to any of them."""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import sqlite3
import subprocess
import sys

import pytest
import yaml

from gastrovl.core.config import parse_config
from gastrovl.core.errors import ConfigError, MissingExtraError
from gastrovl.training.config import TrainConfig
from gastrovl.training.train import train
from gastrovl.training.watching.trackers import StageArguments, check_trackers

has_both = all(importlib.util.find_spec(name) for name in ("wandb", "mlflow", "sqlalchemy"))
# Starts the run twice, as an interrupted one would be: the second opening has to find the first one's runs.
SCRIPT = """
import sys, yaml
from pathlib import Path
from gastrovl.core.config import load_config
from gastrovl.training.config import TrainConfig
from gastrovl.training.watching.trackers import tracked
from gastrovl.training.train import train
config = load_config(Path(sys.argv[1]), TrainConfig)
output = Path(sys.argv[2])
train(config, output, show_bar=False)
with tracked(("mlflow",), config.tracking, output, run=config.name, stage="align"):
    pass
import wandb, mlflow
assert wandb.run is None and mlflow.active_run() is None
from mlflow.telemetry.utils import is_telemetry_disabled
assert is_telemetry_disabled()
"""


def content_of(train_file, model, **others):
    """Two stages of two steps each."""
    stage = {"tasks": ["CAP"], "learning_rate": 1e-3, "steps": 2}
    return {
        "name": "tiny",
        "model": model.model_dump(mode="json", exclude_none=True),
        "train": str(train_file),
        "val": str(train_file),
        "log_every": 1,
        "evaluate_every": 2,
        "stages": [
            {"name": "align", "trains": ["projector"], **stage},
            {"name": "talk", "trains": ["language"], **stage},
        ],
        **others,
    }


@pytest.fixture(scope="module")
def tracked_run(tmp_path_factory, tiny_model, drawn):
    """The folder of a run that all three trackers followed; made in a process of its own, for W&B opens a socket."""
    if not has_both:
        pytest.skip("wandb, mlflow and sqlalchemy are not installed")
    folder = tmp_path_factory.mktemp("tracked")
    file = drawn(folder / "private-folder", images=2)
    path = folder / "config.yaml"
    path.write_text(
        yaml.safe_dump(content_of(file, tiny_model(), trackers=["tensorboard", "wandb", "mlflow"])), encoding="utf-8"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("WANDB_", "MLFLOW_"))}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(path), str(folder / "run")],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder / "run"


def rows(database, query):
    with sqlite3.connect(database) as connection:
        return connection.execute(query).fetchall()


def test_mlflow_has_a_run_for_each_stage_with_the_numbers_of_the_log(tracked_run):
    runs = rows(tracked_run / "mlflow.db", "select name, status from runs order by start_time")
    assert runs == [("tiny align", "FINISHED"), ("tiny talk", "FINISHED")]
    found = rows(
        tracked_run / "mlflow.db",
        "select m.step, m.value from metrics m join runs r using (run_uuid) "
        "where m.key = 'loss' and r.name = 'tiny talk' order by m.step",
    )
    lines = [json.loads(line) for line in (tracked_run / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    assert found == [(line["step"], line["loss"]) for line in lines if line["stage"] == "talk" and "loss" in line]
    assert len(found) == 2


def test_wandb_stays_offline_and_writes_a_run_for_each_stage(tracked_run):
    folders = sorted(path.name for path in (tracked_run / "wandb").iterdir() if path.is_dir() and not path.is_symlink())
    assert len(folders) == 2
    assert all(name.startswith("offline-run-") for name in folders)
    files = list((tracked_run / "wandb").glob("offline-run-*/*.wandb"))
    assert len(files) == 2
    assert all(b"train/loss" in file.read_bytes() and b"eval/cap_exact" in file.read_bytes() for file in files)


def test_tensorboard_has_a_folder_for_each_stage(tracked_run):
    assert {path.name for path in (tracked_run / "tensorboard").iterdir()} == {"align", "talk"}


def test_no_tracker_is_told_a_path_an_image_a_word_or_who_runs_it(tracked_run):
    private = ["private-folder", ".png", str(tracked_run.parent), "ulcer", "Describe", "Write a short note"]
    files = [
        *(tracked_run / "wandb").glob("offline-run-*/*.wandb"),
        *(path for path in (tracked_run / "tensorboard").rglob("*") if path.is_file()),
    ]
    told = b"".join(file.read_bytes() for file in files)
    told += repr(rows(tracked_run / "mlflow.db", "select key, value from params")).encode()
    told += repr(rows(tracked_run / "mlflow.db", "select key, value from tags")).encode()
    assert b"learning_rate" in told  # what is told can be read here
    assert [word for word in private if word.encode() in told] == []
    assert f'"{socket.gethostname()}"'.encode() not in told


def test_a_missing_library_is_named_before_the_run_begins(tiny_data, tiny_model, tmp_path, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        "gastrovl.training.watching.trackers.importlib.util.find_spec",
        lambda name: None if name == "wandb" else find(name),
    )
    check_trackers(("tensorboard",))
    config = parse_config(content_of(tiny_data(), tiny_model(), trackers=["wandb"]), TrainConfig, where="tiny")

    with pytest.raises(MissingExtraError, match=r'pip install "gastrovl\[wandb\]", or take wandb out'):
        train(config, tmp_path / "run", show_bar=False)
    assert not (tmp_path / "run").exists()


def test_an_unknown_tracker_is_refused(tiny_data, tiny_model):
    with pytest.raises(ConfigError, match="tensorboardx"):
        parse_config(content_of(tiny_data(), tiny_model(), trackers=["tensorboardx"]), TrainConfig, where="tiny")


def test_arguments_show_a_tracker_no_path_and_no_token(tmp_path):
    shown = StageArguments(
        output_dir=str(tmp_path / "private-folder"), hub_token="hf_secret", use_cpu=True, report_to=[]
    ).to_dict()
    assert shown["learning_rate"] == pytest.approx(5e-5)
    assert "private-folder" not in repr(shown)
    assert "hf_secret" not in repr(shown)
