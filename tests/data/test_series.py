"""Group keys from names, and numbered series cut where neighbours look least alike."""

from __future__ import annotations

import random
import time
from itertools import combinations, pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gastrovl.core.errors import SourceError
from gastrovl.data.images import ImageFile
from gastrovl.data.series import cut_series, group_keys
from gastrovl.data.source import GroupRule


def frames(names, colours=None, sizes=None):
    """Images called `names`, and a likeness that is 1 where two have the same of `colours`."""
    images = [ImageFile(Path(name), name, sizes[index] if sizes else (100, 100)) for index, name in enumerate(names)]

    def likeness(a, b):
        return float(colours is None or colours[a] == colours[b])

    return images, likeness


def test_the_groups_of_the_pattern_make_the_key():
    images, likeness = frames(["P7_exam2_001.jpg", "P7_exam2_002.jpg", "P8_exam1_001.jpg"])
    assert group_keys(images, GroupRule(pattern="^(P[0-9]+)_(exam[0-9]+)"), likeness) == [
        "P7/exam2",
        "P7/exam2",
        "P8/exam1",
    ]


def test_a_pattern_without_groups_keys_by_what_it_matches():
    images, likeness = frames(["P7_1.jpg"])
    assert group_keys(images, GroupRule(pattern="^P[0-9]+"), likeness) == ["P7"]


def test_a_name_that_does_not_match_is_refused():
    images, likeness = frames(["P7_1.jpg", "other.jpg"])
    with pytest.raises(SourceError, match=r"other\.jpg: the name 'other\.jpg' does not match `group\.pattern` '\^P'"):
        group_keys(images, GroupRule(pattern="^P"), likeness)


def test_a_series_is_cut_where_the_colour_changes():
    images, likeness = frames([f"A{n}.jpg" for n in range(6)], colours=[0, 0, 0, 0, 5, 5])
    rule = GroupRule(pattern="^(A)(?P<number>[0-9]+)", series=4)
    assert group_keys(images, rule, likeness) == ["A/0000-0003"] * 4 + ["A/0004-0005"] * 2


def test_a_series_is_cut_where_the_frame_size_changes():
    sizes = [(100, 100)] * 3 + [(120, 100)] * 2
    images, likeness = frames([f"A{n}.jpg" for n in range(5)], sizes=sizes)
    rule = GroupRule(pattern="^(A)(?P<number>[0-9]+)", series=3)
    assert group_keys(images, rule, likeness) == ["A/0000-0002"] * 3 + ["A/0003-0004"] * 2


def test_frames_are_ordered_by_number_and_prefixes_kept_apart():
    images, likeness = frames(["A10.jpg", "A9.jpg", "B9.jpg"])
    rule = GroupRule(pattern="^([A-Z])(?P<number>[0-9]+)", series=2)
    assert group_keys(images, rule, likeness) == ["A/0009-0010", "A/0009-0010", "B/0009-0009"]


def test_a_short_series_is_not_cut():
    assert cut_series([0.0, 0.9], longest=3) == []


def test_the_cuts_with_the_least_summed_likeness_are_taken():
    # five frames, runs of two at most: cuts after frames 1, 3 (0.1 + 0.2) beat 2, 4 (0.9 + 0.8) and 2, 3 (0.9 + 0.2)
    assert cut_series([0.1, 0.9, 0.2, 0.8], longest=2) == [1, 3]


def test_of_equal_sums_the_fewest_cuts_are_taken():
    assert len(cut_series([0.0] * 9, longest=5)) == 1


@given(st.lists(st.floats(0, 1), max_size=40), st.integers(2, 9))
def test_no_run_is_longer_than_asked(likeness, longest):
    ends = [0, *cut_series(likeness, longest), len(likeness) + 1]
    assert all(0 < b - a <= longest for a, b in pairwise(ends))


@given(st.lists(st.sampled_from([0, 0.25, 0.5, 1]), max_size=8), st.integers(2, 5))
def test_no_other_cuts_cost_less_or_are_fewer_at_that_cost(likeness, longest):
    frames = len(likeness) + 1

    def cost(cuts):
        return sum(likeness[cut - 1] for cut in cuts), len(cuts)

    allowed = [
        cuts
        for count in range(frames)
        for cuts in combinations(range(1, frames), count)
        if all(end - start <= longest for start, end in pairwise([0, *cuts, frames]))
    ]
    assert cost(cut_series(likeness, longest)) == min(cost(cuts) for cuts in allowed)


def test_a_hundred_thousand_frames_are_cut_in_seconds_however_long_the_runs():
    chance = random.Random(1)
    likeness = [chance.random() for _ in range(99_999)]
    start = time.process_time()
    cuts = cut_series(likeness, longest=5_000)
    assert time.process_time() - start < 3  # 0.04 s on a 2-core CPU; 500 million comparisons would take minutes
    assert 20 <= len(cuts) + 1 <= 40
