"""A rewarded stage is planned with all replies of its groups, and can be told smaller batches."""

from __future__ import annotations

import pytest

from gastrovl.training.config import TrainConfig
from gastrovl.training.planning.estimate import advice_here, estimate

STAGE = {"name": "rewarded", "tasks": ["REC"], "trains": ["projector", "language"], "learning_rate": 1e-4, "steps": 5}


@pytest.fixture
def planned(tiny_data, tiny_model):
    """`planned(reward)`: the config and the plan of a run of one such stage."""

    def build(reward=None):
        file = str(tiny_data(images=1))
        content = {"name": "tiny", "model": tiny_model("mlp"), "train": file, "stages": [STAGE | {"reward": reward}]}
        config = TrainConfig.model_validate(content)
        return config, estimate(config, is_cpu=False)

    return build


def test_rows_hold_the_question_as_often_as_it_is_answered(planned):
    once, often = planned()[1].stages[0].lengths.mean, planned({"group": 6})[1].stages[0].lengths.mean

    assert (often.prefix, often.dialogues, often.answers) == (once.prefix, 6 * once.dialogues, 6 * once.answers)
    assert often.length - often.prefix == 6 * (once.length - once.prefix)


def test_the_plan_names_what_sampling_adds_and_promises_no_equal_result(planned):
    config, plan = planned({"group": 6})

    assert any(one.startswith("rewarded: sampling replies") for one in plan.assumptions)
    assert not plan.stages[0].is_exact_split
    assert "images_per_step" in advice_here(config, config.stages[0])
