"""Questions of one task and split, answered by the model and by the baselines, to scores per dataset and overall."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gastrovl.core.types import Score, Split, Task
from gastrovl.evaluation import tasks
from gastrovl.evaluation.baselines.trivial import Baseline
from gastrovl.evaluation.items import Item
from gastrovl.evaluation.measures.directions import is_better_low
from gastrovl.evaluation.measures.measure import Flags, Measure
from gastrovl.evaluation.measures.texts import WORDS_AND_FACTS, TextScoring
from gastrovl.evaluation.measures.weighted import AnyMeasure, value_of_any
from gastrovl.evaluation.results import ALL, MEAN, BaselineScore
from gastrovl.evaluation.statistics.intervals import Interval, intervals, mean_interval

CONSTANT = "one confidence for all"


@dataclass(frozen=True)
class Scored:
    """All scores of one task and split, and those of its baselines one by one."""

    scores: list[Score]
    baselines: list[BaselineScore]


@dataclass(frozen=True)
class _Block:
    """The part of the questions that one line of a table is about, with what was found there for each measure."""

    dataset: str
    values: list[float | None]
    intervals: list[Interval]
    n: list[int]
    n_unparsed: list[int]
    baselines: dict[str, list[float | None]]  # name -> value of each measure
    reasons: list[str | None]


def score_task(
    task: Task,
    split: Split,
    items: Sequence[Item],
    rivals: Sequence[Baseline],
    *,
    resamples: int,
    seed: int,
    how: TextScoring = WORDS_AND_FACTS,
) -> Scored:
    """Score the replies to the questions of one task and split.

    Every metric is given per dataset ("source"), over all conversations ("all") and, where there are several datasets,
    as their unweighted mean ("mean"), in which a small dataset counts as much as a large one.

    Args:
        how: By what captions and reports are scored.

    Raises:
        MissingExtraError: A library that scores texts is not installed.
    """
    asked, answers = [item.question for item in items], [item.answer for item in items]
    is_right = tasks.verdicts(task, items)
    own, *others = tasks.measures_of_each(task, asked, [answers, *(rival.answers for rival in rivals)], how)
    measures: list[AnyMeasure] = [*own, *tasks.measures_of_replies(task, items, is_right)]
    of_rivals = {rival.name: some for rival, some in zip(rivals, others, strict=True)}
    groups = [one.group for one in asked]
    sources = np.array([one.source for one in asked], dtype=object)
    is_unparsed = tasks.unparsed(answers)

    def block(dataset: str, rows: Flags) -> _Block:
        found = intervals(measures, groups, resamples=resamples, seed=seed, rows=rows)
        chance = tasks.chance_of_replies(task, items, is_right, np.flatnonzero(rows).tolist())
        return _block(dataset, rows, measures, found, _of_rivals(measures, of_rivals, chance, rows), is_unparsed)

    per_dataset = [block(name, sources == name) for name in sorted(set(sources))]
    overall = block(ALL, np.ones(len(asked), dtype=np.bool_))
    blocks = [*per_dataset, overall, *([_mean_block(per_dataset, measures)] if len(per_dataset) > 1 else [])]
    names = [measure.metric for measure in measures]
    return Scored(
        scores=[score for one in blocks for score in _scores(task, split, names, one)],
        baselines=[score for one in blocks for score in _baseline_scores(task, split, names, one)],
    )


def _of_rivals(
    measures: Sequence[AnyMeasure],
    rivals: dict[str, list[Measure]],
    chance: dict[str, float | None],
    rows: Flags,
) -> dict[str, list[float | None]]:
    """The value of each measure for every rival, None where a rival has no such thing."""
    found = {name: {one.metric: value_of_any(one, rows) for one in some} for name, some in rivals.items()}
    if any(measure.metric in chance for measure in measures):
        found[CONSTANT] = dict(chance)
    return {name: [known.get(measure.metric) for measure in measures] for name, known in found.items()}


def _block(
    dataset: str,
    rows: Flags,
    measures: Sequence[AnyMeasure],
    found: list[Interval],
    rivals: dict[str, list[float | None]],
    is_unparsed: Flags,
) -> _Block:
    values = [value_of_any(measure, rows) for measure in measures]
    return _Block(
        dataset=dataset,
        values=values,
        intervals=found,
        n=[int((rows & measure.applies).sum()) for measure in measures],
        n_unparsed=[int((rows & measure.applies & is_unparsed).sum()) for measure in measures],
        baselines=rivals,
        reasons=[
            measure.undefined if value is None else interval.reason
            for measure, value, interval in zip(measures, values, found, strict=True)
        ],
    )


def _mean_block(parts: Sequence[_Block], measures: Sequence[AnyMeasure]) -> _Block:
    """Unweighted means over the datasets in which each measure is defined."""
    every = range(len(measures))
    used = [[part for part in parts if part.values[index] is not None] for index in every]
    values = [_mean([part.values[index] for part in used[index]]) for index in every]
    intervals = [
        mean_interval([part.intervals[index] for part in used[index]]) if used[index] else Interval(None, None, None)
        for index in every
    ]
    return _Block(
        dataset=MEAN,
        values=values,
        intervals=intervals,
        n=[sum(part.n[index] for part in parts) for index in every],
        n_unparsed=[sum(part.n_unparsed[index] for part in parts) for index in every],
        baselines={
            name: [_mean([part.baselines[name][index] for part in used[index]]) for index in every]
            for name in parts[0].baselines
        },
        reasons=[_mean_reason(used[index], parts, measures[index], intervals[index]) for index in every],
    )


def _mean_reason(used: Sequence[_Block], parts: Sequence[_Block], measure: AnyMeasure, found: Interval) -> str | None:
    if not used:
        return measure.undefined
    if len(used) < len(parts):
        absent = ", ".join(part.dataset for part in parts if part not in used)
        return f"mean over {len(used)} of {len(parts)} datasets; undefined in {absent}"
    return found.reason


def _mean(values: Sequence[float | None]) -> float | None:
    defined = [value for value in values if value is not None]
    return float(np.mean(defined)) if defined else None


def _scores(task: Task, split: Split, names: Sequence[str], block: _Block) -> list[Score]:
    found = []
    for index, metric in enumerate(names):
        value, interval = block.values[index], block.intervals[index]
        best = _best({name: values[index] for name, values in block.baselines.items()}, metric)
        found.append(
            Score(
                task=task,
                metric=metric,
                dataset=block.dataset,
                split=split,
                value=value,
                low=None if value is None else interval.low,
                high=None if value is None else interval.high,
                n=block.n[index],
                n_unparsed=block.n_unparsed[index],
                baseline=best[1] if best else None,
                baseline_name=best[0] if best else None,
                reason=block.reasons[index],
            )
        )
    return found


def _baseline_scores(task: Task, split: Split, names: Sequence[str], block: _Block) -> list[BaselineScore]:
    return [
        BaselineScore(
            task=task, metric=metric, dataset=block.dataset, split=split, name=name, value=value, n=block.n[index]
        )
        for name, values in block.baselines.items()
        for index, (metric, value) in enumerate(zip(names, values, strict=True))
    ]


def _best(values: dict[str, float | None], metric: str) -> tuple[str, float] | None:
    """The best value and its baseline; among equals the first listed."""
    defined = [(name, value) for name, value in values.items() if value is not None]
    if not defined:
        return None
    return (min if is_better_low(metric) else max)(defined, key=lambda pair: pair[1])
