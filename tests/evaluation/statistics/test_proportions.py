"""Exact intervals of proportions against closed forms and published values."""

from __future__ import annotations

import pytest

from gastrovl.evaluation.statistics.proportions import exact_interval


def test_none_of_n_has_the_closed_form():
    assert exact_interval(0, 20) == pytest.approx((0.0, 1 - 0.025 ** (1 / 20)), abs=1e-12)
    assert exact_interval(20, 20) == pytest.approx((0.025 ** (1 / 20), 1.0), abs=1e-12)


def test_one_of_two_has_the_closed_form():
    # P(X >= 1) = 1 - (1 - p)^2 = 0.025
    assert exact_interval(1, 2) == pytest.approx((1 - 0.975**0.5, 0.975**0.5), abs=1e-12)


def test_ten_of_a_hundred_is_as_in_the_tables():
    assert exact_interval(10, 100) == pytest.approx((0.0490, 0.1762), abs=5e-5)


def test_many_trials_stay_finite():
    low, high = exact_interval(50_000, 100_000)
    assert 0.4968 < low < 0.5 < high < 0.5032


@pytest.mark.parametrize(("count", "n"), [(1, 0), (-1, 5), (6, 5)])
def test_impossible_counts_are_refused(count, n):
    with pytest.raises(ValueError, match="expected 0 <= count <= n"):
        exact_interval(count, n)
