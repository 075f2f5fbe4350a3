"""A training log to pictures of its course: loss, and the validation scores measured on the way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gastrovl.core.figures import GREY
from gastrovl.core.trainlog import Entry, Series, by_stage, is_number, series_of
from gastrovl.core.types import Task
from gastrovl.evaluation.showing.plots import MODEL, RIVAL, new_figure
from gastrovl.evaluation.tasks import HEADLINE

_COLOURS = (MODEL, RIVAL, "#7a4f9a", "#9a7b1f", "#2563eb", "#be185d", "#4d7c0f", GREY)
_STYLES = ("-", "--", ":")
# Ends of eval_* keys that are no score in [0, 1], or stand beside one.
_NO_SCORES = ("_runtime", "_per_second", "_loss", "_seconds", "_baseline", "/unparsed")


def draw_loss(entries: Sequence[Entry]) -> Any | None:
    """Training and validation loss over steps, a panel for each stage; None when no loss was logged."""
    panels = {stage: series_of(some, ("loss", "eval_loss")) for stage, some in by_stage(entries).items()}
    panels = {stage: series for stage, series in panels.items() if series}
    if not panels:
        return None
    figure, all_axes = _panels(panels)
    names = {"loss": "training loss", "eval_loss": "validation loss"}
    for axes, series in zip(all_axes, panels.values(), strict=True):
        for (key, label), colour, marker in zip(names.items(), (MODEL, RIVAL), ("", "o"), strict=True):
            if key in series:
                axes.plot(*zip(*series[key], strict=True), color=colour, marker=marker, markersize=4, label=label)
        axes.set_ylim(bottom=0)
    all_axes[0].set_ylabel("cross-entropy per answer token")
    _legend(figure, all_axes)
    return figure


def draw_scores_over_time(entries: Sequence[Entry]) -> Any | None:
    """Every validation score in [0, 1] over steps, a panel for each stage; None when none was logged."""
    keys = sorted({key for entry in entries for key in entry if key.startswith("eval_")})
    keys = [key for key in keys if not key.endswith(_NO_SCORES) and _is_share(entries, key) and _is_shown(key)]
    panels = {stage: series_of(some, keys) for stage, some in by_stage(entries).items()}
    panels = {stage: series for stage, series in panels.items() if series}
    if not panels:
        return None
    figure, all_axes = _panels(panels)
    look = {
        key: (_COLOURS[i % len(_COLOURS)], _STYLES[i // len(_COLOURS) % len(_STYLES)]) for i, key in enumerate(keys)
    }
    for axes, series in zip(all_axes, panels.values(), strict=True):
        for key, points in series.items():
            colour, style = look[key]
            steps, values = zip(*points, strict=True)
            label = key.removeprefix("eval_").replace("_", " ").replace("/", " ")
            axes.plot(
                steps, [100 * v for v in values], color=colour, linestyle=style, marker="o", markersize=4, label=label
            )
        axes.set_ylim(0, 102)
    all_axes[0].set_ylabel("validation score, percent")
    _legend(figure, all_axes)
    return figure


def _panels(panels: dict[str, dict[str, Series]]) -> tuple[Any, list[Any]]:
    figure = new_figure(max(6.4, 3.6 * len(panels)), 3.6)
    all_axes = [figure.add_subplot(1, len(panels), place + 1) for place in range(len(panels))]
    for axes, stage in zip(all_axes, panels, strict=True):
        if stage:
            axes.set_title(f"stage: {stage}", fontsize=10)
        axes.set_xlabel("optimiser step")
        axes.grid(color="#e5e7eb")
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    return figure, all_axes


def _legend(figure: Any, all_axes: Sequence[Any]) -> None:
    found: dict[str, Any] = {}
    for axes in all_axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    figure.legend(
        list(found.values()),
        list(found),
        loc="outside lower center",
        ncols=min(4, len(found)),
        frameon=False,
        fontsize=9,
    )


def _is_shown(key: str) -> bool:
    """Of the many scores of whole answers (`eval_cls/accuracy`), the main one of each task."""
    task, _, metric = key.removeprefix("eval_").partition("/")
    return not metric or HEADLINE[Task(task.upper())] == metric


def _is_share(entries: Sequence[Entry], key: str) -> bool:
    values = [entry[key] for entry in entries if entry.get(key) is not None]
    return bool(values) and all(is_number(value) and 0 <= value <= 1 for value in values)
