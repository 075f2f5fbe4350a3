"""Coefficients of agreement against the examples of their authors, scikit-learn and plain arithmetic."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from gastrovl.evaluation.judging.agreement import (
    cohen_kappa,
    fleiss_kappa,
    icc,
    krippendorff_alpha,
    of_many,
    of_two,
    same_share,
    spearman,
)
from gastrovl.evaluation.measures.measure import value
from gastrovl.evaluation.statistics.intervals import intervals

# Shrout and Fleiss 1979, table 2: six targets, four judges.
SHROUT = [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]]
# Fleiss 1971, the psychiatric diagnoses as often reprinted: ten subjects, fourteen raters, five categories.
FLEISS = [
    [0, 0, 0, 0, 14],
    [0, 2, 6, 4, 2],
    [0, 0, 3, 5, 6],
    [0, 3, 9, 2, 0],
    [2, 2, 8, 1, 1],
    [7, 7, 0, 0, 0],
    [3, 2, 6, 3, 0],
    [2, 5, 3, 2, 2],
    [6, 5, 2, 1, 0],
    [0, 2, 2, 3, 7],
]
GAP = float("nan")
# Krippendorff, "Computing Krippendorff's alpha-reliability" (2011), example C: twelve units, four observers.
KRIPPENDORFF = np.array(
    [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, GAP, GAP, GAP],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, GAP, 3],
        [GAP, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, GAP],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, GAP],
    ]
).T


@pytest.mark.parametrize(("form", "expected"), [("2,1", 0.29), ("2,k", 0.62), ("3,1", 0.71)])
def test_icc_gives_the_numbers_of_shrout_and_fleiss(form, expected):
    assert round(value(icc(SHROUT, form)), 2) == expected


def test_icc_2_1_of_shrout_and_fleiss_from_their_mean_squares():
    # their table 3: between targets 11.24, between judges 32.49, residual 1.02, n = 6, k = 4
    by_hand = (11.24 - 1.02) / (11.24 + 3 * 1.02 + 4 * (32.49 - 1.02) / 6)
    assert value(icc(SHROUT, "2,1")) == pytest.approx(by_hand, abs=2e-3)


def test_a_rater_who_is_always_one_higher_agrees_in_icc_3_and_not_in_icc_2():
    table = np.array([[0, 1], [1, 2], [3, 4], [2, 3]])
    assert value(icc(table, "3,1")) == pytest.approx(1.0, abs=1e-12)
    # between replies: means .5 1.5 3.5 2.5, MSR = 2 * 5 / 3; raters: MSC = 4 * 2 * .25 = 2; MSE = 0; n = 4
    assert value(icc(table, "2,1")) == pytest.approx((10 / 3) / (10 / 3 + 2 * 2 / 4), abs=1e-12)


def test_icc_of_ratings_that_never_vary_is_undefined():
    assert value(icc([[3, 3], [3, 3], [3, 3]], "2,1")) is None


@pytest.mark.parametrize("weights", ["none", "linear", "quadratic"])
@pytest.mark.parametrize("seed", range(5))
def test_kappa_is_that_of_scikit_learn(weights, seed):
    generator = np.random.default_rng(seed)
    first = generator.integers(0, 5, 200)
    second = np.where(generator.random(200) < 0.6, first, generator.integers(0, 5, 200))
    theirs = cohen_kappa_score(first, second, labels=list(range(5)), weights=None if weights == "none" else weights)
    assert value(cohen_kappa(first, second, 5, weights)) == pytest.approx(theirs, abs=1e-9)


def test_kappa_of_a_table_worked_by_hand():
    # both yes 20, both no 15, first yes alone 5, second yes alone 10: 0.7 observed, 0.5 by chance
    first = [1] * 20 + [1] * 5 + [0] * 10 + [0] * 15
    second = [1] * 20 + [0] * 5 + [1] * 10 + [0] * 15
    assert value(cohen_kappa(first, second, 2)) == pytest.approx((0.7 - 0.5) / (1 - 0.5), abs=1e-12)
    assert value(same_share(first, second)) == pytest.approx(0.7)


def test_kappa_where_everybody_says_the_same_is_undefined_and_says_why():
    measure = cohen_kappa([4, 4, 4], [4, 4, 4], 5)
    assert value(measure) is None
    assert "all ratings are the same" in measure.undefined


def test_fleiss_kappa_gives_his_number():
    table = [[level for level, count in enumerate(row) for _ in range(count)] for row in FLEISS]
    # mean agreement 0.378, by chance 0.2128 (= .143^2 + .2^2 + .279^2 + .15^2 + .229^2)
    assert value(fleiss_kappa(table, 5)) == pytest.approx(0.210, abs=5e-4)


@pytest.mark.parametrize(("metric", "expected"), [("nominal", 0.743), ("ordinal", 0.815)])
def test_alpha_gives_the_numbers_of_krippendorff(metric, expected):
    assert round(value(krippendorff_alpha(KRIPPENDORFF - 1, 5, metric)), 3) == expected


def test_spearman_with_ties_is_the_correlation_of_mean_ranks():
    first, second = [1, 2, 2, 3], [0.1, 0.4, 0.3, 0.3]
    # ranks 1, 2.5, 2.5, 4 and 1, 4, 2.5, 2.5
    by_hand = np.corrcoef([1, 2.5, 2.5, 4], [1, 4, 2.5, 2.5])[0, 1]
    assert value(spearman(first, second)) == pytest.approx(by_hand, abs=1e-12)


def test_perfect_agreement_is_one_in_every_coefficient():
    levels = [0, 1, 2, 3, 4, 2]
    assert [value(one) for one in of_two(levels, levels, 5)] == pytest.approx([1.0] * 6)
    table = np.stack([levels] * 3, axis=1)
    assert [value(one) for one in of_many(table, 5)] == pytest.approx([1.0] * 5)


def test_gaps_leave_a_reply_out_of_all_but_alpha():
    table = np.array([[0, 0, 1], [2, 2, GAP], [4, 4, 4], [1, 1, 1]])
    found = {one.metric: int(one.applies.sum()) for one in of_many(table, 5)}
    assert found["Krippendorff's alpha, ordinal"] == 4
    assert {n for name, n in found.items() if "alpha" not in name} == {3}


def test_every_coefficient_has_an_interval_around_it_that_draws_whole_groups():
    generator = np.random.default_rng(3)
    first = generator.integers(0, 5, 120)
    second = np.where(generator.random(120) < 0.7, first, generator.integers(0, 5, 120))
    measures = of_two(first, second, 5)
    single = intervals(measures, [str(n) for n in range(120)], resamples=300, seed=1)
    for measure, found in zip(measures, single, strict=True):
        assert found.low < value(measure) < found.high
    # the same replies four times over, in groups of four, tell no more than once
    four = intervals(
        of_two(np.tile(first, 4), np.tile(second, 4), 5), [str(n) for n in range(120)] * 4, resamples=300, seed=1
    )
    for repeated, once in zip(four, single, strict=True):
        assert (repeated.low, repeated.high) == pytest.approx((once.low, once.high), abs=0.02)
