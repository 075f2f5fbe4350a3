from __future__ import annotations

import pytest

from gastrovl.core.types import Score, Split, Task
from gastrovl.evaluation.showing.names import METRICS, is_better, metric, name_with_unit, shown, shown_difference
from gastrovl.evaluation.showing.tables import all_tables


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("accuracy", "accuracy (%)"),
        ("mcc", "Matthews correlation (-1 to 1)"),
        ("ece", "ECE, equal width (%, lower is better)"),
        ("brier", "Brier score (0 to 1, lower is better)"),
        ("fact_f1_size", "fact F1, size (%)"),
        ("contradictions", "contradictions a text (0 or more, lower is better)"),
    ],
)
def test_a_name_says_unit_and_direction(key, name):
    assert name_with_unit(key) == name


def test_a_share_is_a_percentage_and_other_numbers_are_not():
    assert shown("accuracy", 0.5) == "50.0"
    assert shown("mcc", -0.25) == "-0.250"
    assert shown("mcc", None) == "–"
    assert shown("contradictions", 1.25) == "1.250"
    assert shown_difference("accuracy", -0.0625) == "-6.2"
    assert shown_difference("contradictions", 0.25) == "+0.250"
    assert shown_difference("mcc", None) == "–"


def test_an_unknown_metric_is_shown_by_its_own_name():
    assert (metric("sign_f1").name, metric("sign_f1").is_percent) == ("sign f1", True)
    assert (metric("bits_per_byte").name, metric("bits_per_byte").is_percent) == ("bits per byte", False)
    score = Score(task=Task.CAP, metric="bits_per_byte", dataset="all", split=Split.TEST, value=2.5, n=3, n_unparsed=0)
    assert any("2.500" in row for table in all_tables([score]) for row in table.rows)


def test_less_calibration_error_is_better_and_more_accuracy_is():
    assert is_better("ece", 0.1, 0.2)
    assert is_better("accuracy", 0.2, 0.1)
    assert not is_better("accuracy", 0.2, 0.2)


def test_every_listed_metric_has_a_meaning_and_bounds():
    assert all(one.name and one.meaning and one.low is not None for one in METRICS.values())
    assert [key for key, one in METRICS.items() if one.high is None] == ["contradictions"]
