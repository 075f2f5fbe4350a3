"""Raw probabilities and what came true, to a monotone map between them that a few groups cannot bend far.

The map is a line on the logit: `slope` alone is temperature scaling (Guo et al., ICML 2017; the temperature is one over
it), with `shift` it is Platt's (1999). Both are fitted with a prior that leaves probabilities as they are, and answers
of one group count as fewer, since they are right and wrong together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from gastrovl.core.config import Config

Floats = NDArray[np.float64]
Kind = Literal["temperature", "platt"]
SLOPE_SPREAD, SHIFT_SPREAD = 0.5, 1.0  # standard deviations of the normal priors around slope 1 and shift 0
DROP_SPREAD = 1.0  # of the half-normal prior of what a failed check takes from the logit
LIKENESS = 0.1  # correlation assumed between answers of one group; clinical clusters mostly have 0.05 to 0.2
FOLDS = 10
LEAST_SLOPE = 0.05  # the order of confidences is never turned round
_EDGE = 1e-6
_STEPS = 50
_STILL = 1e-12  # a step that changes nothing any more


class Scaling(Config):
    """p to sigmoid(slope * logit(p) + shift)."""

    slope: float = Field(default=1.0, ge=LEAST_SLOPE)
    shift: float = 0.0

    def __call__(self, probability: float) -> float:
        """The calibrated probability; never falls where `probability` rises."""
        return float(sigmoid(self.slope * logit(np.array(probability)) + self.shift))


class FittedScaling(Config):
    """The map chosen, and what decided.

    Attributes:
        nll: Mean negative log-likelihood over answers of groups left out, by kind; "raw" without a map.
        kind: That of the lower one of the two maps.
        drops: What each failed check takes from the logit: the odds fall by the factor exp(-drop).
        n, groups: Answers and groups it was fitted on.
    """

    kind: Kind
    scaling: Scaling
    drops: dict[str, float] = Field(default_factory=dict)
    nll: dict[str, float]
    n: int
    groups: int

    def __call__(self, probability: float, failed: Iterable[str] = ()) -> float:
        """The calibrated probability, after the checks of these names have failed."""
        lost = sum(self.drops.get(name, 0.0) for name in failed)
        return float(sigmoid(logit(np.array(self.scaling(probability))) - lost))


class FittedTemperature(Config):
    """Of probabilities that sum to 1: each to the power of 1 / temperature, and divided by their sum."""

    temperature: float = Field(gt=0)
    nll: dict[str, float]
    n: int
    groups: int

    def __call__(self, probabilities: dict[str, float]) -> dict[str, float]:
        """Calibrated probabilities with the same sum, in the same order of likelihood."""
        names, logs = list(probabilities), np.log(np.maximum(list(probabilities.values()), _EDGE**2))
        return dict(zip(names, _softmax(logs[None] / self.temperature)[0].tolist(), strict=True))


@dataclass(frozen=True)
class _Evidence:
    """Features whose weights are sought, (answers, weights), what came true in [0, 1], and the groups."""

    features: Floats
    truth: Floats
    groups: NDArray[np.int64]

    def of(self, rows: NDArray[np.bool_]) -> _Evidence:
        return _Evidence(self.features[rows], self.truth[rows], self.groups[rows])


def logit(probability: Floats) -> Floats:
    """log(p / (1 - p)), with p kept a millionth away from 0 and 1."""
    kept = np.clip(probability, _EDGE, 1 - _EDGE)
    found: Floats = np.log(kept) - np.log1p(-kept)
    return found


def sigmoid(score: Floats) -> Floats:
    found: Floats = 0.5 * (1 + np.tanh(np.asarray(score, dtype=np.float64) / 2))
    return found


def worth(groups: NDArray[np.int64]) -> float:
    """How much of an independent answer each answer counts, in (0, 1]: one over the design effect (Kish 1965).

    The design effect is 1 + (m - 1) r, with r = LIKENESS and m the mean size of the group that an answer is in.
    """
    sizes = np.bincount(groups)
    mean_size = float((sizes**2).sum() / max(int(sizes.sum()), 1))
    return 1.0 / (1.0 + (mean_size - 1.0) * LIKENESS)


def fit_scaling(probabilities: Sequence[float], truth: Sequence[float], groups: Sequence[str]) -> FittedScaling:
    """The map of the kind whose likelihood is better on groups left out.

    Args:
        probabilities: Raw, (answers,).
        truth: What should have been stated: 1 or 0, or a share such as an IoU, (answers,). Of shares it is the
            fractional logistic regression of Papke and Wooldridge (1996).
        groups: What was seen together, (answers,).

    Raises:
        ValueError: There is no answer.
    """
    if not len(probabilities):
        raise ValueError("no answer to fit on; expected at least one")
    score, told = logit(np.asarray(probabilities, dtype=np.float64)), np.asarray(truth, dtype=np.float64)
    numbers = numbered(groups)
    whole = _Evidence(np.stack([score, np.ones_like(score)], axis=1), told, numbers)
    ways: dict[Kind, Callable[[_Evidence], Floats]] = {"temperature": _temperature, "platt": _platt}
    nll = {"raw": _nll(score, told)}
    for name, way in ways.items():
        nll[name] = _left_out(whole, way)
    kind: Kind = "platt" if nll["platt"] < nll["temperature"] else "temperature"
    slope, shift = ways[kind](whole).tolist()
    return FittedScaling(
        kind=kind,
        scaling=Scaling(slope=slope, shift=shift),
        nll={name: round(value, 6) for name, value in nll.items()},
        n=len(told),
        groups=int(numbers.max()) + 1,
    )


def fit_temperature(
    probabilities: Sequence[dict[str, float]], truth: Sequence[str], groups: Sequence[str]
) -> FittedTemperature:
    """The temperature of probabilities that sum to 1; `truth` names the right one of each, a term of its keys.

    Raises:
        ValueError: There is no answer.
    """
    if not len(probabilities):
        raise ValueError("no answer to fit on; expected at least one")
    names = list(probabilities[0])
    logs = np.log(np.maximum([[one[name] for name in names] for one in probabilities], _EDGE**2))
    right, numbers = np.array([names.index(one) for one in truth]), numbered(groups)

    def of(rows: NDArray[np.bool_]) -> float:
        return _slope_of_softmax(logs[rows], right[rows], worth(numbered(numbers[rows].tolist())))

    lost = []
    for fold in folds(numbers):
        slope = of(~fold)
        lost.append(-np.log(np.maximum(_softmax(slope * logs[fold])[np.arange(fold.sum()), right[fold]], _EDGE**2)))
    raw = -np.log(np.maximum(_softmax(logs)[np.arange(len(right)), right], _EDGE**2))
    return FittedTemperature(
        temperature=1 / of(np.ones(len(right), dtype=np.bool_)),
        nll={"raw": round(float(raw.mean()), 6)}
        | ({"temperature": round(float(np.concatenate(lost).mean()), 6)} if lost else {}),
        n=len(right),
        groups=int(numbers.max()) + 1,
    )


def fit_checked(
    probabilities: Sequence[float], truth: Sequence[float], failed: Sequence[frozenset[str]], groups: Sequence[str]
) -> FittedScaling:
    """As `fit_scaling` by Platt's map, together with what each failed check takes from the logit, at least 0.

    A drop has a half-normal prior of spread DROP_SPREAD: a check that rarely fails, or fails in one group only, takes
    little. One that would raise the confidence where it fails is left out.

    Args:
        failed: The names of the checks that disagreed, (answers,).
    """
    score, told, numbers = logit(np.asarray(probabilities, dtype=np.float64)), np.asarray(truth), numbered(groups)
    names = sorted(set().union(*failed))

    def weights(rows: NDArray[np.bool_]) -> Floats:
        """Slope, shift and a drop for each name."""
        used = list(names)
        while True:
            part = _Evidence(_with_flags(score, failed, used)[rows], told[rows], numbers[rows])
            found = _fit(part, (1.0, 0.0, *[0.0] * len(used)), (SLOPE_SPREAD, SHIFT_SPREAD, *[DROP_SPREAD] * len(used)))
            if not len(used) or found[2:].min() >= 0:
                drops = dict(zip(used, found[2:].tolist(), strict=True))
                return np.array([*found[:2], *(drops.get(name, 0.0) for name in names)])
            used.pop(int(found[2:].argmin()))

    features = _with_flags(score, failed, names)
    lost = [_nll(features[fold] @ weights(~fold), told[fold]) * int(fold.sum()) for fold in folds(numbers)]
    everything = weights(np.ones(len(told), dtype=np.bool_))
    return FittedScaling(
        kind="platt",
        scaling=Scaling(slope=everything[0], shift=everything[1]),
        drops={name: round(value, 6) for name, value in zip(names, everything[2:].tolist(), strict=True)},
        nll={"raw": round(_nll(score, told), 6)} | ({"checked": round(sum(lost) / len(told), 6)} if lost else {}),
        n=len(told),
        groups=int(numbers.max()) + 1,
    )


def numbered(groups: Sequence[object]) -> NDArray[np.int64]:
    """Groups as whole numbers in the order in which they first come."""
    places = {name: place for place, name in enumerate(dict.fromkeys(groups))}
    return np.array([places[name] for name in groups], dtype=np.int64)


def folds(groups: NDArray[np.int64], most: int = FOLDS) -> list[NDArray[np.bool_]]:
    """Answers left out together: whole groups, the largest first, each to the fold that has fewest answers yet."""
    sizes = np.bincount(groups)
    count = min(most, len(sizes))
    load, fold_of = np.zeros(count, dtype=np.int64), np.zeros(len(sizes), dtype=np.int64)
    for group in np.argsort(-sizes, kind="stable").tolist():
        fold_of[group] = int(load.argmin())
        load[fold_of[group]] += sizes[group]
    return [fold_of[groups] == fold for fold in range(count)] if count > 1 else []


def _with_flags(score: Floats, failed: Sequence[frozenset[str]], names: Sequence[str]) -> Floats:
    """The features logit, 1, and minus 1 where a check failed, (answers, 2 + names)."""
    flags = [[-float(name in some) for some in failed] for name in names]
    found: Floats = np.stack([score, np.ones_like(score), *(np.array(flag) for flag in flags)], axis=1)
    return found


def _temperature(evidence: _Evidence) -> Floats:
    slope = _fit(_Evidence(evidence.features[:, :1], evidence.truth, evidence.groups), (1.0,), (SLOPE_SPREAD,))
    return np.array([slope[0], 0.0])


def _platt(evidence: _Evidence) -> Floats:
    return _fit(evidence, (1.0, 0.0), (SLOPE_SPREAD, SHIFT_SPREAD))


def _fit(evidence: _Evidence, centre: tuple[float, ...], spread: tuple[float, ...]) -> Floats:
    """Weights of a logistic regression with normal priors, by Newton's method: the objective is convex."""
    middle, precision = np.array(centre), 1 / np.array(spread) ** 2
    kept = worth(numbered(evidence.groups.tolist()))
    weights = middle.copy()
    for _ in range(_STEPS):
        said = sigmoid(evidence.features @ weights)
        gradient = kept * evidence.features.T @ (said - evidence.truth) + precision * (weights - middle)
        bend = kept * (evidence.features.T * (said * (1 - said))) @ evidence.features + np.diag(precision)
        step = np.linalg.solve(bend, gradient)
        length = float(np.abs(step).max())
        weights = weights - step / max(1.0, length)
        if length < _STILL:
            break
    weights[0] = max(weights[0], LEAST_SLOPE)
    return weights


