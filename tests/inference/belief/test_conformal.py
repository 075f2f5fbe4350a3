"""Label sets for new groups: by hand, and coverage over many draws."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gastrovl.inference.belief.conformal import (
    OWN_GROUPS,
    LabelSets,
    covered,
    fit_one,
    fit_several,
    hierarchical_quantile,
    strictest,
)

NAMES = ("a", "b", "c", "d")


def test_a_group_counts_once_and_a_new_one_as_the_worst():
    scores, groups = [0.5, 0.3, 0.1], ["x", "y", "x"]  # weights 1/6, 1/3, 1/6, and 1/3 at infinity

    assert hierarchical_quantile(scores, groups, 1 / 6) == 0.1
    assert hierarchical_quantile(scores, groups, 0.5) == 0.3
    assert hierarchical_quantile(scores, groups, 0.6) == 0.5
    assert hierarchical_quantile(scores, groups, 0.7) == float("inf")


def test_too_few_groups_give_the_set_of_all_labels():
    sets = fit_one([{"a": 0.9, "b": 0.1}] * 8, ["a"] * 8, [str(number) for number in range(8)], 0.9)

    assert not sets.is_informative
    assert sets({"a": 0.999, "b": 0.001}) == ("a", "b")


def test_nine_groups_are_enough_for_nine_tenths():
    sets = fit_one([{"a": 0.9, "b": 0.1}] * 9, ["a"] * 9, [str(number) for number in range(9)], 0.9)

    assert sets.is_informative
    assert sets({"a": 0.95, "b": 0.05}) == ("a",)
    assert sets.least == pytest.approx(0.9)


def test_missed_labels_are_counted_over_groups():
    told = [{"a": 0.9, "b": 0.6}, {"a": 0.9, "b": 0.2}, {"a": 0.8, "b": 0.1}]
    truth = [frozenset("ab"), frozenset("ab"), frozenset("a")]

    # at 0.6 half of the second group's labels are missed: (0.5 + 1) / 4 = 0.375; at 0.8 also half of the first: 0.5
    assert fit_several(told, truth, ["x", "y", "z"], 0.625).least == 0.6
    assert fit_several(told, truth, ["x", "y", "z"], 0.5).least == 0.8
    assert fit_several(told, truth, ["x", "y", "z"], 0.75).least == 0.2
    assert not fit_several(told, truth, ["x", "y", "z"], 0.8).is_informative


@given(
    st.dictionaries(st.sampled_from(NAMES), st.floats(0, 1), min_size=1),
    st.floats(0, 1),
    st.dictionaries(st.sampled_from(NAMES), st.floats(0, 1)),
)
def test_a_set_is_never_empty_and_holds_the_likeliest(probabilities, least, of_answer):
    sets = LabelSets(kind="one", level=0.9, least=least, of_answer=of_answer, groups=9, is_informative=True)

    found = sets(probabilities)

    assert probabilities[found[0]] == max(probabilities.values())
    assert len(set(found)) == len(found)


def test_common_answers_have_a_threshold_of_their_own():
    easy = [({"a": 0.99, "b": 0.01}, "a")] * OWN_GROUPS
    hard = [({"a": 0.4, "b": 0.6}, "a")] * 12
    told, truth = zip(*(easy + hard), strict=True)

    sets = fit_one(told, truth, [str(number) for number in range(len(told))], 0.9)

    assert set(sets.of_answer) == {"a"}
    assert sets({"a": 0.995, "b": 0.005}) == ("a",)
    assert sets({"a": 0.45, "b": 0.55}) == ("b", "a")


def world(draws, groups):
    """Answers of groups that differ in how hard they are: probabilities, truths, names of groups."""
    told, truth, names = [], [], []
    for group in range(groups):
        hardness = draws.exponential(1.0)
        for _ in range(int(draws.integers(1, 6))):
            scores = draws.normal(0, 1 + hardness, len(NAMES))
            powers = np.exp(scores - scores.max())
            told.append(dict(zip(NAMES, (powers / powers.sum()).tolist(), strict=True)))
            truth.append(NAMES[int(np.argmax(scores + draws.gumbel(0, 1 + hardness, len(NAMES))))])
            names.append(str(group))
    return told, truth, names


def test_sets_hold_the_truth_of_new_groups_as_often_as_promised():
    draws, held = np.random.default_rng(7), []
    for _ in range(300):
        told, truth, names = world(draws, 60)
        known = [name for name in names if int(name) < 40]
        sets = fit_one(told[: len(known)], truth[: len(known)], known, 0.8)
        single = LabelSets(kind="one", level=0.8, least=sets.least, groups=0, is_informative=True)
        of_group = {}
        for some, name, group in zip(told[len(known) :], truth[len(known) :], names[len(known) :], strict=True):
            made = sets(some) if sets.of_answer else single(some)
            of_group.setdefault(group, []).append(name in made)
        held.append(np.mean([np.mean(flags) for flags in of_group.values()]))

    assert 0.8 - 0.01 <= np.mean(held) <= 0.8 + 0.02  # the bound that holds for any data gives 0.82 and more


def test_of_several_labels_no_more_are_missed_than_promised():
    draws, held = np.random.default_rng(7), []
    for _ in range(200):
        told, truth, names = world(draws, 40)
        labels = [frozenset({name, max(some, key=some.get)}) for some, name in zip(told, truth, strict=True)]
        known = [name for name in names if int(name) < 30]
        sets = fit_several(told[: len(known)], labels[: len(known)], known, 0.8)
        shares = covered([sets(some) for some in told[len(known) :]], labels[len(known) :])
        of_group = {}
        for share, group in zip(shares, names[len(known) :], strict=True):
            of_group.setdefault(group, []).append(share)
        held.append(np.mean([np.mean(some) for some in of_group.values()]))

    assert 0.8 - 0.01 <= np.mean(held) <= 0.8 + 0.07


def test_with_enough_groups_the_share_is_what_groups_left_out_need():
    # each of n groups has scores 0.1, 0.2 .. 1.0: all are alike, and nine tenths of the others hold nine tenths of one
    told = [{"a": round(1 - place / 10, 1), "b": 1.0} for place in range(1, 11)]

    def fitted(groups):
        names = [str(number) for number in range(groups) for _ in told]
        return fit_one(told * groups, ["a"] * len(names), names, 0.9, divides=False)

    few, many = fitted(OWN_GROUPS - 1), fitted(OWN_GROUPS)
    assert (few.least, few.is_measured) == (0.0, False)  # the share 0.9 * 20 / 19 = 0.947 takes the tenth score
    assert (many.least, many.is_measured) == (0.1, True)


def test_sets_for_any_part_are_as_large_as_the_largest():
    def part(least, *, is_informative=True, **of_answer):
        told = {"least": least, "of_answer": of_answer, "groups": 9, "is_informative": is_informative}
        return LabelSets(kind="one", level=0.9, **told)

    found = strictest(part(0.5, a=0.9), [part(0.4), part(0.6, b=0.3)])

    assert (found.least, found.of_answer, found.is_informative) == (0.3, {}, True)
    assert not strictest(part(0.5), [part(0.4), part(0.0, is_informative=False)]).is_informative
