"""The numbers of He et al. 2025 to tables that stand beside ours, with what a reader must know of them.

Their totals are weighted by the number of questions (micro); the unweighted mean of the datasets is worked out here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from gastrovl.core.config import Config, load_config
from gastrovl.core.types import Score, Split, Task
from gastrovl.evaluation.results import ALL, MEAN
from gastrovl.evaluation.tasks import HEADLINE

PAPER_NAME = "He et al. 2025, on other images"  # in figures
_Z = 1.959963984540054  # 97.5 % of the normal distribution
_ROUNDING = 0.015  # percent; two decimals were printed, and two roundings may add up
Bounds = tuple[float, float]


class Overall(Config):
    """A row of Table 4, percent."""

    task: Task
    val: float
    test: float
    colongpt_val: float
    colongpt_test: float


class DatasetRow(Config):
    """A row of Table 5 (val) or 6 (test), percent."""

    split: Split
    task: Task
    dataset: str
    percent: float
    n: int


class TotalRow(Config):
    """A row without a dataset of Table 5 or 6, percent."""

    split: Split
    task: Task
    percent: float
    n: int


class Released(Config):
    """What ColonGPT's authors publish, percent."""

    task: Task
    metric: str
    seen: float
    unseen: float


class Published(Config):
    """Everything that was typed in, as it was printed."""

    source: str
    overall: tuple[Overall, ...]
    datasets: tuple[DatasetRow, ...]
    totals: tuple[TotalRow, ...]
    released: tuple[Released, ...]
    caveats: tuple[str, ...]

    def rows(self, split: Split, task: Task) -> list[DatasetRow]:
        return [row for row in self.datasets if (row.split, row.task) == (split, task)]


@cache
def published() -> Published:
    """The reference data that ships with this package."""
    return load_config(Path(__file__).with_name("published.yaml"), Published)


def overall_percent(task: Task, split: Split) -> float | None:
    """What Table 4 prints for the paper's model; None for other tasks and for training data."""
    row = next((one for one in published().overall if one.task is task), None)
    return None if row is None or split is Split.TRAIN else row.val if split is Split.VAL else row.test


def micro(rows: Sequence[DatasetRow]) -> float:
    """Percent over all questions: every question counts the same."""
    return sum(row.percent * row.n for row in rows) / sum(row.n for row in rows)


def unweighted(rows: Sequence[DatasetRow]) -> float:
    """Percent as the mean of the datasets: every dataset counts the same."""
    return sum(row.percent for row in rows) / len(rows)


def wilson(percent: float, n: int) -> Bounds:
    """95 % interval of a share of n independent questions, in percent (Wilson 1927)."""
    share = percent / 100
    middle = (share + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
    half = _Z / (1 + _Z**2 / n) * math.sqrt(share * (1 - share) / n + _Z**2 / (4 * n**2))
    return 100 * max(0.0, middle - half), 100 * min(1.0, middle + half)


def contradictions() -> list[str]:
    """Totals of the paper that do not follow from its rows, one sentence each."""
    found = []
    for total in published().totals:
        rows = published().rows(total.split, total.task)
        where = f"{total.task} {total.split}"
        n = sum(row.n for row in rows)
        if n != total.n:
            found.append(f"{where}: the rows hold {n:,} questions, the total says {total.n:,}.")
        if abs(micro(rows) - total.percent) > _ROUNDING:
            found.append(f"{where}: the rows give {micro(rows):.2f} %, the total says {total.percent:.2f} %.")
    return found


def caveats() -> list[str]:
    """What must stand beside the paper's numbers, its own contradictions included."""
    return [*published().caveats, *contradictions()]


def overall_rows(scores: Sequence[Score]) -> list[tuple[str, ...]]:
    """Table 4, our model beside the paper's: task, model, val, test; percent, ours with its interval."""
    found: list[tuple[str, ...]] = []
    for row in published().overall:
        ours = [_ours(scores, row.task, split, ALL) for split in (Split.VAL, Split.TEST)]
        if any(ours):
            found.append((row.task.value, "this model", *(cell or "–" for cell in ours)))
        found.append((row.task.value, "He et al. 2025", f"{row.val:.2f}", f"{row.test:.2f}"))
        found.append(
            (row.task.value, "ColonGPT, as He et al. quote it", f"{row.colongpt_val:.2f}", f"{row.colongpt_test:.2f}")
        )
        for released in published().released:
            if released.task is row.task:
                name = f"ColonGPT on ColonINST, as released ({released.metric})"
                found.append((row.task.value, name, f"{released.seen:.2f}", f"{released.unseen:.2f}"))
    return found


def dataset_rows(scores: Sequence[Score], split: Split) -> list[tuple[str, ...]]:
    """Tables 5 and 6, our datasets below the paper's: task, model, dataset, percent with interval, n."""
    found: list[tuple[str, ...]] = []
    for task in (row.task for row in published().overall):
        rows = published().rows(split, task)
        for row in rows:
            found.append((task.value, "He et al. 2025", row.dataset, _with_wilson(row.percent, row.n), f"{row.n:,}"))
        n = sum(row.n for row in rows)
        found.append((task.value, "He et al. 2025", "all, recomputed", _with_wilson(micro(rows), n), f"{n:,}"))
        mean = f"{unweighted(rows):.2f}"
        found.append((task.value, "He et al. 2025", "mean of datasets, recomputed", mean, f"{n:,}"))
        for score in scores:
            if (score.task, score.split, score.metric) == (task, split, HEADLINE[task]):
                name = {ALL: "all", MEAN: "mean of datasets"}.get(score.dataset, score.dataset)
                found.append((task.value, "this model", name, _of(score), f"{score.n:,}"))
    return found


def _ours(scores: Sequence[Score], task: Task, split: Split, dataset: str) -> str | None:
    for score in scores:
        if (score.task, score.split, score.dataset, score.metric) == (task, split, dataset, HEADLINE[task]):
            return _of(score)
    return None


def _of(score: Score) -> str:
    if score.value is None:
        return "–"
    bounds = "" if score.low is None or score.high is None else f" [{100 * score.low:.2f}, {100 * score.high:.2f}]"
    return f"{100 * score.value:.2f}{bounds}"


def _with_wilson(percent: float, n: int) -> str:
    low, high = wilson(percent, n)
    return f"{percent:.2f} [{low:.2f}, {high:.2f}]"
