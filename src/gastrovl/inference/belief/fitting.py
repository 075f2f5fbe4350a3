"""Answers whose truth is known to the calibration of their task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gastrovl.core.types import Task
from gastrovl.inference.belief.abstention import fit_abstention
from gastrovl.inference.belief.calibration import Confidence, TaskCalibration, Ways
from gastrovl.inference.belief.conformal import OWN_GROUPS, LabelSets, fit_one, fit_several
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
    checks: frozenset[str] = frozenset()
    failed: frozenset[str] = frozenset()


def fit_task(task: Task, cases: Sequence[Case], *, level: float, risk: float) -> TaskCalibration:
    """Fit all that the cases of one task can teach.

    Args:
        level: Of label sets.
        risk: Of the answers that are given.

    Raises:
        ValueError: There is no case.
    """
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
    sure = [scaling(one.confidence, one.failed if has_checks else ()) for one in cases]
    found = fit_abstention(sure, [one.is_right for one in cases], [one.group for one in cases], risk)
    return Confidence(scaling=scaling, abstention=found)


def _labels(
    task: Task, cases: Sequence[Case], level: float
) -> tuple[FittedScaling | None, FittedTemperature | None, LabelSets | None]:
    """Probabilities first, then sets made of the calibrated ones."""
    told = [(one, one.probabilities) for one in cases if one.probabilities]
    groups = [one.group for one, _ in told]
    if not told or task is Task.REC:
        return None, None, None
    if task is Task.CLS:
        flat = [(p, name in one.true_terms, one.group) for one, some in told for name, p in some.items()]
        labels = fit_scaling(
            [p for p, _, _ in flat], [is_true for _, is_true, _ in flat], [name for _, _, name in flat]
        )
        presences = [{name: labels(p) for name, p in some.items()} for _, some in told]
        return labels, None, fit_several(presences, [one.true_terms for one, _ in told], groups, level)
    known = [(some, next(iter(one.true_terms)), one.group) for one, some in told if len(one.true_terms) == 1]
    known = [one for one in known if one[1] in one[0]]
    if not known:
        return None, None, None
    names = fit_temperature(
        [some for some, _, _ in known], [term for _, term, _ in known], [name for *_, name in known]
    )
    single = [(names(some), next(iter(one.true_terms)), one.group) for one, some in told if len(one.true_terms) == 1]
    sets = fit_one(
        [some for some, _, _ in single], [term for _, term, _ in single], [name for *_, name in single], level
    )
    return None, names, sets


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
