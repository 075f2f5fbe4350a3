from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score, matthews_corrcoef

from gastrovl.evaluation.measures.classification import SEVERAL, UNPARSED, Labels, confusion, measures, per_class
from gastrovl.evaluation.measures.measure import value


def labels(*texts: str) -> list[Labels]:
    return [frozenset(text.split()) for text in texts]


def scores(true: list[Labels], predicted: list[Labels | None]) -> dict[str, float | None]:
    return {measure.metric: value(measure) for measure in measures(true, predicted)}


def test_perfect_labels_score_exactly_one():
    true = labels("ulcer", "polyp", "polyp ulcer")
    assert scores(true, [*true]) == {"accuracy": 1.0, "balanced_accuracy": 1.0, "macro_f1": 1.0, "mcc": 1.0}


def test_unread_replies_score_zero():
    true = labels("ulcer", "polyp")
    assert scores(true, [None, None]) == {"accuracy": 0.0, "balanced_accuracy": 0.0, "macro_f1": 0.0, "mcc": 0.0}


def test_always_the_majority_is_exposed_by_balanced_accuracy():
    true = labels(*["ulcer"] * 9, "polyp")
    found = scores(true, [*labels(*["ulcer"] * 10)])
    assert found["accuracy"] == 0.9
    assert found["balanced_accuracy"] == 0.5  # recall 1 of ulcer, 0 of polyp


def test_a_part_of_a_label_set_is_no_exact_match_but_earns_recall():
    true = labels("ulcer polyp", "ulcer", "polyp")
    found = scores(true, [*labels("ulcer", "ulcer", "ulcer polyp")])
    assert found["accuracy"] == pytest.approx(1 / 3)
    # ulcer: 2 of 2 true found; polyp: 1 of 2
    assert found["balanced_accuracy"] == pytest.approx((1 + 1 / 2) / 2)
    # ulcer: 2 hits, 1 extra -> 4/5; polyp: 1 hit, 1 miss, 0 extra -> 2/3
    assert found["macro_f1"] == pytest.approx((4 / 5 + 2 / 3) / 2)


def test_a_label_that_is_only_predicted_lowers_macro_f1_alone():
    found = scores(labels("ulcer", "ulcer"), [*labels("ulcer", "polyp")])
    assert found["balanced_accuracy"] == 0.5  # polyp has no truth, so no recall
    assert found["macro_f1"] == pytest.approx((2 / 3 + 0) / 2)


def test_single_label_scores_agree_with_scikit_learn():
    generator = np.random.default_rng(3)
    names = np.array(["ulcer", "polyp", "varices", "z_line", "antrum"])
    true = names[generator.integers(0, 4, 200)]  # "antrum" is predicted but never true
    predicted = np.where(generator.random(200) < 0.6, true, names[generator.integers(0, 5, 200)])
    found = scores(labels(*true), [*labels(*predicted)])
    assert found["accuracy"] == pytest.approx(accuracy_score(true, predicted), abs=1e-12)
    with pytest.warns(UserWarning, match="y_pred contains classes not in y_true"):
        expected = balanced_accuracy_score(true, predicted)
    assert found["balanced_accuracy"] == pytest.approx(expected, abs=1e-12)
    assert found["macro_f1"] == pytest.approx(f1_score(true, predicted, average="macro"), abs=1e-12)


def test_multi_label_macro_f1_agrees_with_scikit_learn():
    generator = np.random.default_rng(4)
    true, predicted = generator.random((100, 5)) < 0.4, generator.random((100, 5)) < 0.4
    as_sets = [[frozenset(str(i) for i in np.flatnonzero(row)) for row in table] for table in (true, predicted)]
    found = scores(as_sets[0], [*as_sets[1]])
    assert found["accuracy"] == pytest.approx(accuracy_score(true, predicted), abs=1e-12)
    assert found["macro_f1"] == pytest.approx(f1_score(true, predicted, average="macro"), abs=1e-12)


def test_per_class_counts_are_those_worked_by_hand():
    found = {one.label: one for one in per_class(labels("ulcer", "ulcer", "polyp"), [*labels("ulcer", "polyp"), None])}
    assert (found["ulcer"].n_true, found["ulcer"].n_predicted) == (2, 1)
    assert (found["ulcer"].precision, found["ulcer"].recall, found["ulcer"].f1) == (1.0, 0.5, pytest.approx(2 / 3))
    assert (found["polyp"].precision, found["polyp"].recall, found["polyp"].f1) == (0.0, 0.0, 0.0)


