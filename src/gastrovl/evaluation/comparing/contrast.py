"""Two models' measures of the same questions to what `comparison.json` says of each metric."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from gastrovl.core.types import Task
from gastrovl.evaluation.comparing.comparison import Compared, Family, Method, RightWrong
from gastrovl.evaluation.measures.measure import Flags, Floats
from gastrovl.evaluation.measures.weighted import AnyMeasure
from gastrovl.evaluation.results import ALL
from gastrovl.evaluation.statistics.paired import Difference, differences, mcnemar, outcomes, sign_flip_p
from gastrovl.evaluation.statistics.power import (
    Clustering,
    clustering,
    detectable_from_error,
    detectable_mean,
    detectable_proportion,
    groups_for_mean,
    groups_for_proportion,
)


def contrasts(
    blank: Compared,
    first: Sequence[AnyMeasure],
    second: Sequence[AnyMeasure],
    groups: Sequence[str],
    *,
    rows: Flags | None,
    headline: str,
    wanted: float | None,
    resamples: int,
    seed: int,
) -> list[Compared]:
    """One record a metric.

    The p value of a headline metric comes from swapping whole groups where it is a mean over questions, as all of ours
    are; that of any other metric from the bootstrap that gives the interval.

    Args:
        blank: Names task, split, dataset and both models; copied for every metric.
        first, second: The reference's measures and the other model's, the same metrics in the same order.
        rows: The questions of `blank.dataset`, or None for all.
        headline: The metric that a verdict is about.
        wanted: A difference for which to work out how many groups would show it.
    """
    found = differences(first, second, groups, resamples=resamples, seed=seed, rows=rows)
    return [
        _compared(blank, one, measures, groups, rows, is_headline=one.metric == headline, wanted=wanted, seed=seed)
        for one, measures in zip(found, zip(first, second, strict=True), strict=True)
    ]


def _compared(
    blank: Compared,
    found: Difference,
    measures: tuple[AnyMeasure, AnyMeasure],
    groups: Sequence[str],
    rows: Flags | None,
    *,
    is_headline: bool,
    wanted: float | None,
    seed: int,
) -> Compared:
    scores = outcomes(measures[0], rows), outcomes(measures[1], rows)
    named = None
    if scores[0] is not None and found.n:
        chosen = measures[0].applies if rows is None else measures[0].applies & rows
        named = [groups[place] for place in np.flatnonzero(chosen).tolist()]
    details: dict[str, Any] = {}
    if scores[0] is not None and scores[1] is not None and named:
        details = _of_questions(scores[0], scores[1], named, wanted, is_text=blank.task in (Task.CAP, Task.REPORT))
    elif found.interval.replicates is not None:
        details = {"detectable": _detectable(found.interval.replicates)}
    p, test = found.p, Method.BOOTSTRAP
    if is_headline and scores[0] is not None and scores[1] is not None and named:
        p, test = sign_flip_p(scores[1] - scores[0], named, seed=seed), Method.SWAPS
    return blank.model_copy(
        update={
            "metric": found.metric,
            "is_headline": is_headline,
            "n": found.n,
            "n_groups": found.groups,
            "reference_value": found.values[0],
            "other_value": found.values[1],
            "difference": found.difference,
            "low": found.interval.low,
            "high": found.interval.high,
            "p": p,
            "test": None if p is None else test,
            "family": _family(blank, is_headline=is_headline),
            "reason": found.interval.reason,
            **details,
        }
    )


def _family(blank: Compared, *, is_headline: bool) -> Family | None:
    if not is_headline:
        return None
    return Family.HEADLINE if blank.dataset == ALL else Family.BY_DATASET


def _of_questions(
    first: Floats, second: Floats, groups: Sequence[str], wanted: float | None, *, is_text: bool
) -> dict[str, Any]:
    """What scores of single questions tell beyond their mean; texts are never right or wrong."""
    gap = second - first
    found = clustering(gap, groups)
    details: dict[str, Any] = {"n_differing": int((gap != 0).sum()), "design_effect": _finite(found.design_effect)}
    if is_text or not np.isin(np.concatenate([first, second]), (0.0, 1.0)).all():
        enough = found.groups > 1 and found.variance > 0
        details["detectable"] = _finite(detectable_mean(found)) if enough else None
        details["groups_needed"] = groups_for_mean(wanted, found) if wanted and enough else None
        return details
    table = mcnemar(first == 1, second == 1, groups)
    discordant = (table.only_first + table.only_second) / len(gap)
    return {
        **details,
        "right_wrong": RightWrong(
            only_reference=table.only_first,
            only_other=table.only_second,
            exact=table.exact,
            mid_p=table.mid_p,
            clustered=table.clustered,
        ),
        "detectable": detectable_proportion(discordant, found),
        "groups_needed": _groups_needed(wanted, discordant, found),
    }


def _groups_needed(wanted: float | None, discordant: float, found: Clustering) -> int | None:
    if not wanted or wanted > discordant or math.isnan(found.design_effect):
        return None
    return groups_for_proportion(wanted, discordant, found)


def _detectable(replicates: Floats) -> float | None:
    defined = replicates[~np.isnan(replicates)]
    return detectable_from_error(float(np.std(defined, ddof=1))) if defined.size > 1 else None


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None
