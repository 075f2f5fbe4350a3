"""Results to pictures: scores beside baselines, bars by dataset and IoU curves, and all others to files (PNG)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gastrovl.clinical.taxonomy import Taxonomy
from gastrovl.core import figures
from gastrovl.core.figures import GREY, INK, OCHRE, PURPLE, RULE, RUST, TEAL, hide_frame, save_figure
from gastrovl.core.types import Score, Split, Task
from gastrovl.evaluation.results import ALL, MEAN, IouCurve, Results
from gastrovl.evaluation.showing.confusions import by_group, draw_classes, draw_confusion
from gastrovl.evaluation.showing.names import metric, metric_name, name_with_unit
from gastrovl.evaluation.showing.overview import draw_overview
from gastrovl.evaluation.showing.published import PAPER_NAME, overall_percent
from gastrovl.evaluation.showing.radar import draw_radar, profiles
from gastrovl.evaluation.tasks import HEADLINE

MODEL = TEAL
RIVAL = RUST
_MANY = 12  # labels beyond which the confusion of groups is drawn as well
_LONGEST = 22  # letters of a dataset's name below its bar
_LINES = (RUST, GREY, OCHRE, PURPLE)
_STYLES = ("--", "-.", ":", (0, (5, 1, 1, 1)))


def new_figure(width: float, height: float) -> Any:
    """An empty figure of that size in inches.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    return figures.new_figure(width, height, extra="evaluate")


