"""What a rewarded stage cannot be beside: refused where it is read, by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from gastrovl.core.config import load_config, parse_config
from gastrovl.core.errors import ConfigError
from gastrovl.training.config import StageConfig, TrainConfig

STAGE = {"name": "rewarded", "tasks": ["REC"], "trains": ["projector", "language"], "learning_rate": 1e-4, "steps": 5}


def staged(**changes):
    return parse_config(STAGE | {"reward": {}} | changes, StageConfig, where="stage")


def test_every_setting_has_a_default():
    reward = staged().reward

    assert (reward.group, reward.temperature, reward.kl, reward.parse, reward.penalty) == (8, 1.0, 0.02, 0.1, 0.5)


def test_a_yaml_file_with_a_rewarded_stage_is_read_and_written_again(tmp_path):
    (tmp_path / "run.yaml").write_text(
        "name: tiny\nmodel: {preset: nano}\nstages:\n"
        "  - {name: learn, tasks: [REC], trains: [language], learning_rate: 1.0e-3, steps: 5}\n"
        "  - {name: rewarded, tasks: [REC], trains: [language], learning_rate: 1.0e-4, steps: 5, reward: {group: 4}}\n",
        encoding="utf-8",
    )

    config = load_config(Path(tmp_path / "run.yaml"), TrainConfig)

    assert [stage.reward and stage.reward.group for stage in config.stages] == [None, 4]
    assert TrainConfig.model_validate_json(config.model_dump_json()) == config


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tasks": ["REC", "CLS"]}, "reward is known for boxes alone"),
        ({"tasks": ["CLS"]}, "reward is known for boxes alone"),
        ({"answer_weight": 0.5}, "answer_weight cannot be set beside reward"),
        ({"grounding_weight": 0.3}, "grounding_weight cannot be set beside reward"),
        ({"perception_weight": 1.0}, "perception_weight cannot be set beside reward"),
        ({"digit_weights": [1, 0.5, 0.1], "length_weighting": "sqrt"}, "digit_weights, length_weighting cannot"),
        ({"task_weights": {"REC": 2.0}}, "task_weights cannot be set beside reward"),
        ({"trains": ["language", "perception"]}, "trains `perception`"),
        ({"reward": {"group": 1}}, "reward.group"),
        ({"reward": {"temperature": 0}}, "reward.temperature"),
        ({"reward": {"kl": -1}}, "reward.kl"),
        ({"reward": {"klm": 0.1}}, "klm"),
    ],
)
def test_what_does_not_go_together_is_named(changes, message):
    with pytest.raises(ConfigError, match=message):
        staged(**changes)
