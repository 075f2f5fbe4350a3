"""Names of measures to whether less of them is better."""

from __future__ import annotations

from gastrovl.evaluation.measures import confidence, facts, wordings

_LOWER_IS_BETTER = confidence.LOWER_IS_BETTER | facts.LOWER_IS_BETTER | wordings.LOWER_IS_BETTER


def is_better_low(metric: str) -> bool:
    """Whether a lower value of the metric is the better one."""
    return metric in _LOWER_IS_BETTER
