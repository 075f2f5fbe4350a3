from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binomtest

from gastrovl.evaluation.measures.classification import measures as label_measures
from gastrovl.evaluation.measures.measure import mean_measure
from gastrovl.evaluation.statistics.paired import (
    binomial_p,
    differences,
    group_sums,
    mcnemar,
    obuchowski_p,
    outcomes,
    sign_flip_p,
)


def flags(*values):
    return np.array(values, dtype=bool)


def share(values, metric="share", applies=None):
    chosen = np.ones(len(values), dtype=bool) if applies is None else np.array(applies)
    return mean_measure(metric, np.array(values, dtype=float), chosen, "nothing there")


def clustered_null(generator, groups=30, size=8):
    """Right and wrong of two equally good models whose luck is shared by all frames of a patient."""
    first, second = (np.repeat(generator.random(groups) < 0.6, size) for _ in range(2))
    return first, second, [f"p{index}" for index in range(groups) for _ in range(size)]


def test_mcnemar_counts_only_the_questions_on_which_the_models_differ():
    first, second = flags(1, 1, 1, 0, 0, 1, 0), flags(1, 0, 1, 1, 1, 1, 1)
    found = mcnemar(first, second, list("abcdefg"))
    assert (found.only_first, found.only_second) == (1, 3)
    # 2 P(X <= 1) of 4 coins = 2 (1 + 4) / 16; mid-p: minus P(X = 1) = 4 / 16
    assert found.exact == pytest.approx(0.625, abs=1e-15)
    assert found.mid_p == pytest.approx(0.375, abs=1e-15)


def test_models_that_never_differ_have_p_one():
    same = flags(1, 0, 1)
    found = mcnemar(same, same, list("abc"))
    assert (found.exact, found.mid_p, found.clustered) == (1.0, 1.0, 1.0)


@pytest.mark.parametrize(("first", "second"), [(0, 6), (3, 3), (12, 30), (200, 260), (2_100, 2_000), (40_000, 40_700)])
def test_the_exact_p_value_is_that_of_scipy(first, second):
    expected = binomtest(first, first + second, 0.5).pvalue
    assert binomial_p(first, second)[0] == pytest.approx(expected, rel=1e-9)


def test_an_even_split_speaks_for_nobody():
    assert binomial_p(5, 5) == (1.0, 1.0)


def test_obuchowski_with_one_question_a_group_is_mcnemar_with_its_small_sample_factor():
    first, second = flags(*[1] * 4, *[0] * 12, *[1] * 4), flags(*[0] * 4, *[1] * 12, *[1] * 4)
    # (12 - 4)^2 / ((20 / 19) (12 + 4)) = 3.8
    expected = math.erfc(math.sqrt(3.8 / 2))
    assert mcnemar(first, second, [str(i) for i in range(20)]).clustered == pytest.approx(expected, rel=1e-12)


def test_obuchowski_takes_a_group_for_one_witness():
    # group sums 3, 0, 1: 4^2 / (3/2 (9 + 0 + 1)) = 16 / 15
    values = np.array([1.0, 1.0, 1.0, 1.0, -1.0, 1.0])
    expected = math.erfc(math.sqrt(16 / 15 / 2))
    assert obuchowski_p(values, ["a", "a", "a", "b", "b", "c"]) == pytest.approx(expected, rel=1e-12)


def test_one_group_can_show_nothing():
    assert obuchowski_p(np.array([1.0, 1.0]), ["a", "a"]) is None
    assert sign_flip_p(np.array([1.0, 1.0]), ["a", "a"], seed=7) is None


def test_few_groups_are_swapped_in_every_way():
    # Sums 3, 1, 1: of the 8 swaps only all-as-they-are and all-swapped reach |5|.
    assert sign_flip_p(np.array([2.0, 1.0, 1.0, 1.0]), ["a", "a", "b", "c"], seed=7) == 2 / 8


def test_five_groups_cannot_reach_five_percent_whatever_they_say():
    assert sign_flip_p(np.ones(50), [f"p{index // 10}" for index in range(50)], seed=7) == 2 / 32


def test_groups_without_a_difference_change_nothing():
    values, groups = np.array([1.0, 1.0, -1.0, 1.0]), list("abcd")
    padded = np.concatenate([values, np.zeros(5)])
    assert sign_flip_p(padded, [*groups, *"efghi"], seed=7) == sign_flip_p(values, groups, seed=7)


def test_random_swaps_agree_with_the_binomial_test_on_independent_answers():
    # Differences of +1 and -1 in groups of one: swapping signs is tossing coins, so p is the exact McNemar's.
    values = np.array([1.0] * 30 + [-1.0] * 14)
    found = sign_flip_p(values, [str(i) for i in range(44)], seed=7, flips=20_000)
    assert found == pytest.approx(binomial_p(14, 30)[0], abs=0.003)


def test_the_smallest_p_value_of_random_swaps_counts_the_data_themselves():
    groups = [str(i) for i in range(60)]
    assert sign_flip_p(np.ones(60), groups, seed=7, flips=999) == 1 / 1000


