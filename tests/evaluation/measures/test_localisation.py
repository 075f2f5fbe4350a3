from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask

from gastrovl.core import geometry
from gastrovl.core.boxtext import decode_boxes, encode_boxes
from gastrovl.core.types import Box
from gastrovl.evaluation.measures.corners import corners, gious, ious
from gastrovl.evaluation.measures.localisation import Boxes, as_asked, curve, measures, outcomes, overlap
from gastrovl.evaluation.measures.measure import value


def strip(x0: float, x1: float) -> Box:
    """A box over the full height, so that IoU is a matter of one axis."""
    return Box(x0=x0, y0=0.0, x1=x1, y1=1.0)


LEFT, RIGHT, WHOLE = strip(0, 0.5), strip(0.5, 1), strip(0, 1)


def scores(true: list[Boxes], predicted: list[Boxes | None]) -> dict[str, float | None]:
    return {measure.metric: value(measure) for measure in measures(true, predicted)}


def test_perfect_boxes_score_exactly_one_everywhere():
    odd = as_asked([Box(x0=0.1234567, y0=0.2345678, x1=0.3456789, y1=0.4567891)])
    true: list[Boxes] = [odd, (LEFT, RIGHT), ()]
    assert set(scores(true, [*true]).values()) == {1.0}


def test_unread_replies_score_zero_everywhere_and_the_least_in_giou():
    found = scores([(LEFT,), (LEFT, RIGHT), ()], [None, None, None])
    assert found.pop("giou") == -1.0
    assert set(found.values()) == {0.0}


def test_one_box_each_is_the_share_of_samples_with_enough_overlap():
    # IoU 1, 1/2, 1/4 and 0: the metric of the paper counts the first two
    true: list[Boxes] = [(WHOLE,)] * 3 + [(LEFT,)]
    predicted: list[Boxes | None] = [(WHOLE,), (LEFT,), (strip(0, 0.25),), (RIGHT,)]
    found = scores(true, predicted)
    assert found["acc@0.5"] == found["acc@0.5_single"] == found["box_recall@0.5"] == found["box_f1@0.5"] == 0.5
    assert found["acc@0.3"] == 0.5
    assert found["acc@0.75"] == 0.25
    assert found["mean_iou"] == pytest.approx((1 + 0.5 + 0.25 + 0) / 4)


def test_several_answers_to_one_box_are_not_one_right_answer():
    found = overlap([LEFT], [LEFT, RIGHT])
    assert found.worst == 0.0
    assert found.iou == 0.5  # one box right, one in surplus


def test_a_missing_box_spoils_the_conversation_but_not_the_box_found():
    found = scores([(LEFT, RIGHT)], [(LEFT,)])
    assert found["acc@0.5"] == 0.0
    assert found["box_recall@0.5"] == 0.5
    assert found["box_f1@0.5"] == pytest.approx(2 / 3)  # 2 x 1 found / (2 true + 1 predicted)
    assert found["mean_iou"] == 0.5


def test_the_order_of_boxes_does_not_matter():
    assert overlap([LEFT, RIGHT], [RIGHT, LEFT]).iou == 1.0


def test_the_single_box_score_leaves_out_conversations_with_several():
    found = scores([(LEFT, RIGHT), (WHOLE,)], [None, (WHOLE,)])
    assert found["acc@0.5"] == 0.5
    assert found["acc@0.5_single"] == 1.0


def test_a_centre_inside_hits_whatever_the_size():
    assert overlap([WHOLE], [strip(0.49, 0.51)]).centre_hit == 1.0
    assert overlap([LEFT], [RIGHT]).centre_hit == 0.0


def test_absent_questions_do_not_touch_the_overlap_scores():
    assert scores([(WHOLE,), ()], [(WHOLE,), (WHOLE,)])["acc@0.5"] == 1.0


@pytest.mark.parametrize("always", [(), (WHOLE,)])
def test_neither_constant_answer_about_presence_earns_more_than_half(always):
    found = scores([(WHOLE,), (WHOLE,), (WHOLE,), ()], [always] * 4)
    assert {found["presence_recall"], found["absence_rejection"]} == {0.0, 1.0}
    assert found["presence_balanced"] == 0.5


def test_an_unread_reply_says_neither_present_nor_absent():
    found = scores([(WHOLE,), ()], [None, None])
    assert (found["presence_recall"], found["absence_rejection"]) == (0.0, 0.0)


def test_scores_about_what_was_not_asked_are_undefined():
    found = scores([(WHOLE,)], [(WHOLE,)])
    assert found["absence_rejection"] is None
    assert found["presence_balanced"] is None


def test_the_curve_passes_through_the_accuracies():
    true: list[Boxes] = [(WHOLE,), (WHOLE,), ()]
    found = curve(true, [(LEFT,), (WHOLE,), None], np.array([0.3, 0.5, 0.75, 1.0]))
    assert found is not None
    assert found.tolist() == [1.0, 1.0, 0.5, 0.5]


def test_there_is_no_curve_without_present_objects():
    assert curve([()], [()], np.array([0.5])) is None


