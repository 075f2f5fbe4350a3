"""A robustness record to one picture: a panel a task, a curve a corruption, from clean to level 5."""

from __future__ import annotations

from typing import Any

from gastrovl.core.figures import GREY, INK, OCHRE, PURPLE, RULE, RUST, TEAL, hide_frame, new_figure
from gastrovl.evaluation.robustness.corruptions import CORRUPTIONS
from gastrovl.evaluation.robustness.record import CellScore, Family, Robustness
from gastrovl.evaluation.showing.names import metric_name

# Four colours of which each returns with another dash, so that twelve curves can be told apart also in grey.
_COLOURS = (TEAL, RUST, PURPLE, OCHRE)
_DASHES = ("-", "--", ":")
_MARKERS = ("o", "s", "^")


def draw_robustness(found: Robustness) -> Any | None:
    """The figure, or None where no corruption was measured.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    keys = list(dict.fromkeys((one.split, one.task) for one in found.scores if one.family is Family.CORRUPTION))
    if not keys:
        return None
    figure = new_figure(3.1 * max(2, len(keys)) + 1.9, 3.9, extra="evaluate")
    panels = figure.subplots(1, len(keys), sharey=True, squeeze=False)[0]
    for axes, (split, task) in zip(panels, keys, strict=True):
        own = [one for one in found.scores if (one.split, one.task) == (split, task)]
        _draw_panel(axes, own)
        axes.set_title(f"{task}, {split}: {metric_name(own[0].metric)}", fontsize=10)
    panels[0].set_ylabel("score, percent")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", frameon=False, fontsize=9)
    return figure


def _draw_panel(axes: Any, own: list[CellScore]) -> None:
    clean = next(one for one in own if one.family is Family.CLEAN)
    cells = [one for one in own if one.family is Family.CORRUPTION]
    if clean.baseline is not None:
        axes.axhline(100 * clean.baseline, color=GREY, linewidth=1.6, label="best trivial baseline")
    for name in dict.fromkeys(one.name for one in cells):
        place = list(CORRUPTIONS).index(name) if name in CORRUPTIONS else 0
        curve = [clean, *(one for one in cells if one.name == name)]
        points = [(one.level, 100 * one.value) for one in curve if one.value is not None]
        axes.plot(
            [level for level, _ in points],
            [value for _, value in points],
            color=_COLOURS[place % 4],
            linestyle=_DASHES[place // 4 % 3],
            marker=_MARKERS[place // 4 % 3],
            markersize=4,
            linewidth=1.5,
            label=name.replace("_", " "),
        )
    if clean.value is not None and clean.low is not None and clean.high is not None:
        axes.errorbar(
            [0],
            [100 * clean.value],
            yerr=[[100 * (clean.value - clean.low)], [100 * (clean.high - clean.value)]],
            color=INK,
            linewidth=1.6,
            capsize=3,
            fmt="none",
            zorder=5,
            label="clean, 95 % interval",
        )
    levels = sorted({one.level for one in cells})
    axes.set_xticks([0, *levels], ["clean", *map(str, levels)])
    axes.set_xlabel("level")
    axes.set_ylim(-2, 102)
    axes.grid(axis="y", color=RULE)
    axes.set_axisbelow(True)
    hide_frame(axes)
