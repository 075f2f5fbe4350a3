"""Levels by judges, passes and people to a table of who agrees with whom, and how far."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from statistics import median

import numpy as np

from gastrovl.core.types import Judgement, Rating
from gastrovl.evaluation.judging.agreement import cohen_kappa, of_many, of_two, spearman
from gastrovl.evaluation.judging.judged import PEOPLE, Agreement
from gastrovl.evaluation.judging.rubric import Criterion
from gastrovl.evaluation.measures.measure import Measure, value
from gastrovl.evaluation.statistics.intervals import intervals

Unit = tuple[str, str]  # conversation id, model
Levels = dict[Unit, int]
_DIGITS = 2  # of what rules say: as many values as there are hundredths keep a table of ranks small


@dataclass(frozen=True)
class Readings:
    """All levels of one criterion.

    Attributes:
        judge: (judge, whether swapped, repeat) to levels.
        people: (rater, whether the hidden repeat) to levels.
    """

    judge: Mapping[tuple[str, bool, int], Levels]
    people: Mapping[tuple[str, bool], Levels]

    @classmethod
    def of(cls, judgements: Iterable[Judgement], ratings: Iterable[Rating], criterion: str) -> Readings:
        """Sort usable judgements of single replies, and ratings, by who gave them."""
        judge: dict[tuple[str, bool, int], Levels] = {}
        for one in judgements:
            if one.scores is not None and len(one.models) == 1:
                levels = judge.setdefault((one.judge, one.is_swapped, one.repeat), {})
                levels[one.conversation_id, one.models[0]] = one.scores[criterion]
        people: dict[tuple[str, bool], Levels] = {}
        for rating in ratings:
            if criterion in rating.scores:
                levels = people.setdefault((rating.rater, rating.is_repeat), {})
                levels[rating.conversation_id, rating.model] = rating.scores[criterion]
        return cls(dict(sorted(judge.items())), dict(sorted(people.items())))

    def judges(self) -> list[str]:
        return sorted({name for name, _, _ in self.judge})

    def raters(self) -> list[str]:
        return [name for name, is_repeat in self.people if not is_repeat]

    def passes(self, judge: str, *, is_swapped: bool | None = None) -> list[Levels]:
        """The passes of a judge, those of one order if it is named."""
        return [
            levels
            for (name, swapped, _), levels in self.judge.items()
            if name == judge and is_swapped in (None, swapped)
        ]

    def by_name(self) -> dict[str, list[Levels]]:
        """The passes of each judge, and the first ratings of all people together."""
        found = {name: self.passes(name) for name in self.judges()}
        people = [levels for (_, is_repeat), levels in self.people.items() if not is_repeat]
        return found | ({PEOPLE: people} if people else {})


def cautious_level(levels: Sequence[int], criterion: Criterion) -> int:
    """The middle one; the worse of two middle ones."""
    ordered = sorted(levels, reverse=criterion.higher_is == "better")
    return ordered[len(ordered) // 2]


def middle_level(levels: Sequence[int]) -> int:
    """The middle one; halfway between two levels the even one, which leans to no side where many are taken."""
    return round(median(levels))


def agreements(
    criterion: Criterion,
    readings: Readings,
    group_of: Mapping[str, str],
    *,
    rules: Mapping[str, Mapping[Unit, float | None]],
    resamples: int,
    seed: int,
) -> list[Agreement]:
    """Every comparison that the levels allow, each with all coefficients.

    Args:
        rules: By name of the rules, what they say of a reply, for the criterion that means the same; empty for the
            others.
    """
    rows: list[Agreement] = []
    middle = {name: _middle(passes) for name, passes in readings.by_name().items()}

    def add(kind: str, between: str, units: Sequence[Unit], measures: Sequence[Measure]) -> None:
        found = intervals(measures, [group_of[unit[0]] for unit in units], resamples=resamples, seed=seed)
        for measure, one in zip(measures, found, strict=True):
            score = value(measure)
            rows.append(
                Agreement(
                    criterion=criterion.name,
                    kind=kind,
                    between=between,
                    coefficient=measure.metric,
                    value=score,
                    low=None if score is None else one.low,
                    high=None if score is None else one.high,
                    n=int(measure.applies.sum()),
                    reason=measure.undefined if score is None else one.reason,
                )
            )

    def compare(kind: str, between: str, pairs: Iterable[tuple[Levels, Levels]]) -> None:
        units, first, second = _joined(pairs)
        if units:
            add(kind, between, units, of_two(first, second, criterion.most + 1))

    for judge in readings.judges():
        compare("judge, order", f"{judge}: as it is / swapped", _by_order(readings, judge))
        compare("judge, repeat", f"{judge}: one asking / the next", _by_repeat(readings, judge))
    for one, other in combinations(readings.judges(), 2):
        compare("judge, judge", f"{one} / {other}", [(middle[one], middle[other])])
    for judge in readings.judges() if PEOPLE in middle else ():
        compare("judge, people", f"{judge} / median of people", [(middle[judge], middle[PEOPLE])])
        for rater in readings.raters() if len(readings.raters()) > 1 else ():
            compare("judge, person", f"{judge} / {rater}", [(middle[judge], readings.people[rater, False])])
    for one, other in combinations(readings.raters(), 2):
        compare("person, person", f"{one} / {other}", [(readings.people[one, False], readings.people[other, False])])
    repeated = [(readings.people[name, False], again) for (name, hidden), again in readings.people.items() if hidden]
    compare("person, again", "same person, reply shown twice", repeated)
    if len(readings.raters()) > 1:
        units, table = _table([readings.people[name, False] for name in readings.raters()])
        add("people, all", f"all {len(readings.raters())} people", units, of_many(table, criterion.most + 1))
    for by, levels in middle.items():
        for name, said in rules.items():
            units = [unit for unit in levels if said.get(unit) is not None]
            if units:
                found = _with_rules([levels[unit] for unit in units], units, said, criterion)
                add("rules", f"{by} / {name}", units, found)
    return rows


def _middle(passes: Sequence[Levels]) -> Levels:
    units = dict.fromkeys(unit for levels in passes for unit in levels)
    return {unit: middle_level([one[unit] for one in passes if unit in one]) for unit in units}


def _by_order(readings: Readings, judge: str) -> list[tuple[Levels, Levels]]:
    return [
        (levels, readings.judge[judge, True, repeat])
        for (name, swapped, repeat), levels in readings.judge.items()
        if name == judge and not swapped and (judge, True, repeat) in readings.judge
    ]


def _by_repeat(readings: Readings, judge: str) -> list[tuple[Levels, Levels]]:
    return [pair for swapped in (False, True) for pair in pairwise(readings.passes(judge, is_swapped=swapped))]


def _joined(pairs: Iterable[tuple[Levels, Levels]]) -> tuple[list[Unit], list[int], list[int]]:
    """What both of a pair rated, all pairs behind each other."""
    found = [(unit, one[unit], other[unit]) for one, other in pairs for unit in one if unit in other]
    return [unit for unit, _, _ in found], [a for _, a, _ in found], [b for _, _, b in found]


def _table(columns: Sequence[Levels]) -> tuple[list[Unit], list[list[float]]]:
    units = list(dict.fromkeys(unit for levels in columns for unit in levels))
    return units, [[float(levels.get(unit, np.nan)) for levels in columns] for unit in units]


def _with_rules(
    levels: Sequence[int], units: Sequence[Unit], rules: Mapping[Unit, float | None], criterion: Criterion
) -> list[Measure]:
    """Rank correlation with the rules; where these say right or wrong alone, kappa of the two upper levels as well."""
    said = [round(float(rules[unit] or 0.0), _DIGITS) for unit in units]
    found = [spearman(levels, said)]
    if set(said) <= {0.0, 1.0}:
        upper = [int(level >= criterion.most - 1) for level in levels]
        kappa = cohen_kappa(upper, [int(one) for one in said], 2)
        name = f"Cohen's kappa, level {criterion.most - 1} or more"
        found.append(Measure(name, kappa.counts, kappa.value_of, kappa.applies, kappa.undefined))
    return found
