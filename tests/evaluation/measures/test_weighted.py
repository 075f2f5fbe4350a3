from __future__ import annotations

import numpy as np

from gastrovl.evaluation.measures.weighted import Kept, counts_before, ties


def test_counts_are_summed_up_to_every_stop_of_an_order():
    times = np.array([[1, 0], [2, 5], [4, 7]], dtype=np.int32)
    found = counts_before(times, np.array([2, 0, 1]), np.array([0, 1, 1, 3]))
    assert found.tolist() == [[0, 0], [4, 7], [4, 7], [7, 12]]
    assert counts_before(times, np.array([2, 0, 1]), np.array([], dtype=np.int64)).shape == (0, 2)


def test_equal_scores_form_one_run_from_the_highest_down():
    order, start, stop = ties(np.array([0.2, 0.9, 0.2, 0.5]))
    assert order.tolist() == [1, 3, 0, 2]
    assert start.tolist() == [0, 1, 2, 2]
    assert stop.tolist() == [1, 2, 4, 4]


def test_a_kept_result_is_worked_out_anew_for_another_array_only():
    asked = []
    double = Kept(lambda array: asked.append(1) or array * 2)
    first, second = np.array([1]), np.array([1])
    assert [double(first)[0], double(first)[0], double(second)[0]] == [2, 2, 2]
    assert len(asked) == 2
