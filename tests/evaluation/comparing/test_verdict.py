"""The words of a verdict, sentence by sentence; every number stands in sight."""

from __future__ import annotations

import pytest

from gastrovl.core.types import Split, Task
from gastrovl.evaluation.comparing.comparison import Compared, Family, Method, Outcome
from gastrovl.evaluation.comparing.verdict import conclude, name_of, outcome_of, p_text, points


def compared(**changes):
    known = {
        "task": Task.REC,
        "split": Split.TEST,
        "metric": "acc@0.5",
        "dataset": "all",
        "reference": "A",
        "other": "B",
        "is_headline": True,
        "n": 400,
        "n_groups": 120,
        "reference_value": 0.5,
        "other_value": 0.561,
        "difference": 0.061,
        "low": 0.02,
        "high": 0.103,
        "p": 0.001,
        "test": Method.SWAPS,
        "p_holm": 0.004,
        "family": Family.HEADLINE,
        "n_differing": 90,
        "detectable": 0.032,
    }
    return Compared(**{**known, **changes})


def said(*, comparisons=4, unread=(0, 0), wanted=None, **changes):
    one = compared(**changes)
    return conclude(one, comparisons=comparisons, unread=unread, where=str(one.task), wanted=wanted).text


def test_a_shown_gain_names_the_better_model_the_points_the_interval_and_p():
    assert said() == (
        "REC: B finds more than A: acc@IoU 0.5 is 6.1 points higher [2.0, 10.3], p = 0.004 after Holm over 4 "
        "comparisons."
    )


def test_a_shown_loss_turns_the_sentence_and_the_interval_round():
    assert said(difference=-0.061, low=-0.103, high=-0.02) == (
        "REC: A finds more than B: acc@IoU 0.5 is 6.1 points higher [2.0, 10.3], p = 0.004 after Holm over 4 "
        "comparisons."
    )


def test_one_comparison_does_not_speak_of_holm():
    assert said(comparisons=1).endswith("[2.0, 10.3], p = 0.004.")


def test_no_difference_says_what_could_have_been_shown():
    text = said(task=Task.CLS, metric="accuracy", difference=0.004, low=-0.012, high=0.021, p=0.6, p_holm=0.81)
    assert text == (
        "CLS: no difference can be shown: accuracy of B is 0.4 points higher [-1.2, 2.1], p = 0.81 after Holm over 4 "
        "comparisons; this test set could only have shown one of 3.2 points or more."
    )


def test_an_observed_loss_that_is_not_shown_is_told_as_a_loss():
    text = said(difference=-0.004, low=-0.021, high=0.012, p=0.6, p_holm=0.81)
    assert "acc@IoU 0.5 of B is 0.4 points lower [-1.2, 2.1]" in text


def test_a_set_that_could_show_nothing_says_so():
    text = said(difference=0.01, p=0.5, p_holm=0.5, detectable=None)
    assert text.endswith("; the models differ on too few questions for this test set to show any.")


def test_what_could_have_been_shown_is_left_out_where_it_would_contradict_the_observed():
    assert "could only have shown" not in said(difference=0.05, p=0.06, p_holm=0.06, detectable=0.04)


def test_what_holm_takes_away_is_named():
    assert said(p=0.02, p_holm=0.08) == (
        "REC: not shown: acc@IoU 0.5 of B is 6.1 points higher [2.0, 10.3], which would count alone (p = 0.020) but "
        "does not after Holm over 4 comparisons (p = 0.080)."
    )


def test_few_groups_leave_it_undecided_however_small_p_is():
    assert said(n_groups=7) == (
        "REC: undecided: 7 groups only; acc@IoU 0.5 of B is 6.1 points higher [2.0, 10.3] on them, and a verdict takes "
        "10 groups or more."
    )
    assert outcome_of(compared(n_groups=9)) is Outcome.UNDECIDED
    assert outcome_of(compared(n_groups=10)) is Outcome.BETTER


def test_one_group_shows_nothing():
    text = said(n_groups=1, n=40, low=None, high=None, p=None, p_holm=None)
    assert text == (
        "REC: undecided: all 40 questions belong to one group; acc@IoU 0.5 of B is 6.1 points higher on them, which "
        "shows nothing."
    )


def test_equal_replies_are_said_to_be_equal():
    text = said(difference=0.0, low=0.0, high=0.0, p=1.0, p_holm=1.0, n_differing=0)
    assert text == "REC: B and A score the same on each of the 400 questions."


def test_a_difference_below_a_tenth_of_a_point_is_not_given_a_direction():
    text = said(difference=0.0003, low=-0.01, high=0.01, p=0.9, p_holm=0.9)
    assert "acc@IoU 0.5 of B is the same to a tenth of a point [-1.0, 1.0]" in text


def test_nothing_to_compare_gives_the_reason():
    text = said(difference=None, n=0, n_groups=0, reason="no question about an object that is present")
    assert text == "REC: nothing to compare: no question about an object that is present."


def test_unread_replies_are_named():
    assert said(unread=(3, 11)).endswith(" Unread replies, which count as wrong: 3 of A, 11 of B.")
    assert "Unread" not in said()


def test_how_many_groups_a_wanted_difference_takes_is_told_where_none_was_shown():
    not_shown = {"difference": 0.01, "p": 0.5, "p_holm": 0.5}
    assert said(wanted=0.02, groups_needed=1340, **not_shown).endswith(
        " To show one of 2.0 points takes some 1,340 groups like these 120."
    )
    assert said(wanted=0.9, **not_shown).endswith("show one of 90.0 points cannot be told from these replies.")
    assert "To show" not in said(wanted=0.02, groups_needed=1340)


def test_without_a_bootstrap_no_interval_is_pretended():
    assert "[" not in said(low=None, high=None)


@pytest.mark.parametrize(
    ("p", "text"),
    [
        (0.0004, "p < 0.001"),
        (0.001, "p = 0.001"),
        (0.0499, "p = 0.050"),
        (0.2, "p = 0.20"),
        (1.0, "p = 1.00"),
        (None, "no p value"),
    ],
)
def test_p_values_are_printed_with_what_can_be_known_of_them(p, text):
    assert p_text(p) == text


def test_points_have_one_decimal_and_no_sign():
    assert (points(-0.0613), points(0.5)) == ("6.1 points", "50.0 points")


def test_a_metric_without_a_name_in_words_keeps_its_own():
    assert name_of("novel_score") == "novel score"