def _left_out(evidence: _Evidence, way: Callable[[_Evidence], Floats]) -> float:
    """Mean loss over answers whose groups had no say; of a single group the prior's own."""
    parts = folds(evidence.groups)
    if not parts:
        return _nll(evidence.features[:, 0], evidence.truth)
    total = sum(
        _nll(evidence.features[fold] @ way(evidence.of(~fold)), evidence.truth[fold]) * int(fold.sum())
        for fold in parts
    )
    return total / len(evidence.truth)


def _nll(scores: Floats, truth: Floats) -> float:
    return float((np.logaddexp(0.0, scores) - truth * scores).mean())


def _slope_of_softmax(logs: Floats, right: NDArray[np.int64], kept: float) -> float:
    """1 / temperature under the same prior, by Newton's method in one variable."""
    slope = 1.0
    for _ in range(_STEPS):
        said = _softmax(slope * logs)
        mean = (said * logs).sum(axis=1)
        gradient = kept * float((mean - logs[np.arange(len(right)), right]).sum()) + (slope - 1) / SLOPE_SPREAD**2
        bend = kept * float(((said * logs**2).sum(axis=1) - mean**2).sum()) + 1 / SLOPE_SPREAD**2
        slope = max(LEAST_SLOPE, slope - max(-1.0, min(1.0, gradient / bend)))
    return slope


def _softmax(scores: Floats) -> Floats:
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    found: Floats = powers / powers.sum(axis=1, keepdims=True)
    return found
