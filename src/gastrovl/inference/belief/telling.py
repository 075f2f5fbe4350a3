"""What was fitted for a task to lines for a terminal."""

from __future__ import annotations

from gastrovl.core.types import Task
from gastrovl.inference.belief.calibration import TaskCalibration, Ways


def words_of(task: Task, one: TaskCalibration) -> list[str]:
    """Confidences, abstention and sets; of each source after what applies where none is said."""
    lines = _task_words(f"{task}", one)
    for name, some in one.of_source.items():
        lines += _task_words(f"{task} from {name}", some)
    return lines


def _task_words(what: str, one: TaskCalibration) -> list[str]:
    lines = [line for name, some in one.of_subject.items() for line in _way_words(f"{what} of {name}", some)]
    lines += _way_words(f"{what} of {'all else' if one.of_subject else 'all'}", one.rest)
    if one.sets is not None and not one.sets.is_informative:
        lines.append(f"{what}: too few groups for label sets at {one.sets.level:g}; they hold every label")
    elif one.sets is not None:
        how = "measured on groups left out" if one.sets.is_measured else "by a bound that holds for any data"
        lines.append(f"{what}: label sets at {one.sets.level:g} from {one.sets.groups} groups, {how}")
    return lines


def _way_words(what_of: str, ways: Ways) -> list[str]:
    lines = []
    for name, way in (("", ways.plain), (", checked", ways.checked)):
        if way is None:
            continue
        fitted, given = way.scaling, way.abstention
        line = f"{what_of}{name}: {fitted.kind}, slope {fitted.scaling.slope:.2f}, shift {fitted.scaling.shift:+.2f}"
        line += "".join(f", {check} -{drop:.2f}" for check, drop in fitted.drops.items())
        line += f" on {fitted.n} answers in {fitted.groups} groups"
        risk = "is shown" if given.is_assured else "is hoped for, not shown: too few groups or too many errors"
        lines.append(f"{line}; answers from {given.threshold:.2f} on are given, risk {given.risk:g} {risk}")
    return lines
