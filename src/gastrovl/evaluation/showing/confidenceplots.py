"""How sure replies were and whether they were right, to reliability diagrams and risk-coverage curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gastrovl.core.figures import GREY, INK, RULE, RUST, TEAL, hide_frame, new_figure, save_figure
from gastrovl.core.types import Split, Task
from gastrovl.evaluation import tasks
from gastrovl.evaluation.items import Item
from gastrovl.evaluation.measures.confidence import Bin, RiskCoverage, reliability, risk_coverage
from gastrovl.evaluation.measures.measure import Floats

_PALE = "#7fb3b8"
_FEWEST = 10  # replies with a confidence; fewer make no curve
_MOST_POINTS = 2000  # of a curve that is drawn; more cannot be told apart


def save_confidence_plots(folder: Path, items: Sequence[Item]) -> list[Path]:
    """Write reliability_<split>.png and risk_<split>.png for the tasks whose replies carry a confidence.

    Nothing is written for a split in which no task has at least ten such replies.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    written: list[Path] = []
    for split in Split:
        bins: dict[str, list[Bin]] = {}
        curves: dict[str, RiskCoverage] = {}
        for task in tasks.JUDGED_TASKS:
            sure, right = _known(items, task, split)
            if len(sure) >= _FEWEST:
                bins[task.value] = reliability(sure, right)
                curves[task.value] = risk_coverage(sure, right)
        if bins:
            written += save_figure(draw_reliability(bins), folder / f"reliability_{split}")
            written += save_figure(draw_risk_coverage(curves), folder / f"risk_{split}")
    return written


def draw_reliability(panels: Mapping[str, Sequence[Bin]]) -> Any:
    """Accuracy over confidence, a panel a task, with the number of replies of each bin below.

    Args:
        panels: Title to bins; a bin without replies leaves a gap.
    """
    figure = new_figure(max(5.0, 1.0 + 3.4 * len(panels)), 4.6, extra="evaluate")
    grid = figure.subplots(2, len(panels), sharex=True, squeeze=False, height_ratios=(3, 1))
    for column, (title, bins) in enumerate(panels.items()):
        _draw_bins(grid[0][column], bins)
        n = sum(one.n for one in bins)
        grid[0][column].set_title(f"{title}: {n:,} replies, ECE {_error(bins):.1f} %", fontsize=10)
        _draw_counts(grid[1][column], bins)
    grid[0][0].set_ylabel("share right, percent")
    grid[1][0].set_ylabel("replies")
    handles, labels = grid[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=3, frameon=False)
    return figure


def draw_risk_coverage(panels: Mapping[str, RiskCoverage]) -> Any:
    """Share of wrong replies among the surest ones, over the share that is kept; a panel a task.

    The grey line is what a random order gives, the dotted one the best order of the same replies.
    """
    figure = new_figure(max(5.0, 1.0 + 3.4 * len(panels)), 3.8, extra="evaluate")
    all_axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, (title, curve) in zip(all_axes, panels.items(), strict=True):
        error = float(curve.risk[-1])
        kept = np.unique(np.linspace(0, len(curve.risk) - 1, _MOST_POINTS).astype(int))
        axes.plot(100 * curve.coverage[kept], 100 * curve.risk[kept], color=TEAL, linewidth=2.2, label="model")
        axes.axhline(100 * error, color=GREY, linewidth=1.4, label="random order")
        at, best = best_order(error)
        axes.plot(100 * at, 100 * best, color=RUST, linestyle=":", linewidth=1.8, label="best order")
        axes.set_title(f"{title}: {100 * error:.1f} % wrong in all", fontsize=10)
        axes.set_xlim(0, 100)
        _dress(axes)
    figure.supxlabel("share of replies kept, the surest first, percent", fontsize=10)
    all_axes[0].set_ylabel("wrong among the kept, percent")
    highest = max(float(curve.risk.max()) for curve in panels.values())
    all_axes[0].set_ylim(0, min(102.0, 108 * highest + 1))
    handles, labels = all_axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=3, frameon=False)
    return figure


def best_order(error: float) -> tuple[Floats, Floats]:
    """Coverage and risk when all right replies come first: 0 up to the accuracy, then (coverage - accuracy) / coverage.

    Args:
        error: Share of wrong replies, in [0, 1].
    """
    coverage = np.concatenate([[0.0], np.linspace(max(1.0 - error, 1e-9), 1.0, 60)])
    accuracy = 1.0 - error
    risk = np.where(coverage > accuracy, (coverage - accuracy) / np.maximum(coverage, 1e-9), 0.0)
    return coverage, risk


def _known(items: Sequence[Item], task: Task, split: Split) -> tuple[list[float], list[bool]]:
    """Confidences and verdicts of the replies that carry a confidence."""
    some = [item for item in items if (item.question.task, item.question.split) == (task, split)]
    some = [item for item in some if item.reply.confidence is not None]
    right = tasks.verdicts(task, some).tolist() if some else []
    return [item.reply.confidence or 0.0 for item in some], right


def _draw_bins(axes: Any, bins: Sequence[Bin]) -> None:
    filled = [(one, one.mean_confidence, one.accuracy) for one in bins]
    filled = [(one, sure, right) for one, sure, right in filled if sure is not None and right is not None]
    axes.plot([0, 100], [0, 100], color=GREY, linewidth=1.2, linestyle="--", label="as sure as right")
    axes.bar(
        [50 * (one.low + one.high) for one, _, _ in filled],
        [100 * (right or 0.0) for _, _, right in filled],
        width=[max(100 * (one.high - one.low) - 0.8, 0.4) for one, _, _ in filled],
        color=_PALE,
        label="share right",
    )
    axes.plot(
        [100 * (sure or 0.0) for _, sure, _ in filled],
        [100 * (right or 0.0) for _, _, right in filled],
        "o",
        color=INK,
        markersize=4,
        label="at the mean confidence",
    )
    axes.set_xlim(0, 100)
    axes.set_ylim(0, 102)
    _dress(axes)


def _draw_counts(axes: Any, bins: Sequence[Bin]) -> None:
    axes.bar(
        [50 * (one.low + one.high) for one in bins],
        [one.n for one in bins],
        width=[max(100 * (one.high - one.low) - 0.8, 0.4) for one in bins],
        color=GREY,
    )
    axes.set_xlabel("confidence, percent")
    _dress(axes)


def _error(bins: Sequence[Bin]) -> float:
    """Expected calibration error in percent."""
    n = sum(one.n for one in bins)
    gaps = [one.n * abs((one.mean_confidence or 0.0) - (one.accuracy or 0.0)) for one in bins if one.n]
    return 100 * sum(gaps) / n if n else 0.0


def _dress(axes: Any) -> None:
    axes.grid(color=RULE)
    axes.set_axisbelow(True)
    hide_frame(axes)
