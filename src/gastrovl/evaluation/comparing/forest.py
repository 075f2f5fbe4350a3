"""A comparison to a forest plot: each model's difference from the reference with its interval, by task and dataset."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gastrovl.core.figures import GREY, INK, OCHRE, PURPLE, RULE, RUST, TEAL, hide_frame, new_figure, save_figure
from gastrovl.evaluation.comparing.comparison import Compared, Comparison, Family
from gastrovl.evaluation.comparing.verdict import name_of
from gastrovl.evaluation.statistics.intervals import FEW_GROUPS

_COLOURS = (TEAL, RUST, PURPLE, OCHRE, INK)
_BAND = "#eef0f3"


def save_forest(path: Path, comparison: Comparison) -> list[Path]:
    """Write the plot as PNG; `path` has no ending.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    return save_figure(draw_forest(comparison), path)


def draw_forest(comparison: Comparison) -> Any:
    """A point and interval a row: task by task all datasets first, then each; filled where a difference was shown.

    The grey band behind a row of all datasets is what its test set could not have shown.
    """
    rows = _rows(comparison)
    names = [one.name for one in comparison.contenders if one.name != comparison.reference]
    figure = new_figure(8.6, 1.5 + 0.34 * max(len(rows), 3), extra="evaluate")
    axes = figure.subplots()
    for place, one in rows:
        _draw_row(axes, place, one, _COLOURS[names.index(one.other) % len(_COLOURS)], comparison.alpha)
    axes.axvline(0, color=INK, linewidth=1)
    has_several = len(names) > 1
    axes.set_yticks([place for place, _ in rows], [_label(one, has_several=has_several) for _, one in rows])
    for text, (_, one) in zip(axes.get_yticklabels(), rows, strict=True):
        text.set_color(INK if one.family is Family.HEADLINE else GREY)
    axes.set_ylim(rows[-1][0] + 0.8 if rows else 1, -0.8)
    axes.set_xlim(*_limits([one for _, one in rows]))
    subject = "the model" if has_several else names[0]
    axes.set_xlabel(f"points, {subject} minus {comparison.reference}\n{_direction(comparison.reference, subject)}")
    axes.grid(axis="x", color=RULE)
    axes.set_axisbelow(True)
    axes.tick_params(axis="y", length=0)
    hide_frame(axes)
    figure.legend(handles=_legend(axes, names), loc="outside upper center", ncols=3, frameon=False, fontsize=9)
    return figure


def _rows(comparison: Comparison) -> list[tuple[float, Compared]]:
    """Headline differences with their places from the top: a gap before every task, all datasets before each one."""
    shown = [one for one in comparison.compared if one.is_headline and one.difference is not None]
    blocks = list(dict.fromkeys((one.split, one.task) for one in shown))
    rows: list[tuple[float, Compared]] = []
    place = 0.0
    for block in blocks:
        some = [one for one in shown if (one.split, one.task) == block]
        for one in sorted(some, key=lambda one: (one.family is not Family.HEADLINE, one.dataset)):
            rows.append((place, one))
            place += 1.0
        place += 0.6
    return rows


def _draw_row(axes: Any, place: float, one: Compared, colour: str, alpha: float) -> None:
    is_all = one.family is Family.HEADLINE
    if is_all and one.detectable is not None:
        axes.barh(place, 200 * one.detectable, left=-100 * one.detectable, height=0.8, color=_BAND, zorder=0)
    value = 100 * (one.difference or 0.0)
    if one.low is not None and one.high is not None:
        width = 2.4 if is_all else 1.4
        axes.plot([100 * one.low, 100 * one.high], [place, place], color=colour, linewidth=width, solid_capstyle="butt")
    is_shown = one.p_holm is not None and one.p_holm <= alpha
    axes.plot(
        [value],
        [place],
        "o",
        color=colour,
        markersize=7 if is_all else 5,
        markerfacecolor=colour if is_shown else "white",
        zorder=3,
    )


def _label(one: Compared, *, has_several: bool) -> str:
    model = f": {one.other}" if has_several else ""
    if one.family is Family.HEADLINE:
        return f"{one.task} {one.split}, {name_of(one.metric)}{model}"
    return f"{one.dataset}{model}"


def _limits(shown: Sequence[Compared]) -> tuple[float, float]:
    """Symmetric, wide enough for all that rests on enough groups; what few groups say may run out of the picture."""
    ends = [1.0]
    enough = [one for one in shown if one.n_groups >= FEW_GROUPS]
    for one in enough or shown:
        ends += [100 * abs(end) for end in (one.difference, one.low, one.high) if end is not None]
        if one.family is Family.HEADLINE and one.detectable is not None:
            ends.append(100 * one.detectable)
    return -1.08 * max(ends), 1.08 * max(ends)


def _direction(reference: str, subject: str) -> str:
    return f"\N{LEFTWARDS ARROW} {reference} is better      {subject} is better \N{RIGHTWARDS ARROW}"


def _legend(axes: Any, names: Sequence[str]) -> list[Any]:
    """Handles drawn outside the view: a colour for each model, and what fillings and the band mean."""
    handles = []
    if len(names) > 1:
        for index, name in enumerate(names):
            handles += axes.plot([], [], color=_COLOURS[index % len(_COLOURS)], linewidth=3, label=name)
    handles += axes.plot([], [], "o", color=GREY, label="shown after Holm")
    handles += axes.plot([], [], "o", color=GREY, markerfacecolor="white", label="not shown")
    handles += axes.plot([], [], color=_BAND, linewidth=9, label="too small to be shown here")
    return handles
