from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import brier_score_loss, roc_auc_score

from gastrovl.evaluation.measures.confidence import (
    AURC,
    BRIER,
    CONFIDENCE_AUROC,
    E_AURC,
    ECE,
    ECE_ADAPTIVE,
    LOWER_IS_BETTER,
    NO_CONFIDENCE,
    measures,
    reliability,
    risk_coverage,
    trivial,
)
from gastrovl.evaluation.measures.weighted import WeightedMeasure, value_of_any
from gastrovl.evaluation.statistics.intervals import intervals


def scores(confidence, is_right) -> dict[str, float | None]:
    return {one.metric: value_of_any(one) for one in measures(confidence, is_right)}


def random_case(seed: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Confidences rounded to two places, so that there are ties, and verdicts that they predict somewhat."""
    generator = np.random.default_rng(seed)
    confidence = np.round(generator.random(count), 2)
    return confidence, generator.random(count) < 0.3 + 0.6 * confidence


def error_rates(wrong) -> float:
    """AURC of replies in a fixed order, by its definition."""
    return float(np.mean(np.cumsum(wrong) / np.arange(1, len(wrong) + 1)))


def test_calibration_error_is_the_one_worked_by_hand():
    # bins of 1/15: 0.9 and 0.92 in [13/15, 14/15), one right: |0.91 - 0.5| x 2; 0.5 in [7/15, 8/15): |0.5 - 1|;
    # 0.2 on the border of [3/15, 4/15): |0.2 - 0|
    found = scores([0.9, 0.92, 0.5, 0.2], [True, False, True, False])
    assert found[ECE] == pytest.approx((2 * 0.41 + 0.5 + 0.2) / 4, abs=1e-12)
    assert found[BRIER] == pytest.approx((0.01 + 0.8464 + 0.25 + 0.04) / 4, abs=1e-12)


def test_adaptive_bins_hold_equal_numbers_and_keep_equals_together():
    # 30 replies, 15 bins of two: in each one right and one wrong, so |mean confidence - 1/2|
    confidence = np.arange(1, 31) / 31
    expected = np.mean([abs(confidence[i : i + 2].mean() - 0.5) for i in range(0, 30, 2)])
    assert scores(confidence, [True, False] * 15)[ECE_ADAPTIVE] == pytest.approx(expected, abs=1e-12)
    assert scores([0.5] * 20, [True] * 10 + [False] * 10)[ECE_ADAPTIVE] == 0.0


def test_area_under_the_risk_coverage_curve_is_the_one_worked_by_hand():
    # surest first: right, wrong, right, wrong -> error rates 0, 1/2, 1/3, 1/2
    found = scores([0.9, 0.8, 0.7, 0.6], [True, False, True, False])
    assert found[AURC] == pytest.approx((0 + 1 / 2 + 1 / 3 + 1 / 2) / 4, abs=1e-12)
    # the best order has error rates 0, 0, 1/3, 1/2
    assert found[E_AURC] == pytest.approx((1 / 2) / 4, abs=1e-12)
    assert found[CONFIDENCE_AUROC] == 3 / 4


def test_equally_sure_replies_count_as_in_a_random_order():
    confidence, right = [0.9, 0.5, 0.5, 0.5, 0.1, 0.1], [False, True, False, False, True, False]
    orders = [
        [True, *middle, *end] for middle in permutations([False, True, True]) for end in permutations([False, True])
    ]
    expected = np.mean([error_rates(order) for order in orders])
    assert scores(confidence, right)[AURC] == pytest.approx(expected, abs=1e-12)


def test_coverage_is_the_most_that_a_threshold_keeps_at_the_stated_risk():
    # 18 right, a wrong one (risk 1/19 > 5 %), 1 right (1/20 = 5 %), 2 wrong (2/21 < 10 % < 3/22)
    right = [True] * 18 + [False, True, False, False]
    found = scores(np.linspace(0.9, 0.1, 22), right)
    assert found["coverage@risk0.05"] == 20 / 22
    assert found["coverage@risk0.1"] == 21 / 22
    tied = scores([0.9] * 18 + [0.5] * 4, right)  # the four of one confidence come together or not at all
    assert tied["coverage@risk0.05"] == 18 / 22


def test_perfect_replies_stated_with_certainty_have_no_error_and_full_coverage():
    found = scores([1.0] * 7, [True] * 7)
    assert {found[name] for name in LOWER_IS_BETTER} == {0.0}
    assert found["coverage@risk0.05"] == found["coverage@risk0.1"] == 1.0
    assert found[CONFIDENCE_AUROC] is None  # there is no wrong reply to tell them from


def test_perfect_order_has_no_excess_area_and_tells_right_from_wrong():
    confidence, right = random_case(1, 50)
    found = scores(np.where(right, 0.5 + confidence / 2, confidence / 2 - 0.01).clip(0), right)
    assert found[E_AURC] == pytest.approx(0.0, abs=1e-12)
    assert found[CONFIDENCE_AUROC] == 1.0


def test_one_confidence_for_all_earns_the_trivial_scores():
    right = [True] * 7 + [False] * 3
    assert scores([0.7] * 10, right) == pytest.approx(trivial(right), abs=1e-12)
    assert trivial(right)[AURC] == pytest.approx(0.3)


def test_a_random_order_has_the_error_rate_as_its_area():
    wrong = np.random.default_rng(2).random(40) < 0.25
    areas = [error_rates(np.random.default_rng(seed).permutation(wrong)) for seed in range(4000)]
    assert np.mean(areas) == pytest.approx(trivial(~wrong)[AURC], abs=0.005)


def test_without_confidence_everything_is_undefined_with_a_reason():
    assert set(scores([None, None], [True, False]).values()) == {None}
    assert measures([None], [True])[0].undefined == NO_CONFIDENCE
    assert trivial([]) == {}


def test_replies_without_a_confidence_are_part_of_no_score():
    confidence, right = random_case(3, 30)
    mixed = [None, *confidence.tolist(), None]
    assert scores(mixed, [True, *right, False]) == scores(confidence, right)
    assert {int(one.applies.sum()) for one in measures(mixed, [True, *right, False])} == {30}


def test_brier_and_roc_agree_with_scikit_learn():
    for seed in range(5):
        confidence, right = random_case(seed, 200)
        found = scores(confidence, right)
        assert found[BRIER] == pytest.approx(brier_score_loss(right, confidence), abs=1e-9)
        assert found[CONFIDENCE_AUROC] == pytest.approx(roc_auc_score(right, confidence), abs=1e-9)


def test_a_resample_scores_what_its_repeated_replies_score():
    confidence, right = random_case(6, 40)
    times = np.random.default_rng(7).integers(0, 4, size=(40, 6)).astype(np.int32)
    for one in measures(confidence, right):
        if isinstance(one, WeightedMeasure) and one.metric != ECE_ADAPTIVE:  # its bins are those of the sample
            found = one.of_rows(np.arange(40))(times)
            for draw in range(6):
                rows = np.repeat(np.arange(40), times[:, draw])
                assert found[draw] == pytest.approx(scores(confidence[rows], right[rows])[one.metric], abs=1e-9)


def test_every_score_has_an_interval():
    confidence, right = random_case(8, 90)
    groups = [f"p{index // 3}" for index in range(90)]
    for found, one in zip(
        intervals(measures(confidence, right), groups, resamples=100, seed=7), measures(confidence, right), strict=True
    ):
        assert found.low is not None, one.metric
        assert found.high is not None
        assert found.low < found.high


def test_bars_of_the_reliability_diagram_are_the_bins_of_the_error():
    confidence, right = random_case(9, 100)
    bars = reliability(confidence, right)
    assert len(bars) == 15
    assert sum(bar.n for bar in bars) == 100
    gaps = [bar.n * abs(bar.accuracy - bar.mean_confidence) for bar in bars if bar.n]
    assert sum(gaps) / 100 == pytest.approx(scores(confidence, right)[ECE], abs=1e-12)
    narrow = reliability(confidence, right, is_adaptive=True)
    assert {bar.n for bar in reliability(np.arange(100) / 100, right, is_adaptive=True)} == {6, 7}  # 100 / 15
    gaps = [bar.n * abs(bar.accuracy - bar.mean_confidence) for bar in narrow]
    assert sum(gaps) / 100 == pytest.approx(scores(confidence, right)[ECE_ADAPTIVE], abs=1e-12)


def test_an_empty_bar_says_so():
    bars = reliability([1.0], [True])
    assert (bars[-1].n, bars[-1].accuracy, bars[0].n, bars[0].accuracy) == (1, 1.0, 0, None)


def test_the_risk_coverage_curve_has_a_point_for_each_threshold():
    found = risk_coverage([0.5, 0.9, 0.5, 0.1], [True, True, False, False])
    assert found.thresholds.tolist() == [0.9, 0.5, 0.1]
    assert found.coverage.tolist() == [1 / 4, 3 / 4, 1.0]
    assert found.risk.tolist() == [0.0, 1 / 3, 2 / 4]
    assert risk_coverage([], []).risk.tolist() == []


cases = st.lists(st.tuples(st.none() | st.floats(0, 1, width=16), st.booleans()), min_size=1, max_size=25)


@settings(max_examples=100, deadline=None)
@given(cases, st.randoms(use_true_random=False))
def test_the_order_of_replies_changes_nothing(pairs, random):
    mixed = random.sample(pairs, len(pairs))
    found, again = (scores([a for a, _ in some], [b for _, b in some]) for some in (pairs, mixed))
    assert found == {name: value if value is None else pytest.approx(value, abs=1e-9) for name, value in again.items()}


@settings(max_examples=100, deadline=None)
@given(cases)
def test_every_score_lies_between_nothing_and_one(pairs):
    found = scores([a for a, _ in pairs], [b for _, b in pairs])
    assert all(value is None or -1e-12 <= value <= 1 + 1e-12 for value in found.values())
