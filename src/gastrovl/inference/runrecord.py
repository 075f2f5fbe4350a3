"""A finished file of predictions to its record: who answered, how many replies failed, what it took."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gastrovl import __version__
from gastrovl.core.config import Config
from gastrovl.core.errors import PredictionError
from gastrovl.core.files import write_text
from gastrovl.core.types import Prediction

SCHEMA = "gastrovl/predict_run/1"


class PredictRun(Config):
    """What stands beside a file of predictions.

    Attributes:
        fingerprint: Of the model's weights or description.
        conversations: SHA-256 of the file of conversations.
        replies, failures, cut: All replies; those for which none came that can be used; those cut at the limit.
        prompt_tokens, completion_tokens, cost: Sums over the replies that state them; None where none does.
        reply_seconds: Sum over all replies, which overlap where several are asked at once.
        asked_now, seconds_now: Of the call that finished the file; a run that was interrupted had earlier ones.
        description: The model's description, if it has one, and how closely its perception head looked, if more than
            usual (`zoom`, `views`).
    """

    model: str
    fingerprint: str
    conversations: str
    replies: int
    failures: int
    cut: int
    attempts: int | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cost: float | None = None
    currency: str | None = None
    reply_seconds: float
    asked_now: int
    seconds_now: float
    created: str
    version: str
    description: dict[str, Any] | None = None

    def lines(self) -> list[str]:
        """The record in words for a terminal."""
        speed = f", {self.asked_now / self.seconds_now:.2f} replies/s" if self.asked_now and self.seconds_now else ""
        found = [f"{self.replies:,} replies; {self.asked_now:,} asked now in {self.seconds_now:.1f} s{speed}"]
        if self.failures:
            found.append(f"{self.failures:,} without a usable reply, which count as unread (--retry-failed asks again)")
        if self.cut:
            found.append(f"{self.cut:,} cut at the token limit")
        if self.prompt_tokens is not None or self.completion_tokens is not None:
            found.append(f"{self.prompt_tokens or 0:,} tokens read and {self.completion_tokens or 0:,} written")
        if self.cost is not None:
            found.append(f"cost: {self.cost:.4f} {self.currency}")
        return found


def run_path(predictions: Path) -> Path:
    """Where the record of a file of predictions stands: NAME.run.json beside NAME.jsonl."""
    return Path(predictions).with_suffix(".run.json")


def summarise(
    predictions: Iterable[Prediction],
    *,
    model: str,
    fingerprint: str,
    conversations: str,
    asked_now: int,
    seconds_now: float,
    description: dict[str, Any] | None = None,
    currency: str | None = None,
    now: datetime | None = None,
) -> PredictRun:
    """The record of some replies; `now` defaults to the clock."""
    replies = list(predictions)
    usages = [one.usage for one in replies if one.usage is not None]
    costs = [usage.cost for usage in usages if usage.cost is not None]
    return PredictRun(
        model=model,
        fingerprint=fingerprint,
        conversations=conversations,
        replies=len(replies),
        failures=sum(one.stop_reason == "failed" for one in replies),
        cut=sum(one.stop_reason == "length" for one in replies),
        attempts=sum(usage.attempts for usage in usages) if usages else None,
        prompt_tokens=_total([usage.prompt_tokens for usage in usages]),
        completion_tokens=_total([usage.completion_tokens for usage in usages]),
        cost=sum(costs) if costs else None,
        currency=currency if costs else None,
        reply_seconds=round(sum(one.seconds for one in replies), 3),
        asked_now=asked_now,
        seconds_now=round(seconds_now, 3),
        created=(now or datetime.now(UTC)).isoformat(timespec="seconds"),
        version=__version__,
        description=description,
    )


def write_run(predictions: Path, run: PredictRun) -> None:
    """Write the record beside its file.

    Raises:
        OutputError: It cannot be written.
    """
    content = {"schema": SCHEMA, **run.model_dump(mode="json", exclude_none=True)}
    write_text(run_path(predictions), json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def read_run(predictions: Path) -> PredictRun:
    """The record beside a file of predictions.

    Raises:
        PredictionError: There is none, or it is not one of ours.
    """
    path = run_path(predictions)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content.pop("schema") != SCHEMA:
            raise ValueError("another schema")
        return PredictRun.model_validate(content)
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise PredictionError(
            f"{path}: no record of who answered ({error}); expected the file that `gastrovl predict` writes beside its "
            "predictions"
        ) from error


def _total(counts: list[int | None]) -> int | None:
    known = [count for count in counts if count is not None]
    return sum(known) if known else None
