"""Splits: a group never parts, official splits hold, rare labels reach every split."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gastrovl.core.errors import SourceError
from gastrovl.core.types import Split
from gastrovl.data.splits import Member, SplitOptions, assign_splits, join_groups, parted_groups, resolve_parted

TRAIN, VAL, TEST = Split.TRAIN, Split.VAL, Split.TEST
OPTIONS = SplitOptions()


def members(count, labels=lambda _: ()):
    return [Member(f"m{n:03d}", labels=tuple(labels(n))) for n in range(count)]


drawn_members = st.lists(
    st.tuples(
        st.lists(st.integers(0, 12), max_size=2),
        st.lists(st.sampled_from(["BE", "HGD", "polyp"]), max_size=2),
    ),
    min_size=1,
    max_size=40,
).map(
    lambda rows: [
        Member(f"m{n}", tuple(f"patient-{key}" for key in keys), tuple(labels)) for n, (keys, labels) in enumerate(rows)
    ]
)


@given(drawn_members, st.data())
def test_no_group_and_no_pair_of_look_alikes_stands_in_two_splits(rows, data):
    index = st.integers(0, len(rows) - 1)
    alike = data.draw(st.lists(st.tuples(index, index), max_size=20))
    groups = join_groups(rows, alike)
    splits = assign_splits(rows, groups, OPTIONS, seed=data.draw(st.integers(0, 5)))
    assert all(len({s for s, g in zip(splits, groups, strict=True) if g == group}) == 1 for group in groups)
    assert all(splits[a] is splits[b] for a, b in alike)
    for key in {key for row in rows for key in row.keys}:
        assert len({s for s, row in zip(splits, rows, strict=True) if key in row.keys}) == 1


@given(drawn_members, st.randoms(use_true_random=False))
def test_the_division_does_not_depend_on_the_order_of_the_input(rows, random):
    def divide(ordered):
        return dict(zip((m.id for m in ordered), assign_splits(ordered, join_groups(ordered), OPTIONS, 7), strict=True))

    shuffled = list(rows)
    random.shuffle(shuffled)
    assert divide(rows) == divide(shuffled)


def test_shared_keys_and_look_alikes_chain_into_one_group():
    rows = [Member("c", ("p1",)), Member("a", ("p1", "p2")), Member("d", ("p2",)), Member("b")]
    assert join_groups(rows, [(2, 3)]) == ["a", "a", "a", "a"]


def test_members_without_ties_are_groups_of_their_own():
    assert join_groups(members(3)) == ["m000", "m001", "m002"]


def test_a_hundred_single_images_divide_eighty_ten_ten():
    rows = members(100)
    assert Counter(assign_splits(rows, join_groups(rows), OPTIONS, 7)) == {TRAIN: 80, VAL: 10, TEST: 10}


def test_a_label_with_three_groups_reaches_every_split():
    rows = members(100, labels=lambda n: ["rare"] if n < 3 else ["common"])
    splits = assign_splits(rows, join_groups(rows), OPTIONS, 7)
    assert set(splits[:3]) == {TRAIN, VAL, TEST}


def test_a_label_with_one_group_goes_to_training():
    rows = members(100, labels=lambda n: ["rare"] if n == 0 else ["common"])
    assert assign_splits(rows, join_groups(rows), OPTIONS, 7)[0] is TRAIN


def test_each_label_is_divided_by_the_shares():
    rows = members(200, labels=lambda n: ["a"] if n < 50 else ["b"])
    splits = assign_splits(rows, join_groups(rows), OPTIONS, 7)
    assert Counter(splits[:50]) == {TRAIN: 40, VAL: 5, TEST: 5}
    assert Counter(splits[50:]) == {TRAIN: 120, VAL: 15, TEST: 15}


def test_a_share_of_zero_gets_nothing():
    rows = members(30, labels=lambda n: ["rare"] if n < 3 else [])
    splits = assign_splits(rows, join_groups(rows), SplitOptions(train=0.5, val=0, test=0.5), 7)
    assert Counter(splits) == {TRAIN: 15, TEST: 15}


def test_the_same_seed_divides_alike_and_another_one_differently():
    rows = members(100)
    first, again, other = (assign_splits(rows, join_groups(rows), OPTIONS, seed) for seed in (7, 7, 8))
    assert first == again
    assert first != other


def test_an_official_split_is_kept_and_draws_its_group_along():
    rows = [Member("a", ("p1",), official=TEST), Member("b", ("p1",)), Member("c", official=VAL)]
    assert assign_splits(rows, join_groups(rows), OPTIONS, 7) == [TEST, TEST, VAL]


PARTED = [
    Member("a", ("p1",), official=TRAIN),
    Member("b", ("p1",), official=TEST),
    Member("c", ("p2",), official=TRAIN),
    Member("d", ("p2",), official=TRAIN),
]


def test_an_official_split_that_parts_a_group_is_found():
    assert parted_groups(PARTED, join_groups(PARTED)) == {"a": {TRAIN: [0], TEST: [1]}}


def test_a_parted_group_stops_with_its_members_and_both_remedies():
    with pytest.raises(SourceError) as caught:
        resolve_parted(PARTED, join_groups(PARTED), OPTIONS)
    message = str(caught.value)
    assert "the official split parts 1 groups" in message
    assert "train: a; test: b" in message
    assert "on_parted_group: drop" in message
    assert "official: false" in message


def test_drop_leaves_the_held_out_part_of_the_group():
    assert resolve_parted(PARTED, join_groups(PARTED), SplitOptions(on_parted_group="drop")) == {0}


def test_assigning_with_parted_groups_is_refused():
    with pytest.raises(SourceError, match="call resolve_parted first"):
        assign_splits(PARTED, join_groups(PARTED), OPTIONS, 7)


def test_shares_of_nothing_are_refused():
    with pytest.raises(ValueError, match="all 0"):
        SplitOptions(train=0, val=0, test=0)


def test_shares_need_not_sum_to_one():
    assert SplitOptions(train=8, val=1, test=1).shares() == {TRAIN: 0.8, VAL: 0.1, TEST: 0.1}