def save_plots(folder: Path, results: Results, taxonomy: Taxonomy) -> list[Path]:
    """Write all plots of an evaluation; file names are kind, task where there is one, and split.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    drawn: dict[str, Any] = {}
    for split in Split:
        scores = [score for score in results.scores if score.split is split]
        if scores:
            drawn[f"overview_{split}"] = draw_overview(scores)
            drawn[f"datasets_{split}"] = draw_datasets(scores)
            drawn[f"radar_{split}"] = draw_radar(profiles(scores))
        for task in _tasks(scores):
            drawn[f"scores_{task}_{split}"] = draw_scores([score for score in scores if score.task is task])
        curves = [curve for curve in results.iou_curves if curve.split is split]
        if curves:
            drawn[f"iou_{split}"] = draw_curves(curves)
    for matrix in results.confusion:
        drawn[f"confusion_{matrix.task}_{matrix.split}"] = draw_confusion(matrix, taxonomy)
        if len(matrix.rows) > _MANY:
            drawn[f"groups_{matrix.task}_{matrix.split}"] = draw_confusion(by_group(matrix, taxonomy), taxonomy)
        classes = [
            one for one in results.per_class if (one.task, one.split, one.dataset) == (matrix.task, matrix.split, ALL)
        ]
        drawn[f"classes_{matrix.task}_{matrix.split}"] = draw_classes(classes, taxonomy)
    return [path for name, figure in drawn.items() if figure for path in save_figure(figure, folder / name)]


def draw_scores(scores: Sequence[Score]) -> Any:
    """Every metric over all conversations: point, interval, and the best baseline as a diamond.

    Numbers that are no shares are drawn times 100, too, and their range is in their name. Counts without an end are in
    the tables alone.
    """
    shown = [
        score
        for score in scores
        if score.dataset == ALL and score.value is not None and not metric(score.metric).is_count
    ]
    is_alone = len({score.task for score in shown}) == 1
    figure = new_figure(8.0, 1.3 + 0.3 * max(len(shown), 3))
    axes = figure.subplots()
    places = _places(shown)
    for place, score in zip(places, shown, strict=True):
        low, high = _bounds(score)
        axes.plot([low, high], [place, place], color=MODEL, linewidth=2.5, alpha=0.55, solid_capstyle="butt")
    axes.plot([_percent(score.value) for score in shown], places, "o", color=MODEL, label="model, with 95 % interval")
    rivals = [(score, place) for score, place in zip(shown, places, strict=True) if score.baseline is not None]
    axes.plot(
        [_percent(score.baseline) for score, _ in rivals],
        [place for _, place in rivals],
        "D",
        markersize=6,
        markerfacecolor="none",
        color=RIVAL,
        label="best trivial baseline",
    )
    axes.set_yticks(
        places,
        [
            name_with_unit(score.metric) if is_alone else f"{score.task}  {name_with_unit(score.metric)}"
            for score in shown
        ],
        fontsize=9,
    )
    axes.set_ylim((places[-1] if places else 0) + 0.7, -0.7)
    reached = [_percent(one) for score in shown for one in (score.value, score.low, score.baseline) if one is not None]
    axes.set_xlim(min([-2.0, *(one - 4 for one in reached)]), max([102.0, *reached]))
    axes.set_xlabel("percent; other numbers times 100")
    if is_alone:
        axes.set_title(f"{shown[0].task}, {shown[0].split}", fontsize=10)
    axes.grid(axis="x", color=RULE)
    axes.set_axisbelow(True)
    hide_frame(axes)
    figure.legend(loc="outside upper center", ncols=2, frameon=False)
    return figure


def draw_datasets(scores: Sequence[Score]) -> Any:
    """The headline metric of each task, a bar for each dataset and for all, with interval and best baseline."""
    tasks = [task for task in Task if any(score.task is task for score in scores)]
    chosen = {
        task: [s for s in scores if s.task is task and s.metric == HEADLINE[task] and s.dataset != MEAN]
        for task in tasks
    }
    widths = [max(len(some), 2) for some in chosen.values()]
    figure = new_figure(1.6 + 0.85 * sum(widths), 4.2)
    for axes, task in zip(
        np.atleast_1d(figure.subplots(1, len(tasks), sharey=True, width_ratios=widths)), tasks, strict=True
    ):
        _draw_bars(axes, task, chosen[task])
    figure.axes[0].set_ylabel("percent")
    found: dict[str, Any] = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    figure.legend(list(found.values()), list(found), loc="outside upper center", ncols=len(found), frameon=False)
    return figure


def _draw_bars(axes: Any, task: Task, scores: Sequence[Score]) -> None:
    for place, score in enumerate(scores):
        value = _percent(score.value)
        colour = MODEL if score.dataset == ALL else "#7fb3b8"
        axes.bar(place, value, width=0.7, color=colour, label="model" if place == len(scores) - 1 else None)
        low, high = _bounds(score)
        axes.plot([place, place], [low, high], color=INK, linewidth=1.4)
        if score.baseline is not None:
            axes.plot(
                [place - 0.42, place + 0.42],
                [_percent(score.baseline)] * 2,
                color=RIVAL,
                linewidth=2.4,
                label="best trivial baseline" if place == len(scores) - 1 else None,
            )
        paper = overall_percent(score.task, score.split) if score.dataset == ALL else None
        if paper is not None:
            axes.plot(place, paper, "s", markerfacecolor="white", color=INK, markersize=7, label=PAPER_NAME)
    names = [f"{_short(s.dataset)}: {_percent(s.value):.0f}" if s.value is not None else s.dataset for s in scores]
    axes.set_xticks(range(len(scores)), names, rotation=40, ha="right", rotation_mode="anchor", fontsize=9)
    axes.set_title(f"{task}: {metric_name(HEADLINE[task])}", fontsize=10)
    axes.set_ylim(0, 108)
    axes.set_yticks(range(0, 101, 20))
    axes.grid(axis="y", color=RULE)
    axes.set_axisbelow(True)
    hide_frame(axes)


def draw_curves(curves: Sequence[IouCurve]) -> Any:
    """Share of questions about present objects answered rightly, over the IoU that is asked for."""
    figure = new_figure(6.4, 4.2)
    axes = figure.subplots()
    rivals = 0
    for curve in curves:
        shares = [_percent(share) for share in curve.shares]
        if curve.name == "model":
            axes.plot(curve.thresholds, shares, color=MODEL, linewidth=2.4, label="model", zorder=3)
        else:
            axes.plot(
                curve.thresholds, shares, color=_LINES[rivals % 4], linestyle=_STYLES[rivals % 4], label=curve.name
            )
            rivals += 1
    axes.axvline(0.5, color="#9ca3af", linewidth=0.8)
    axes.text(0.505, 101, "IoU 0.5", color=GREY, fontsize=8, va="bottom")
    axes.set_xlabel("every box found with at least this IoU")
    axes.set_ylabel("share of questions, percent")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 101)
    axes.grid(color=RULE)
    hide_frame(axes)
    axes.legend(frameon=False)
    return figure


def _short(name: str) -> str:
    """A name that leaves room for the bars: of a longer one start and end."""
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 8]}…{name[-7:]}"


def _tasks(scores: Sequence[Score]) -> list[Task]:
    present = {score.task for score in scores}
    return [task for task in Task if task in present]


def _places(scores: Sequence[Score]) -> list[float]:
    """Rows from the top, with a gap wherever the task changes."""
    places, place = [], 0.0
    for index, score in enumerate(scores):
        if index:
            place += 1.0 if scores[index - 1].task is score.task else 1.6
        places.append(place)
    return places


def _bounds(score: Score) -> tuple[float, float]:
    value = _percent(score.value)
    return (value, value) if score.low is None or score.high is None else (_percent(score.low), _percent(score.high))


def _percent(value: float | None) -> float:
    return 100 * (value or 0.0)
