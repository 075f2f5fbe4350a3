"""When a model says that it does not know, and what it says then: by hand and over many draws."""

from __future__ import annotations

import numpy as np
import pytest

from gastrovl.clinical.taxonomy import Taxonomy
from gastrovl.inference.belief.abstention import fit_abstention, p_value, wider_term

TAXONOMY = Taxonomy.load()


def test_twenty_two_groups_without_an_error_are_the_fewest_that_show_a_risk_of_a_tenth():
    assert p_value([0.0] * 22, 0.1) == pytest.approx(0.9**22)
    assert p_value([0.0] * 22, 0.1) <= 0.1 < p_value([0.0] * 21, 0.1)


def test_one_error_is_a_binomial_tail():
    assert p_value([1.0, 0.0, 0.0], 0.5) == pytest.approx(0.5)  # none or one of three


def test_shares_are_bounded_more_carefully_than_verdicts():
    assert p_value([0.5] * 4 + [0.0] * 36, 0.2) > p_value([1.0] * 2 + [0.0] * 38, 0.2)
    assert p_value([0.9] * 5, 0.1) == 1.0


def test_the_threshold_stands_above_the_answers_that_are_wrong():
    confidences = [0.95] * 22 + [0.4] * 3
    is_right = [True] * 22 + [False] * 3

    found = fit_abstention(confidences, is_right, [str(number) for number in range(25)], 0.1)

    assert found.is_assured
    assert found.threshold == 0.41
    assert found.kept_groups == 22
    assert not found.withholds(0.41)
    assert found.withholds(0.4)


def test_a_few_groups_give_a_threshold_that_is_not_assured():
    found = fit_abstention([0.9, 0.8, 0.3], [True, True, False], ["a", "b", "c"], 0.1)

    assert not found.is_assured
    assert found.threshold == 0.31


def test_where_everything_is_wrong_everything_is_withheld():
    found = fit_abstention([0.9, 0.8], [False, False], ["a", "b"], 0.1)

    assert found.threshold > 1
    assert found.withholds(1.0)


def test_the_stated_risk_is_exceeded_as_rarely_as_stated():
    draws, exceeded, assured = np.random.default_rng(7), 0, 0
    for _ in range(300):
        confidence = draws.random(80)
        right = draws.random(80) < confidence  # the risk at threshold t is (1 - t) / 2
        found = fit_abstention(confidence.tolist(), right.tolist(), [str(number) for number in range(80)], 0.2)
        assured += found.is_assured
        exceeded += found.is_assured and (1 - found.threshold) / 2 > 0.2

    assert assured > 100
    assert exceeded / 300 <= 0.1 + 0.03


def test_one_of_several_names_falls_back_to_what_they_share():
    told = {"esophagitis": 0.5, "esophageal_varices": 0.45, "polyp_unspecified": 0.05}

    found = wider_term(told, "esophagitis", 0.9, TAXONOMY, is_one=True)

    assert (found.term, found.probability) == ("esophageal_diseases", pytest.approx(0.95))
    assert wider_term(told, "esophagitis", 0.4, TAXONOMY, is_one=True).term == "esophagitis"
    assert wider_term(told, "esophagitis", 0.97, TAXONOMY, is_one=True).term == "pathological_findings"


def test_labels_of_their_own_are_not_added_up():
    told = {"esophagitis": 0.5, "esophageal_varices": 0.45}  # 1 - 0.5 * 0.55 = 0.725

    assert wider_term(told, "esophagitis", 0.8, TAXONOMY, is_one=False) is None
    assert wider_term(told, "esophagitis", 0.7, TAXONOMY, is_one=False).probability == pytest.approx(0.725)
