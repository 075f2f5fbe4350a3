"""Judgements and people's ratings to means, harm rates, agreement, order effects and failures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from gastrovl.core.errors import RecordError
from gastrovl.core.types import Judgement, Rating, Task
from gastrovl.evaluation.judging.comparisons import Levels, Readings, Unit, agreements, cautious_level
from gastrovl.evaluation.judging.judged import (
    ALL,
    CriterionMean,
    Failures,
    HarmRate,
    Judged,
    OrderShift,
    Preference,
)
from gastrovl.evaluation.judging.preferences import preferences
from gastrovl.evaluation.judging.rubric import Criterion
from gastrovl.evaluation.measures.measure import mean_measure, value
from gastrovl.evaluation.statistics.intervals import LEVEL, intervals
from gastrovl.evaluation.statistics.proportions import exact_interval
from gastrovl.evaluation.tasks import TEXT_TASKS

RULES, FACTS = "rules", "fact F1"  # that answers are compared with: right or wrong, and a degree
_NOTHING = "nothing was rated"


@dataclass(frozen=True)
class _Draws:
    """How intervals are drawn."""

    group_of: Mapping[str, str]
    resamples: int
    seed: int

    def mean(self, values: Mapping[Unit, float]) -> tuple[float | None, float | None, float | None, str | None]:
        """Mean over replies with its interval over groups, and a reason for doubt."""
        if not values:
            return None, None, None, _NOTHING
        measure = mean_measure("mean", np.array(list(values.values())), np.ones(len(values), dtype=np.bool_), _NOTHING)
        groups = [self.group_of[unit[0]] for unit in values]
        found = intervals([measure], groups, resamples=self.resamples, seed=self.seed)[0]
        return value(measure), found.low, found.high, found.reason


@dataclass
class _Failed:
    asked: int = 0
    reasons: Counter[str] = field(default_factory=Counter)


def summarise(
    judgements: Sequence[Judgement],
    ratings: Sequence[Rating],
    *,
    criteria: Sequence[Criterion],
    group_of: Mapping[str, str],
    task_of: Mapping[str, Task],
    rules: Mapping[Unit, float | None] | None = None,
    resamples: int = 1000,
    seed: int = 7,
) -> Judged:
    """Everything that judgements and ratings say.

    Args:
        judgements, ratings: Either may be empty.
        criteria: Of the rubric, for names, levels and direction.
        group_of, task_of: By conversation id.
        rules: (conversation id, model) to what the rules say of that reply, in [0, 1]. Of captions and reports that is
            a degree and of other tasks right or wrong, so that the two are compared apart.

    Raises:
        RecordError: A rating or judgement is of an unknown conversation or criterion, or a rubric was used in two
            versions.
    """
    everything: list[Judgement | Rating] = [*judgements, *ratings]
    _check(everything, criteria, group_of)
    draws = _Draws(group_of, resamples, seed)
    readings = {one.name: Readings.of(judgements, ratings, one.name) for one in criteria}
    found_preferences = preferences(judgements, group_of, resamples=resamples, seed=seed)
    return Judged(
        models=tuple(sorted({name for one in judgements for name in one.models} | {one.model for one in ratings})),
        judges=tuple(sorted({one.judge for one in judgements})),
        raters=tuple(sorted({one.rater for one in ratings})),
        rubrics=tuple(sorted({one.rubric for one in everything})),
        resamples=resamples,
        seed=seed,
        level=LEVEL,
        means=tuple(row for one in criteria for row in _means(one, readings[one.name], task_of, draws)),
        harms=tuple(row for one in criteria if one.higher_is == "worse" for row in _harms(one, readings[one.name])),
        agreements=tuple(
            row
            for place, one in enumerate(criteria)
            for row in agreements(
                one,
                readings[one.name],
                group_of,
                rules=_by_kind(rules or {}, task_of) if place == 0 else {},
                resamples=resamples,
                seed=seed,
            )
        ),
        shifts=tuple(row for one in criteria for row in _shifts(one, readings[one.name], draws)),
        preferences=tuple(found_preferences),
        failures=tuple(_failures(judgements)),
        notes=tuple(_notes(judgements, ratings, found_preferences)),
    )


def _by_kind(rules: Mapping[Unit, float | None], task_of: Mapping[str, Task]) -> dict[str, dict[Unit, float | None]]:
    found: dict[str, dict[Unit, float | None]] = {}
    for unit, said in rules.items():
        found.setdefault(FACTS if task_of[unit[0]] in TEXT_TASKS else RULES, {})[unit] = said
    return found


def _check(everything: Sequence[Judgement | Rating], criteria: Sequence[Criterion], known: Mapping[str, str]) -> None:
    most = {one.name: one.most for one in criteria}
    versions: dict[str, set[str]] = {}
    for one in everything:
        if one.conversation_id not in known:
            raise RecordError(
                f"conversation {one.conversation_id!r} was rated but is not among the conversations; pass the "
                "file that was rated"
            )
        name, _, version = one.rubric.partition("/")
        versions.setdefault(name, set()).add(version)
        wrong = [key for key, level in (one.scores or {}).items() if key not in most or level > most[key]]
        if wrong:
            raise RecordError(
                f"conversation {one.conversation_id!r}: {wrong[0]} {(one.scores or {})[wrong[0]]} fits no criterion of "
                f"the rubric; expected one of {', '.join(f'{key} 0-{top}' for key, top in most.items())}"
            )
    mixed = [name for name, some in versions.items() if len(some) > 1]
    if mixed:
        raise RecordError(
            f"rubric {mixed[0]!r} was used in versions {sorted(versions[mixed[0]])}; summarise one at a time"
        )


def _means(criterion: Criterion, readings: Readings, task_of: Mapping[str, Task], draws: _Draws) -> list[CriterionMean]:
    rows = []
    for by, passes in readings.by_name().items():
        of_unit = {unit: float(np.mean(levels)) for unit, levels in _gathered(passes).items()}
        for model in sorted({unit[1] for unit in of_unit}):
            mine = {unit: level for unit, level in of_unit.items() if unit[1] == model}
            tasks = sorted({task_of[unit[0]].value for unit in mine})
            for task in [ALL, *(tasks if len(tasks) > 1 else ())]:
                some = {unit: level for unit, level in mine.items() if task in (ALL, task_of[unit[0]].value)}
                mean, low, high, reason = draws.mean(some)
                rows.append(
                    CriterionMean(
                        model=model,
                        criterion=criterion.name,
                        by=by,
                        task=task,
                        value=mean,
                        low=low,
                        high=high,
                        most=criterion.most,
                        n=len(some),
                        reason=reason,
                    )
                )
    return rows


def _harms(criterion: Criterion, readings: Readings) -> list[HarmRate]:
    rows = []
    for by, passes in readings.by_name().items():
        of_unit = {unit: cautious_level(levels, criterion) for unit, levels in _gathered(passes).items()}
        for model in sorted({unit[1] for unit in of_unit}):
            mine = [level for unit, level in of_unit.items() if unit[1] == model]
            for level in criterion.levels[1:]:
                count = sum(one >= level.value for one in mine)
                low, high = exact_interval(count, len(mine))
                rows.append(
                    HarmRate(
                        model=model,
                        criterion=criterion.name,
                        by=by,
                        level=level.value,
                        name=level.name,
                        count=count,
                        n=len(mine),
                        low=low,
                        high=high,
                    )
                )
    return rows


def _shifts(criterion: Criterion, readings: Readings, draws: _Draws) -> list[OrderShift]:
    rows = []
    for judge in readings.judges():
        plain = _gathered(readings.passes(judge, is_swapped=False))
        swapped = _gathered(readings.passes(judge, is_swapped=True))
        shift = {unit: float(np.mean(swapped[unit]) - np.mean(plain[unit])) for unit in plain if unit in swapped}
        if shift:
            mean, low, high, _ = draws.mean(shift)
            rows.append(OrderShift(judge=judge, criterion=criterion.name, value=mean, low=low, high=high, n=len(shift)))
    return rows


def _gathered(passes: Sequence[Levels]) -> dict[Unit, list[int]]:
    """All levels of each reply, in the order of the passes."""
    found: dict[Unit, list[int]] = {}
    for levels in passes:
        for unit, level in levels.items():
            found.setdefault(unit, []).append(level)
    return found


def _failures(judgements: Sequence[Judgement]) -> list[Failures]:
    of_judge: dict[str, _Failed] = {}
    for one in judgements:
        counted = of_judge.setdefault(one.judge, _Failed())
        counted.asked += 1
        if one.failure:
            counted.reasons[one.failure] += 1
    return [
        Failures(
            judge=judge, asked=one.asked, failed=one.reasons.total(), reasons=dict(sorted(one.reasons.most_common(20)))
        )
        for judge, one in sorted(of_judge.items())
    ]


def _notes(judgements: Sequence[Judgement], ratings: Sequence[Rating], found: Sequence[Preference]) -> list[str]:
    notes = []
    if judgements and not ratings:
        notes.append(
            "No ratings by people were given, so nothing here says how far the judge can be trusted. Have a sample "
            "rated (`gastrovl rate export`) before a number of the judge is quoted."
        )
    overlap = sorted({one.judge for one in judgements} & {name for one in judgements for name in one.models})
    if overlap:
        notes.append(f"{overlap[0]} judges its own replies; models tend to prefer their own words.")
    for one in found:
        if one.pairs and one.inconsistent > one.pairs / 4:
            notes.append(
                f"{one.judge} changed its mind with the order in {one.inconsistent} of {one.pairs} pairs; these count "
                "as ties, and a judge that does so often says little about the models."
            )
    failed = sum(one.failure is not None for one in judgements)
    if failed > len(judgements) / 20:
        notes.append(f"{failed} of {len(judgements)} judgements are unusable; what is left may be no fair sample.")
    if {one.rater for one in ratings} and len({one.rater for one in ratings}) < 2:
        notes.append("Only one person rated, so agreement between people is unknown.")
    return notes
