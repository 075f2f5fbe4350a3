"""The card of the model that comes along: its section stands first, with what was held out and nothing else."""

from __future__ import annotations

import importlib.util

import pytest

from gastrovl.core.types import Score, Split, Task


@pytest.fixture(scope="module")
def script(repository):
    spec = importlib.util.spec_from_file_location("make_starter", repository / "scripts" / "make_starter.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def score(**others):
    said = {"task": Task.REC, "metric": "mean_iou", "dataset": "hyperkvasir", "split": Split.TEST, "value": 0.5}
    said |= {"low": 0.4, "high": 0.625, "n": 100, "n_unparsed": 0, "baseline": 0.25, "baseline_name": "mean box"}
    return Score(**(said | others))


def test_figures_are_of_the_held_out_split_only(script):
    rows = script.table_of([score(), score(split=Split.VAL, value=0.9), score(dataset="all", value=0.8)]).splitlines()

    assert rows[2] == "| polyps, mean IoU | 50.0 | 40.0 to 62.5 | 100 | 25.0 (mean box) |"
    assert not rows[3]


def test_an_interval_of_few_groups_is_marked(script):
    assert "40.0 to 62.5\\* |" in script.table_of([score(reason="the interval rests on 2 groups only")])


def test_a_figure_without_a_baseline_is_no_figure(script):
    with pytest.raises(SystemExit, match="mean_iou of hyperkvasir has no value, interval or baseline"):
        script.table_of([score(baseline=None)])


def test_the_section_comes_before_the_others_and_the_picture_goes(script):
    card = "---\nlicense: x\n---\n\n# starter\n\n## Model\n\nText.\n\n![Losses](training.png)\n\n## Scores\n"

    found = script.with_section(card, "## First\n")

    assert found == "---\nlicense: x\n---\n\n# starter\n\n## First\n\n## Model\n\nText.\n\n## Scores\n"
