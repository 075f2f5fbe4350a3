from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from gastrovl.core.pairing import best_pairs
from gastrovl.core.types import Box
from gastrovl.evaluation.measures.matching import bottleneck, count_pairs, overlaps


def best_by_trying_all(worth: list[list[float]]) -> float:
    rows, columns = len(worth), len(worth[0])
    if rows > columns:
        return best_by_trying_all([list(column) for column in zip(*worth, strict=True)])
    return max(sum(worth[r][c] for r, c in enumerate(chosen)) for chosen in permutations(range(columns), rows))


@pytest.mark.parametrize("shape", [(1, 1), (1, 4), (4, 1), (3, 3), (2, 5), (5, 2), (4, 4)])
def test_the_pairing_is_worth_as_much_as_the_best_of_all(shape):
    for seed in range(20):
        worth = np.random.default_rng(seed).random(shape).tolist()
        pairs = best_pairs(worth)
        assert sum(worth[row][column] for row, column in pairs) == pytest.approx(best_by_trying_all(worth))


def test_each_box_is_used_at_most_once():
    worth = [[0.9, 0.9, 0.1], [0.9, 0.9, 0.1]]
    pairs = best_pairs(worth)
    assert len({row for row, _ in pairs}) == len({column for _, column in pairs}) == len(pairs) == 2


def test_a_greedy_first_choice_is_given_up_for_a_better_whole():
    assert best_pairs([[0.9, 0.8], [0.8, 0.1]]) == [(0, 1), (1, 0)]


def test_nothing_pairs_with_nothing():
    assert best_pairs([]) == []
    assert best_pairs([[]]) == []


def test_counting_pairs_sacrifices_worth_for_number():
    # the dearest pairing is 0.9 + 0.3, of which one reaches 0.5; the other way round both do
    assert count_pairs([[0.9, 0.55], [0.55, 0.3]], 0.5) == 2


def test_the_bottleneck_is_the_worst_pair_of_the_fairest_pairing():
    assert bottleneck([[0.9, 0.55], [0.55, 0.3]]) == 0.55


def test_the_bottleneck_of_unequal_numbers_is_zero():
    assert bottleneck([[0.9, 0.9]]) == 0.0


def test_the_bottleneck_of_boxes_that_all_miss_is_zero():
    assert bottleneck([[0.0, 0.0], [0.0, 0.0]]) == 0.0


def test_overlaps_have_true_boxes_in_rows():
    left, right, all_of_it = (Box(x0=a, y0=0, x1=b, y1=1) for a, b in ((0, 0.5), (0.5, 1), (0, 1)))
    assert overlaps([left, right], [left, right, all_of_it]) == [[1.0, 0.0, 0.5], [0.0, 1.0, 0.5]]
