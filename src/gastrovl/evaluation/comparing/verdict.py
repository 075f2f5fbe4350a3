"""A difference between two models to a verdict in one plain sentence, which never says more than the numbers do."""

from __future__ import annotations

from gastrovl.core.types import Task
from gastrovl.evaluation.comparing.comparison import Compared, Conclusion, Outcome
from gastrovl.evaluation.showing.names import metric_name
from gastrovl.evaluation.statistics.intervals import FEW_GROUPS
from gastrovl.evaluation.statistics.power import ALPHA

_DOES_BETTER = {
    Task.CLS: "names more images rightly than",
    Task.REC: "finds more than",
    Task.REG: "names more regions rightly than",
    Task.CAP: "writes captions closer to the true ones than",
    Task.VQA: "answers more questions rightly than",
    Task.REPORT: "writes reports closer to the true ones than",
}
_NO_POINTS = 0.0005  # below half of the last digit that is shown


def conclude(
    one: Compared, *, comparisons: int, unread: tuple[int, int], where: str, wanted: float | None
) -> Conclusion:
    """The verdict on a headline metric over all datasets.

    Args:
        comparisons: How many p values were adjusted together.
        unread: Unread replies of the reference and of the other model.
        where: What opens the sentence, e.g. "REC".
        wanted: The difference that `one.groups_needed` is about.
    """
    outcome = outcome_of(one)
    text = f"{where}: {_sentence(one, outcome, comparisons)}{_needed(one, outcome, wanted)}{_unread(one, unread)}"
    return Conclusion(task=one.task, split=one.split, other=one.other, outcome=outcome, text=text)


def outcome_of(one: Compared) -> Outcome:
    """What can be said: a claim needs ten groups or more, and a p value of 5 % or less after Holm."""
    if one.difference is None:
        return Outcome.NOTHING
    if one.n_differing == 0:
        return Outcome.ALIKE
    if one.n_groups < FEW_GROUPS or one.p_holm is None:
        return Outcome.UNDECIDED
    if one.p_holm > ALPHA or one.difference == 0:
        return Outcome.NOT_SHOWN
    return Outcome.BETTER if one.difference > 0 else Outcome.WORSE


def _sentence(one: Compared, outcome: Outcome, comparisons: int) -> str:
    if outcome is Outcome.NOTHING:
        return f"nothing to compare: {one.reason or 'no question to score'}."
    if outcome is Outcome.ALIKE:
        return f"{one.other} and {one.reference} score the same on each of the {one.n} questions."
    if outcome is Outcome.UNDECIDED:
        return _undecided(one)
    if outcome is Outcome.NOT_SHOWN:
        return _not_shown(one, comparisons)
    best, worst = (one.other, one.reference) if outcome is Outcome.BETTER else (one.reference, one.other)
    return (
        f"{best} {_DOES_BETTER[one.task]} {worst}: {name_of(one.metric)} is {points(one.difference)} higher"
        f"{_interval(one, is_turned=outcome is Outcome.WORSE)}, {_adjusted(one, comparisons)}."
    )


def _undecided(one: Compared) -> str:
    if one.n_groups < 2:
        return f"undecided: all {one.n} questions belong to one group; {_gap(one)} on them, which shows nothing."
    few = f"{one.n_groups} groups only" if one.n_groups < FEW_GROUPS else "there is no test"
    return f"undecided: {few}; {_gap(one)} on them, and a verdict takes {FEW_GROUPS} groups or more."


def _not_shown(one: Compared, comparisons: int) -> str:
    if one.p is not None and one.p <= ALPHA:
        return (
            f"not shown: {_gap(one)}, which would count alone ({p_text(one.p)}) but does not "
            f"after Holm over {comparisons} comparisons ({p_text(one.p_holm)})."
        )
    start = f"no difference can be shown: {_gap(one)}, {_adjusted(one, comparisons)}"
    if one.detectable is None:
        return f"{start}; the models differ on too few questions for this test set to show any."
    if one.detectable <= abs(one.difference or 0.0):
        return f"{start}."
    return f"{start}; this test set could only have shown one of {points(one.detectable)} or more."


def _gap(one: Compared) -> str:
    """Both directions read alike: the other model's metric is so many points higher or lower."""
    difference = one.difference or 0.0
    if abs(difference) < _NO_POINTS:
        return f"{name_of(one.metric)} of {one.other} is the same to a tenth of a point{_interval(one)}"
    way = "higher" if difference > 0 else "lower"
    return (
        f"{name_of(one.metric)} of {one.other} is {points(difference)} {way}{_interval(one, is_turned=difference < 0)}"
    )


def _needed(one: Compared, outcome: Outcome, wanted: float | None) -> str:
    if wanted is None or outcome is not Outcome.NOT_SHOWN:
        return ""
    if one.groups_needed is None:
        return f" How many groups would show one of {points(wanted)} cannot be told from these replies."
    return f" To show one of {points(wanted)} takes some {one.groups_needed:,} groups like these {one.n_groups:,}."


def _unread(one: Compared, unread: tuple[int, int]) -> str:
    if not any(unread):
        return ""
    return f" Unread replies, which count as wrong: {unread[0]} of {one.reference}, {unread[1]} of {one.other}."


def _interval(one: Compared, *, is_turned: bool = False) -> str:
    if one.low is None or one.high is None:
        return ""
    low, high = (-one.high, -one.low) if is_turned else (one.low, one.high)
    return f" [{_number(low)}, {_number(high)}]"


def _adjusted(one: Compared, comparisons: int) -> str:
    over = f" after Holm over {comparisons} comparisons" if comparisons > 1 else ""
    return f"{p_text(one.p_holm)}{over}"


def p_text(p: float | None) -> str:
    """A p value as it is printed: "p = 0.004", "p < 0.001"."""
    if p is None:
        return "no p value"
    if p < 0.001:
        return "p < 0.001"
    return f"p = {p:.3f}" if p < 0.0995 else f"p = {p:.2f}"


def points(difference: float | None) -> str:
    """The size of a difference of fractions in percentage points: "6.1 points"."""
    return f"{100 * abs(difference or 0.0):.1f} points"


def name_of(metric: str) -> str:
    """A metric's name in words; its own where it has none."""
    return metric_name(metric)


def _number(fraction: float) -> str:
    text = f"{100 * fraction:.1f}"
    return "0.0" if text == "-0.0" else text
