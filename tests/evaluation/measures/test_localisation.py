from __future__ import annotations

import numpy as np
import pytest

from gastrovl.core.types import Box
from gastrovl.evaluation.measures.localisation import Boxes, as_asked, curve, measures, overlap
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


def test_unread_replies_score_zero_everywhere():
    assert set(scores([(LEFT,), (LEFT, RIGHT), ()], [None, None, None]).values()) == {0.0}


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
