"""What one may believe of an answer, and whether the picture is one the model is for; all that comes beside a reply."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from gastrovl.core.config import Config
from gastrovl.inference.abstention import Fallback

Verdict = Literal["in_scope", "unreadable", "unlike", "outside"]


@dataclass(frozen=True)
class Check:
    """One comparison of an answer with another of the same model.

    Attributes:
        name: "single": one place is given, not several, each of which has to be right. "named": every box is named as
            what was looked for. "in_frame": the labels of the whole frame hold the term, or lack what is said to be
            absent. "found_again": the name of a region is located where the region is. "caption": a caption names the
            same findings.
        detail: What was found, for a person.
    """

    name: str
    passed: bool
    detail: str


@dataclass(frozen=True)
class ScopeAnswer:
    """What is said of one picture.

    Attributes:
        verdict: "unreadable" by its pixels, "unlike" anything the model learnt from, "outside" of what it is for, or
            "in_scope".
        reason: For a person.
        strangeness: Distance over the greatest that counts as like the training data; None where it is not fitted.
        outsideness: The discriminant less its threshold; None without examples of what is outside.
    """

    verdict: Verdict
    reason: str
    strangeness: float | None = None
    outsideness: float | None = None


class Belief(Config):
    """What one may believe of a reply, whose text is the model's own.

    Attributes:
        is_calibrated: Whether the numbers of the reply were fitted on held-out data; if not, only `scope` is known.
        label_set: Ids of the labels that may be true at `level`, likeliest first; None for boxes and free text.
        level: Of a region, how often the set holds the name; of a whole image, the share of what is there that it
            holds. None without a set.
        is_withheld: Whether the answer is too unsure to be given at `risk`.
        fallback: Of a withheld label answer, what is sure enough: the labels themselves or wider terms.
        risk: Share of the answers given that may be wrong; None where nothing was fitted for the task.
        is_assured: Whether the groups were enough to show the risk; None as `risk`.
        checks: Which other answers of the model agree; empty where none were made.
        scope: Of the picture; None where nothing is known that speaks against it, and nothing was fitted.
    """

    is_calibrated: bool = False
    label_set: tuple[str, ...] | None = None
    level: float | None = None
    is_withheld: bool = False
    fallback: tuple[Fallback, ...] = ()
    risk: float | None = None
    is_assured: bool | None = None
    checks: tuple[Check, ...] = ()
    scope: ScopeAnswer | None = None