def test_a_class_never_predicted_has_no_precision():
    [found] = per_class(labels("ulcer"), [None])
    assert found.precision is None


def test_confusion_counts_single_label_items_and_keeps_odd_replies_apart():
    true = labels("ulcer", "ulcer", "polyp", "polyp", "ulcer polyp")
    found = confusion(true, [*labels("ulcer", "polyp"), None, *labels("ulcer polyp", "ulcer")], ["polyp", "ulcer"])
    assert found is not None
    assert found.rows == ("polyp", "ulcer")
    assert found.columns == ("polyp", "ulcer", SEVERAL, UNPARSED)
    assert found.counts == ((0, 0, 1, 1), (1, 1, 0, 0))


def test_there_is_no_confusion_without_single_label_items():
    assert confusion(labels("ulcer polyp"), [None], ["polyp", "ulcer"]) is None


def test_matthews_correlation_is_the_one_worked_by_hand():
    # two classes: 2 ulcers found, 1 missed, 1 polyp called ulcer, 2 polyps found
    # (2*2 - 1*1) / sqrt((2+1)(2+1)(2+1)(2+1)) = 3 / 9
    true = labels("ulcer", "ulcer", "ulcer", "polyp", "polyp", "polyp")
    found = scores(true, [*labels("ulcer", "ulcer", "polyp", "ulcer", "polyp", "polyp")])
    assert found["mcc"] == pytest.approx(1 / 3)


def test_matthews_correlation_agrees_with_scikit_learn():
    generator = np.random.default_rng(5)
    names = np.array(["ulcer", "polyp", "varices", "antrum"])
    for _ in range(10):
        true = names[generator.integers(0, 4, 150)]
        predicted = np.where(generator.random(150) < 0.4, true, names[generator.integers(0, 4, 150)])
        found = scores(labels(*true), [*labels(*predicted)])
        assert found["mcc"] == pytest.approx(matthews_corrcoef(true, predicted), abs=1e-9)


def test_unread_and_several_labels_are_one_further_class_to_the_matthews_correlation():
    true = ["ulcer", "ulcer", "polyp", "polyp", "antrum"]
    replies = [*labels("ulcer", "ulcer polyp"), None, *labels("polyp", "antrum")]
    expected = matthews_corrcoef(true, ["ulcer", "none", "none", "polyp", "antrum"])
    assert scores(labels(*true), replies)["mcc"] == pytest.approx(expected, abs=1e-9)


def test_conversations_with_several_true_labels_are_not_part_of_the_matthews_correlation():
    both = labels("ulcer", "polyp", "ulcer polyp")
    [mcc] = [one for one in measures(both, [*labels("ulcer", "polyp", "antrum")]) if one.metric == "mcc"]
    assert mcc.applies.tolist() == [True, True, False]
    assert value(mcc) == 1.0


def test_one_answer_for_all_correlates_with_nothing_and_one_truth_leaves_it_undefined():
    assert scores(labels("ulcer", "polyp"), [*labels("ulcer", "ulcer")])["mcc"] == 0.0
    assert scores(labels("ulcer", "ulcer"), [*labels("ulcer", "ulcer")])["mcc"] is None


sets = st.frozensets(st.sampled_from(["ulcer", "polyp", "varices", "antrum"]), min_size=1)
pairs_of_sets = st.lists(st.tuples(sets, st.none() | sets), min_size=1, max_size=20)


@given(pairs_of_sets)
def test_perfect_replies_score_exactly_one_whatever_the_labels(pairs):
    true = [one for one, _ in pairs]
    assert set(scores(true, [*true]).values()) <= {1.0, None}


@given(pairs_of_sets, st.randoms(use_true_random=False))
def test_the_order_of_conversations_changes_nothing(pairs, random):
    mixed = random.sample(pairs, len(pairs))
    found, again = (scores(*(list(column) for column in zip(*some, strict=True))) for some in (pairs, mixed))
    assert found == again
    order = ["antrum", "polyp", "ulcer", "varices"]
    first, second = (confusion([a for a, _ in some], [b for _, b in some], order) for some in (pairs, mixed))
    assert first == second
