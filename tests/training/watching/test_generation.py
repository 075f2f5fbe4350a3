"""Validation by generation: what `gastrovl predict` and `evaluate` would say, at no cost to the weights."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file

from gastrovl.core.errors import ConfigError
from gastrovl.core.records import read_records
from gastrovl.core.types import Conversation, Prediction, Score, Split, Task
from gastrovl.evaluation.evaluate import evaluate
from gastrovl.inference.batch import predict_file
from gastrovl.inference.predictor import Predictor
from gastrovl.pipeline import answer_scorer
from gastrovl.training import stagerun
from gastrovl.training.config import TrainConfig
from gastrovl.training.train import train
from gastrovl.training.watching.generation import headlines, last_scores, metrics_of
from gastrovl.training.watching.joblog import JsonlLog

STAGE = {
    "name": "instruct",
    "tasks": ["CLS", "REC", "REG", "CAP"],
    "trains": ["vision", "projector", "lora"],
    "learning_rate": 1e-2,
    "steps": 5,
    "images_per_step": 2,
}


@pytest.fixture
def configured(tiny_data, tiny_model):
    """A run with dropout, so that a generator that moved would show in the weights."""

    def build(**others):
        content = {
            "name": "tiny",
            "model": tiny_model(lora={"rank": 4, "alpha": 8, "dropout": 0.3}),
            "train": str(tiny_data(images=3)),
            "val": str(tiny_data(images=2, name="val")),
            "stages": [STAGE],
            "log_every": 1,
            "validate_answers": {"every": 2, "batch_size": 3, "tasks": ["CLS", "REG"]},
        }
        return TrainConfig.model_validate(content | others)

    return build


def run(config, output, **others):
    said = []
    train(config, output, show_bar=False, say=said.append, score_answers=answer_scorer(config), **others)
    return said


def lines_of(output):
    return [json.loads(line) for line in (output / "log.jsonl").read_text(encoding="utf-8").splitlines()]


def answered(output):
    return [line for line in lines_of(output) if "eval_answers_seconds" in line]


def test_the_weights_are_those_of_a_run_without_it_bit_for_bit(configured, tmp_path):
    said = run(configured(), tmp_path / "with")
    run(configured(validate_answers=None), tmp_path / "without")

    one, other = (load_file(tmp_path / name / "model.safetensors") for name in ("with", "without"))
    assert all(torch.equal(one[name], other[name]) for name in other)
    losses = [[line["loss"] for line in lines_of(tmp_path / name) if "loss" in line] for name in ("with", "without")]
    assert losses[0] == losses[1]
    assert [line["step"] for line in answered(tmp_path / "with")] == [2, 4, 5]
    assert not (tmp_path / "without" / "validation").exists()
    assert any(line.startswith("  step 2: 4 questions answered in ") for line in said)


def test_replies_and_scores_are_those_of_predict_and_evaluate(configured, tmp_path):
    stages = [STAGE | {"trains": ["vision", "projector", "language"], "steps": 30}]
    config = configured(stages=stages, validate_answers={"every": 30, "batch_size": 3})
    run(config, tmp_path / "run")
    kept = tmp_path / "run" / "validation" / "1-instruct" / "step-000030"
    predict_file(Predictor.load(tmp_path / "run", "cpu"), tmp_path / "data" / "val.jsonl", tmp_path / "p.jsonl")

    here, there = (list(read_records(path, Prediction)) for path in (kept / "predictions.jsonl", tmp_path / "p.jsonl"))
    assert [(one.conversation_id, one.text) for one in here] == [(one.conversation_id, one.text) for one in there]
    results = evaluate(
        kept / "predictions.jsonl",
        kept.parent / "questions.jsonl",
        tmp_path / "evaluation",
        train=tmp_path / "data" / "train.jsonl",
        resamples=0,
        uses_images=False,
    )
    logged = answered(tmp_path / "run")[-1]
    for score in results.scores:
        key = f"eval_{score.task.lower()}/{score.metric}"
        if score.dataset == "all" and score.value is not None:
            assert logged[key] == score.value
            assert logged.get(f"{key}_baseline") == score.baseline
    assert {"eval_cls/accuracy", "eval_cls/macro_f1", "eval_rec/acc@0.5", "eval_rec/mean_iou", "eval_cap/bleu4"} <= set(
        logged
    )
    assert logged["eval_cls/unparsed"] == 0


class Interrupted(JsonlLog):
    """Dies behind the validation at step 3, of which the last saved state, that of step 2, does not know."""

    def on_log(self, args, state, control, logs=None, **others):
        super().on_log(args, state, control, logs, **others)
        if logs and "eval_answers_seconds" in logs and state.global_step == 3:
            raise KeyboardInterrupt


def test_a_resumed_run_logs_no_validation_twice(configured, tmp_path, monkeypatch):
    config = configured(save_every=2, validate_answers={"every": 3, "tasks": ["CLS"]})
    run(config, tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(stagerun, "JsonlLog", Interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(config, tmp_path / "parts")
    run(config, tmp_path / "parts", resume=True)

    def numbers(output):
        return [{name: line[name] for name in line if "seconds" not in name} for line in answered(output)]

    assert [line["step"] for line in answered(tmp_path / "parts")] == [3, 5]
    assert numbers(tmp_path / "parts") == numbers(tmp_path / "whole")


def test_a_validation_after_the_last_saved_state_is_not_logged_twice(configured, tmp_path, monkeypatch):
    config = configured(save_every=5, evaluate_every=5)

    def die(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(stagerun, "save_weights", die)  # behind the last validation, before the weights are kept
        with pytest.raises(KeyboardInterrupt):
            run(config, tmp_path / "run")
    run(config, tmp_path / "run", resume=True)

    assert [line["step"] for line in answered(tmp_path / "run")] == [2, 4, 5]
    run(config, tmp_path / "whole")
    one, other = (load_file(tmp_path / name / "model.safetensors") for name in ("run", "whole"))
    assert all(torch.equal(one[name], other[name]) for name in other)  # and no step was taken twice


def test_only_the_drawn_images_and_the_named_tasks_are_asked(configured, tmp_path):
    run(configured(validate_answers={"every": 9, "images": 1, "tasks": ["CLS"]}), tmp_path / "run")

    folder = tmp_path / "run" / "validation" / "1-instruct"
    asked = list(read_records(folder / "questions.jsonl", Conversation))
    assert [one.task for one in asked] == [Task.CLS]
    assert [path.name for path in folder.glob("step-*")] == ["step-000005"]
    step, scores = last_scores(tmp_path / "run")
    assert step == 5
    assert {(score.task, score.n) for score in scores} == {(Task.CLS, 1)}


def test_what_cannot_be_asked_or_scored_ends_the_run_before_it_begins(configured, tmp_path):
    with pytest.raises(ConfigError, match="the validation split holds no conversation of VQA"):
        run(configured(validate_answers={"every": 2, "tasks": ["VQA"]}), tmp_path / "run")
    with pytest.raises(ConfigError, match="no validation conversations are given"):
        run(configured(val=None), tmp_path / "run")
    with pytest.raises(ConfigError, match="nothing scores the answers"):
        train(configured(), tmp_path / "run", show_bar=False)
    assert not (tmp_path / "run").exists()


def score(metric, value, baseline=None, dataset="all"):
    return Score(
        task=Task.CLS,
        metric=metric,
        dataset=dataset,
        split=Split.VAL,
        value=value,
        baseline=baseline,
        n=4,
        n_unparsed=1,
    )


def test_metrics_leave_out_what_is_undefined_and_single_datasets():
    scores = [score("accuracy", 0.75, 0.5), score("macro_f1", None), score("accuracy", 0.1, dataset="edd")]
    assert metrics_of(scores) == {"cls/accuracy": 0.75, "cls/accuracy_baseline": 0.5}
    assert headlines(scores) == "CLS accuracy 75.0 % (baseline 50.0)"
    assert headlines([]) == "no score is defined"
