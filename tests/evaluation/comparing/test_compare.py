from __future__ import annotations

import csv
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from gastrovl.cli.compare import compare as command
from gastrovl.clinical.taxonomy import Taxonomy
from gastrovl.core.errors import OutputError, PredictionError, RecordError
from gastrovl.core.records import write_records
from gastrovl.core.types import Task
from gastrovl.evaluation.comparing.compare import compare, compare_readings, reading_of, unique_names
from gastrovl.evaluation.comparing.comparison import (
    SCHEMA,
    Family,
    Method,
    Outcome,
    comparison_schema,
    read_comparison,
    write_schema,
)
from gastrovl.evaluation.comparing.report import metric_table
from gastrovl.evaluation.items import read_items

NOW = datetime(2026, 1, 2, tzinfo=UTC)
app = typer.Typer()
app.command()(command)


@pytest.fixture
def run(test_set, tmp_path):
    def go(*files, output="out", **options):
        return compare(files, test_set[0], tmp_path / output, **{"resamples": 200, "now": NOW, **options})

    return go


def headline(found, task, other="good"):
    [one] = [c for c in found.compared if c.family is Family.HEADLINE and c.task is task and c.other == other]
    return one


def test_a_real_gain_is_found_and_a_draw_is_not(run, replies):
    found = run(
        replies("weak", {Task.CLS: 0.7, Task.REC: 0.3}), replies("good", {Task.CLS: 0.7, Task.REC: 0.7}, seed=2)
    )
    outcomes = {one.task: one.outcome for one in found.conclusions}
    assert outcomes == {Task.CLS: Outcome.NOT_SHOWN, Task.REC: Outcome.BETTER}
    assert found.conclusions[1].text.startswith("REC: good finds more than weak: acc@IoU 0.5 is ")


def test_a_difference_is_that_of_the_two_values_and_so_is_its_table(run, replies):
    one = headline(run(replies("weak", {Task.CLS: 0.5}), replies("good", {Task.CLS: 0.9}, seed=2)), Task.CLS)
    assert one.difference == pytest.approx(one.other_value - one.reference_value)
    table = one.right_wrong
    assert one.difference == pytest.approx((table.only_other - table.only_reference) / 120)
    assert one.n_differing == table.only_other + table.only_reference
    assert one.test is Method.SWAPS
    assert (one.n, one.n_groups) == (120, 60)


def test_holm_counts_every_headline_and_models_datasets_apart(run, replies):
    found = run(*(replies(name, {Task.CLS: 0.7}, seed=seed) for seed, name in enumerate(["one", "two", "three"])))
    # two others, two tasks; by dataset two sources more
    assert found.family_sizes == {Family.HEADLINE: 4, Family.BY_DATASET: 8}
    p_values = [one.p for one in found.compared if one.family is Family.HEADLINE]
    smallest = min(p_values)
    assert next(one.p_holm for one in found.compared if one.p == smallest) == pytest.approx(min(1, 4 * smallest))
    assert all(one.p_holm is None for one in found.compared if not one.is_headline)


def test_a_model_against_itself_is_alike_everywhere(run, replies):
    same = replies("good", {Task.CLS: 0.6, Task.REC: 0.5})
    found = run(same, same)
    assert {one.outcome for one in found.conclusions} == {Outcome.ALIKE}
    assert {one.difference for one in found.compared if one.difference is not None} == {0.0}


def test_a_loss_has_the_better_model_first(run, replies):
    found = run(replies("good", {}), replies("bad", {Task.REC: 0.2}))
    assert found.conclusions[1].outcome is Outcome.WORSE
    assert found.conclusions[1].text.startswith("REC: good finds more than bad: ")


def test_unread_replies_count_as_wrong_and_are_named(run, replies, tmp_path):
    found = run(replies("weak", {}), replies("good", {}, unread=10))
    assert headline(found, Task.CLS).difference == pytest.approx(-5 / 120)
    assert "5 of good" in found.conclusions[0].text
    assert "5 of 120 of good (CLS test)" in (tmp_path / "out" / "comparison.md").read_text()


def test_replies_to_other_questions_are_refused(run, replies):
    with pytest.raises(PredictionError, match=r"1 of 240 conversations .* have no prediction"):
        run(replies("whole", {}), replies("short", {}, leave_out=1))


def test_readings_of_other_questions_are_refused_in_memory_too(test_set, replies):
    items = read_items(replies("one", {}), test_set[0], Taxonomy.load())
    readings = {"one": reading_of(items), "two": reading_of(items[1:])}
    with pytest.raises(
        PredictionError, match=r"240 questions and two 239.*1 stand in one of the two only, e.g. '0#CLS'"
    ):
        compare_readings(readings, ["a", "b"], Taxonomy.load(), wanted=None, resamples=10, seed=7)


def test_one_file_is_no_comparison(run, replies):
    with pytest.raises(PredictionError, match="takes two or more"):
        run(replies("alone", {}))


def test_names_are_the_models_and_made_unique():
    files = [Path("runs/a.jsonl"), Path("runs/b.jsonl"), Path("c.jsonl")]
    assert unique_names([["x"], ["y"], ["z"]], files) == ["x", "y", "z"]
    assert unique_names([["x"], ["x"], ["p", "q"]], files) == ["x (a)", "x (b)", "c"]
    assert unique_names([["x"], ["x"]], [files[0], files[0]]) == ["x (a)", "x (a) 2"]


