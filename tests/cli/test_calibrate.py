"""`gastrovl calibrate`, and `gastrovl predict` with what it has fitted, on tiny models."""

from __future__ import annotations

import json
import shutil

import pytest
from typer.testing import CliRunner

from gastrovl.cli.app import app
from gastrovl.core.errors import CheckpointError, ConfigError, OutputError, PredictionError
from gastrovl.core.records import read_records
from gastrovl.core.types import Prediction, Task
from gastrovl.inference.belief.calibration import FILE, read_calibration
from gastrovl.inference.runrecord import read_run


def invoke(*words):
    return CliRunner().invoke(app, [str(word) for word in (*words, "--device", "cpu")])


def predict(checkpoint, conversations, output, *options):
    result = invoke("predict", checkpoint, conversations, "-o", output, *options)
    assert result.exit_code == 0, result.output or result.exception
    return list(read_records(output, Prediction))


@pytest.fixture(scope="module")
def calibrated(learnt, tmp_path_factory):
    """A checkpoint calibrated with checks, its conversations, its raw predictions, and what was said."""
    folder = tmp_path_factory.mktemp("calibrated")
    shutil.copytree(learnt[0], folder / "model")
    predict(folder / "model", learnt[1], folder / "raw.jsonl")
    result = invoke("calibrate", folder / "model", folder / "raw.jsonl", "--conversations", learnt[1])
    assert result.exit_code == 0, result.output or result.exception
    return folder / "model", learnt[1], folder / "raw.jsonl", result.stdout


def test_it_says_what_it_fitted_and_on_how_little(calibrated):
    checkpoint, _, _, said = calibrated

    assert "CLS of all: " in said
    assert "on 2 answers in 2 groups" in said
    assert "not shown: too few groups" in said
    assert "scope: not fitted" in said  # two pictures
    assert "not a diagnosis" in said
    assert set(read_calibration(checkpoint).tasks) == {Task.CLS, Task.REC, Task.REG}


def test_predictions_carry_calibrated_confidences_unless_raw_ones_are_asked_for(calibrated, tmp_path):
    checkpoint, conversations, raw, _ = calibrated

    before = list(read_records(raw, Prediction))
    after = predict(checkpoint, conversations, tmp_path / "after.jsonl")
    again = predict(checkpoint, conversations, tmp_path / "raw.jsonl", "--raw")

    assert [one.text for one in after] == [one.text for one in before]
    assert [one.confidence for one in again] == [one.confidence for one in before]
    assert [one.confidence for one in after if one.stop_reason == "end"] != [one.confidence for one in before]
    known = read_calibration(checkpoint)
    assert read_run(tmp_path / "after.jsonl").description["calibration"] == {
        "fingerprint": known.fingerprint,
        "checks": False,
    }
    assert read_run(tmp_path / "raw.jsonl").description is None
    assert read_run(tmp_path / "after.jsonl").fingerprint != read_run(raw).fingerprint


def test_checks_are_made_when_asked_for(calibrated, tmp_path):
    checkpoint, conversations, _, _ = calibrated

    predict(checkpoint, conversations, tmp_path / "checked.jsonl", "--checks")

    assert read_run(tmp_path / "checked.jsonl").description["calibration"]["checks"] is True


def test_calibrated_predictions_are_not_calibrated_again(calibrated, tmp_path):
    checkpoint, conversations, _, _ = calibrated
    predict(checkpoint, conversations, tmp_path / "after.jsonl")

    result = invoke("calibrate", checkpoint, tmp_path / "after.jsonl", "--conversations", conversations, "--overwrite")

    assert isinstance(result.exception, PredictionError)
    assert "gastrovl predict --raw" in str(result.exception)


def test_a_calibration_is_replaced_only_when_asked_and_comes_out_alike(calibrated):
    checkpoint, conversations, raw, _ = calibrated
    first = (checkpoint / FILE).read_bytes()
    command = ["calibrate", checkpoint, raw, "--conversations", conversations]

    assert isinstance(invoke(*command).exception, OutputError)
    assert invoke(*command, "--overwrite").exit_code == 0
    assert (checkpoint / FILE).read_bytes() == first


def test_a_checkpoint_that_changed_refuses_its_calibration(calibrated, tmp_path):
    shutil.copytree(calibrated[0], tmp_path / "model")
    told = json.loads((tmp_path / "model" / FILE).read_text(encoding="utf-8"))
    (tmp_path / "model" / FILE).write_text(json.dumps({**told, "weights": "0" * 64}), encoding="utf-8")

    refused = invoke("predict", tmp_path / "model", calibrated[1], "-o", tmp_path / "out.jsonl")

    assert isinstance(refused.exception, CheckpointError)
    predict(tmp_path / "model", calibrated[1], tmp_path / "out.jsonl", "--raw")


def test_raw_and_checks_exclude_each_other(calibrated, tmp_path):
    result = invoke("predict", calibrated[0], calibrated[1], "-o", tmp_path / "out.jsonl", "--raw", "--checks")

    assert isinstance(result.exception, ConfigError)


def test_a_calibrated_checkpoint_says_so_when_it_is_asked(calibrated):
    command = ["ask", calibrated[0], calibrated[1].parent / "0.png", "--classify", "--locate", "polyp"]

    plain, checked, raw = invoke(*command), invoke(*command, "--checks"), invoke(*command, "--raw")

    assert plain.stdout.count(", calibrated)") == checked.stdout.count(", calibrated)") == 2
    assert raw.stdout.count(", not calibrated)") == 2
    assert "label set at 90%" in plain.stdout
    assert "the caption names" in checked.stdout
    assert "the caption names" not in plain.stdout
    assert isinstance(invoke(*command, "--raw", "--checks").exception, ConfigError)


def test_a_calibrated_talk_keeps_beliefs(calibrated, tmp_path):
    command = ["chat", str(calibrated[0]), str(calibrated[1].parent / "0.png"), "--checks", "--device", "cpu"]
    typed = f"/locate polyp\nWhat is it?\n/save {tmp_path / 'session.json'}\n"

    result = CliRunner().invoke(app, command, input=typed)

    assert result.exit_code == 0, result.output
    place, text = json.loads((tmp_path / "session.json").read_text("utf-8"))["exchanges"]
    assert (place["calibrated"], text["calibrated"]) == (True, False)
    assert [one["name"] for one in place["belief"]["checks"]]


def test_folds_are_fitted_on_together_and_a_checkpoint_that_saw_its_fold_is_refused(calibrated, learnt, tmp_path):
    checkpoint, conversations, raw, _ = calibrated
    copy = tmp_path / "fold"
    shutil.copytree(learnt[0], copy)
    command = ["calibrate", checkpoint, raw, "--conversations", conversations, "--answered-by", copy, "--overwrite"]

    seen = invoke(*command)
    (copy / "training.json").unlink()  # what it was trained on is not known any more
    unknown = invoke(*command, "--no-checks")

    assert isinstance(seen.exception, ConfigError)
    assert "was trained on 2 of the 2 groups" in str(seen.exception)
    assert unknown.exit_code == 0, unknown.exception
    assert "could not be checked" in unknown.stdout
    twice = [raw, raw, "--conversations", conversations, "--conversations", conversations]
    both = invoke("calibrate", checkpoint, *twice, "--answered-by", copy, "--answered-by", copy, "--overwrite")
    assert isinstance(both.exception, PredictionError)
