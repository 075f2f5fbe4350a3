"""Run files: contradictions are refused where they are read."""

from __future__ import annotations

import pytest

from gastrovl.core.config import load_config
from gastrovl.core.errors import ConfigError
from gastrovl.training.config import TrainConfig

GOOD = """\
name: tiny
model: {preset: nano}
stages:
  - {name: align, tasks: [CAP], trains: [projector], learning_rate: 1.0e-3, steps: 5}
  - {name: instruct, tasks: [CLS, REC], trains: [projector, language], learning_rate: 1.0e-3, epochs: 2}
"""


def written(tmp_path, old="", new=""):
    assert old in GOOD
    path = tmp_path / "run.yaml"
    path.write_text(GOOD.replace(old, new), encoding="utf-8")
    return path


def test_a_good_run_is_read(tmp_path):
    config = load_config(written(tmp_path), TrainConfig)

    assert [stage.name for stage in config.stages] == ["align", "instruct"]
    assert (config.stages[0].steps, config.stages[1].epochs) == (5, 2.0)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("steps: 5", "steps: 5, epochs: 1", "give either `epochs` or `steps`"),
        (", steps: 5", "", "give either `epochs` or `steps`"),
        ("steps: 5", "steps: 5, rates: {vision: 1.0e-4}", "rates for parts that do not train: vision"),
        ("epochs: 2", "epochs: 2, contrastive_weight: 0.1", "contrastive_weight needs CAP among the tasks"),
        ("steps: 5", "steps: 5, answer_weight: 0", "every loss has weight 0"),
        ("steps: 5", "steps: 5, cutmix: 0.5", "cutmix needs answer_weight 0"),
        ("steps: 5", "steps: 5, paste: 0.5", "paste needs answer_weight 0, .* no words are true"),
        ("steps: 5", "steps: 5, layers: {projector: '-1:'}", "layers of projector; expected a tower or `language`"),
        ("steps: 5", "steps: 5, layers: {vision: '-1:'}", "layers of vision; expected .* among those that train"),
        ("epochs: 2", "epochs: 2, layers: {language: last}", "String should match pattern"),
        ("name: instruct", "name: align", r"stages share a name: \['align', 'align'\]"),
        ("name: align", "name: Align It", "String should match pattern"),
        ("[projector, language]", "[lora, language]", "trains either `lora` or `language`, not both"),
        ("tasks: [CAP]", "tasks: [CAPTION]", "Input should be 'CLS', 'REC', 'REG', 'CAP'"),
        ("trains: [projector]", "trains: []", "at least 1 item"),
        ("learning_rate: 1.0e-3, steps", "learning_rat: 1.0e-3, steps", r"run\.yaml:4: unknown key .*'learning_rate'"),
        ("steps: 5", "steps: 0", "greater than 0"),
        ("stages:", "quantise: nf4\nstages:", "quantise keeps the language model frozen"),
        ("steps: 5", "steps: 5, early_stop: {metric: loss}", "early_stop needs validations: set `evaluate_every`"),
        ("steps: 5", "steps: 5, ema: 1.0", "less than 1"),
        (
            "steps: 5",
            "steps: 5, repeat_several: 2, sampling: {temperature: 2}",
            "either `sampling` or `repeat_several`",
        ),
        ("steps: 5", "steps: 5, sampling: {temperature: 0.5}", "greater than or equal to 1"),
        ("steps: 5", "steps: 5, sampling: {temperature: 2, by: [centre]}", "'task', 'class' or 'source'"),
        (
            "stages:",
            "augment: {operations: {twist: 0.5}}\nstages:",
            "no augmentation is called twist; known: highlights,",
        ),
        ("stages:", "augment: {operations: {turn: 1.5}}\nstages:", "less than or equal to 1"),
        ("stages:", "seed: x\nstages:", "seed: Input should be a valid integer"),
        ("stages:", "cached_views: 2\nstages:", "cached_views needs `augment`, which draws the views"),
        ("stages:", "cached_views: 2\naugment: {}\nfeature_cache_gb: 0\nstages:", "a feature_cache_gb to keep them"),
        ("stages:", "feature_cache_gb: -1\nstages:", "greater than or equal to 0"),
    ],
)
def test_a_contradiction_is_refused_with_its_place(tmp_path, old, new, message):
    with pytest.raises(ConfigError, match=message):
        load_config(written(tmp_path, old, new), TrainConfig)


def test_adapters_need_a_description(tmp_path):
    path = written(tmp_path, "[projector, language]", "[lora]")
    path.write_text(path.read_text(encoding="utf-8").replace("{preset: nano}", "{image_size_px: 32}"), encoding="utf-8")

    with pytest.raises(ConfigError, match=r"a stage trains `lora`, but the model describes none \(model.lora\)"):
        load_config(path, TrainConfig)
