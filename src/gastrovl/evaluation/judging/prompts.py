"""A question, its reference and one or two replies to a prompt for a judge model, with all of them fenced as data."""

from __future__ import annotations

import hashlib
import json
import string
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from gastrovl.core.config import Config, load_config
from gastrovl.core.errors import ConfigError
from gastrovl.evaluation.judging.rubric import Criterion, Rubric

MOST_LETTERS = 8000  # of one block; what is longer is cut, and the cut is said
_SLOTS = {"about", "fence", "image", "criteria", "blocks", "form"}
_SEES = "You are shown the picture as well. Where picture and reference seem to differ, the reference counts."
_BLIND = "You are not shown the picture. Do not guess what else it might show."


class _PromptFile(Config):
    rate: str
    compare: str


def rate_prompt(rubric: Rubric, question: str, reference: str, reply: str, *, is_swapped: bool, has_image: bool) -> str:
    """Ask for a level of each criterion; swapped: reply before reference, and criteria from the last to the first."""
    blocks = [("REFERENCE", reference), ("REPLY", reply)]
    criteria = rubric.criteria
    if is_swapped:
        blocks, criteria = blocks[::-1], criteria[::-1]
    levels = ", ".join(f'"{one.name}": {one.span.replace("-", " to ")}' for one in criteria)
    form = f'{{"reason": "one or two sentences", {levels}}}'
    return _filled(_prompts().rate, rubric, criteria, [("QUESTION", question), *blocks], form, has_image=has_image)


def compare_prompt(
    rubric: Rubric, question: str, reference: str, replies: tuple[str, str], *, is_swapped: bool, has_image: bool
) -> str:
    """Ask which of two replies is better; swapped: the second one is shown first."""
    first, second = replies[::-1] if is_swapped else replies
    blocks = [("QUESTION", question), ("REFERENCE", reference), ("FIRST REPLY", first), ("SECOND REPLY", second)]
    form = '{"reason": "one or two sentences", "better": "first" or "second" or "tie"}'
    return _filled(_prompts().compare, rubric, rubric.criteria, blocks, form, has_image=has_image)


def level_lines(criterion: Criterion) -> list[str]:
    """A criterion as lines: its question, then every level."""
    return [
        f"{criterion.name}: {criterion.ask}",
        *(f"  {one.value} ({one.name}): {one.means}" for one in criterion.levels),
    ]


def _filled(
    template: str,
    rubric: Rubric,
    criteria: Sequence[Criterion],
    blocks: Sequence[tuple[str, str]],
    form: str,
    *,
    has_image: bool,
) -> str:
    fence = _fence(blocks)
    return template.format(
        about=rubric.about,
        fence=fence,
        image=_SEES if has_image else _BLIND,
        criteria="\n".join(line for one in criteria for line in level_lines(one)),
        blocks="\n\n".join(f"<<<{name} {fence}>>>\n{_shown(text)}\n<<<END {fence}>>>" for name, text in blocks),
        form=form,
    ).strip()


def _fence(blocks: Sequence[tuple[str, str]]) -> str:
    """A word that no block can hold, since it is a hash of all of them; the same data, the same word."""
    return hashlib.sha256(json.dumps(list(blocks)).encode()).hexdigest()[:16]


def _shown(text: str) -> str:
    if not text.strip():
        return "(nothing at all)"
    if len(text) <= MOST_LETTERS:
        return text
    return f"{text[:MOST_LETTERS]}\n(cut here; {len(text) - MOST_LETTERS:,} more letters are not shown)"


@cache
def _prompts() -> _PromptFile:
    path = Path(__file__).with_name("prompts.yaml")
    content = load_config(path, _PromptFile)
    for key in ("rate", "compare"):
        found = {slot for _, slot, _, _ in string.Formatter().parse(getattr(content, key)) if slot is not None}
        if found != _SLOTS:
            raise ConfigError(f"{path}: {key}: has slots {sorted(found)}, expected {sorted(_SLOTS)}")
    return content
