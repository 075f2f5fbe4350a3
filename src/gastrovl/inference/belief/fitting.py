"""Answers whose truth is known to the calibration of their task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gastrovl.core.types import Task
from gastrovl.inference.belief.abstention import Abstention, fit_abstention, strictest
from gastrovl.inference.belief.calibration import Confidence, TaskCalibration, Ways
from gastrovl.inference.belief.conformal import OWN_GROUPS, SOURCE_GROUPS, LabelSets, fit_one, fit_several
from gastrovl.inference.belief.conformal import strictest as sets_for_each
from gastrovl.inference.belief.scaling import (
    FittedScaling,
    FittedTemperature,
    fit_checked,
    fit_scaling,
    fit_temperature,
)

FITTED_TASKS = (Task.CLS, Task.REC, Task.REG)
LEAST_ASKED = 50  # questions about present and about absent things; fitted on 16, a cut made other frames worse
PRESENCES = tuple(round(0.5 + step / 100, 2) for step in range(50))  # below 0.5 the head gives no boxes to withhold


@dataclass(frozen=True)
class Case:
    """One raw answer beside the truth.

    Attributes:
        group: Patient, exam or video.
        confidence: Raw.
        is_right: As the evaluation judges it: CLS the exact set of labels, REC every box at IoU >= 0.5, REG the name.
        true_terms: Ids of CLS and REG.
        probabilities: Raw, of terms by their ids, where the model gives them.
        is_present: Of REC, whether what is asked for is there.
        presence, expected_iou: Raw, of REC, where the model says them.
        ious: Of each box given with the nearest true box.
        subject: Term id that REC asks for, or REG answers.
        source: Name of the set it is from.
        checks: Names of the checks that were made.
        failed: Those that disagreed.
    """

    group: str
    confidence: float
    is_right: bool
    true_terms: frozenset[str] = frozenset()
    probabilities: dict[str, float] | None = None
    is_present: bool | None = None
    presence: float | None = None
    expected_iou: tuple[float, ...] = ()
    ious: tuple[float, ...] = ()
    subject: str | None = None
    source: str | None = None
    checks: frozenset[str] = frozenset()
    failed: frozenset[str] = frozenset()


def fit_task(task: Task, cases: Sequence[Case], *, level: float, risk: float) -> TaskCalibration:
    """Fit all that the cases of one task can teach, over all sources and for each that has enough groups.

    Args:
        level: Of label sets.
        risk: Of the answers that are given.

    Raises:
        ValueError: There is no case.
    """
    parts = by_source(cases)
    return _fit(task, cases, level, risk).model_copy(
        update={"of_source": {name: _fit(task, some, level, risk) for name, some in parts.items()}}
    )


def by_source(cases: Sequence[Case]) -> dict[str, list[Case]]:
    """The cases of each source with conformal.SOURCE_GROUPS groups; empty where all cases are of one source."""
    found: dict[str, list[Case]] = {}
    for one in cases:
        found.setdefault(one.source or "", []).append(one)
    if len(found) < 2:
        return {}
    return {name: found[name] for name in sorted(found) if len({one.group for one in found[name]}) >= SOURCE_GROUPS}


def _fit(task: Task, cases: Sequence[Case], level: float, risk: float) -> TaskCalibration:
    seen = {one.subject: {other.group for other in cases if other.subject == one.subject} for one in cases}
    own = sorted(name for name, some in seen.items() if name is not None and len(some) >= OWN_GROUPS)
    labels, names, sets = _labels(task, cases, level)
    return TaskCalibration(
        rest=_ways([one for one in cases if one.subject not in own] or cases, risk),
        of_subject={name: _ways([one for one in cases if one.subject == name], risk) for name in own},
        presence_of_labels=labels,
        names=names,
        sets=sets,
        box_iou=_box_iou(cases),
        presence=_presence(cases),
        presence_least=presence_cut(cases, LEAST_ASKED),
    )


def _ways(cases: Sequence[Case], risk: float) -> Ways:
    raw, right = [one.confidence for one in cases], [one.is_right for one in cases]
    groups = [one.group for one in cases]
    checked = None
    if any(one.checks for one in cases):
        scaling = fit_checked(raw, right, [one.failed for one in cases], groups)
        checked = _with_abstention(scaling, cases, risk, has_checks=True)
    return Ways(plain=_with_abstention(fit_scaling(raw, right, groups), cases, risk, has_checks=False), checked=checked)


def _with_abstention(scaling: FittedScaling, cases: Sequence[Case], risk: float, *, has_checks: bool) -> Confidence:
    found = _abstention(scaling, cases, risk, has_checks=has_checks)
    if parts := by_source(cases):
        some = [_abstention(scaling, part, risk, has_checks=has_checks) for part in parts.values()]
        found = strictest([found, *some])
    return Confidence(scaling=scaling, abstention=found)


def _abstention(scaling: FittedScaling, cases: Sequence[Case], risk: float, *, has_checks: bool) -> Abstention:
    sure = [scaling(one.confidence, one.failed if has_checks else ()) for one in cases]
    return fit_abstention(sure, [one.is_right for one in cases], [one.group for one in cases], risk)


def _labels(
    task: Task, cases: Sequence[Case], level: float
) -> tuple[FittedScaling | None, FittedTemperature | None, LabelSets | None]:
    """Probabilities first, then sets made of the calibrated ones."""
    told = [(one, one.probabilities) for one in cases if one.probabilities]
    if not told or task is Task.REC:
        return None, None, None
    if task is Task.CLS:
        flat = [(p, name in one.true_terms, one.group) for one, some in told for name, p in some.items()]
        labels = fit_scaling(
            [p for p, _, _ in flat], [is_true for _, is_true, _ in flat], [name for _, _, name in flat]
        )
        presences = [(one, {name: labels(p) for name, p in some.items()}) for one, some in told]
        return labels, None, _sets(presences, level, is_one=False)
    known = [(some, next(iter(one.true_terms)), one.group) for one, some in told if len(one.true_terms) == 1]
    known = [one for one in known if one[1] in one[0]]
    if not known:
        return None, None, None
    names = fit_temperature(
        [some for some, _, _ in known], [term for _, term, _ in known], [name for *_, name in known]
    )
    return (
        None,
        names,
        _sets([(one, names(some)) for one, some in told if len(one.true_terms) == 1], level, is_one=True),
    )


def _sets(told: Sequence[tuple[Case, dict[str, float]]], level: float, *, is_one: bool) -> LabelSets:
    """Sets of all; of several sources with enough groups, large enough for each."""

    def fitted(some: Sequence[tuple[Case, dict[str, float]]], *, divides: bool) -> LabelSets:
        probabilities, groups = [values for _, values in some], [one.group for one, _ in some]
        if is_one:
            truth = [next(iter(one.true_terms)) for one, _ in some]
            return fit_one(probabilities, truth, groups, level, divides=divides)
        return fit_several(probabilities, [one.true_terms for one, _ in some], groups, level)

    whole, parts = fitted(told, divides=True), by_source([one for one, _ in told])
    some = [fitted([pair for pair in told if pair[0].source == name], divides=False) for name in parts]
    return sets_for_each(whole, some) if len(some) > 1 else whole


def _box_iou(cases: Sequence[Case]) -> FittedScaling | None:
    """A line on the logit keeps the mean IoU in [0, 1], rises, and has two numbers to learn; steps would need more."""
    pairs = [
        (said, found, one.group)
        for one in cases
        if len(one.expected_iou) == len(one.ious)
        for said, found in zip(one.expected_iou, one.ious, strict=True)
    ]
    if not pairs:
        return None
    return fit_scaling([said for said, _, _ in pairs], [found for _, found, _ in pairs], [name for *_, name in pairs])


def _presence(cases: Sequence[Case]) -> FittedScaling | None:
    told = [(one.presence, one.is_present, one.group) for one in cases if one.presence is not None]
    if not told:
        return None
    return fit_scaling([p for p, _, _ in told], [bool(there) for _, there, _ in told], [name for *_, name in told])


def presence_cut(cases: Sequence[Case], least: int = 1) -> float | None:
    """The lowest cut that divides questions about present and absent things best; None below `least` of a kind."""
    told = [(one.presence, bool(one.is_present)) for one in cases if one.presence is not None]
    there, absent = [p for p, is_there in told if is_there], [p for p, is_there in told if not is_there]
    if min(len(there), len(absent)) < least:
        return None

    def balanced(cut: float) -> float:
        return sum(p >= cut for p in there) / len(there) + sum(p < cut for p in absent) / len(absent)

    return max(PRESENCES, key=lambda cut: (round(balanced(cut), 9), -cut))
