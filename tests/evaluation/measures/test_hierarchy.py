from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gastrovl.clinical.taxonomy import Taxonomy, Term
from gastrovl.core.errors import LabelError
from gastrovl.evaluation.measures.hierarchy import (
    CREDIT,
    Labels,
    at_level,
    credit,
    credit_of_sets,
    measures,
    with_ancestors,
)
from gastrovl.evaluation.measures.measure import value


def term(name: str, level: int, parent: str | None = None) -> Term:
    return Term(name, name, level, parent, (), None, "made up for this test")  # type: ignore[arg-type]


# disease - inflammation - gastritis, esophagitis; disease - tumour - adenoma; anatomy - antrum
SMALL = Taxonomy(
    "0",
    [
        term("disease", 1),
        term("inflammation", 2, "disease"),
        term("tumour", 2, "disease"),
        term("gastritis", 3, "inflammation"),
        term("esophagitis", 3, "inflammation"),
        term("adenoma", 3, "tumour"),
        term("anatomy", 1),
        term("antrum", 2, "anatomy"),
    ],
)


def labels(*texts: str) -> list[Labels]:
    return [frozenset(text.split()) for text in texts]


def scores(true: list[Labels], predicted: list[Labels | None], taxonomy: Taxonomy = SMALL) -> dict[str, float | None]:
    return {measure.metric: value(measure) for measure in measures(true, predicted, taxonomy)}


@pytest.mark.parametrize(
    ("predicted", "expected"),
    [
        ("gastritis", 1.0),
        ("esophagitis", 1 - 2 / 6),  # siblings
        ("inflammation", 1 - 1 / 5),  # the parent
        ("adenoma", 1 - 4 / 6),
        ("disease", 1 - 2 / 4),
        ("antrum", 0.0),  # they meet at the root only
        ("anatomy", 0.0),
    ],
)
def test_credit_falls_with_the_distance_to_nothing_at_the_root(predicted, expected):
    assert credit("gastritis", predicted, SMALL) == pytest.approx(expected, abs=1e-12)


def test_sets_are_paired_for_the_most_credit_and_a_surplus_earns_nothing():
    [true, reply] = labels("gastritis adenoma", "adenoma esophagitis antrum")
    assert credit_of_sets(true, reply, SMALL) == pytest.approx((1 + 2 / 3 + 0) / 3)
    assert credit_of_sets(true, frozenset({"adenoma"}), SMALL) == 0.5
    assert credit_of_sets(true, None, SMALL) == 0.0


def test_ancestors_count_as_said_and_the_root_does_not():
    assert with_ancestors(frozenset({"gastritis"}), SMALL) == {"gastritis", "inflammation", "disease"}


def test_hierarchical_precision_and_recall_are_those_worked_by_hand():
    # gastritis is 3 terms, of which esophagitis (3 terms) shares 2 and antrum (2 terms) none
    found = scores(labels("gastritis", "gastritis"), [*labels("esophagitis", "antrum")])
    assert found["hierarchical_precision"] == pytest.approx(2 / 5)
    assert found["hierarchical_recall"] == pytest.approx(2 / 6)
    assert found["hierarchical_f1"] == pytest.approx(2 * 2 / (5 + 6))


def test_accuracy_is_read_at_the_first_and_second_level():
    found = scores(labels("gastritis", "gastritis", "antrum"), [*labels("esophagitis", "adenoma", "anatomy")])
    assert found["accuracy_level2"] == pytest.approx(1 / 3)  # anatomy stays above level 2, so it is not antrum
    assert found["accuracy_level1"] == 1.0
    assert at_level(frozenset({"anatomy", "adenoma"}), 2, SMALL) == {"anatomy", "tumour"}


def test_unread_replies_earn_nothing():
    found = scores(labels("gastritis"), [None])
    assert found.pop("hierarchical_precision") is None
    assert set(found.values()) == {0.0}


def test_a_truth_outside_the_taxonomy_is_left_out():
    inside = scores(labels("gastritis"), labels("gastritis"))
    assert scores([*labels("colitis"), *labels("gastritis")], [*labels("gastritis"), *labels("gastritis")]) == inside
    assert set(scores(labels("colitis"), labels("gastritis")).values()) == {None}


def test_a_label_outside_the_taxonomy_is_refused():
    with pytest.raises(LabelError, match="colitis"):
        measures(labels("gastritis"), [*labels("colitis")], SMALL)


REAL = Taxonomy.load()
sets = st.frozensets(st.sampled_from([term.id for term in REAL.terms]), min_size=1, max_size=3)
pairs_of_sets = st.lists(st.tuples(sets, st.none() | sets), min_size=1, max_size=10)


@settings(max_examples=50, deadline=None)
@given(pairs_of_sets)
def test_perfect_replies_score_exactly_one(pairs):
    true = [one for one, _ in pairs]
    assert set(scores(true, [*true], REAL).values()) == {1.0}


@settings(max_examples=50, deadline=None)
@given(pairs_of_sets, st.randoms(use_true_random=False))
def test_the_order_of_conversations_changes_nothing(pairs, random):
    mixed = random.sample(pairs, len(pairs))
    found, again = (scores([a for a, _ in some], [b for _, b in some], REAL) for some in (pairs, mixed))
    assert found == {name: value if value is None else pytest.approx(value, abs=1e-12) for name, value in again.items()}


@given(sets, sets)
def test_credit_lies_between_nothing_and_one_and_is_one_only_for_the_same_labels(true, predicted):
    found = credit_of_sets(true, predicted, REAL)
    assert 0.0 <= found <= 1.0
    assert (found == 1.0) == (true == predicted)
    assert credit_of_sets(true, predicted, REAL) == pytest.approx(credit_of_sets(predicted, true, REAL))


def test_credit_never_falls_below_exact_match():
    found = scores(labels("gastritis", "antrum", "adenoma"), [*labels("gastritis", "adenoma", "adenoma")])
    assert found[CREDIT] is not None
    assert found[CREDIT] >= 2 / 3
