"""Confidences and verdicts to a threshold below which a model says that it does not know, and to what it says then.

The threshold is found by Learn then Test (Angelopoulos et al. 2021, arXiv:2110.01052): thresholds are tested from the
strictest on, and the last one before the first that fails holds with the stated confidence, whatever the model is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from gastrovl.clinical.taxonomy import Taxonomy
from gastrovl.core.config import Config
from gastrovl.inference.belief.scaling import numbered

GRID = tuple(round(1 - step / 100, 2) for step in range(1, 100))  # 0.99, 0.98 .. 0.01
SURE = 0.9  # of the statement that the risk is kept


class Abstention(Config):
    """From which confidence on an answer is given.

    Attributes:
        threshold: Answers of lower calibrated confidence are withheld; above 1 where every answer is.
        risk: Share of the answers given that may be wrong, in the mean over groups.
        is_assured: Whether the groups were enough to show it with confidence `sure`. If not, `threshold` is the lowest
            at which the answers given were wrong no more often than `risk` on the very data it was fitted on.
        kept_groups: Groups with an answer at or above the threshold.
    """

    threshold: float
    risk: float = Field(gt=0, lt=1)
    sure: float = SURE
    is_assured: bool
    kept_groups: int

    def withholds(self, confidence: float) -> bool:
        """Whether an answer of this calibrated confidence is withheld."""
        return confidence < self.threshold


class Fallback(Config):
    """A term, mostly a wider one than was answered, that is likely enough."""

    term: str
    probability: float


def fit_abstention(
    confidences: Sequence[float], is_right: Sequence[bool], groups: Sequence[str], risk: float, sure: float = SURE
) -> Abstention:
    """The lowest threshold whose risk is at most `risk` with confidence `sure`.

    Testing begins at the first threshold that keeps as many groups as could pass without an error; which one that is
    depends on confidences alone.
    """
    assured: tuple[float, int] | None = None
    plain: tuple[float, int] | None = None
    is_testing = True
    sure_of, wrong, numbers = np.asarray(confidences), ~np.asarray(is_right, dtype=np.bool_), numbered(groups)
    for threshold in GRID:
        means = _group_errors(wrong[sure_of >= threshold], numbers[sure_of >= threshold])
        if not means:
            continue
        if is_testing and p_value([0.0] * len(means), risk) <= 1 - sure:
            is_testing = p_value(means, risk) <= 1 - sure
            assured = (threshold, len(means)) if is_testing else assured
        if sum(means) / len(means) <= risk:
            plain = (threshold, len(means))
    threshold, kept = assured or plain or (math.inf, 0)
    return Abstention(
        threshold=min(threshold, 2.0), risk=risk, sure=sure, is_assured=assured is not None, kept_groups=kept
    )


def strictest(parts: Sequence[Abstention]) -> Abstention:
    """For answers of which it is not known which part they belong to: the highest threshold, shown if all are."""
    highest = max(parts, key=lambda one: one.threshold)
    return highest.model_copy(update={"is_assured": all(one.is_assured for one in parts)})


def p_value(losses: Sequence[float], risk: float) -> float:
    """How likely independent losses in [0, 1] of mean `risk` or more would look this good, at most.

    Of zeros and ones it is the binomial tail (Clopper and Pearson 1934). Of others the smaller of Hoeffding's bound and
    Bentkus's (as in Bates et al., Journal of the ACM 2021).
    """
    n, total = len(losses), sum(losses)
    tail = _binomial_tail(math.ceil(total - 1e-9), n, risk)
    if all(loss in (0.0, 1.0) for loss in losses):
        return tail
    mean = min(total / n, risk)
    apart = mean * math.log(mean / risk) if mean > 0 else 0.0
    apart += (1 - mean) * math.log((1 - mean) / (1 - risk)) if mean < 1 else 0.0
    return min(1.0, math.e * tail, math.exp(-n * apart))


def wider_term(
    probabilities: Mapping[str, float], term: str, least: float, taxonomy: Taxonomy, *, is_one: bool
) -> Fallback | None:
    """The narrowest of `term` and the terms above it whose probability reaches `least`; None if the widest does not.

    Args:
        probabilities: Calibrated, of narrow terms by their ids.
        is_one: Whether one of the terms is right, so that probabilities add up. Otherwise each may be there on its own,
            and a wider term is there if any of them is: one minus the product of what they lack.
    """
    for above in (term, *taxonomy.ancestors(term)):
        below = [value for name, value in probabilities.items() if above in (name, *taxonomy.ancestors(name))]
        likely = min(1.0, sum(below)) if is_one else 1.0 - float(np.prod([1.0 - value for value in below]))
        if likely >= least:
            return Fallback(term=above, probability=likely)
    return None


def _group_errors(wrong: NDArray[np.bool_], groups: NDArray[np.int64]) -> list[float]:
    """Share of wrong answers of each group that has one."""
    counts, errors = np.bincount(groups), np.bincount(groups, wrong)
    found: list[float] = (errors[counts > 0] / counts[counts > 0]).tolist()
    return found


def _binomial_tail(count: int, n: int, p: float) -> float:
    """Probability of at most `count` of n."""
    ways = (math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) for k in range(count + 1))
    return min(1.0, sum(math.exp(way + k * math.log(p) + (n - k) * math.log1p(-p)) for k, way in enumerate(ways)))
