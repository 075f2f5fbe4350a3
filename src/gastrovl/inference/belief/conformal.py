"""Scores of answers whose truth is known, to thresholds that hold for a new group at a stated level.

What is exchangeable is the group (patient, exam, video), not the answer. Each group counts once, each of its answers
one over its size; a group not seen yet counts as the worst. For one true label that is hierarchical conformal
prediction (Lee, Barber and Willett 2023, arXiv:2306.06342) with the score of Sadinle, Lei and Wasserman (JASA 2019);
for several, conformal risk control of the share of true labels missed (Angelopoulos et al. 2022, arXiv:2208.02814) over
groups. With fewer groups than level / (1 - level) nothing but the set of all labels keeps the promise, and that is what
is given.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Literal

import numpy as np
from pydantic import Field

from gastrovl.core.config import Config

_ROUNDING = 1e-9
OWN_GROUPS = 20


class LabelSets(Config):
    """How label sets are made, and what for.

    Attributes:
        kind: "one": the set holds the true label with probability `level`. "several": of the true labels it holds the
            share `level` on average.
        least: Labels of at least this calibrated probability are in the set.
        of_answer: The same for sets whose likeliest label is this one, where it had OWN_GROUPS groups of its own.
        groups: On which it was fitted.
        is_informative: False where there were too few groups, so that every label is in the sets made by `least`.
    """

    kind: Literal["one", "several"]
    level: float = Field(gt=0, lt=1)
    least: float = Field(ge=0, le=1)
    of_answer: dict[str, float] = Field(default_factory=dict)
    groups: int
    is_informative: bool

    def __call__(self, probabilities: Mapping[str, float]) -> tuple[str, ...]:
        """The set, likeliest first; it always holds the likeliest label."""
        ordered = sorted(probabilities, key=lambda name: -probabilities[name])
        least = self.of_answer.get(ordered[0], self.least) - _ROUNDING
        return tuple(name for place, name in enumerate(ordered) if place == 0 or probabilities[name] >= least)


def hierarchical_quantile(scores: Sequence[float], groups: Sequence[str], level: float) -> float:
    """The least q such that a new group's answer scores at most q with probability `level`; infinite if none is.

    Args:
        scores: Higher is stranger, (answers,).
        groups: Of each answer, (answers,).
    """
    sizes = dict.fromkeys(groups, 0)
    for name in groups:
        sizes[name] += 1
    order = np.argsort(np.asarray(scores, dtype=np.float64), kind="stable")
    reached = 0.0
    for place in order.tolist():
        reached += 1.0 / ((len(sizes) + 1) * sizes[groups[place]])
        if reached >= level - _ROUNDING:
            return float(scores[place])
    return float("inf")


def fit_one(
    probabilities: Sequence[Mapping[str, float]], truth: Sequence[str], groups: Sequence[str], level: float
) -> LabelSets:
    """Sets for answers that name one thing; the score of an answer is one minus the probability of the true label.

    Answers whose likeliest label is common are a matter of their own, and the others another: hundreds of easy polyps
    would otherwise make up for everything rare (Mondrian conformal prediction, Vovk et al. 2005, chapter 4.5).
    """
    missed = [1.0 - one.get(name, 0.0) for one, name in zip(probabilities, truth, strict=True)]
    likeliest = [max(one.items(), key=itemgetter(1))[0] for one in probabilities]
    seen = {name: {group for group, top in zip(groups, likeliest, strict=True) if top == name} for name in likeliest}
    own = sorted(name for name, some in seen.items() if len(some) >= OWN_GROUPS)

    def cut(rows: Sequence[int]) -> float:
        return hierarchical_quantile([missed[row] for row in rows], [groups[row] for row in rows], level)

    rest = cut([row for row, top in enumerate(likeliest) if top not in own])
    of_answer = {name: cut([row for row, top in enumerate(likeliest) if top == name]) for name in own}
    return LabelSets(
        kind="one",
        level=level,
        least=max(0.0, 1.0 - rest),
        of_answer={name: max(0.0, 1.0 - value) for name, value in of_answer.items()},
        groups=len(set(groups)),
        is_informative=rest < 1.0,
    )


def fit_several(
    probabilities: Sequence[Mapping[str, float]], truth: Sequence[frozenset[str]], groups: Sequence[str], level: float
) -> LabelSets:
    """Sets for answers that name any number of things: the highest cut at which few true labels are missed.

    A mean over groups of the mean share missed, r, over n groups keeps the promise if (n r + 1) / (n + 1) is at most
    1 - level. The likeliest label counts as missed where it lies below the cut although a set always holds it.
    """
    count = len(set(groups))
    of_true = [[one.get(name, 0.0) for name in names] for one, names in zip(probabilities, truth, strict=True)]
    for cut in sorted({value for values in of_true for value in values}, reverse=True):
        missed: dict[str, list[float]] = {name: [] for name in groups}
        for values, name in zip(of_true, groups, strict=True):
            missed[name].append(sum(value < cut for value in values) / len(values) if values else 0.0)
        risk = sum(sum(shares) / len(shares) for shares in missed.values())
        if (risk + 1.0) / (count + 1) <= 1 - level + _ROUNDING:
            return LabelSets(kind="several", level=level, least=cut, groups=count, is_informative=cut > 0.0)
    return LabelSets(kind="several", level=level, least=0.0, groups=count, is_informative=False)


def covered(sets: Sequence[Sequence[str]], truth: Sequence[frozenset[str]]) -> list[float]:
    """The share of the true labels that each set holds, in [0, 1]."""
    return [len(names & set(some)) / len(names) if names else 1.0 for some, names in zip(sets, truth, strict=True)]
