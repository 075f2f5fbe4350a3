"""Splits: a group never parts, official splits hold, rare labels reach every split."""

from __future__ import annotations

import random
import time
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gastrovl.core.errors import SourceError
from gastrovl.core.types import Split
from gastrovl.data.splits import (
    Member,
    SplitOptions,
    assign_splits,
    describe_parted,
    join_groups,
    parted_groups,
    resolve_parted,
)

TRAIN, VAL, TEST = Split.TRAIN, Split.VAL, Split.TEST
OPTIONS = SplitOptions()


def members(count, labels=lambda _: ()):
    return [Member(f"m{n:03d}", labels=tuple(labels(n))) for n in range(count)]


drawn_members = st.lists(
    st.tuples(
        st.lists(st.integers(0, 12), max_size=2),
        st.lists(st.sampled_from(["BE", "HGD", "polyp"]), max_size=2),
        st.sampled_from([None, None, None, TRAIN, VAL, TEST]),
    ),
    min_size=1,
    max_size=40,
).map(
    lambda rows: [
        Member(f"m{n}", tuple(f"patient-{key}" for key in keys), tuple(labels), official)
        for n, (keys, labels, official) in enumerate(rows)
    ]
)
OPTIONS_DRAWN = st.builds(
    SplitOptions,
    train=st.sampled_from([0, 0.5, 0.8]),
    val=st.sampled_from([0, 0.1]),
    test=st.sampled_from([0.1, 0.5]),
    on_parted_group=st.sampled_from(["drop", "move"]),
)


@given(drawn_members, st.integers(2, 4), st.integers(0, 3))
def test_every_group_is_tested_in_exactly_one_fold(rows, folds, seed):
    rows = [replace(row, official=None) for row in rows]
    groups = join_groups(rows)
    tested = Counter()
    for fold in range(1, folds + 1):
        splits = assign_splits(rows, groups, SplitOptions(train=0.9, val=0.1, folds=folds, fold=fold), seed)
        tested.update(group for group, split in zip(groups, splits, strict=True) if split is TEST)
    assert tested == Counter(groups)


def test_folds_are_alike_in_size_and_labels():
    rows = members(80, lambda n: ["rare"] if n % 10 == 0 else ["common"])
    for fold in (1, 2, 3, 4):
        splits = assign_splits(rows, [row.id for row in rows], SplitOptions(folds=4, fold=fold, val=0.1), 7)
        tested = [row for row, split in zip(rows, splits, strict=True) if split is TEST]
        assert (len(tested), sum("rare" in row.labels for row in tested)) == (20, 2)
        assert 4 <= sum(split is VAL for split in splits) <= 10


def test_folds_leave_an_official_split_alone():
    rows = [*members(8), Member("official", official=TRAIN)]
    for fold in (1, 2):
        assert assign_splits(rows, [row.id for row in rows], SplitOptions(folds=2, fold=fold), 7)[-1] is TRAIN


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"folds": 4}, "`folds` and `fold` together"),
        ({"fold": 1}, "`folds` and `fold` together"),
        ({"folds": 4, "fold": 5}, "fold 5 of 4; expected 1 to 4"),
        ({"folds": 4, "fold": 1, "train": 0}, "train is 0"),
    ],
)
def test_folds_that_make_no_sense_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        SplitOptions(**options)


def divide(rows, alike, options, seed):
    """Group and split of each member that stays, by its id; `alike` are pairs of ids."""
    place = {row.id: index for index, row in enumerate(rows)}
    groups = join_groups(rows, [(place[a], place[b]) for a, b in alike])
    dropped = resolve_parted(rows, groups, options)
    kept = [index for index in range(len(rows)) if index not in dropped]
    members, groups = [rows[index] for index in kept], [groups[index] for index in kept]
    splits = assign_splits(members, groups, options, seed)
    return {row.id: found for row, found in zip(members, zip(groups, splits, strict=True), strict=True)}


def draw_pairs(data, rows):
    ids = st.sampled_from([row.id for row in rows])
    return data.draw(st.lists(st.tuples(ids, ids), max_size=20))


@given(drawn_members, OPTIONS_DRAWN, st.integers(0, 5), st.data())
def test_no_group_and_no_pair_of_look_alikes_stands_in_two_splits(rows, options, seed, data):
    alike = draw_pairs(data, rows)
    found = divide(rows, alike, options, seed)
    split_of = {name: split for name, (_, split) in found.items()}
    for group in {group for group, _ in found.values()}:
        assert len({split for name, split in found.values() if name == group}) == 1
    assert all(split_of[a] is split_of[b] for a, b in alike if a in split_of and b in split_of)
    for key in {key for row in rows for key in row.keys}:
        assert len({split_of[row.id] for row in rows if key in row.keys and row.id in split_of}) <= 1
    if options.on_parted_group == "move":
        assert found.keys() == {row.id for row in rows}


