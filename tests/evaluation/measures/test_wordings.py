from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gastrovl.core.errors import PredictionError
from gastrovl.core.types import Box, Split
from gastrovl.data.composing import reworded
from gastrovl.evaluation.measures.measure import value
from gastrovl.evaluation.measures.wordings import Asked, Said, measures, paired, same_boxes

NAMES = ["val", "val_reworded"]
LEFT, NEARLY_LEFT, RIGHT = ((Box(x0=x0, y0=0.0, x1=x1, y1=1.0),) for x0, x1 in ((0.0, 0.5), (0.0, 0.45), (0.5, 1.0)))


def said(answer, is_right: bool | None = None, question: str = "what is it?", group: str = "p1") -> Said:
    return Said(question, answer, is_right, group)


def asked(*answers, rights=None, key: str = "a") -> Asked:
    """One question in as many wordings as there are answers."""
    rights = rights or [None] * len(answers)
    return Asked(
        key,
        "p1",
        tuple(said(a, right, f"wording {i}") for i, (a, right) in enumerate(zip(answers, rights, strict=True))),
    )


def scores(some: list[Asked], names=NAMES, **options) -> dict[str, float | None]:
    return {one.metric: value(one) for one in measures(some, names, **options)}


def test_consistency_is_the_share_of_pairs_answered_alike():
    # of three pairs of wordings, one; then all
    found = scores([asked("ulcer", "ulcer", "polyp"), asked("polyp", "polyp", "polyp")], ["a", "b", "c"])
    assert found["consistency"] == pytest.approx((1 / 3 + 1) / 2)


def test_two_unread_replies_are_not_alike():
    assert scores([asked(None, None)])["consistency"] == 0.0


def test_verdicts_give_flips_worst_wording_and_spread():
    some = [
        asked("x", "x", rights=[True, True]),
        asked("x", "y", rights=[True, False]),
        asked("x", "y", rights=[True, False]),
        asked("x", "y", rights=[False, True]),
        asked("x", "x", rights=[False, False]),
    ]
    found = scores(some)
    assert found["flip_rate"] == 3 / 5
    assert found["right_in_all_wordings"] == 1 / 5
    assert found["worst_wording_accuracy"] == 2 / 5  # 3 of 5 as asked first, 2 of 5 in other words
    assert found["accuracy_spread"] == pytest.approx(1 / 5)


def test_captions_have_a_consistency_and_no_verdict():
    found = scores([asked("a polyp", "a polyp")])
    assert found.pop("consistency") == 1.0
    assert set(found.values()) == {None}


def test_boxes_are_alike_when_they_overlap_by_half():
    assert same_boxes(LEFT, NEARLY_LEFT)
    assert not same_boxes(LEFT, RIGHT)
    assert not same_boxes(LEFT, ())
    assert same_boxes((), ())
    assert scores([asked(LEFT, NEARLY_LEFT)], same=same_boxes)["consistency"] == 1.0
    assert scores([asked(LEFT, NEARLY_LEFT)])["consistency"] == 0.0


def test_replies_are_paired_by_conversation_id():
    found = paired(
        {
            "val": {"a": said("x", question="what?"), "b": said("y", question="where?", group="p2")},
            "val_reworded": {"b": said("z", question="at what place?", group="p2"), "a": said("x", question="name it")},
        }
    )
    assert [(one.id, one.group, [reply.answer for reply in one.said]) for one in found] == [
        ("a", "p1", ["x", "x"]),
        ("b", "p2", ["y", "z"]),
    ]


def test_a_question_repeated_in_the_same_words_says_nothing_about_wordings():
    same = {"a": said("x", question="what?")}
    assert paired({"val": same, "val_reworded": same}) == []


def test_a_question_that_lacks_one_of_three_wordings_keeps_the_others():
    found = paired(
        {
            "val": {"a": said("x", True, "one")},
            "val_reworded": {},
            "val_again": {"a": said("y", False, "three")},
        }
    )
    assert [reply and reply.answer for reply in found[0].said] == ["x", None, "y"]
    assert scores(found, ["val", "val_reworded", "val_again"])["worst_wording_accuracy"] == 0.0


def test_replies_of_another_dataset_are_refused():
    with pytest.raises(PredictionError, match="'b'"):
        paired({"val": {"a": said("x")}, "val_reworded": {"b": said("x")}})
    with pytest.raises(PredictionError, match="at least two"):
        paired({"val": {"a": said("x")}})
    with pytest.raises(PredictionError, match="groups"):
        paired({"val": {"a": said("x", question="1")}, "val_reworded": {"a": said("x", question="2", group="p2")}})


def test_the_example_names_are_those_a_build_gives_its_files():
    assert [Split.VAL.value, reworded(Split.VAL)] == NAMES


replies = st.tuples(st.sampled_from(["ulcer", "polyp", None]), st.booleans())
questions = st.lists(st.tuples(replies, replies), min_size=1, max_size=10)


@given(questions)
def test_right_answers_in_every_wording_score_exactly_one_and_flip_never(some):
    perfect = [asked("ulcer", "ulcer", rights=[True, True]) for _ in some]
    found = scores(perfect)
    assert (found["consistency"], found["right_in_all_wordings"], found["worst_wording_accuracy"]) == (1.0, 1.0, 1.0)
    assert (found["flip_rate"], found["accuracy_spread"]) == (0.0, 0.0)


@given(questions, st.randoms(use_true_random=False))
def test_the_order_of_questions_changes_nothing(some, random):
    mixed = random.sample(some, len(some))
    found, again = (
        scores([asked(*(a for a, _ in pair), rights=[right for _, right in pair]) for pair in pairs])
        for pairs in (some, mixed)
    )
    assert found == pytest.approx(again)
