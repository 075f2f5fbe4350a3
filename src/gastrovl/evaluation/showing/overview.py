"""Main scores to one chart after Figure 4 of He et al. 2025, with intervals, baselines and the paper's numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gastrovl.core.figures import INK, RULE, RUST, TEAL, hide_frame, new_figure
from gastrovl.core.types import Score, Split, Task
from gastrovl.evaluation.results import ALL
from gastrovl.evaluation.showing.names import metric_name
from gastrovl.evaluation.showing.published import PAPER_NAME, overall_percent
from gastrovl.evaluation.tasks import HEADLINE

_COLOUR = {Split.TRAIN: "#d5dbe1", Split.VAL: "#7fb3b8", Split.TEST: TEAL}


def draw_overview(scores: Sequence[Score]) -> Any | None:
    """A bar for each task and split with interval and best baseline; hollow squares are the paper's, of other images.

    None when no task has a main score.
    """
    chosen = {
        (one.task, one.split): one
        for one in scores
        if one.dataset == ALL and one.metric == HEADLINE[one.task] and one.value is not None
    }
    if not chosen:
        return None
    tasks = [task for task in Task if any(task is key[0] for key in chosen)]
    splits = [split for split in Split if any(split is key[1] for key in chosen)]
    figure = new_figure(max(5.5, 1.2 + 1.5 * len(tasks)), 4.0, extra="evaluate")
    axes = figure.subplots()
    width = 0.72 / len(splits)
    for (task, split), score in chosen.items():
        place = tasks.index(task) + width * (splits.index(split) - (len(splits) - 1) / 2)
        _draw_bar(axes, place, width, score)
    axes.set_xticks(range(len(tasks)), [f"{task}\n{metric_name(HEADLINE[task])}" for task in tasks])
    axes.set_xlim(-0.6, len(tasks) - 0.4)
    axes.set_ylim(0, 108)
    axes.set_yticks(range(0, 101, 20))
    axes.set_ylabel("percent")
    axes.grid(axis="y", color=RULE)
    axes.set_axisbelow(True)
    hide_frame(axes)
    handles, labels = axes.get_legend_handles_labels()
    found = dict(zip(labels, handles, strict=True))
    order = [*(split.value for split in splits), "best trivial baseline", PAPER_NAME]
    order = [label for label in order if label in found]
    figure.legend([found[label] for label in order], order, loc="outside upper center", ncols=len(order), frameon=False)
    return figure


def _draw_bar(axes: Any, place: float, width: float, score: Score) -> None:
    value = 100 * (score.value or 0.0)
    axes.bar(place, value, width=0.92 * width, color=_COLOUR[score.split], label=score.split.value)
    top = value
    if score.low is not None and score.high is not None:
        axes.plot([place, place], [100 * score.low, 100 * score.high], color=INK, linewidth=1.4)
        top = 100 * score.high
    if score.baseline is not None:
        ends = [place - width / 2, place + width / 2]
        axes.plot(ends, [100 * score.baseline] * 2, color=RUST, linewidth=2.4, label="best trivial baseline")
    paper = overall_percent(score.task, score.split)
    if paper is not None:
        axes.plot(place, paper, "s", markerfacecolor="white", color=INK, markersize=7, label=PAPER_NAME)
    paper_white = {"facecolor": "white", "edgecolor": "none", "pad": 0.8, "alpha": 0.85}
    at = (place + 0.03, min(top, 102.0) + 1.5)
    axes.text(*at, f"{value:.0f}", ha="left", va="bottom", fontsize=9, bbox=paper_white, zorder=4)
