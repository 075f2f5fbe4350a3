from __future__ import annotations

import json
from xml.etree import ElementTree

import pytest
import typer
from typer.testing import CliRunner

from gastrovl.cli.gate import gate as command
from gastrovl.clinical.taxonomy import Taxonomy
from gastrovl.core.config import load_config
from gastrovl.core.errors import ConfigError, PredictionError, RecordError
from gastrovl.core.types import Score, Split, Task
from gastrovl.evaluation.comparing.gate import GateConfig, Replies, Rule, Status, Watched, gate
from gastrovl.evaluation.comparing.gatefiles import write_junit
from gastrovl.evaluation.evaluate import score_items
from gastrovl.evaluation.items import read_items
from gastrovl.evaluation.results import Replies as TaskReplies
from gastrovl.evaluation.results import Results, write_results

app = typer.Typer()
app.command()(command)


def score(value=0.8, *, task=Task.CLS, metric="accuracy", dataset="all", n=100, **changes):
    return Score(task=task, metric=metric, dataset=dataset, split=Split.TEST, value=value, n=n, n_unparsed=0, **changes)


def results(*scores, unread=0, n=100, taxonomy="1"):
    replies = [
        TaskReplies(task=task, split=Split.TEST, n=n, n_unparsed=unread, n_cut=0, seconds=1.0, reasons={})
        for task in dict.fromkeys(one.task for one in scores)
    ]
    return Results(
        models=("m",),
        taxonomy=taxonomy,
        resamples=0,
        seed=7,
        level=0.95,
        bleu=None,
        scores=scores,
        baselines=(),
        replies=tuple(replies),
        per_class=(),
        confusion=(),
        iou_curves=(),
    )


def failures(new, old, **config):
    return [(one.what, one.subject) for one in gate(new, old, GateConfig(**config)).failures]


def test_the_same_results_pass():
    report = gate(results(score()), results(score()), GateConfig())
    assert report.has_passed
    assert report.failures == []


def test_a_drop_of_the_limit_passes_and_more_fails():
    old = results(score(0.8))
    assert failures(results(score(0.79)), old) == []
    assert failures(results(score(0.789)), old) == [("drop", "CLS test accuracy")]


def test_a_failure_says_by_how_much():
    [found] = gate(results(score(0.75)), results(score(0.8)), GateConfig()).failures
    assert found.message == "75.0 now, 80.0 then: -5.0 points (allowed: -1)"


def test_a_rule_of_its_own_goes_before_the_general_limit():
    rules = (Rule(task=Task.CLS, metric="accuracy", largest_drop=6.0),)
    assert failures(results(score(0.75)), results(score(0.8)), rules=rules) == []


def test_less_of_an_error_is_no_drop():
    rules = (Rule(task=Task.CLS, metric="ece", largest_drop=1.0),)
    good, bad = (results(score(), score(value, metric="ece")) for value in (0.1, 0.2))
    assert failures(good, bad, rules=rules) == []
    assert [what for what, _ in failures(bad, good, rules=rules)] == ["drop"]


def test_more_contradictions_fail_and_are_told_as_a_number():
    rules = (Rule(task=Task.CAP, metric="contradictions", largest_drop=5.0),)
    old, new = (results(score(value, task=Task.CAP, metric="contradictions")) for value in (1.25, 1.5))
    [found] = gate(new, old, GateConfig(rules=rules)).failures
    assert found.message == "1.500 now, 1.250 then: -0.250 (allowed: -0.05)"


def test_a_metric_that_vanished_fails_with_its_name():
    old = results(score(), score(0.6, metric="macro_f1"))
    assert failures(results(score()), old) == [("exists", "CLS test macro F1")]


def test_a_score_that_lost_its_value_fails_with_the_reason():
    old = results(score(), score(0.6, metric="macro_f1"))
    new = results(score(), score(None, metric="macro_f1", reason="nothing to score"))
    [found] = gate(new, old, GateConfig()).failures
    assert found.message == "it has no value any more: nothing to score"


def test_what_the_config_demands_must_exist():
    wanted = (Watched(task=Task.REC, metric="acc@0.5"),)
    assert failures(results(score()), results(score()), must_exist=wanted) == [("exists", "REC acc@IoU 0.5, all")]


def test_other_questions_fail():
    assert failures(results(score(n=90), n=90), results(score())) == [("questions", "CLS test")]


def test_another_mix_of_datasets_fails_though_the_total_is_the_same():
    old = results(score(), score(dataset="a", n=50), score(dataset="b", n=50))
    new = results(score(), score(dataset="a", n=60), score(dataset="b", n=40))
    [found] = gate(new, old, GateConfig()).failures
    assert found.message.startswith("other questions (a: 60 now, 50 then, b: 40 now, 50 then)")


def test_another_vocabulary_fails():
    assert failures(results(score(), taxonomy="2"), results(score())) == [("vocabulary", "all tasks")]


def test_too_many_unread_replies_fail():
    old = results(score())
    assert failures(results(score(), unread=5), old) == []
    assert failures(results(score(), unread=6), old) == [("unread replies", "CLS test")]


def test_a_score_under_its_trivial_baseline_fails_unless_told_otherwise():
    new = results(score(0.8, baseline=0.85, baseline_name="majority"))
    assert failures(new, results(score(0.8))) == [("above baseline", "CLS test accuracy")]
    assert failures(new, results(score(0.8)), fails_below_baseline=False) == []


