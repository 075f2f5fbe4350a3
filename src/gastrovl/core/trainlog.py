"""A training run's log.jsonl to its entries, and entries to the series of numbers that a chart draws."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Entry = dict[str, Any]
Series = list[tuple[float, float]]  # (optimiser step, value)


@dataclass(frozen=True)
class TrainingLog:
    """Entries of log.jsonl in file order, and how many lines could not be read."""

    entries: list[Entry]
    n_broken: int


def read_log(path: Path) -> TrainingLog:
    """The lines of a training log; a line that was cut off while it was written is counted, not fatal."""
    entries, broken = [], 0
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            entry = None
        if isinstance(entry, dict) and is_number(entry.get("step")):
            entries.append(entry)
        else:
            broken += 1
    return TrainingLog(entries, broken)


def by_stage(entries: Sequence[Entry]) -> dict[str, list[Entry]]:
    """The entries of each stage, stages in the order in which they come."""
    found: dict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        found[str(entry.get("stage", ""))].append(entry)
    return found


def series_of(entries: Sequence[Entry], keys: Sequence[str]) -> dict[str, Series]:
    """Of each key that occurs with numbers, its values over steps; the last one of a step counts."""
    found: dict[str, Series] = {}
    for key in keys:
        points = {float(entry["step"]): float(entry[key]) for entry in entries if is_number(entry.get(key))}
        if points:
            found[key] = sorted(points.items())
    return found


def is_number(value: object) -> bool:
    """Whether `value` is a number other than NaN; True and False are none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value