def test_swaps_are_drawn_in_chunks_and_by_the_seed(monkeypatch):
    values, groups = np.random.default_rng(0).normal(size=40), [str(i) for i in range(40)]
    whole = sign_flip_p(values, groups, seed=7, flips=500)
    assert whole == sign_flip_p(values, groups, seed=7, flips=500)
    monkeypatch.setattr("gastrovl.evaluation.statistics.paired._CELLS_AT_ONCE", 1_000)
    assert sign_flip_p(values, groups, seed=7, flips=500) == pytest.approx(whole, abs=0.07)


def test_under_the_null_clustered_tests_reject_as_often_as_they_promise_and_naive_ones_far_more():
    generator = np.random.default_rng(3)
    trials = 300
    naive = by_flips = by_variance = 0
    for trial in range(trials):
        first, second, groups = clustered_null(generator)
        gap = second.astype(float) - first
        found = mcnemar(first, second, groups)
        naive += found.exact <= 0.05
        by_variance += found.clustered <= 0.05
        by_flips += sign_flip_p(gap, groups, seed=trial, flips=199) <= 0.05
    assert naive / trials > 0.3
    # three standard errors of a share of 5 % in 300 trials are 3.8 points
    assert by_flips / trials == pytest.approx(0.05, abs=0.038)
    assert by_variance / trials == pytest.approx(0.05, abs=0.038)


def test_under_the_null_the_paired_bootstrap_rejects_about_as_often_as_it_promises():
    generator = np.random.default_rng(4)
    trials = 200
    rejected = 0
    for trial in range(trials):
        first, second, groups = clustered_null(generator, groups=40, size=3)
        [found] = differences([share(first)], [share(second)], groups, resamples=199, seed=trial)
        rejected += found.p <= 0.05
    assert 0.01 <= rejected / trials <= 0.11


def test_a_difference_has_the_values_of_both_models_and_its_own_sign():
    first, second = share([1, 0, 0, 0]), share([1, 1, 1, 0])
    [found] = differences([first], [second], list("abcd"), resamples=50, seed=7)
    assert found.values == (0.25, 0.75)
    assert found.difference == 0.5
    assert (found.n, found.groups) == (4, 4)


def test_pairing_makes_a_constant_gain_certain_where_each_score_alone_is_unsure():
    # The second model is right wherever the first is, and on one question more in every group.
    generator = np.random.default_rng(0)
    base = generator.random((40, 5)) < 0.5
    base[:, 0] = False
    better = base.copy()
    better[:, 0] = True
    groups = [f"p{index // 5}" for index in range(200)]
    [found] = differences([share(base.ravel())], [share(better.ravel())], groups, resamples=400, seed=7)
    assert (found.interval.low, found.interval.high) == pytest.approx((0.2, 0.2))
    assert found.p == 2 / 401


def test_a_model_compared_with_itself_has_p_one():
    one = share([1, 0, 1, 1] * 5)
    [found] = differences([one], [one], [f"p{i}" for i in range(20)], resamples=100, seed=7)
    assert (found.difference, found.p) == (0.0, 1.0)


def test_any_metric_can_be_compared_also_one_that_is_no_mean():
    true = [frozenset({name}) for name in "aabbccdd" * 4]
    first, second = label_measures(true, true), label_measures(true, [frozenset({"a"})] * len(true))
    found = differences(first, second, [str(i) for i in range(len(true))], resamples=50, seed=7)
    assert [one.metric for one in found] == [one.metric for one in first]
    by_name = {one.metric: one.difference for one in found}
    assert by_name["accuracy"] == pytest.approx(-0.75)
    # F1 of "a" is 2 8 / (8 + 32), the other three are 0
    assert by_name["macro_f1"] == pytest.approx(0.4 / 4 - 1)


def test_an_undefined_metric_has_no_difference_and_says_why():
    one = share([1, 0], applies=[False, False])
    [found] = differences([one], [one], ["a", "b"], resamples=10, seed=7)
    assert (found.difference, found.p, found.interval.low) == (None, None, None)
    assert found.interval.reason == "nothing there"


def test_rows_restrict_a_comparison():
    first, second = share([1, 0, 0, 0]), share([0, 1, 1, 0])
    rows = flags(0, 1, 1, 1)
    [found] = differences([first], [second], list("abca"), resamples=10, seed=7, rows=rows)
    assert found.difference == pytest.approx(2 / 3)
    assert (found.n, found.groups) == (3, 3)


def test_different_metrics_are_not_compared():
    with pytest.raises(ValueError, match="'one' and 'two' are not the same metric"):
        differences([share([1, 0], "one")], [share([1, 0], "two")], ["a", "b"], resamples=10, seed=7)


def test_outcomes_are_the_values_behind_a_mean_and_nothing_else_has_them():
    assert outcomes(share([1, 0, 0.5], applies=[True, False, True])).tolist() == [1.0, 0.5]
    [_, balanced, *_] = label_measures([frozenset("a")], [frozenset("b")])
    assert outcomes(balanced) is None


def test_group_sums_come_in_order_of_appearance():
    assert group_sums(np.array([1.0, 2.0, 4.0]), ["z", "a", "z"]).tolist() == [5.0, 2.0]
