"""Stages that learn from the model's own replies: chained behind others, resumed exactly, and better at the end."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file

from gastrovl.core.boxtext import encode_box
from gastrovl.core.records import read_records, write_records
from gastrovl.core.types import Box, Conversation, Split, Target, Task, Turn
from gastrovl.model.checkpoint import load_checkpoint
from gastrovl.training.config import TrainConfig
from gastrovl.training.train import train
from gastrovl.training.watching.joblog import JsonlLog

LEARN = {
    "name": "learn",
    "tasks": ["REC"],
    "trains": ["vision", "projector", "language"],
    "learning_rate": 1e-2,
    "weight_decay": 0.0,
    "warmup": 0.1,
    "steps": 3,
    "images_per_step": 2,
}
REWARD = LEARN | {
    "name": "rewarded",
    "trains": ["projector", "language"],
    "learning_rate": 2e-3,
    "reward": {"group": 4, "max_new_tokens": 20},
}
TIMES = ("runtime", "per_second", "flos")
SAID = {"reward", "reward_std", "tied_groups", "unread_replies", "kl", "reply_iou"}


def run(config, output, **others):
    """Train quietly; returns the log without times."""
    train(config, output, show_bar=False, say=lambda _: None, **others)
    lines = [json.loads(line) for line in (output / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    return [{k: v for k, v in line.items() if not any(word in k for word in TIMES)} for line in lines]


@pytest.fixture
def configured(tiny_data, tiny_model):
    """`configured(stages, ...)`: a run on two drawn images."""

    def build(*stages, model=("mlp",), **others):
        file = str(tiny_data(images=2))
        content = {"name": "tiny", "model": tiny_model(*model), "train": file, "stages": stages, "log_every": 1}
        return TrainConfig.model_validate(content | {"trackers": []} | others)

    return build


@pytest.fixture
def known(learnt, configured):
    """`known(**stage)`: a run from a checkpoint that knows its boxes, asked at a temperature that blurs them."""

    def build(**changes):
        reward = REWARD["reward"] | {"group": 8, "temperature": 1.2} | changes.pop("reward", {})
        return configured(REWARD | {"reward": reward} | changes, start_from=str(learnt[0]), train=str(learnt[1]))

    return build


def test_a_rewarded_stage_follows_a_supervised_one_in_one_run(configured, tmp_path):
    config = configured(LEARN, REWARD | {"steps": 2}, val=None, trackers=["tensorboard"])

    log = run(config, tmp_path / "run")

    found = [line for line in log if line["stage"] == "rewarded" and "loss" in line]
    assert [line["step"] for line in found] == [1, 2]
    assert all(line.keys() >= SAID for line in found)
    assert not any(line.keys() & SAID for line in log if line["stage"] == "learn")
    assert (tmp_path / "run" / "training.png").is_file()
    assert list((tmp_path / "run" / "tensorboard" / "rewarded").iterdir())
    assert load_checkpoint(tmp_path / "run")[2].name == "tiny"


def test_a_step_whose_groups_all_tie_moves_nothing_and_is_counted(configured, tmp_path):
    stage = REWARD | {"steps": 2}  # nobody taught this model to write boxes: no reply can be read

    log = run(configured(stage), tmp_path / "run")
    still = run(configured(stage | {"learning_rate": 1e-9, "name": "still"}), tmp_path / "still")

    for line in (line for line in log if "loss" in line):
        assert {name: line[name] for name in SAID} == {
            "reward": -0.5,
            "reward_std": 0.0,
            "tied_groups": 1.0,
            "unread_replies": 1.0,
            "kl": 0.0,
            "reply_iou": 0.0,
        }
        assert (line["loss"], line["grad_norm"]) == (0.0, 0.0)
    assert len(still) == len(log)
    weights = [load_file(tmp_path / name / "model.safetensors") for name in ("run", "still")]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_what_learns_and_what_is_remembered_of_the_start_stay_apart(known, tmp_path):
    found = [line for line in run(known(steps=4), tmp_path / "run") if "loss" in line]

    apart = [line["kl"] for line in found]
    assert apart[:2] == [pytest.approx(0.0, abs=1e-6)] * 2  # the first step's rate is 0: the warm-up begins there
    assert max(apart[2:]) > 1e-4
    assert [line["loss"] for line in found] == pytest.approx([0.02 * value for value in apart])
    assert min(line["tied_groups"] for line in found) < 1


@pytest.mark.parametrize("ema", [None, 0.9])
def test_a_resumed_rewarded_stage_gives_the_same_losses_and_weights(known, tmp_path, monkeypatch, ema):
    config = known(steps=4, ema=ema).model_copy(update={"save_every": 2})
    whole = run(config, tmp_path / "whole")

    def die(*given, **_):
        if given[2].global_step == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(JsonlLog, "on_step_end", die)
        with pytest.raises(KeyboardInterrupt):
            run(config, tmp_path / "cut")
    cut = run(config, tmp_path / "cut", resume=True)

    assert cut == whole
    assert any(line["kl"] > 0 for line in whole if "loss" in line)
    weights = [load_file(tmp_path / name / "model.safetensors") for name in ("whole", "cut")]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


# Question, the answers it is taught with alike, and which of them is true.
CHOICES = (
    ("polyp", ("[125,250,500,749]", "[500,500,874,874]"), "[125,250,500,749]"),
    ("gastric ulcer", ("[375,000,624,375]", "[500,500,874,874]"), "[500,500,874,874]"),
    ("cancer", ("absent", "[125,250,500,749]"), "absent"),
)


def undecided(image, number):
    """Questions whose answers are one of two in every epoch, so that a model learns to say either."""
    for name, answers, true in CHOICES:
        corners = [int(word) / 999 for word in true.strip("[]").split(",")] if true != "absent" else None
        boxes = (Box(**dict(zip(("x0", "y0", "x1", "y1"), corners, strict=True))),) if corners else ()
        assert not boxes or encode_box(boxes[0]) == true
        turns = (
            Turn(role="user", text=f"Where is the {name}?"),
            Turn(role="assistant", text=answers[0], alternatives=answers[1:]),
        )
        yield Conversation(
            id=f"toy/{number}/{name}",
            sample_id=f"toy/{number}",
            task=Task.REC,
            image=image,
            source="toy",
            group=f"g{number}",
            split=Split.TRAIN,
            turns=turns,
            target=Target(terms=(name.replace(" ", "_"),), boxes=boxes),
        )


def test_a_policy_that_was_taught_two_answers_alike_learns_which_is_worth_more(configured, tiny_data, tmp_path):
    file = tiny_data(images=2)
    images = list({one.image.path: one.image for one in read_records(file, Conversation)}.values())
    toy = file.with_name("toy.jsonl")
    write_records(toy, [one for number, image in enumerate(images) for one in undecided(image, number)])
    rewarded = REWARD | {"steps": 24, "reward": {"group": 12, "max_new_tokens": 20, "kl": 0.005}}
    config = configured(LEARN | {"steps": 90}, rewarded, train=str(toy))

    log = run(config, tmp_path / "run")

    rewards = [line["reward"] for line in log if "reward" in line]
    before, after = sum(rewards[:3]) / 3, sum(rewards[-5:]) / 5
    assert before < 0.4
    assert after > before + 0.2
