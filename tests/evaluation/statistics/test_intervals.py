from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gastrovl.evaluation.measures.measure import Measure, first_over_second, mean_measure, value
from gastrovl.evaluation.measures.weighted import WeightedMeasure
from gastrovl.evaluation.statistics.intervals import intervals, mean_interval, resampled_sums


def share(values: list[int]) -> Measure:
    return mean_measure("share", np.array(values, dtype=float), np.ones(len(values), dtype=bool), "nothing there")


def test_a_mean_counts_only_what_it_applies_to():
    measure = mean_measure("share", np.array([1.0, 0.0, 1.0]), np.array([True, True, False]), "nothing there")
    assert value(measure) == 0.5


def test_a_mean_over_nothing_is_undefined_and_not_zero():
    measure = mean_measure("share", np.array([1.0]), np.array([False]), "nothing there")
    assert value(measure) is None


def test_rows_restrict_the_value():
    assert value(share([1, 1, 0, 0]), np.array([True, True, True, False])) == 2 / 3


def test_one_group_has_no_interval_and_says_why():
    [found] = intervals([share([1, 0, 1])], ["p1", "p1", "p1"], resamples=100, seed=7)
    assert (found.low, found.high) == (None, None)
    assert found.reason is not None
    assert "all conversations belong to one group" in found.reason


def test_groups_count_only_where_the_metric_applies():
    applies = np.array([True, True, False, False])
    measure = mean_measure("share", np.array([1.0, 0.0, 0.0, 0.0]), applies, "nothing there")
    [found] = intervals([measure], ["p1", "p1", "p2", "p3"], resamples=50, seed=7)
    assert found.low is None


def test_an_interval_from_few_groups_is_given_with_a_warning():
    few, enough = (
        intervals([share([1, 0] * count)], [f"p{i}" for i in range(2 * count)], resamples=50, seed=7)[0]
        for count in (4, 5)
    )
    assert few.low is not None
    assert few.reason == "the interval rests on 8 groups only, so it is too narrow"
    assert enough.reason is None


def test_no_resamples_give_no_interval_and_say_why():
    [found] = intervals([share([1, 0])], ["p1", "p2"], resamples=0, seed=7)
    assert found.low is None
    assert found.reason is not None
    assert "0 resamples" in found.reason


def test_the_interval_of_a_perfect_score_is_a_point():
    [found] = intervals([share([1] * 10)], [f"p{i}" for i in range(10)], resamples=200, seed=7)
    assert (found.low, found.high) == (1.0, 1.0)


def test_the_same_seed_gives_the_same_interval_and_another_seed_another():
    groups = [f"p{i}" for i in range(40)]
    measure = share([1, 0, 0, 1, 1] * 8)
    first, again, other = (intervals([measure], groups, resamples=300, seed=seed)[0].replicates for seed in (7, 7, 8))
    assert first is not None
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_a_measure_has_the_same_interval_alone_and_in_company():
    groups = [f"p{i % 7}" for i in range(30)]
    one, two = share([1, 0, 1] * 10), share([0, 0, 1] * 10)
    [alone] = intervals([two], groups, resamples=100, seed=7)
    [_, together] = intervals([one, two], groups, resamples=100, seed=7)
    assert (alone.low, alone.high) == (together.low, together.high)


def test_every_resample_draws_as_many_groups_as_there_are():
    assert np.array_equal(resampled_sums(np.ones((13, 1)), resamples=50, seed=7), np.full((50, 1), 13.0))


def test_large_inputs_are_drawn_in_chunks_of_bounded_memory(monkeypatch):
    monkeypatch.setattr("gastrovl.evaluation.statistics.intervals._DRAWS_AT_ONCE", 20)
    totals = resampled_sums(np.ones((7, 1)), resamples=11, seed=7)
    assert np.array_equal(totals, np.full((11, 1), 7.0))


def test_the_interval_covers_the_truth_about_as_often_as_it_promises():
    generator = np.random.default_rng(0)
    groups = [f"p{i}" for i in range(80)]
    covered = 0
    for trial in range(200):
        [found] = intervals([share(list(generator.random(80) < 0.7))], groups, resamples=200, seed=trial)
        assert found.low is not None
        assert found.high is not None
        covered += found.low <= 0.7 <= found.high
    # 95 % promised; the percentile bootstrap of 80 draws falls a little short, and 200 trials scatter by 1.5 points
    assert 0.88 <= covered / 200 <= 0.99


