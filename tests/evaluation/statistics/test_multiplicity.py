from __future__ import annotations

import pytest

from gastrovl.evaluation.statistics.multiplicity import holm


def test_holm_multiplies_by_how_many_are_left_and_never_falls():
    # sorted: 0.01 x 4 = 0.04, 0.02 x 3 = 0.06, 0.025 x 2 = 0.05 -> raised to 0.06, 0.2 x 1
    assert holm([0.02, 0.2, 0.01, 0.025]) == pytest.approx([0.06, 0.2, 0.04, 0.06])


def test_holm_keeps_what_was_not_tested_apart_and_does_not_count_it():
    assert holm([0.03, None, 0.01]) == pytest.approx([0.03, None, 0.02])


def test_holm_gives_equal_p_values_equal_results_and_stops_at_one():
    assert holm([0.4, 0.4, 0.4]) == pytest.approx([1.0, 1.0, 1.0])


def test_one_comparison_is_left_as_it_is():
    assert holm([0.031]) == [0.031]
    assert holm([]) == []


@pytest.mark.parametrize("wrong", [-0.1, 1.2, float("nan")])
def test_what_is_no_p_value_is_refused_with_its_place(wrong):
    with pytest.raises(ValueError, match="at place 1"):
        holm([0.5, wrong])
