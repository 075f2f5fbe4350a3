from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gastrovl.core.errors import PredictionError
from gastrovl.core.types import Box, Task
from gastrovl.evaluation.measures.coloninst import coloninst_compatible, four_integers, in_pixels, pixel_iou
from gastrovl.evaluation.measures.measure import value


def scores(task: Task, true: list[str], replies: list[str]) -> dict[str, float | None]:
    return {one.metric: value(one) for one in coloninst_compatible(task, true, replies)}


@pytest.mark.parametrize("task", [Task.CLS, Task.REG])
def test_case_does_not_matter_and_a_space_or_a_full_stop_does(task):
    true = ["polyp", "polyp", "polyp", "ulcer"]
    assert scores(task, true, ["Polyp", "polyp ", "polyp.", "polyp"]) == {"coloninst_accuracy": 1 / 4}


def test_a_pixel_is_added_to_every_side():
    # sides 10 and 10 pixels; the overlap is columns 5..9 and all rows: 50 of 100 + 100 - 50
    assert pixel_iou((0, 0, 9, 9), (5, 0, 14, 9)) == pytest.approx(50 / 150)
    assert pixel_iou((0, 0, 9, 9), (9, 0, 18, 9)) == pytest.approx(10 / 190)  # they only touch
    assert pixel_iou((0, 0, 9, 9), (10, 0, 19, 9)) == 0.0
    assert pixel_iou((3, 3, 3, 3), (3, 3, 3, 3)) == 1.0


def test_a_reversed_box_has_no_overlap():
    assert pixel_iou((0, 0, 9, 9), (8, 8, 2, 2)) == 0.0


def test_replies_without_four_integers_score_nothing_in_silence():
    replies = ["{<0><0><9><9>}", "", "I see no polyp", "{<0><0><9>}", "1 2 3 4 5", "[0, 0, 9, 9]"]
    found = scores(Task.REC, ["{<0><0><9><9>}"] * 6, replies)
    assert found["coloninst_mean_iou"] == pytest.approx(2 / 6)


def test_recall_is_a_quarter_of_what_it_should_be():
    found = scores(Task.REC, ["{<0><0><9><9>}"] * 2, ["{<0><0><9><9>}", "{<0><0><4><9>}"])
    assert found["coloninst_mean_iou"] == pytest.approx((1 + 0.5) / 2)
    assert found["coloninst_recall"] == 0.25  # both are hits: 2 / (2 x 4)


def test_boxes_of_ours_become_one_hull_in_pixels_of_the_image():
    boxes = (Box(x0=0.1, y0=0.2, x1=0.3, y1=0.4), Box(x0=0.5, y0=0.1, x1=0.9, y1=0.3))
    assert in_pixels(boxes, (1000, 500)) == "{<100><50><900><200>}"
    assert in_pixels((), (1000, 500)) == in_pixels(None, (1000, 500)) == ""


def test_numbers_too_long_for_an_image_are_no_box():
    assert four_integers("1 2 3 " + "9" * 5000) is None


def test_other_tasks_and_broken_truths_are_refused():
    with pytest.raises(PredictionError, match="CAP"):
        coloninst_compatible(Task.CAP, ["a"], ["a"])
    with pytest.raises(PredictionError, match="four integers"):
        coloninst_compatible(Task.REC, ["absent"], ["absent"])


pixels = st.tuples(st.integers(0, 50), st.integers(0, 50), st.integers(51, 99), st.integers(51, 99))


@given(pixels, pixels)
def test_overlap_is_that_of_sets_of_pixels(a, b):
    first, second = ({(x, y) for x in range(c[0], c[2] + 1) for y in range(c[1], c[3] + 1)} for c in (a, b))
    assert pixel_iou(a, b) == pytest.approx(len(first & second) / len(first | second), abs=1e-12)


@given(st.lists(pixels, min_size=1, max_size=8))
def test_perfect_replies_score_one_but_for_the_recall(boxes):
    texts = ["{{<{}><{}><{}><{}>}}".format(*box) for box in boxes]
    assert scores(Task.REC, texts, texts) == {"coloninst_mean_iou": 1.0, "coloninst_recall": 0.25}
    assert scores(Task.CLS, texts, texts) == {"coloninst_accuracy": 1.0}
