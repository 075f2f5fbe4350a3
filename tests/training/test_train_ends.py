"""How a stage ends and what it may use: early stops, averages, contrast alone, recomputed activations."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file

from gastrovl.core.errors import ConfigError
from gastrovl.model.checkpoint import build_model
from gastrovl.training import stagerun
from gastrovl.training.config import TrainConfig
from gastrovl.training.train import train
from gastrovl.training.watching.joblog import JsonlLog

ALIGN = {"name": "align", "tasks": ["CAP"], "trains": ["projector"], "learning_rate": 1e-2, "steps": 3}
INSTRUCT = {
    "name": "instruct",
    "tasks": ["CLS", "REC", "REG", "CAP"],
    "trains": ["vision", "projector", "language"],
    "learning_rate": 1e-3,
    "steps": 6,
    "images_per_step": 2,
}
WORSE = INSTRUCT | {"learning_rate": 0.3, "warmup": 0.0, "steps": 12, "early_stop": {"metric": "loss", "patience": 2}}


@pytest.fixture
def configured(tiny_data, tiny_model):
    """`configured(stages, connector=...)`: a run on three drawn images."""

    def build(stages=(ALIGN, INSTRUCT), connector=("mlp", "siglip"), **others):
        content = {"name": "tiny", "model": tiny_model(*connector), "train": str(tiny_data(images=3)), "log_every": 1}
        return TrainConfig.model_validate(content | {"stages": stages} | others)

    return build


def run(config, output, **others):
    """Train quietly; returns what was said."""
    said = []
    train(config, output, show_bar=False, say=said.append, **others)
    return said


def logged(output):
    """Losses and scores of the log, without times."""
    lines = [json.loads(line) for line in (output / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    times = ("runtime", "per_second", "flos")
    kept = [{k: v for k, v in line.items() if not any(word in k for word in times)} for line in lines]
    return [line for line in kept if line.keys() > {"stage", "step", "epoch"}]


def test_a_stage_ends_when_validations_get_no_better_and_keeps_the_best_weights(configured, tmp_path, monkeypatch):
    config = configured((WORSE,), ("pool", "resnet"), evaluate_every=1, save_every=1)
    config = config.model_copy(update={"val": config.train})
    kept = {}

    class Weights(JsonlLog):
        def on_evaluate(self, args, state, control, metrics=None, model=None, **_):
            del args, control
            kept[state.global_step] = (metrics["eval_loss"], {n: p.clone() for n, p in model.state_dict().items()})

    with monkeypatch.context() as patch:
        patch.setattr(stagerun, "JsonlLog", Weights)
        run(config, tmp_path / "run")

    losses = [loss for loss, _ in kept.values()]
    best = min(kept, key=lambda step: kept[step][0])
    assert len(kept) < 12
    assert len(kept) == best + 2
    assert losses[-1] > losses[best - 1]
    found = load_file(tmp_path / "run" / "model.safetensors")
    same = [name for name in found if torch.equal(found[name], kept[best][1][name])]
    assert {name for name in found if name not in same} == {n for n in found if "num_batches_tracked" in n}


def test_a_run_that_is_resumed_behind_an_early_stop_does_not_go_on(configured, tmp_path, monkeypatch):
    config = configured((WORSE,), ("pool", "resnet"), evaluate_every=1, save_every=1)
    config = config.model_copy(update={"val": config.train})
    run(config, tmp_path / "whole")

    def die(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(stagerun, "save_weights", die)
        with pytest.raises(KeyboardInterrupt):
            run(config, tmp_path / "parts")
    run(config, tmp_path / "parts", resume=True)

    whole, parts = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "parts"))
    assert [name for name in whole if not torch.equal(whole[name], parts[name])] == []
    assert logged(tmp_path / "whole") == logged(tmp_path / "parts")


def test_the_average_is_what_a_run_keeps(configured, tmp_path):
    for name, decay in (("last", None), ("average", 0.999)):
        run(configured((INSTRUCT | {"ema": decay},)), tmp_path / name)

    last, average = (load_file(tmp_path / name / "model.safetensors") for name in ("last", "average"))
    assert [line["loss"] for line in logged(tmp_path / "last") if "loss" in line] == [
        line["loss"] for line in logged(tmp_path / "average") if "loss" in line
    ]
    start = build_model(configured().model, 7)[0].state_dict()
    moved = sum(float((last[n] - start[n]).norm()) for n in last)
    trailed = sum(float((average[n] - start[n]).norm()) for n in last)
    assert 0 < trailed < moved


def test_an_early_stop_without_validation_is_refused(configured, tmp_path):
    with pytest.raises(ConfigError, match="early_stop needs validation conversations"):
        run(configured((WORSE,), evaluate_every=1), tmp_path / "run")


def test_alignment_by_contrast_alone_draws_captions_to_their_images(configured, tmp_path):
    stage = ALIGN | {"answer_weight": 0.0, "contrastive_weight": 1.0, "contrastive": "sigmoid", "steps": 30}
    config = configured((stage,))

    run(config, tmp_path / "run")

    losses = [line["loss"] for line in logged(tmp_path / "run") if "loss" in line]
    assert losses[-1] < 0.6 * losses[0]
    names = load_file(tmp_path / "run" / "model.safetensors").keys()
    assert not any("contrast" in name for name in names)


def test_recomputed_activations_change_no_loss(configured, tmp_path):
    for name, choice in (("kept", False), ("recomputed", True)):
        said = run(configured(gradient_checkpointing=choice), tmp_path / name)
        assert any("worked out again" in line for line in said) == choice

    assert [line["loss"] for line in logged(tmp_path / "recomputed") if "loss" in line] == pytest.approx(
        [line["loss"] for line in logged(tmp_path / "kept") if "loss" in line], rel=1e-4
    )