def test_clustering_widens_the_interval_when_patients_answer_alike():
    # 40 patients with 9 frames each, all frames of a patient alike: the data hold 40 independent facts, not 360, so the
    # interval must be sqrt(9) = 3 times as wide as the one that takes every frame for a patient of its own.
    values = [int(patient % 2 == 0) for patient in range(40) for _ in range(9)]
    patients = [f"p{patient}" for patient in range(40) for _ in range(9)]
    [clustered] = intervals([share(values)], patients, resamples=2000, seed=7)
    [naive] = intervals([share(values)], [str(i) for i in range(360)], resamples=2000, seed=7)
    assert None not in (clustered.low, clustered.high, naive.low, naive.high)
    ratio = (clustered.high - clustered.low) / (naive.high - naive.low)
    assert ratio == pytest.approx(3.0, rel=0.15)


def test_the_mean_of_scores_is_surer_than_each_of_them():
    groups = [f"p{i}" for i in range(60)]
    measure = share([1, 0] * 30)
    parts = [intervals([measure], groups, resamples=500, seed=seed)[0] for seed in range(4)]
    together = mean_interval(parts)
    assert None not in (together.low, together.high, parts[0].low, parts[0].high)
    ratio = (together.high - together.low) / (parts[0].high - parts[0].low)
    assert ratio == pytest.approx(0.5, rel=0.25)  # four independent ones: 1 / sqrt(4)


def test_a_mean_with_a_part_that_has_no_interval_has_none():
    [sure] = intervals([share([1, 0])], ["p1", "p2"], resamples=10, seed=7)
    [unsure] = intervals([share([1, 0])], ["p1", "p1"], resamples=10, seed=7)
    assert mean_interval([sure, unsure]).low is None
    assert mean_interval([sure, unsure]).reason == unsure.reason


def counted(dtype: type, scale: int = 1) -> Measure:
    """A ratio of two columns of whole numbers over 50 conversations."""
    counts = (np.random.default_rng(3).integers(0, 9, (50, 2)) * scale).astype(dtype)
    return Measure("ratio", counts, first_over_second, np.ones(50, dtype=bool), "nothing there")


@pytest.mark.parametrize("scale", [1, 10**6])
def test_small_numbers_give_the_interval_of_exact_ones(scale):
    groups = [f"p{i // 3}" for i in range(50)]
    kinds = (np.uint32, np.float64)
    whole, exact = (intervals([counted(kind, scale)], groups, resamples=100, seed=7)[0].replicates for kind in kinds)
    assert whole is not None
    assert np.array_equal(whole, exact)


def test_measures_that_share_their_counts_have_the_intervals_they_have_alone():
    one = counted(np.uint8)
    other = replace(one, value_of=lambda sums: sums[:, 1])
    groups = [f"p{i // 2}" for i in range(50)]
    together = intervals([one, other], groups, resamples=50, seed=7)
    alone = [intervals([measure], groups, resamples=50, seed=7)[0] for measure in (one, other)]
    for a, b in zip(together, alone, strict=True):
        assert np.array_equal(a.replicates, b.replicates)


def test_measures_of_both_forms_see_the_same_draws():
    values = np.random.default_rng(4).random(40)
    everything = np.ones(40, dtype=bool)
    as_sums = mean_measure("mean", values, everything, "nothing there")
    by_weights = WeightedMeasure(
        "mean",
        lambda rows: lambda times: values[rows] @ times / times.sum(axis=0),
        everything,
        "nothing there",
    )
    groups, rows = [f"p{i % 11}" for i in range(40)], np.arange(40) % 3 > 0
    first, second = intervals([as_sums, by_weights], groups, resamples=60, seed=7, rows=rows)
    assert first.replicates == pytest.approx(second.replicates, abs=1e-12)
    assert (first.low, first.high) == pytest.approx((second.low, second.high), abs=1e-12)
