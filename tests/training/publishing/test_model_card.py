"""The model card says what the files of a run tell, calls the rest unknown, and names no place of this machine."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime

import pytest
import yaml

from gastrovl.core.errors import CheckpointError
from gastrovl.core.types import Score, Split, Task
from gastrovl.training.publishing.model_card import write_model_card


def head_of(text):
    return yaml.safe_load(text.split("---\n")[1])


@pytest.fixture
def finished(learnt, tmp_path):
    """A copy of a finished run, and its card as the run left it."""
    shutil.copytree(learnt[0], tmp_path / "run")
    return tmp_path / "run"


SCORE = Score(
    task=Task.CLS,
    metric="accuracy",
    dataset="all",
    split=Split.TEST,
    value=0.625,
    low=0.5,
    high=0.75,
    n=8,
    n_unparsed=0,
    baseline=0.25,
    baseline_name="majority label",
)


def test_a_run_leaves_a_card_without_a_single_path_of_this_machine(learnt):
    text = (learnt[0] / "README.md").read_text(encoding="utf-8")
    head = head_of(text)
    assert head["pipeline_tag"] == "image-text-to-text"
    assert head["library_name"] == "transformers"  # an MLP connector is plain LLaVA
    assert "LlavaForConditionalGeneration.from_pretrained" in text
    assert head["license"] == "other"
    assert head["license_name"] == "not-stated"
    assert "model-index" not in head
    assert "it drafts, a physician decides" in text
    assert str(learnt[0].parent) not in text
    assert "| 1 instruct | CLS, REC, REG, CAP | vision, projector, language | 1.0e-02 | 90 steps | 2 |" in text
    assert "| train.jsonl | 8 | 2 | tiny |" in text


def test_what_nobody_told_is_unknown(learnt):
    text = (learnt[0] / "README.md").read_text(encoding="utf-8")
    assert "## Scores\n\nUnknown: no reply of this model was scored" in text
    assert "- weights: unknown, its maker did not say" in text
    assert "- training data: unknown, no manifest stands beside it" in text


def test_scores_stand_with_n_interval_baseline_and_date(finished):
    text = write_model_card(finished, [SCORE], measured=datetime(2026, 11, 25, tzinfo=UTC)).read_text(encoding="utf-8")
    assert "| CLS | accuracy | test | 62.5 (50.0 to 75.0) | 25.0 (majority label) | 8 |" in text
    assert "Measured 2026-11-25." in text
    [result] = head_of(text)["model-index"][0]["results"]
    assert result["dataset"]["name"] == "tiny (test, n=8)"
    assert result["metrics"] == [{"type": "accuracy", "name": "CLS accuracy", "value": 0.625}]


def test_an_undefined_score_says_why_and_is_in_no_index(finished):
    undefined = SCORE.model_copy(update={"value": None, "low": None, "high": None, "reason": "no such question"})
    text = write_model_card(finished, [undefined]).read_text(encoding="utf-8")
    assert "undefined: no such question" in text
    assert "Date of measurement: unknown." in text
    assert "model-index" not in head_of(text)


def test_licences_of_weights_data_and_base_models_are_told_apart(finished):
    for name, change in (
        ("run.json", {"licence": "Apache-2.0"}),
        (
            "training.json",
            {"licences": {"edd": "CC BY-NC 4.0"}, "base_models": {"vision": "google/siglip", "language": "mine"}},
        ),
    ):
        content = json.loads((finished / name).read_text(encoding="utf-8"))
        (finished / name).write_text(json.dumps(content | change), encoding="utf-8")
    text = write_model_card(finished).read_text(encoding="utf-8")
    head = head_of(text)
    assert head["license"] == "apache-2.0"
    assert head["base_model"] == ["google/siglip"]  # a folder's own name is no id of the Hub
    assert "- data `edd`: CC BY-NC 4.0" in text
    assert "- base model mine: unknown here" in text


def test_a_second_tower_is_named_with_where_it_comes_from(finished):
    for name, change in (
        ("config.json", {"second_tower": {"config": {"model_type": "dinov2"}}}),
        ("training.json", {"base_models": {"vision_2": "facebook/dinov2-small"}}),
    ):
        content = json.loads((finished / name).read_text(encoding="utf-8"))
        (finished / name).write_text(json.dumps(content | change), encoding="utf-8")
    text = write_model_card(finished).read_text(encoding="utf-8")
    assert "| second vision encoder | dinov2, from `facebook/dinov2-small` |" in text
    assert head_of(text)["base_model"] == ["facebook/dinov2-small"]


def test_an_unfinished_run_gets_no_card(finished):
    (finished / "manifest.json").unlink()
    with pytest.raises(CheckpointError, match=r"no manifest\.json there"):
        write_model_card(finished)


def test_a_card_says_how_a_model_writes_boxes_where_it_does_so_in_its_own_way(finished):
    as_usual = write_model_card(finished).read_text(encoding="utf-8")
    card = json.loads((finished / "gastrovl.json").read_text(encoding="utf-8"))
    (finished / "gastrovl.json").write_text(json.dumps(card | {"box_coding": {"kind": "pixels"}}), encoding="utf-8")

    text = write_model_card(finished).read_text(encoding="utf-8")

    assert "Inside the model" not in as_usual
    assert "written as pixels" in text
    assert "`{<160><240><480><480>}`" in text
