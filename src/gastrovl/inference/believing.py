"""Replies of a calibrated checkpoint to what one may believe of them, several at once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from gastrovl.clinical.taxonomy import Taxonomy
from gastrovl.core.errors import ConfigError
from gastrovl.inference.calibration import Believed, Calibration, believed, read_calibration
from gastrovl.inference.checks import check_replies
from gastrovl.inference.question import Question, Reply

Asks = Callable[[Sequence[Question], int], list[Reply]]


class Believer:
    """Applies a calibration; with `makes_checks` it asks the model the other way round first."""

    def __init__(self, calibration: Calibration, *, makes_checks: bool = False) -> None:
        self.calibration, self.makes_checks = calibration, makes_checks
        self._taxonomy = Taxonomy.load()

    def __call__(self, asks: Asks, questions: Sequence[Question], replies: Sequence[Reply]) -> list[Believed]:
        """What one may believe of each reply.

        Args:
            asks: `Predictor.answer` of the model whose replies these are; called for checks only.
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


def load_believer(folder: Path, answered_as: str, *, makes_checks: bool = False) -> Believer | None:
    """What applies the calibration of a checkpoint folder; None where it has none for this way of answering.

    Args:
        answered_as: `Predictor.fingerprint`: what was fitted on the answers of the perception head says nothing of
            words, and the other way round.

    Raises:
        CheckpointError: The calibration is broken, or was fitted on other weights.
        ConfigError: Checks were asked for, and there is nothing fitted that could use them.
    """
    calibration = read_calibration(folder)
    is_ours = calibration is not None and calibration.answered_as == answered_as
    if makes_checks and not (is_ours and calibration and any(one.rest.checked for one in calibration.tasks.values())):
        raise ConfigError(
            f"{folder}: has no calibration with checks for this way of answering; run `gastrovl calibrate` first, or "
            "leave out --checks"
        )
    return Believer(calibration, makes_checks=makes_checks) if is_ours and calibration else None
