"""The paper's numbers as they were printed, what follows from them, and that ours stand beside them."""

from __future__ import annotations

import csv

import pytest

from gastrovl.core.types import Score, Split, Task
from gastrovl.evaluation.showing import published
from gastrovl.evaluation.showing.tables import paper_tables


def ours(task, metric, value, dataset="all", split=Split.TEST):
    return Score(
        task=task, metric=metric, dataset=dataset, split=split, value=value, low=value - 0.1, high=0.9, n=20,
        n_unparsed=0, baseline=0.1, baseline_name="majority label",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("split", "task", "weighted", "plain"),
    [
        # val CLS: (87.50 x 1168 + 81.20 x 234 + 95.19 x 1933 + 89.67 x 300) / 3635; (87.50 + 81.20 + 95.19 + 89.67) / 4
        ("val", "CLS", 91.363, 88.390),
        ("val", "REC", 38.810, 30.230),
        # test CLS: (87.66 x 1167 + 74.25 x 233 + 98.20 x 8348 + 85.67 x 300) / 10048
        ("test", "CLS", 96.046, 86.445),
        ("test", "REC", 37.409, 35.423),
    ],
)
def test_means_are_worked_out_from_the_rows(split, task, weighted, plain):
    rows = published.published().rows(Split(split), Task(task))
    assert published.micro(rows) == pytest.approx(weighted, abs=1e-3)
    assert published.unweighted(rows) == pytest.approx(plain, abs=1e-3)


def test_totals_that_do_not_follow_from_their_rows_are_named():
    assert published.contradictions() == [
        "REG val: the rows give 77.57 %, the total says 77.51 %.",
        "CLS test: the rows give 96.05 %, the total says 88.62 %.",
        "REG test: the rows give 76.86 %, the total says 76.89 %.",
    ]


def test_the_interval_is_that_of_wilson():
    low, high = published.wilson(50.0, 100)  # centre 0.5, half width 1.96 / 1.0384 x sqrt(0.0025 + 0.000096)
    assert (low, high) == (pytest.approx(40.383, abs=1e-3), pytest.approx(59.617, abs=1e-3))
    assert published.wilson(0.0, 11)[0] == 0.0


def test_our_scores_stand_beside_the_papers():
    table4, table6 = paper_tables([ours(Task.CLS, "accuracy", 0.5), ours(Task.CLS, "accuracy", 0.4, "gastrovision")])
    assert table4.rows[0] == ("CLS", "this model", "–", "50.00 [40.00, 90.00]")
    assert table4.rows[1] == ("CLS", "He et al. 2025", "91.36", "88.63")
    assert "Table 6" in table6.title
    assert ("CLS", "this model", "gastrovision", "40.00 [30.00, 90.00]", "20") in table6.rows
    assert ("CLS", "He et al. 2025", "mean of datasets, recomputed", "86.45", "10,048") in table6.rows


def test_an_evaluation_writes_the_papers_tables_with_their_caveats(made_up_run):
    folder = made_up_run / "evaluation" / "test"
    text = (folder / "paper.md").read_text("utf-8")
    assert "Not the same questions" in text
    assert "the rows give 96.05 %" in text
    rows = list(csv.reader((folder / "paper.csv").read_text("utf-8").splitlines()))
    assert any(row[1:4] == ["REC", "He et al. 2025", "Gastric Dataset"] for row in rows)
    assert r"\begin{tabular}" in (folder / "paper.tex").read_text("utf-8")