def test_ranks_order_the_models_and_equals_share_a_place(run, replies):
    found = run(replies("a", {}), replies("b", {Task.CLS: 0.3}), replies("c", {}))
    places = {(one.task, one.name): one.place for one in found.ranks}
    assert [places[Task.CLS, name] for name in "abc"] == [1, 3, 1]
    assert [places[Task.REC, name] for name in "abc"] == [1, 1, 1]


def test_the_folder_holds_all_files_and_the_record_comes_back(run, replies, tmp_path):
    found = run(replies("weak", {Task.CLS: 0.5}), replies("good", {}), wanted=0.02)
    out = tmp_path / "out"
    names = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert names == {"comparison.json", "comparison.md", "comparison.csv", "plots/differences.png", "manifest.json"}
    assert read_comparison(out / "comparison.json") == found
    rows = list(csv.DictReader((out / "comparison.csv").read_text().splitlines()))
    assert len(rows) == len(found.compared)
    assert float(rows[0]["difference"]) == found.compared[0].difference
    assert json.loads((out / "manifest.json").read_text())["stage"] == "compare"


def test_the_same_input_gives_the_same_bytes(run, replies, tmp_path):
    files = replies("weak", {Task.CLS: 0.5}), replies("good", {Task.REC: 0.5})
    for output in ("one", "two"):
        run(*files, output=output)
    first, second = (
        {
            path.relative_to(tmp_path / name): path.read_bytes()
            for path in (tmp_path / name).rglob("*")
            if path.is_file()
        }
        for name in ("one", "two")
    )
    assert first == second


def test_markup_in_a_models_name_stays_text(run, replies, tmp_path):
    run(replies("weak", {}), replies("good", {Task.CLS: 0.5}, model="a|b_<i>"))
    text = (tmp_path / "out" / "comparison.md").read_text()
    assert "a\\|b\\_&lt;i>" in text
    assert "<i>" not in text


def test_few_groups_and_no_bootstrap_are_told(run, replies):
    found = run(replies("weak", {Task.CLS: 0.5}), replies("good", {}), resamples=0)
    one = headline(found, Task.CLS)
    assert (one.low, one.reason) == (None, "no interval: bootstrap switched off (0 resamples)")
    assert one.p is not None
    assert found.conclusions[0].outcome is Outcome.BETTER


def test_a_folder_with_other_files_is_left_alone(run, replies, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("keep")
    with pytest.raises(OutputError, match="already holds files"):
        run(replies("a", {}), replies("b", {}))


def test_the_published_schema_is_that_of_the_code(repository, tmp_path):
    published = repository / "docs" / "reference" / "schemas" / "comparison.schema.json"
    assert published.read_text() == write_schema(tmp_path).read_text(), "run `make schemas` and commit the result"
    assert comparison_schema()["$id"] == SCHEMA


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{", "not whole JSON"),
        ('{"schema": "gastrovl/results/1"}', "expected 'gastrovl/comparison/1'"),
        (f'{{"schema": "{SCHEMA}"}}', "reference: Field required"),
    ],
)
def test_a_file_that_is_no_comparison_is_refused(tmp_path, text, complaint):
    path = tmp_path / "comparison.json"
    path.write_text(text)
    with pytest.raises(RecordError, match=complaint):
        read_comparison(path)


def test_the_command_prints_a_table_and_the_verdicts(replies, test_set, tmp_path):
    files = [replies("weak", {Task.REC: 0.3}), replies("good[bold]", {}), replies("third", {})]
    arguments = [*files, "--conversations", test_set[0], "-o", tmp_path / "out", "--resamples", "50", "--wanted", "2"]
    result = CliRunner().invoke(app, [str(one) for one in arguments], catch_exceptions=False)
    assert result.exit_code == 0
    assert "REC: good[bold] finds more than weak: " in result.output
    assert "Places by headline value" in result.output
    assert f"Comparison, tables and plot: {tmp_path / 'out'}" in result.output


def test_captions_are_compared_by_their_facts_each_metric_in_its_unit(conversation, prediction, tmp_path):
    rows = [conversation(Task.CAP, f"{n}#CAP", caption="Gastric ulcer. No polyp.", group=f"g{n}") for n in range(12)]
    write_records(tmp_path / "asked.jsonl", rows)
    for name, text in (("good", "Gastric ulcer."), ("bad", "Gastric polyp.")):
        replies = [prediction(one.id, text).model_copy(update={"model": name}) for one in rows]
        write_records(tmp_path / f"{name}.jsonl", replies)
    files = [tmp_path / "good.jsonl", tmp_path / "bad.jsonl"]
    found = compare(files, tmp_path / "asked.jsonl", tmp_path / "out", resamples=50)
    by_name = {one.metric: one for one in found.compared}
    # Good: 1 of 2 facts, nothing else. Bad: none of 2, and "no polyp" is contradicted.
    assert by_name["fact_f1"].difference == pytest.approx(0 - 2 * 1 / (1 + 2))
    assert by_name["contradictions"].difference == 1.0
    assert by_name["fact_f1_size"].difference is None
    shown = {row[1]: row[3:6] for row in metric_table(found).rows}
    assert shown["fact F1 (%)"] == ("66.7", "0.0", "-66.7 [-66.7, -66.7]")
    name = "contradictions a text (0 or more, lower is better)"
    assert shown[name] == ("0.000", "1.000", "+1.000 [+1.000, +1.000]")
