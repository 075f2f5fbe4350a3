from __future__ import annotations

import pytest

from gastrovl.clinical.taxonomy import Taxonomy
from gastrovl.core.types import Task
from gastrovl.evaluation.items import pair
from gastrovl.evaluation.measures.confidence import reliability, risk_coverage
from gastrovl.evaluation.questions import questions_of
from gastrovl.evaluation.showing.confidenceplots import (
    best_order,
    draw_reliability,
    draw_risk_coverage,
    save_confidence_plots,
)


def test_a_reliability_diagram_shows_accuracy_and_counts_of_each_bin():
    bins = reliability([0.95, 0.95, 0.95, 0.95, 0.5], [True, True, True, False, False])
    top, bottom = draw_reliability({"CLS": bins}).axes
    heights = [patch.get_height() for patch in top.patches]
    assert heights == [0.0, 75.0]  # of the bins around 0.5 and 0.95; empty ones have no bar
    assert [patch.get_height() for patch in bottom.patches if patch.get_height()] == [1, 4]
    assert top.get_title() == "CLS: 5 replies, ECE 26.0 %"  # (4 x |0.95 - 0.75| + |0.5 - 0|) / 5


def test_risk_and_coverage_stand_beside_random_and_best_order():
    curve = risk_coverage([0.9, 0.8, 0.7, 0.6], [True, False, True, True])
    [axes] = draw_risk_coverage({"REG": curve}).axes
    lines = {line.get_label(): line for line in axes.get_lines()}
    assert list(lines["model"].get_xdata()) == [25, 50, 75, 100]
    assert list(lines["model"].get_ydata()) == pytest.approx([0, 50, 100 / 3, 25])
    assert list(lines["random order"].get_ydata()) == [25, 25]
    assert lines["best order"].get_ydata()[-1] == pytest.approx(25)


def test_the_best_order_is_free_of_errors_up_to_the_accuracy():
    coverage, risk = best_order(0.25)
    assert (coverage[0], risk[0]) == (0.0, 0.0)
    assert (coverage[1], risk[1]) == (0.75, 0.0)
    assert (coverage[-1], risk[-1]) == (1.0, pytest.approx(0.25))
    assert best_order(1.0)[1][-1] == pytest.approx(1.0)
    assert best_order(0.0)[1].max() == 0.0


def test_pictures_are_drawn_only_where_enough_replies_carry_a_confidence(tmp_path, conversation, prediction):
    asked = [conversation(Task.CLS, f"drawn/{i}#CLS", terms=["gastric_ulcer"]) for i in range(12)]
    unsure = {one.id: prediction(one.id, "gastric ulcer") for one in asked}
    sure = {key: one.model_copy(update={"confidence": 0.5}) for key, one in unsure.items()}
    questions, taxonomy = list(questions_of(asked)), Taxonomy.load()
    assert save_confidence_plots(tmp_path, pair(questions, unsure, taxonomy)) == []
    assert save_confidence_plots(tmp_path, pair(questions[:9], sure, taxonomy)) == []
    written = save_confidence_plots(tmp_path, pair(questions, sure, taxonomy))
    assert [path.name for path in written] == ["reliability_test.png", "risk_test.png"]
