from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from gastrovl.evaluation.measures.ranking import (
    MACRO_AUROC,
    MEAN_AP,
    NO_PROBABILITIES,
    Labels,
    Probabilities,
    chance,
    measures,
    per_class,
)
from gastrovl.evaluation.measures.weighted import weighted_value
from gastrovl.evaluation.statistics.intervals import intervals

NAMES = ["polyp", "ulcer", "varices"]


def labels(*texts: str) -> list[Labels]:
    return [frozenset(text.split()) for text in texts]


def scores(true: list[Labels], said: list[Probabilities | None]) -> dict[str, float | None]:
    return {measure.metric: weighted_value(measure) for measure in measures(true, said)}


def test_average_precision_is_the_one_worked_by_hand():
    # falling: 0.9 ulcer, 0.8 not, 0.7 ulcer -> recall steps of 1/2 at precision 1 and 2/3
    true = labels("ulcer", "", "ulcer", "")
    said = [{"ulcer": 0.9}, {"ulcer": 0.8}, {"ulcer": 0.7}, {"ulcer": 0.1}]
    found = scores(true, [*said])
    assert found[MEAN_AP] == pytest.approx((1 + 2 / 3) / 2, abs=1e-12)
    assert found[MACRO_AUROC] == pytest.approx(3 / 4, abs=1e-12)  # of four pairs, only (0.7, 0.8) is wrong


def test_perfect_probabilities_score_exactly_one():
    true = labels("ulcer", "polyp", "polyp ulcer", "")
    assert scores(true, [dict.fromkeys(one, 1.0) for one in true]) == {MEAN_AP: 1.0, MACRO_AUROC: 1.0}


def test_one_probability_for_all_earns_what_chance_earns():
    true = labels("ulcer", "ulcer", "polyp", "")
    same = dict.fromkeys(["ulcer", "polyp"], 0.4)
    assert scores(true, [same] * 4) == chance(true) == {MEAN_AP: (1 / 2 + 1 / 4) / 2, MACRO_AUROC: 0.5}


def test_a_reply_without_probabilities_counts_as_zero_beside_others_that_have_some():
    true = labels("ulcer", "ulcer", "")
    said = [{"ulcer": 0.9}, None, {"ulcer": 0.5}]
    assert scores(true, [*said]) == scores(true, [{"ulcer": 0.9}, {}, {"ulcer": 0.5}])
    assert scores(true, [*said])[MEAN_AP] == pytest.approx((1 + 2 / 3) / 2)


def test_without_any_probabilities_the_scores_are_undefined_with_a_reason():
    true = labels("ulcer", "polyp")
    assert scores(true, [None, None]) == {MEAN_AP: None, MACRO_AUROC: None}
    assert measures(true, [None, None])[0].undefined == NO_PROBABILITIES
    assert per_class(true, [None, None]) == []


def test_a_dataset_whose_replies_give_none_is_undefined_while_others_are_not():
    [mean_ap, _] = measures(labels("ulcer", "", "ulcer"), [{"ulcer": 0.5}, {}, None])
    assert weighted_value(mean_ap, np.array([False, False, True])) is None
    assert weighted_value(mean_ap, np.array([True, True, False])) == 1.0


def random_case(seed: int, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Truth and probabilities rounded to two places, so that there are ties, (rows, 3) each."""
    generator = np.random.default_rng(seed)
    truth = generator.random((rows, 3)) < [0.5, 0.2, 0.1]
    truth[0] = True
    return truth, np.round(np.clip(truth * 0.3 + generator.random((rows, 3)) * 0.7, 0, 1), 2)


def as_input(truth: np.ndarray, probabilities: np.ndarray) -> tuple[list[Labels], list[Probabilities | None]]:
    true = [frozenset(np.array(NAMES)[row].tolist()) for row in truth]
    return true, [dict(zip(NAMES, row.tolist(), strict=True)) for row in probabilities]


def test_scores_agree_with_scikit_learn():
    for seed in range(5):
        truth, probabilities = random_case(seed, 300)
        found = scores(*as_input(truth, probabilities))
        assert found[MEAN_AP] == pytest.approx(average_precision_score(truth, probabilities, average="macro"), abs=1e-9)
        assert found[MACRO_AUROC] == pytest.approx(roc_auc_score(truth, probabilities, average="macro"), abs=1e-9)


def test_scores_per_class_agree_with_scikit_learn():
    truth, probabilities = random_case(9, 200)
    for column, one in enumerate(per_class(*as_input(truth, probabilities))):
        assert one.label == NAMES[column]
        assert one.n_true == truth[:, column].sum()
        expected = average_precision_score(truth[:, column], probabilities[:, column])
        assert one.average_precision == pytest.approx(expected, abs=1e-9)
        assert one.auroc == pytest.approx(roc_auc_score(truth[:, column], probabilities[:, column]), abs=1e-9)


def test_a_resample_scores_what_scikit_learn_gives_for_repeated_rows():
    truth, probabilities = random_case(3, 60)
    times = np.random.default_rng(4).integers(0, 4, size=(60, 7)).astype(np.int32)
    mean_ap, auroc = (one.of_rows(np.arange(60))(times) for one in measures(*as_input(truth, probabilities)))
    for draw in range(7):
        rows = np.repeat(np.arange(60), times[:, draw])
        expected = average_precision_score(truth[rows], probabilities[rows], average="macro")
        assert mean_ap[draw] == pytest.approx(expected, abs=1e-9)
        expected = roc_auc_score(truth[rows], probabilities[rows], average="macro")
        assert auroc[draw] == pytest.approx(expected, abs=1e-9)


def test_a_label_that_a_resample_lacks_is_left_out_of_its_mean():
    [mean_ap, _] = measures(labels("ulcer", "polyp", ""), [{"ulcer": 0.9}, {"polyp": 0.1}, {"polyp": 0.8}])
    times = np.array([[1, 1], [1, 0], [1, 1]], dtype=np.int32)
    # ulcer 1, polyp 1/2 in the first; no polyp in the second
    assert mean_ap.of_rows(np.arange(3))(times).tolist() == [0.75, 1.0]


def test_groups_are_drawn_for_ranking_as_for_sums():
    truth, probabilities = random_case(5, 120)
    groups = [f"p{row // 4}" for row in range(120)]
    found = intervals(measures(*as_input(truth, probabilities)), groups, resamples=200, seed=7)
    value = scores(*as_input(truth, probabilities))[MEAN_AP]
    assert value is not None
    assert found[0].low is not None
    assert found[0].high is not None
    assert found[0].low < value < found[0].high


def test_few_cells_at_once_give_the_same_interval(monkeypatch):
    truth, probabilities = random_case(6, 40)
    groups = [f"p{row // 2}" for row in range(40)]
    some = measures(*as_input(truth, probabilities))
    [whole, _] = intervals(some, groups, resamples=50, seed=7)
    monkeypatch.setattr("gastrovl.evaluation.statistics.intervals._CELLS_AT_ONCE", 130)
    [parts, _] = intervals(some, groups, resamples=50, seed=7)
    assert np.array_equal(whole.replicates, parts.replicates)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 30))
def test_the_order_of_conversations_changes_nothing(seed, rows):
    truth, probabilities = random_case(seed, rows)
    order = np.random.default_rng(seed).permutation(rows)
    found = scores(*as_input(truth, probabilities))
    again = scores(*as_input(truth[order], probabilities[order]))
    assert found == {name: value if value is None else pytest.approx(value, abs=1e-12) for name, value in again.items()}
