"""Scores of several models on the same axes, to a radar chart."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from gastrovl.core.figures import GREY, INK, OCHRE, PURPLE, RUST, TEAL, new_figure
from gastrovl.core.types import Score, Task
from gastrovl.evaluation.measures.directions import is_better_low
from gastrovl.evaluation.results import ALL
from gastrovl.evaluation.showing.names import metric, metric_name

MODEL, RIVAL = "model", "best trivial baseline of each"
FEWEST_AXES = 3
_COLOURS = (TEAL, RUST, PURPLE, OCHRE, INK, GREY)
_STYLES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1)), (0, (1, 1)))
_SHOWN = {  # two or three of each task, so that a task does not count for more than another
    Task.CLS: ("accuracy", "macro_f1", "hierarchical_f1"),
    Task.REC: ("acc@0.5", "mean_iou", "presence_balanced"),
    Task.REG: ("accuracy", "macro_f1"),
    Task.CAP: ("rougeL", "bleu4", "fact_f1"),
    Task.VQA: ("exact_match",),
    Task.REPORT: ("rougeL", "bleu4", "fact_f1"),
}


def profiles(scores: Sequence[Score]) -> dict[str, dict[str, float]]:
    """The model and the best baseline of each axis, ready for `draw_radar`; all scores are of one split.

    Only shares are taken of which more is better.
    """
    found: dict[str, dict[str, float]] = {MODEL: {}, RIVAL: {}}
    for score in scores:
        wanted = score.dataset == ALL and score.metric in _SHOWN[score.task] and score.value is not None
        if wanted and metric(score.metric).is_percent and not is_better_low(score.metric):
            axis = f"{score.task}\n{metric_name(score.metric)}"
            found[MODEL][axis] = score.value or 0.0
            if score.baseline is not None:
                found[RIVAL][axis] = score.baseline
    return {name: values for name, values in found.items() if values}


def draw_radar(found: Mapping[str, Mapping[str, float]]) -> Any | None:
    """One closed line a model; None when there are fewer than three axes.

    Args:
        found: Model to axis to value in [0, 1]; an axis that a model lacks is drawn at 0. Areas mean nothing.
    """
    axes_names = list(dict.fromkeys(axis for values in found.values() for axis in values))
    if len(axes_names) < FEWEST_AXES:
        return None
    figure = new_figure(7.2, 6.4, extra="evaluate")
    axes = figure.add_subplot(projection="polar")
    angles = [2 * math.pi * place / len(axes_names) for place in range(len(axes_names))]
    for place, (name, values) in enumerate(found.items()):
        drawn = [100 * values.get(axis, 0.0) for axis in axes_names]
        colour, style = _COLOURS[place % len(_COLOURS)], _STYLES[place % len(_STYLES)]
        axes.plot([*angles, angles[0]], [*drawn, drawn[0]], color=colour, linestyle=style, linewidth=2, label=name)
        if place == 0:
            axes.fill(angles, drawn, color=colour, alpha=0.12)
    axes.set_theta_offset(math.pi / 2)
    axes.set_theta_direction(-1)
    axes.set_xticks(angles, axes_names, fontsize=9)
    for label, angle in zip(axes.get_xticklabels(), angles, strict=True):
        across = math.sin(angle)
        label.set_horizontalalignment("center" if abs(across) < 0.2 else "left" if across > 0 else "right")
    axes.set_ylim(0, 100)
    axes.set_yticks((25, 50, 75, 100), ("25", "50", "75", "100 %"), fontsize=8, color=GREY)
    axes.set_rlabel_position(180 / len(axes_names))
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    return figure
