"""Monotone maps of confidences, by hand and as properties."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gastrovl.inference.belief.scaling import (
    FittedTemperature,
    Scaling,
    fit_checked,
    fit_scaling,
    fit_temperature,
    folds,
    numbered,
    worth,
)

probability = st.floats(0, 1)


def test_a_slope_of_two_squares_the_odds_and_a_shift_multiplies_them():
    assert Scaling(slope=2)(0.8) == pytest.approx(16 / 17)  # odds 4 to odds 16
    assert Scaling(shift=float(np.log(2)))(0.5) == pytest.approx(2 / 3)


@given(probability, probability, st.floats(0.05, 5), st.floats(-5, 5))
def test_the_map_is_monotone_and_stays_within_its_range(a, b, slope, shift):
    scaling = Scaling(slope=slope, shift=shift)
    low, high = scaling(min(a, b)), scaling(max(a, b))

    assert 0 <= low <= high <= 1


def test_half_the_temperature_squares_probabilities_that_sum_to_one():
    found = FittedTemperature(temperature=0.5, nll={}, n=1, groups=1)({"a": 0.8, "b": 0.2})

    assert found == pytest.approx({"a": 0.64 / 0.68, "b": 0.04 / 0.68})


def test_an_answer_among_ten_others_of_its_group_is_worth_half():
    assert worth(numbered(["a"] * 11)) == pytest.approx(0.5)  # 1 / (1 + 10 * 0.1)
    assert worth(numbered(["a", "b", "c"])) == 1.0


@given(st.lists(st.integers(0, 12), min_size=2, max_size=60))
def test_a_fold_leaves_out_whole_groups_and_each_answer_once(names):
    groups = numbered(names)
    parts = folds(groups)

    if groups.max() > 0:
        assert np.array(parts).sum(axis=0).tolist() == [1] * len(names)
        for part in parts:
            assert not set(groups[part]) & set(groups[~part])


def test_overconfidence_of_many_groups_is_corrected():
    truth = [number % 10 < 6 for number in range(300)]  # 60 % right

    fitted = fit_scaling([0.9] * 300, truth, [str(number) for number in range(300)])

    assert fitted.scaling(0.9) == pytest.approx(0.6, abs=0.02)
    assert min(fitted.nll["temperature"], fitted.nll["platt"]) < fitted.nll["raw"]


def test_one_group_bends_the_map_less_than_as_many_answers_of_many_groups():
    many = fit_scaling([0.9] * 40, [False] * 40, [str(number) for number in range(40)])
    one = fit_scaling([0.9] * 40, [False] * 40, ["a"] * 40)

    assert many.scaling(0.9) < one.scaling(0.9) < 0.9


def test_one_answer_hardly_moves_anything():
    fitted = fit_scaling([0.7], [False], ["a"])

    assert fitted.scaling(0.7) == pytest.approx(0.7, abs=0.15)
    assert (fitted.n, fitted.groups) == (1, 1)
    assert fit_temperature([{"a": 0.7, "b": 0.3}], ["a"], ["x"]).nll.keys() == {"raw"}


def test_shares_are_fitted_like_verdicts():
    said = np.linspace(0.05, 0.95, 200)

    fitted = fit_scaling(said.tolist(), (said / 2).tolist(), [str(number) for number in range(200)])

    assert fitted.scaling(0.8) == pytest.approx(0.4, abs=0.05)


def test_a_temperature_leaves_the_likeliest_name_the_likeliest():
    sharp = [{"a": 0.99, "b": 0.01}] * 50
    truth = ["a"] * 30 + ["b"] * 20

    fitted = fit_temperature(sharp, truth, [str(number) for number in range(50)])

    assert fitted.temperature > 2
    assert 0.5 < fitted(sharp[0])["a"] < 0.8
    assert sum(fitted(sharp[0]).values()) == pytest.approx(1)


def test_a_check_that_tells_wrong_answers_lowers_them_and_one_that_does_not_is_left_out():
    groups = [str(number) for number in range(200)]
    truth = [number % 4 != 0 for number in range(200)]
    useful, harmful = frozenset({"useful"}), frozenset({"harmful"})
    failed = [useful if not right else (harmful if number % 2 else frozenset()) for number, right in enumerate(truth)]

    fitted = fit_checked([0.75] * 200, truth, failed, groups)

    assert fitted.drops["useful"] > 1
    assert fitted.drops["harmful"] == 0
    assert fitted(0.75, ["useful"]) < 0.5 < fitted(0.75)
    assert fitted(0.75, ["never seen"]) == fitted(0.75)


def test_nothing_to_fit_on_is_an_error():
    with pytest.raises(ValueError, match="at least one"):
        fit_scaling([], [], [])
