from __future__ import annotations

import math

import numpy as np
import pytest

from gastrovl.evaluation.statistics.paired import sign_flip_p
from gastrovl.evaluation.statistics.power import (
    Clustering,
    clustering,
    detectable_mean,
    detectable_proportion,
    groups_for_mean,
    groups_for_proportion,
)

Z = 1.959963984540054 + 0.8416212335729143  # of 5 % two-sided, and of 80 %


def test_one_question_a_group_has_no_design_effect():
    found = clustering(np.array([0.0, 1.0, 1.0, 3.0]), list("abcd"))
    # mean 1.25, squares 1.5625 + .0625 + .0625 + 3.0625 = 4.75, over 3
    assert found.variance == pytest.approx(4.75 / 3)
    assert found.design_effect == pytest.approx(1.0)
    assert math.isnan(found.icc)


def test_groups_that_answer_alike_count_as_one_question_each():
    # 20 patients, 5 equal frames each: ICC 1; the variance of the mean is (20 / 19) 0.25 / 20 = 1 / 76, the naive one
    # is 25 / 99 / 100, so the effect is 100 / 76 99 / 25 = 99 / 19.
    found = clustering(np.repeat([0.0, 1.0] * 10, 5), [f"p{index // 5}" for index in range(100)])
    assert found.icc == pytest.approx(1.0)
    assert found.design_effect == pytest.approx(99 / 19)


def test_opposites_in_a_group_make_its_mean_surer():
    found = clustering(np.array([1.0, -1.0] * 10), [f"p{index // 2}" for index in range(20)])
    assert found.icc == pytest.approx(-1.0)
    assert found.design_effect == 0.0
    assert detectable_mean(found) == 0.0
    assert detectable_proportion(1.0, found) == pytest.approx(0.0, abs=1e-12)


def test_the_icc_is_worked_by_hand():
    # Groups (0, 1), (1, 2): means 0.5, 1.5; MSB = 2 (0.25 + 0.25) / 1 = 1, MSW = (0.5 + 0.5) / 2 = 0.5, m0 = 2.
    found = clustering(np.array([0.0, 1.0, 1.0, 2.0]), ["a", "a", "b", "b"])
    assert found.icc == pytest.approx((1 - 0.5) / (1 + 0.5))


def test_one_group_has_no_design_effect_at_all():
    found = clustering(np.array([0.0, 1.0]), ["a", "a"])
    assert found.groups == 1
    assert math.isnan(found.design_effect)
    assert math.isnan(detectable_mean(found))


def test_the_detectable_difference_of_means_is_a_multiple_of_the_standard_error():
    assert detectable_mean(Clustering(100, 100, 4.0, 1.0, 0.0)) == pytest.approx(Z * 0.2)
    assert detectable_mean(Clustering(100, 25, 4.0, 4.0, 0.5)) == pytest.approx(Z * 0.4)


def test_the_detectable_difference_of_proportions_solves_connors_formula():
    found = detectable_proportion(0.2, Clustering(400, 400, 0.2, 1.0, 0.0))
    needed = (1.959963984540054 * math.sqrt(0.2) + 0.8416212335729143 * math.sqrt(0.2 - found**2)) ** 2 / found**2
    assert needed == pytest.approx(400)


def test_clustering_makes_the_detectable_difference_larger():
    plain, clustered = (detectable_proportion(0.2, Clustering(400, 100, 0.2, effect, 0.3)) for effect in (1.0, 3.0))
    assert clustered > 1.5 * plain


def test_a_set_too_small_for_any_difference_says_so():
    # The greatest difference is the discordant share itself; ten questions do not show 0.1.
    assert detectable_proportion(0.1, Clustering(10, 10, 0.1, 1.0, 0.0)) is None
    assert detectable_proportion(0.0, Clustering(10, 10, 0.0, 1.0, 0.0)) is None


def test_groups_needed_and_detectable_difference_are_each_others_inverse():
    found = Clustering(300, 60, 0.25, 2.0, 0.25)
    assert groups_for_mean(detectable_mean(found), found) == 60
    assert groups_for_proportion(detectable_proportion(0.25, found), 0.25, found) == 60


def test_half_the_difference_needs_four_times_the_groups():
    found = Clustering(100, 50, 1.0, 1.0, 0.0)
    # (Z / 0.2)^2 = 196.2 questions, two to a group
    assert groups_for_mean(0.2, found) == 99
    assert groups_for_mean(0.1, found) == 393


def test_a_difference_greater_than_the_discordant_share_cannot_be():
    with pytest.raises(ValueError, match="cannot be"):
        groups_for_proportion(0.3, 0.2, Clustering(100, 50, 0.2, 1.0, 0.0))


def test_the_detectable_difference_is_detected_about_as_often_as_promised():
    generator = np.random.default_rng(5)
    groups = [f"p{index // 4}" for index in range(240)]
    spread = np.sqrt(0.5)
    # Variance of a group's mean: 0.5 + 0.5 / 4 = 0.625; standard error sqrt(0.625 / 60) = 0.102
    gap = Z * math.sqrt(0.625 / 60)
    shown = 0
    for trial in range(200):
        values = gap + np.repeat(generator.normal(size=60), 4) * spread + generator.normal(size=240) * spread
        shown += sign_flip_p(values, groups, seed=trial, flips=199) <= 0.05
    assert shown / 200 == pytest.approx(0.8, abs=0.085)  # three standard errors
