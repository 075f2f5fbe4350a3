"""A judge's raw reply to scores or a preference: one JSON object of the form asked for, or why it is none."""

from __future__ import annotations

import json
from typing import Any, Literal, NoReturn

from gastrovl.evaluation.judging.rubric import Rubric

Better = Literal["first", "second", "tie"]
MOST_LETTERS = 20_000
_MOST_REASON = 2000  # letters of the judge's reason that are kept


class UnusableVerdictError(Exception):
    """A judge's reply is not what was asked for; it counts as a failure, never as a score."""


def read_scores(text: str, rubric: Rubric) -> tuple[dict[str, int], str]:
    """Levels by criterion in the rubric's order, and the judge's reason.

    Raises:
        UnusableVerdictError: The reply is no JSON object with exactly these keys, or a level is none.
    """
    content = _object(text, {"reason", *(one.name for one in rubric.criteria)})
    scores = {}
    for criterion in rubric.criteria:
        level = content[criterion.name]
        if not isinstance(level, int) or isinstance(level, bool) or not 0 <= level <= criterion.most:
            raise UnusableVerdictError(f"{criterion.name} is no whole number from 0 to {criterion.most}")
        scores[criterion.name] = level
    return scores, _reason(content)


def read_preference(text: str) -> tuple[Better, str]:
    """Which reply is better, by its place as shown, and the judge's reason.

    Raises:
        UnusableVerdictError: The reply is no JSON object with exactly the two keys, or names another place.
    """
    content = _object(text, {"reason", "better"})
    better = content["better"]
    if better not in ("first", "second", "tie"):
        raise UnusableVerdictError('better is none of "first", "second", "tie"')
    return better, _reason(content)


def _object(text: str, keys: set[str]) -> dict[str, Any]:
    if len(text) > MOST_LETTERS:
        raise UnusableVerdictError(f"longer than {MOST_LETTERS:,} letters")
    try:
        content = json.loads(_unfenced(text), object_pairs_hook=_unique, parse_constant=_no_number)
    except (ValueError, RecursionError):
        raise UnusableVerdictError("no JSON object and nothing else") from None
    if not isinstance(content, dict):
        raise UnusableVerdictError(f"a JSON {type(content).__name__} and no object")
    if missing := sorted(keys - content.keys()):
        raise UnusableVerdictError(f"key {', '.join(missing)} is missing")
    if content.keys() - keys:
        raise UnusableVerdictError("has keys that were not asked for")
    return content


def _unfenced(text: str) -> str:
    """The text without one Markdown fence around the whole of it, which many models cannot leave out."""
    plain = text.strip()
    for opening in ("```json\n", "```\n"):
        if plain.startswith(opening) and plain.endswith("```") and plain.count("```") == 2:
            return plain[len(opening) : -3]
    return plain


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        raise UnusableVerdictError("a key stands there twice")
    return content


def _no_number(name: str) -> NoReturn:
    raise UnusableVerdictError(f"{name} is no number")


def _reason(content: dict[str, Any]) -> str:
    reason = content["reason"]
    if not isinstance(reason, str):
        raise UnusableVerdictError("reason is no text")
    return reason.encode("utf-8", "replace").decode("utf-8")[:_MOST_REASON]  # JSON can hold half a surrogate pair