def random_boxes(seed: int, count: int) -> list[Box]:
    edges = np.sort(np.random.default_rng(seed).random((count, 2, 2)), axis=1)
    return [Box(x0=x0, y0=y0, x1=x1, y1=y1) for (x0, y0), (x1, y1) in edges.tolist()]


def test_giou_tells_a_near_miss_from_a_far_one():
    # of width 1/2: two halves that touch fill their hull (0 - 0/1); two quarters at the far ends leave half of it empty
    assert overlap([LEFT], [RIGHT]).giou == 0.0
    assert overlap([strip(0, 0.25)], [strip(0.75, 1)]).giou == -0.5
    assert overlap([WHOLE], [LEFT]).giou == 0.5


def test_a_surplus_or_missing_box_counts_minus_one_in_giou():
    assert overlap([LEFT], [LEFT, RIGHT]).giou == 0.0  # (1 - 1) / 2
    assert overlap([LEFT, RIGHT], [LEFT]).giou == 0.0
    assert overlap([LEFT], []).giou == -1.0


def test_the_hull_forgives_one_box_around_several():
    true: list[Boxes] = [(strip(0, 0.2), strip(0.8, 1))]
    found = scores(true, [(WHOLE,)])
    assert found["acc@0.5"] == 0.0
    assert found["acc@0.5_hull"] == 1.0
    assert scores([(WHOLE,)], [true[0]])["acc@0.5_hull"] == 1.0


def test_the_largest_box_alone_decides_the_score_of_the_largest():
    found = scores([(strip(0, 0.4), strip(0.5, 1))], [(strip(0.5, 1), strip(0.1, 0.2))])
    assert found["acc@0.5_largest"] == 1.0
    assert scores([(LEFT, RIGHT)], [(LEFT,)])["acc@0.5_largest"] == 1.0  # of equals, the leftmost


def test_sizes_are_shares_of_the_image_area():
    # areas 0.0625 - (just below), 1/16, 1/4: a box of a quarter of the side is medium, one of half of it large
    small, medium, large = strip(0, 0.0624), strip(0, 1 / 16), strip(0, 1 / 4)
    found = scores([(small,), (medium,), (large,), (large, small)], [(small,), None, (WHOLE,), (large, small)])
    assert (found["acc@0.5_small"], found["acc@0.5_medium"], found["acc@0.5_large"]) == (1.0, 0.0, 0.0)
    assert (found["mean_iou_small"], found["mean_iou_large"]) == (1.0, 0.25)


def test_a_size_that_nobody_asks_about_is_left_out():
    assert {name for name in scores([(WHOLE,)], [None]) if name.endswith(("small", "medium", "large"))} == {
        "acc@0.5_large",
        "mean_iou_large",
    }


def test_rows_compared_at_once_equal_boxes_compared_one_by_one():
    true, predicted = random_boxes(1, 300), random_boxes(2, 300)
    pairs = list(zip(true, predicted, strict=True))
    assert ious(corners(true), corners(predicted)).tolist() == [geometry.iou(a, b) for a, b in pairs]
    assert gious(corners(true), corners(predicted)).tolist() == [geometry.giou(a, b) for a, b in pairs]
    found = outcomes([(a,) for a in true], [(b,) for b in predicted])
    for name, values in found.items():
        assert values.tolist() == [getattr(overlap([a], [b]), name) for a, b in pairs], name


def test_iou_agrees_with_pycocotools():
    true, predicted = random_boxes(3, 40), random_boxes(4, 50)
    as_xywh = [
        np.array([(box.x0, box.y0, box.x1 - box.x0, box.y1 - box.y0) for box in boxes]) for boxes in (true, predicted)
    ]
    theirs = mask.iou(as_xywh[0], as_xywh[1], np.zeros(len(predicted), dtype=np.uint8))
    for row, box in enumerate(true):
        assert ious(corners([box] * 50), corners(predicted)) == pytest.approx(theirs[row], abs=1e-9)


def test_truth_is_compared_as_if_it_had_been_written_and_read():
    for seed in range(20):
        boxes = random_boxes(seed, seed % 4)
        assert as_asked(boxes) == decode_boxes(encode_boxes(boxes))
    thin = [Box(x0=0.0, y0=0.5, x1=1.0, y1=0.5001)]
    assert as_asked(thin) == decode_boxes(encode_boxes(thin))


box_sets = st.integers(0, 10_000).flatmap(
    lambda seed: st.integers(0, 3).map(lambda count: as_asked(random_boxes(seed, count)))
)
questions = st.lists(st.tuples(box_sets, st.none() | box_sets), min_size=1, max_size=12)


@settings(max_examples=50, deadline=None)
@given(questions)
def test_perfect_boxes_score_exactly_one_whatever_they_are(pairs):
    true = [boxes for boxes, _ in pairs]
    assert set(scores(true, [*true]).values()) <= {1.0, None}


@settings(max_examples=50, deadline=None)
@given(questions, st.randoms(use_true_random=False))
def test_the_order_of_questions_changes_nothing(pairs, random):
    mixed = random.sample(pairs, len(pairs))
    found, again = (scores([a for a, _ in some], [b for _, b in some]) for some in (pairs, mixed))
    assert found == {name: value if value is None else pytest.approx(value, abs=1e-12) for name, value in again.items()}
