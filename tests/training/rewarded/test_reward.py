"""What replies are worth, worked by hand, and evaluation's own numbers in it; advantages of groups."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gastrovl.core.boxtext import decode_boxes, encode_boxes
from gastrovl.core.types import Box
from gastrovl.evaluation.measures.localisation import overlap
from gastrovl.training.config import RewardConfig
from gastrovl.training.rewarded.reward import advantages, is_tied, worth

CONFIG = RewardConfig(parse=0.1, penalty=0.5)
NEAR, FAR = "[000,000,500,500]", "[500,500,999,999]"
ONE, BOTH = decode_boxes(NEAR), decode_boxes(f"{NEAR} {FAR}")


def test_the_true_box_earns_everything():
    found = worth(ONE, NEAR, CONFIG)

    assert (found.reward, found.iou, found.is_read) == (pytest.approx(1.1), pytest.approx(1.0), True)


def test_half_of_the_box_earns_three_quarters():
    found = worth(ONE, "[000,000,500,250]", CONFIG)  # IoU and GIoU 1/2, (1 + 1/2) / 2

    assert (found.reward, found.iou) == (pytest.approx(0.1 + 0.75), pytest.approx(0.5))


def test_a_box_that_misses_by_less_earns_more_though_neither_overlaps():
    touching, apart = worth(ONE, FAR, CONFIG), worth(ONE, "[900,900,999,999]", CONFIG)

    # Hull: the image, 999 x 999. GIoU 0 - (1 - (500^2 + 499^2) / 999^2), and with 99^2 for the box that lies apart.
    assert touching.reward == pytest.approx(0.1 + (250000 + 249001) / 998001 / 2)
    assert apart.reward == pytest.approx(0.1 + (250000 + 9801) / 998001 / 2)
    assert touching.iou == apart.iou == 0.0


def test_boxes_are_paired_whatever_their_order_and_a_missing_or_surplus_one_counts_nothing():
    assert worth(BOTH, f"{FAR} {NEAR}", CONFIG).reward == pytest.approx(1.1)
    for true, reply in ((BOTH, NEAR), (ONE, f"{NEAR} {FAR}")):
        found = worth(true, reply, CONFIG)
        assert (found.reward, found.iou) == (pytest.approx(0.1 + 0.5), pytest.approx(0.5))


@pytest.mark.parametrize("reply", ["absent", " Absent "])
def test_the_word_for_nothing_is_right_where_nothing_is_and_wrong_elsewhere(reply):
    right, wrong = worth((), reply, CONFIG), worth(ONE, reply, CONFIG)

    assert (right.reward, right.iou, right.is_read) == (pytest.approx(1.1), None, True)
    assert (wrong.reward, wrong.iou, wrong.is_read) == (pytest.approx(-0.4), 0.0, True)


def test_a_box_where_nothing_is_loses_as_much():
    assert worth((), NEAR, CONFIG).reward == pytest.approx(-0.4)


@pytest.mark.parametrize("reply", ["", "a polyp", "[500,500,000,000]", "[000,000,500", f"{NEAR} or so", None])
def test_what_cannot_be_read_or_was_cut_off_is_worth_least(reply):
    there, absent = worth(ONE, reply, CONFIG), worth((), reply, CONFIG)

    assert (there.reward, there.iou, there.is_read) == (-0.5, 0.0, False)
    assert (absent.reward, absent.iou, absent.is_read) == (-0.5, None, False)


def test_sharpness_is_an_exponent_of_the_overlap():
    sharp = RewardConfig(parse=0.0, sharpness=2.0)

    assert worth(ONE, "[000,000,500,250]", sharp).reward == pytest.approx(0.75**2)


sides = st.tuples(st.integers(0, 998), st.integers(0, 998), st.integers(1, 300), st.integers(1, 300))
drawn = st.lists(
    sides.map(
        lambda s: Box(x0=s[0] / 999, y0=s[1] / 999, x1=min(s[0] + s[2], 999) / 999, y1=min(s[1] + s[3], 999) / 999)
    ),
    min_size=1,
    max_size=3,
)


@given(true=drawn, said=drawn)
def test_the_reward_is_what_evaluation_will_measure(true, said):
    reply = encode_boxes(said)

    found, measured = worth(true, reply, CONFIG), overlap(decode_boxes(encode_boxes(true)), decode_boxes(reply))

    assert found.reward == pytest.approx(CONFIG.parse + (1 + measured.giou) / 2)
    assert found.iou == pytest.approx(measured.iou)


def test_an_advantage_is_the_distance_from_the_mean_and_not_divided_by_anything():
    assert advantages([1.0, 0.0, 0.5, 0.1]) == pytest.approx([0.6, -0.4, 0.1, -0.3])
    assert advantages([0.51, 0.50]) == pytest.approx([0.005, -0.005])  # a hundredth stays one


def test_a_tied_group_gains_exactly_nothing():
    tied = [0.1 + 0.2, 0.3, 0.3]  # 0.30000000000000004 in the first place

    assert is_tied(tied)
    assert advantages(tied) == [0.0, 0.0, 0.0]
    assert not is_tied([0.3, 0.301])
