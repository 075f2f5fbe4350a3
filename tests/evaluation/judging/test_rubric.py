"""Rubrics: every level in words, every scale with its source, one shape for all."""

from __future__ import annotations

import pytest
import yaml

from gastrovl.core.errors import ConfigError
from gastrovl.core.types import Task
from gastrovl.evaluation.judging.rubric import load_rubric, packaged_rubrics, rubrics_of


@pytest.mark.parametrize("name", packaged_rubrics())
def test_a_packaged_rubric_asks_for_the_three_criteria_and_names_the_source_of_each_scale(name):
    rubric = load_rubric(name)
    assert [(one.name, one.most, one.higher_is) for one in rubric.criteria] == [
        ("correct", 4, "better"),
        ("complete", 4, "better"),
        ("harmful", 2, "worse"),
    ]
    assert [level.name for level in rubric.criterion("harmful").levels] == ["none", "possible", "severe"]
    assert "Singhal et al." in rubric.sources[rubric.criterion("harmful").source]


def test_every_task_with_words_has_a_rubric_and_boxes_have_none():
    assert set(rubrics_of((), set(Task) - {Task.REC})) == set(Task) - {Task.REC}
    with pytest.raises(ConfigError, match="no rubric for the task REC"):
        rubrics_of((), {Task.REC})


def own(tmp_path, **changes):
    content = load_rubric("caption").model_dump(mode="json") | changes
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump(content), "utf-8")
    return str(path)


def test_a_rubric_of_ones_own_goes_before_the_packaged_one(tmp_path):
    rubric = load_rubric(own(tmp_path, name="strict", version=3))
    assert rubrics_of((rubric,), {Task.CAP, Task.VQA})[Task.CAP].tag == "strict/3"
    assert rubrics_of((rubric,), {Task.CAP, Task.VQA})[Task.VQA].tag == "answer/1"


def test_rubrics_of_different_shape_do_not_go_together(tmp_path):
    criteria = load_rubric("caption").model_dump(mode="json")["criteria"]
    rubric = load_rubric(own(tmp_path, criteria=criteria[:2]))
    assert rubrics_of((rubric,), {Task.CAP}) == {Task.CAP: rubric}
    with pytest.raises(ConfigError, match="different criteria or levels"):
        rubrics_of((rubric,), {Task.CAP, Task.VQA})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda one: one["levels"].pop(1), "without gaps"),
        (lambda one: one.update(source="nobody"), "expected keys of `sources`"),
        (lambda one: one.update(name="reason"), "none of them 'reason'"),
        (lambda one: one.update(nmae="x"), "unknown key"),
    ],
)
def test_a_malformed_rubric_is_refused(tmp_path, change, message):
    criteria = load_rubric("caption").model_dump(mode="json")["criteria"]
    change(criteria[0])
    with pytest.raises(ConfigError, match=message):
        load_rubric(own(tmp_path, criteria=criteria))


def test_an_unknown_name_is_answered_with_the_known_ones():
    with pytest.raises(ConfigError, match="answer, caption, report"):
        load_rubric("captain")
