from __future__ import annotations

import csv
import io

import pytest

from gastrovl.core.types import Score, Split, Task
from gastrovl.evaluation.results import Results
from gastrovl.evaluation.showing.tables import (
    all_tables,
    dataset_table,
    metric_table,
    overall_table,
    to_csv,
    to_latex,
    to_markdown,
)


def score(task=Task.CLS, metric="accuracy", dataset="all", split=Split.TEST, value=0.9136, **more):
    content = {
        "low": 0.88,
        "high": 0.94,
        "n": 3635,
        "n_unparsed": 2,
        "baseline": 0.25,
        "baseline_name": "majority label",
    }
    return Score(task=task, metric=metric, dataset=dataset, split=split, value=value, **{**content, **more})


@pytest.fixture
def scores():
    return [
        score(dataset="a_b"),
        score(dataset="c"),
        score(),
        score(dataset="mean"),
        score(metric="macro_f1"),
        score(split=Split.VAL, value=0.8),
        score(task=Task.REC, metric="acc@0.5", value=None, low=None, high=None, n=0, reason="nothing to find"),
    ]


def test_the_overall_table_has_a_row_a_task_and_val_before_test(scores):
    table = overall_table(scores)
    assert table.columns[2:4] == ("val, % [95 % CI]", "n")
    assert table.columns[6] == "test, % [95 % CI]"
    assert table.rows[0][:3] == ("CLS", "accuracy", "80.0 [88.0, 94.0]")
    assert table.rows[0][6:] == ("91.4 [88.0, 94.0]", "3635", "2", "25.0 (majority label)")


def test_an_undefined_score_is_a_dash_and_not_a_zero(scores):
    assert overall_table(scores).rows[1][2:7] == ("–", "–", "–", "–", "– †")


def test_a_score_with_a_reason_to_doubt_it_carries_the_mark():
    table = overall_table([score(reason="the interval rests on 2 groups only")])
    assert table.rows[0][2] == "91.4 [88.0, 94.0] †"


def test_the_dataset_table_ends_each_task_with_its_totals(scores):
    table = dataset_table(scores, Split.TEST)
    assert [row[1] for row in table.rows] == ["a_b", "c", "all", "mean of datasets", "all"]
    assert table.totals == {2, 3, 4}


def test_the_metric_table_holds_every_metric_over_all(scores):
    assert [row[1] for row in metric_table(scores, Split.TEST).rows] == [
        "accuracy (%)",
        "macro F1 (%)",
        "acc@IoU 0.5 (%)",
    ]


def test_csv_keeps_full_precision_and_names_the_table_of_the_paper(scores):
    rows = list(csv.DictReader(io.StringIO(to_csv(scores))))
    assert [row["table"] for row in rows] == ["6", "6", "4", "6", "", "4", "4"]
    assert rows[0]["value"] == "0.9136"
    assert rows[-1]["value"] == ""
    assert rows[-1]["reason"] == "nothing to find"


def test_latex_escapes_what_latex_would_read_as_markup(scores):
    text = to_latex(dataset_table(scores, Split.TEST))
    assert r"CLS & a\_b & accuracy & 91.4 [88.0, 94.0] & 3635 & 2 & 25.0 (majority label) \\" in text
    assert r"score, \% [95 \% CI]" in text
    assert text.count(r"\begin{") == text.count(r"\end{") == 2
    assert "–" not in text


def test_latex_escapes_a_backslash_and_braces():
    table = dataset_table([score(dataset="a\\b{c}")], Split.TEST)
    assert r"a\textbackslash{}b\{c\}" in to_latex(table)


def test_markdown_shows_every_table_with_as_many_cells_as_columns(scores):
    results = Results(
        models=("nano",), taxonomy="1", resamples=10, seed=7, level=0.95, bleu=None, scores=tuple(scores),
        baselines=(), replies=(), per_class=(), confusion=(), iou_curves=(), notes=("mind the gap.",),
    )  # fmt: skip
    text = to_markdown(all_tables(scores), results)
    assert text.count("\n## ") == 5
    for block in text.split("\n\n"):
        lines = [line for line in block.splitlines() if line.startswith("|")]
        assert len({line.count("|") for line in lines}) <= 1
    assert "- mind the gap." in text
    assert "- † nothing to find: REC acc@IoU 0.5 of all (test)." in text


def test_the_overall_table_tells_of_captions_what_facts_say_and_of_contradictions_how_many():
    kinds = {"rougeL": 0.5, "bleu4": 0.4, "fact_f1": 0.25, "fact_f1_size": 0.1, "negation_accuracy": 0.75}
    known = [score(task=Task.CAP, metric=key, value=value) for key, value in kinds.items()]
    counted = score(task=Task.CAP, metric="contradictions", value=1.25, low=1.0, high=1.5, baseline=2.0)
    assert [row[:3] for row in overall_table([*known, counted, score(metric="fact_f1")]).rows] == [
        ("CLS", "accuracy", "–"),
        ("CAP", "ROUGE-L", "50.0 [88.0, 94.0]"),
        ("CAP", "fact F1", "25.0 [88.0, 94.0]"),
        ("CAP", "negation accuracy", "75.0 [88.0, 94.0]"),
        ("CAP", "contradictions a text (0 or more, lower is better)", "1.250 [1.000, 1.500]"),
    ]
    assert overall_table([counted]).rows[1][5] == "2.000 (majority label)"
