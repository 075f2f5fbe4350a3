"""Replies of a calibrated checkpoint to what one may believe of them, and pictures to whether it is for them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import Image

from gastrovl.clinical.taxonomy import Taxonomy
from gastrovl.core.errors import ConfigError
from gastrovl.inference.belief.calibration import Calibration, believed, read_calibration
from gastrovl.inference.belief.checks import check_replies
from gastrovl.inference.belief.scope import Floats, Scope, load_scope, unreadable
from gastrovl.inference.belief.verdicts import Belief, ScopeAnswer
from gastrovl.inference.question import Question, Reply

Asks = Callable[[Sequence[Question], int], list[Reply]]
Summarises = Callable[[Sequence[Image.Image]], Floats]


class Believer:
    """Applies a calibration; with `makes_checks` it asks the model the other way round first."""

    def __init__(self, calibration: Calibration, *, makes_checks: bool = False) -> None:
        self.calibration, self.makes_checks = calibration, makes_checks
        self._taxonomy = Taxonomy.load()

    def __call__(self, asks: Asks, questions: Sequence[Question], replies: Sequence[Reply]) -> list[Reply]:
        """The replies with calibrated numbers, each with its `belief`.

        Args:
            asks: Raw replies of the model whose replies these are; called for checks only.
            replies: Raw, in the order of `questions`.
        """
        made = check_replies(asks, questions, replies, self._taxonomy) if self.makes_checks else [()] * len(questions)
        return [
            believed(self.calibration, question, reply, self._taxonomy, checks)
            for question, reply, checks in zip(questions, replies, made, strict=True)
        ]

    @property
    def settings(self) -> dict[str, Any]:
        """What a record of a run says of it."""
        return {"fingerprint": self.calibration.fingerprint, "checks": self.makes_checks}

    def fingerprint(self, of_predictor: str) -> str:
        """That of calibrated predictions, which never mix with raw ones."""
        told = f"{of_predictor} {self.calibration.fingerprint} {self.makes_checks}"
        return hashlib.sha256(told.encode()).hexdigest()


class Trust:
    """All that stands between a model's replies and people: calibration and scope, as far as a checkpoint has them.

    Without a fitted scope pictures are only told to be unreadable.
    """

    def __init__(self, believer: Believer | None = None, scope: Scope | None = None) -> None:
        self.believer, self.scope = believer, scope

    def judge(self, images: Sequence[Image.Image], summarises: Summarises) -> list[ScopeAnswer | None]:
        """What is said of each picture; None where nothing speaks against it and no scope is fitted.

        Args:
            summarises: `scope.tower_summary` of pictures; called only where a scope is fitted.
        """
        if self.scope is None or not images:
            faults = [unreadable(image) for image in images]
            return [None if fault is None else ScopeAnswer("unreadable", fault) for fault in faults]
        summaries = summarises(images)
        return [self.scope.judge(image, summary) for image, summary in zip(images, summaries, strict=True)]

    def __call__(
        self, asks: Asks, summarises: Summarises, questions: Sequence[Question], replies: Sequence[Reply]
    ) -> list[Reply]:
        """Raw replies as far as one may believe them; each picture is judged once."""
        images = list({id(image): image for question in questions for image in question.images}.values())
        scopes = dict(zip(map(id, images), self.judge(images, summarises), strict=True))
        made = self.believer(asks, questions, replies) if self.believer else replies
        found = []
        for question, reply in zip(questions, made, strict=True):
            said = [scopes[id(image)] for image in question.images]
            worst = next((one for one in said if one is not None and one.verdict != "in_scope"), said[0])
            belief = (reply.belief or Belief()).model_copy(update={"scope": worst})
            found.append(replace(reply, belief=None if belief == Belief() else belief))
        return found


def load_believer(folder: Path, answered_as: str, *, makes_checks: bool = False) -> Believer | None:
    """What applies the calibration of a checkpoint folder; None where it has none for this way of answering.

    Args:
        answered_as: `Predictor.fingerprint`: what was fitted on the answers of the perception head says nothing of
            words, and the other way round.

    Raises:
        CheckpointError: The calibration is broken, or was fitted on other weights.
        ConfigError: Checks were asked for, and there is nothing fitted that could use them.
    """
    return _believer(folder, read_calibration(folder), answered_as, makes_checks=makes_checks)


def load_trust(folder: Path, answered_as: Callable[[], str], *, makes_checks: bool = False) -> Trust:
    """Calibration and scope of a checkpoint folder, as far as there are any.

    Args:
        answered_as: Gives `Predictor.fingerprint`; called only where there is a calibration.

    Raises:
        CheckpointError, ConfigError: As `load_believer`, or the scope is broken.
    """
    calibration = read_calibration(folder)
    if calibration is None and not makes_checks:
        return Trust()
    believer = _believer(folder, calibration, answered_as(), makes_checks=makes_checks)
    limits = calibration.scope if calibration else None
    return Trust(believer, None if limits is None else load_scope(folder, limits))


def _believer(
    folder: Path, calibration: Calibration | None, answered_as: str, *, makes_checks: bool
) -> Believer | None:
    is_ours = calibration is not None and calibration.answered_as == answered_as
    if makes_checks and not (is_ours and calibration and any(one.rest.checked for one in calibration.tasks.values())):
        raise ConfigError(
            f"{folder}: has no calibration with checks for this way of answering; run `gastrovl calibrate` first, or "
            "leave out --checks"
        )
    return Believer(calibration, makes_checks=makes_checks) if is_ours and calibration else None