def test_a_rule_that_meets_no_score_is_told_and_not_silent():
    report = gate(results(score()), results(score()), GateConfig())
    assert [(one.subject, one.status) for one in report.checks if one.status is Status.SKIPPED] == [
        ("REC mean IoU, all", Status.SKIPPED)
    ]


def test_a_baseline_without_scores_is_wrong_input():
    with pytest.raises(ConfigError, match="hold no score"):
        gate(results(score()), results(), GateConfig())


@pytest.fixture
def scored(test_set, replies):
    """Results and predictions of a model that is right with some chance."""

    def make(name, chances, seed=1):
        path = replies(name, chances, seed=seed)
        items = read_items(path, test_set[0], Taxonomy.load())
        return score_items(items, [], None, Taxonomy.load(), resamples=0, seed=7), path

    return make


def test_with_predictions_only_a_drop_that_is_shown_fails(scored, test_set):
    old, old_path = scored("old", {Task.CLS: 0.8, Task.REC: 0.8})
    new, new_path = scored("new", {Task.CLS: 0.74, Task.REC: 0.3}, seed=2)
    config = GateConfig(resamples=200)
    report = gate(new, old, config, Replies(new_path, old_path, test_set[0]))
    found = {one.subject: one for one in report.checks if one.what == "drop"}
    assert found["REC test acc@IoU 0.5"].status is Status.FAILED
    assert "after Holm" in found["REC test acc@IoU 0.5"].message
    assert found["CLS test accuracy"].status is Status.PASSED
    assert "not shown to be more than chance" in found["CLS test accuracy"].message
    without = {one.subject: one.status for one in gate(new, old, config).checks if one.what == "drop"}
    assert without["CLS test accuracy"] is Status.FAILED


def test_predictions_of_other_results_are_refused(scored, test_set):
    old, old_path = scored("old", {Task.CLS: 0.8})
    new, _ = scored("new", {Task.CLS: 0.5}, seed=2)
    with pytest.raises(PredictionError, match="expected the predictions that the results were made from"):
        gate(new, old, GateConfig(resamples=20), Replies(old_path, old_path, test_set[0]))


def test_the_shipped_config_is_the_default(repository):
    assert load_config(repository / "configs" / "evaluate" / "gate.yaml", GateConfig) == GateConfig()


def test_junit_counts_and_explains(tmp_path):
    report = gate(results(score(0.5), unread=9), results(score(0.8)), GateConfig())
    write_junit(tmp_path / "gate.xml", report)
    [suite] = ElementTree.parse(tmp_path / "gate.xml").getroot()
    assert (suite.get("failures"), suite.get("skipped")) == ("2", "1")
    assert int(suite.get("tests")) == len(list(suite)) == len(report.checks)
    assert [case.get("classname") for case in suite if case.find("failure") is not None] == ["drop", "unread replies"]
    assert suite.find(".//failure").get("message") == "50.0 now, 80.0 then: -30.0 points (allowed: -1)"


def test_characters_that_xml_forbids_do_not_break_the_report(tmp_path):
    old = results(score(), score(0.6, metric="odd\x00metric"))
    write_junit(tmp_path / "gate.xml", gate(results(score()), old, GateConfig()))
    assert "odd?metric" in ElementTree.parse(tmp_path / "gate.xml").find(".//failure/..").get("name")


@pytest.fixture
def invoke(tmp_path):
    def go(new, old, *more):
        for name, one in (("new", new), ("old", old)):
            write_results(tmp_path / f"{name}.json", one)
        arguments = [tmp_path / "new.json", "--baseline", tmp_path / "old.json", *more]
        return CliRunner().invoke(app, [str(one) for one in arguments], env={"COLUMNS": "200"})

    return go


def test_the_exit_code_tells_a_pass_from_a_regression(invoke):
    passed, failed = invoke(results(score()), results(score())), invoke(results(score(0.5)), results(score()))
    assert (passed.exit_code, failed.exit_code) == (0, 1)
    assert "gate passed" in passed.output
    assert "failed: drop: CLS test accuracy: 50.0 now, 80.0 then: -30.0 points (allowed: -1)" in failed.output


def test_the_files_are_written_also_when_the_gate_fails(invoke, tmp_path):
    invoke(results(score(0.5)), results(score()), "--junit", tmp_path / "gate.xml", "--json", tmp_path / "gate.json")
    assert (tmp_path / "gate.xml").is_file()
    content = json.loads((tmp_path / "gate.json").read_text())
    assert (content["schema"], content["has_passed"]) == ("gastrovl/gate/1", False)


def test_a_config_file_changes_the_rules(invoke, tmp_path):
    (tmp_path / "my.yaml").write_text("largest_drop: 40\n")
    assert invoke(results(score(0.5)), results(score()), "--config", tmp_path / "my.yaml").exit_code == 0


def test_wrong_input_is_an_error_of_its_own_kind(invoke, tmp_path):
    half = invoke(results(score()), results(score()), "--predictions", tmp_path / "p.jsonl")
    assert isinstance(half.exception, ConfigError)
    (tmp_path / "broken.json").write_text("{")
    broken = CliRunner().invoke(app, [str(tmp_path / "broken.json"), "--baseline", str(tmp_path / "old.json")])
    assert isinstance(broken.exception, RecordError)