@given(drawn_members, OPTIONS_DRAWN, st.randoms(use_true_random=False), st.data())
def test_the_division_does_not_depend_on_the_order_of_the_input(rows, options, chance, data):
    alike = draw_pairs(data, rows)
    shuffled, turned = list(rows), [(b, a) for a, b in alike]
    chance.shuffle(shuffled)
    chance.shuffle(turned)
    assert divide(rows, alike, options, 7) == divide(shuffled, turned, options, 7)


def test_ties_in_the_last_digit_do_not_depend_on_the_order_of_the_input():
    # Shares such as 0.7 are no binary fractions: sums of them in another order differ in the last digit.
    for seed in range(40):
        chance = random.Random(seed)
        rows = [
            Member(f"m{n:02d}", (f"p{chance.randrange(25)}",), tuple(chance.choices("abcdefghij", k=3)))
            for n in range(50)
        ]
        shuffled = chance.sample(rows, len(rows))
        options = SplitOptions(train=0.7, val=0.15, test=0.15)
        assert divide(rows, [], options, seed) == divide(shuffled, [], options, seed)


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
    assert "on_parted_group: move" in message
    assert "on_parted_group: drop" in message
    assert "official: false" in message


def test_drop_leaves_the_held_out_part_of_the_group():
    assert resolve_parted(PARTED, join_groups(PARTED), SplitOptions(on_parted_group="drop")) == {0}


def test_drop_may_let_several_members_go_and_keeps_the_unassigned_ones():
    rows = [Member("a", ("p",), official=TRAIN), Member("b", ("p",), official=VAL), Member("c", ("p",))]
    groups = join_groups(rows)
    options = SplitOptions(on_parted_group="drop")
    assert resolve_parted(rows, groups, options) == {0}
    assert assign_splits(rows[1:], groups[1:], options, 7) == [VAL, VAL]


def test_move_takes_the_whole_group_to_its_most_held_out_split_and_drops_nothing():
    options, groups = SplitOptions(on_parted_group="move"), join_groups(PARTED)
    assert resolve_parted(PARTED, groups, options) == set()
    assert assign_splits(PARTED, groups, options, 7) == [TEST, TEST, TRAIN, TRAIN]
    rows = [Member("a", ("p",), official=TRAIN), Member("b", ("p",), official=VAL), Member("c", ("p",))]
    assert assign_splits(rows, join_groups(rows), options, 7) == [VAL, VAL, VAL]


def test_parted_groups_are_described_by_ids_also_when_they_are_repaired():
    rows = [*PARTED[::-1], Member("e", ("p1",), official=TRAIN)]
    splits = {"train": ["a", "e"], "test": ["b"]}
    said = {
        repair: describe_parted(rows, join_groups(rows), SplitOptions(on_parted_group=repair))
        for repair in ("stop", "drop", "move")
    }
    assert said["stop"] == [{"group": "a", "splits": splits, "kept": None, "repair": "stop", "changed": []}]
    assert said["drop"] == [{"group": "a", "splits": splits, "kept": "test", "repair": "drop", "changed": ["a", "e"]}]
    assert said["move"] == [{"group": "a", "splits": splits, "kept": "test", "repair": "move", "changed": ["a", "e"]}]
    assert describe_parted(members(3), join_groups(members(3)), OPTIONS) == []


def test_dividing_sixty_thousand_images_takes_seconds_not_minutes():
    chance = random.Random(3)
    labels = [f"label {n}" for n in range(40)]
    rows = [
        Member(f"m{n:06d}", (f"p{chance.randrange(20_000)}", f"file {n}"), tuple(chance.choices(labels, k=3)))
        for n in range(60_000)
    ]
    start = time.process_time()
    splits = assign_splits(rows, join_groups(rows), OPTIONS, 7)
    assert time.process_time() - start < 10  # 1 s on a 2-core CPU; work that grows with the square would take minutes
    assert Counter(splits)[TRAIN] == pytest.approx(48_000, abs=60)


def test_assigning_with_parted_groups_is_refused():
    with pytest.raises(SourceError, match="call resolve_parted first"):
        assign_splits(PARTED, join_groups(PARTED), OPTIONS, 7)


def test_shares_of_nothing_are_refused():
    with pytest.raises(ValueError, match="all 0"):
        SplitOptions(train=0, val=0, test=0)


def test_shares_need_not_sum_to_one():
    assert SplitOptions(train=8, val=1, test=1).shares() == {TRAIN: 0.8, VAL: 0.1, TEST: 0.1}
