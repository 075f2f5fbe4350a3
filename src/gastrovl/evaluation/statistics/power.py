"""Paired outcomes to what their test set could have shown: least detectable difference, and groups needed for another.

Everything here is the large-sample normal approximation, with the variance widened by what clustering costs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from gastrovl.evaluation.measures.measure import Floats
from gastrovl.evaluation.statistics.paired import group_sums

ALPHA = 0.05  # two-sided
POWER = 0.8


@dataclass(frozen=True)
class Clustering:
    """How much questions of one group resemble each other.

    Attributes:
        n, groups: Questions and groups.
        variance: Of one value, as if questions were independent (divisor n - 1).
        design_effect: Variance of the mean with groups as the units over that with questions as the units; 1 where
            every group holds one question, NaN with fewer than two groups.
        icc: Intraclass correlation, by one-way analysis of variance; NaN where no group holds two questions.
    """

    n: int
    groups: int
    variance: float
    design_effect: float
    icc: float


def clustering(values: Floats, groups: Sequence[str]) -> Clustering:
    """Estimate the clustering of values, (questions,), e.g. differences between two models.

    The clustered variance of a mean is the ratio estimator K / (K - 1) sum_g (sum of g - n_g mean)^2 / n^2 (Cochran
    1977, Sampling Techniques, section 9.8); the ICC is (MSB - MSW) / (MSB + (m0 - 1) MSW) (Donner 1986).
    """
    n = len(values)
    sizes, sums = group_sums(np.ones(n), groups), group_sums(values, groups)
    count = len(sizes)
    if count < 2:
        return Clustering(n, count, float(np.var(values, ddof=1)) if n > 1 else math.nan, math.nan, math.nan)
    mean = float(np.mean(values))
    variance = float(np.var(values, ddof=1))
    residuals = sums - sizes * mean
    clustered = count / (count - 1) * float(residuals @ residuals) / n**2
    effect = clustered / (variance / n) if variance > 0 else 1.0
    return Clustering(n, count, variance, effect, _icc(values, sizes, sums, mean))


def detectable_mean(found: Clustering, *, alpha: float = ALPHA, power: float = POWER) -> float:
    """The least difference of two paired means that such data would have shown; NaN with fewer than two groups.

    (z_{1 - alpha / 2} + z_power) times the clustered standard error of the mean difference.
    """
    return detectable_from_error(math.sqrt(found.variance * found.design_effect / found.n), alpha=alpha, power=power)


def detectable_from_error(standard_error: float, *, alpha: float = ALPHA, power: float = POWER) -> float:
    """The least difference that would have been shown, from its standard error, e.g. that of a bootstrap."""
    return _quantiles(alpha, power)[2] * standard_error


def detectable_proportion(
    discordant: float, found: Clustering, *, alpha: float = ALPHA, power: float = POWER
) -> float | None:
    """The least difference of two paired proportions that such data would have shown.

    Solves n = (z_{1 - alpha / 2} sqrt(d) + z_power sqrt(d - difference^2))^2 effect / difference^2 for the difference,
    with d the discordant share (Connor 1987, Biometrics 43:207).

    Args:
        discordant: Share of questions that exactly one of the two models answers rightly, in [0, 1].
        found: The clustering of the differences (-1, 0 or 1).

    Returns:
        None where no difference up to `discordant`, the greatest there can be, would have been shown.
    """
    per_unit = found.n / found.design_effect if found.design_effect else math.inf
    if not discordant > 0 or math.isnan(per_unit) or _units(discordant, discordant, alpha, power) > per_unit:
        return None
    low, high = 0.0, discordant
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if _units(middle, discordant, alpha, power) <= per_unit else (middle, high)
    return high


def groups_for_mean(wanted: float, found: Clustering, *, alpha: float = ALPHA, power: float = POWER) -> int:
    """Groups, each as large as those of `found` on average, that would show a difference of means of `wanted` > 0."""
    questions = _quantiles(alpha, power)[2] ** 2 * found.variance * found.design_effect / wanted**2
    return _groups(questions, found)


def groups_for_proportion(
    wanted: float, discordant: float, found: Clustering, *, alpha: float = ALPHA, power: float = POWER
) -> int:
    """Groups, each as large as those of `found` on average, that would show a difference of proportions of `wanted`.

    Raises:
        ValueError: `wanted` is not in (0, discordant].
    """
    if not 0 < wanted <= discordant:
        raise ValueError(
            f"a difference of {wanted:g} cannot be, where the models differ on {discordant:g} of questions"
        )
    return _groups(_units(wanted, discordant, alpha, power) * found.design_effect, found)


def _groups(questions: float, found: Clustering) -> int:
    return max(2, math.ceil(questions * found.groups / found.n - 1e-9))


def _units(difference: float, discordant: float, alpha: float, power: float) -> float:
    """Independent questions that show a paired difference of proportions."""
    if difference == 0:
        return math.inf
    z_alpha, z_power, _ = _quantiles(alpha, power)
    spread = z_alpha * math.sqrt(discordant) + z_power * math.sqrt(max(0.0, discordant - difference**2))
    return (spread / difference) ** 2


def _quantiles(alpha: float, power: float) -> tuple[float, float, float]:
    """Normal quantiles of the two kinds of error, and their sum."""
    normal = NormalDist()
    z_alpha, z_power = normal.inv_cdf(1 - alpha / 2), normal.inv_cdf(power)
    return z_alpha, z_power, z_alpha + z_power


def _icc(values: Floats, sizes: Floats, sums: Floats, mean: float) -> float:
    n, count = len(values), len(sizes)
    if n == count:
        return math.nan
    between = float((sums**2 / sizes).sum()) - n * mean**2
    within = float(values @ values) - n * mean**2 - between
    of_between, of_within = between / (count - 1), max(0.0, within) / (n - count)
    size = (n - float(sizes @ sizes) / n) / (count - 1)
    total = of_between + (size - 1) * of_within
    return (of_between - of_within) / total if total > 0 else math.nan
