"""Scores of answers whose truth is known, to thresholds that hold for a new group at a stated level.

What is exchangeable is the group (patient, exam, video), not the answer. Each group counts once, each of its answers
one over its size; a group not seen yet counts as the worst. For one true label that is hierarchical conformal
prediction (Lee, Barber and Willett 2023, arXiv:2306.06342) with the score of Sadinle, Lei and Wasserman (JASA 2019);
for several, conformal risk control of the share of true labels missed (Angelopoulos et al. 2022, arXiv:2208.02814) over
groups. With fewer groups than level / (1 - level) nothing but the set of all labels keeps the promise, and that is what
is given.

Counting the new group as the worst makes sets larger than they need be where groups are much alike. From OWN_GROUPS
groups on the share is lowered, at most to `level`, as far as groups left out in turn are still held at `level`. That is
measured, not proved; `is_measured` says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from gastrovl.core.config import Config
from gastrovl.inference.belief.scaling import Floats, numbered

_ROUNDING = 1e-9
_SHARES = 33  # tried between the level and the share that is sure to hold it
OWN_GROUPS = 20
SOURCE_GROUPS = 10  # of a source, which is known beforehand and not found in the answers; 9 are the fewest for 0.9


class LabelSets(Config):
    """How label sets are made, and what for.

    Attributes:
        kind: "one": the set holds the true label with probability `level`. "several": of the true labels it holds the
            share `level` on average.
        least: Labels of at least this calibrated probability are in the set.
        of_answer: The same for sets whose likeliest label is this one, where it had OWN_GROUPS groups of its own.
        groups: On which it was fitted.
        is_informative: False where there were too few groups, so that every label is in the sets made by `least`.
        is_measured: Whether the level was met by groups left out in turn, and not by the bound that needs no more than
            exchangeable groups.
    """

    kind: Literal["one", "several"]
    level: float = Field(gt=0, lt=1)
    least: float = Field(ge=0, le=1)
    of_answer: dict[str, float] = Field(default_factory=dict)
    groups: int
    is_informative: bool
    is_measured: bool = False

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
    probabilities: Sequence[Mapping[str, float]],
    truth: Sequence[str],
    groups: Sequence[str],
    level: float,
    *,
    divides: bool = True,
) -> LabelSets:
    """Sets for answers that name one thing; the score of an answer is one minus the probability of the true label.

    Answers whose likeliest label is common are a matter of their own, and the others another, where those others are in
    less than half of the groups: hundreds of easy polyps would otherwise make up for everything rare (Mondrian
    conformal prediction, Vovk et al. 2005, chapter 4.5). Without `divides` all answers are one matter.
    """
    missed = np.array([-one.get(name, 0.0) for one, name in zip(probabilities, truth, strict=True)])
    likeliest = [max(one.items(), key=itemgetter(1))[0] for one in probabilities]
    seen = {name: {group for group, top in zip(groups, likeliest, strict=True) if top == name} for name in likeliest}
    own = sorted(name for name, some in seen.items() if len(some) >= OWN_GROUPS)
    others = {group for group, top in zip(groups, likeliest, strict=True) if top not in own}
    if not divides or 2 * len(others) >= len(set(groups)):
        own = []
    numbers = numbered(groups)

    def cut(rows: Sequence[int]) -> tuple[float, bool]:
        return _cut(missed[rows], np.ones(len(rows)), numbered(numbers[rows].tolist()), level)

    rest, is_measured = cut([row for row, top in enumerate(likeliest) if top not in own])
    of_answer = {name: cut([row for row, top in enumerate(likeliest) if top == name])[0] for name in own}
    return LabelSets(
        kind="one",
        level=level,
        least=max(0.0, -rest),
        of_answer={name: max(0.0, -value) for name, value in of_answer.items()},
        groups=len(set(groups)),
        is_informative=rest < 0.0,
        is_measured=is_measured,
    )


def fit_several(
    probabilities: Sequence[Mapping[str, float]], truth: Sequence[frozenset[str]], groups: Sequence[str], level: float
) -> LabelSets:
    """Sets for answers that name any number of things: the highest cut at which few true labels are missed.

    A mean over groups of the mean share missed, r, over n groups keeps the promise if (n r + 1) / (n + 1) is at most
    1 - level. The likeliest label counts as missed where it lies below the cut although a set always holds it.
    """
    rows = [
        (-one.get(name, 0.0), 1.0 / len(names), place)
        for place, (one, names) in enumerate(zip(probabilities, truth, strict=True))
        for name in names
    ]
    rows += [(-1.0, 1.0, place) for place, names in enumerate(truth) if not names]
    scores, weights, places = (np.array(column) for column in zip(*rows, strict=True))
    cut, is_measured = _cut(scores, weights, numbered(groups)[places], level)
    return LabelSets(
        kind="several",
        level=level,
        least=max(0.0, -cut),
        groups=len(set(groups)),
        is_informative=cut < 0.0,
        is_measured=is_measured,
    )


def strictest(whole: LabelSets, parts: Sequence[LabelSets]) -> LabelSets:
    """Sets for answers of which it is not known which part they belong to: large enough for each."""
    return whole.model_copy(
        update={
            "least": min(min((one.least, *one.of_answer.values())) for one in parts),
            "of_answer": {},
            "is_informative": all(one.is_informative for one in parts),
            "is_measured": any(one.is_measured for one in parts),
        }
    )


def covered(sets: Sequence[Sequence[str]], truth: Sequence[frozenset[str]]) -> list[float]:
    """The share of the true labels that each set holds, in [0, 1]."""
    return [len(names & set(some)) / len(names) if names else 1.0 for some, names in zip(sets, truth, strict=True)]


def _cut(scores: Floats, weights: Floats, groups: NDArray[np.int64], level: float) -> tuple[float, bool]:
    """The least score that a share of a group lies at or below, in the mean over groups; and whether it was measured.

    The share is level (n + 1) / n for n groups, which holds for any data, or less: see the head of this module.

    Args:
        weights: Of a score beside the others of its group.
    """
    if not len(scores):
        return float("inf"), False
    count = int(groups.max()) + 1
    order = np.argsort(scores, kind="stable")
    scores, weights, groups = scores[order], (weights / np.bincount(groups, weights)[groups])[order], groups[order]

    def quantile(counted: Floats, share: float) -> float:
        place = int(np.searchsorted(np.cumsum(counted), share - _ROUNDING))
        return float(scores[place]) if place < len(scores) else float("inf")

    def left_out(share: float) -> float:
        held = 0.0
        for group in range(count):
            cut = quantile(np.where(groups == group, 0.0, weights) / (count - 1), share)
            held += float(weights[(groups == group) & (scores <= cut)].sum())
        return held / count

    shares = np.linspace(level, level * (count + 1) / count, _SHARES)
    enough = _SHARES - 1
    if count >= OWN_GROUPS:
        below = -1
        while enough - below > 1:  # what is held rises with the share
            middle = (enough + below) // 2
            below, enough = (
                (below, middle) if left_out(float(shares[middle])) >= level - _ROUNDING else (middle, enough)
            )
    return quantile(weights / count, float(shares[enough])), enough < _SHARES - 1
