"""What judges and people found, to three pictures: mean levels, agreement, and preferences (PNG)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gastrovl.core.figures import GREY, INK, OCHRE, PURPLE, RULE, RUST, TEAL, hide_frame, new_figure, save_figure
from gastrovl.evaluation.judging.judged import ALL, PEOPLE, Agreement, Judged, Preference

_COLOURS = (TEAL, OCHRE, PURPLE, GREY)  # of judges; people are rust diamonds
_KAPPA = "Cohen's kappa, quadratic"
_ALPHA = "Krippendorff's alpha, ordinal"
_MOST_ROWS = 24
_NOTICE = "Research software. A judge model is no physician."


def save_pictures(folder: Path, judged: Judged) -> list[Path]:
    """Write what there is something to show of: means.png, agreement.png, preferences.png.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    drawn: dict[str, Any] = {}
    if judged.means:
        drawn["means"] = draw_means(judged)
    shown = [one for one in judged.agreements if one.coefficient in (_KAPPA, _ALPHA) and one.value is not None]
    for kind in ("judge, person", "person, person"):  # the table has them all; people together are there in any case
        shown = [one for one in shown if one.kind != kind] if len(shown) > _MOST_ROWS else shown
    if shown:
        drawn["agreement"] = draw_agreement(shown)
    if judged.preferences:
        drawn["preferences"] = draw_preferences(judged.preferences)
    for figure in drawn.values():
        figure.suptitle(_NOTICE, x=0.995, ha="right", fontsize=7.5, color=GREY)
    folder.mkdir(parents=True, exist_ok=True)
    return [path for name, figure in drawn.items() for path in save_figure(figure, folder / name)]


def draw_means(judged: Judged) -> Any:
    """One panel a criterion, one row a model: mean level with its interval, by each judge and by people."""
    means = [one for one in judged.means if one.task == ALL and one.value is not None]
    criteria = list(dict.fromkeys(one.criterion for one in means))
    names = sorted({one.by for one in means}, key=lambda name: (name == PEOPLE, name))
    models = sorted({one.model for one in means})
    figure = new_figure(3.1 * len(criteria) + 2.2, 1.5 + 0.28 * len(models) * max(len(names), 2), extra="evaluate")
    panels = figure.subplots(1, len(criteria), sharey=True, squeeze=False)[0]
    for axes, criterion in zip(panels, criteria, strict=True):
        for place, by in enumerate(names):
            some = [one for one in means if one.criterion == criterion and one.by == by]
            rows = [models.index(one.model) + 0.22 * (place - (len(names) - 1) / 2) for one in some]
            colour = RUST if by == PEOPLE else _COLOURS[place % len(_COLOURS)]
            for row, one in zip(rows, some, strict=True):
                if one.low is not None and one.high is not None:
                    axes.plot([one.low, one.high], [row, row], color=colour, linewidth=2.5, alpha=0.5)
            axes.plot([one.value for one in some], rows, "D" if by == PEOPLE else "o", color=colour, label=by)
        most = max(one.most for one in means if one.criterion == criterion)
        axes.set_xlim(-0.1, most + 0.1)
        axes.set_xticks(range(most + 1))
        axes.set_title(criterion, loc="left", fontsize=11)
        axes.set_xlabel("mean level, 95 % interval", fontsize=9)
        axes.grid(axis="x", color=RULE)
        axes.set_axisbelow(True)
        hide_frame(axes)
    panels[0].set_yticks(range(len(models)), models)
    panels[0].set_ylim(len(models) - 0.5, -0.5)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(names), frameon=False)
    return figure


def draw_agreement(agreements: Sequence[Agreement]) -> Any:
    """One row a comparison and criterion: quadratic kappa (of several people alpha) with its interval."""
    figure = new_figure(9.0, 1.2 + 0.27 * max(len(agreements), 3), extra="evaluate")
    axes = figure.subplots()
    places = _apart([one.criterion for one in agreements])
    for row, one in zip(places, agreements, strict=True):
        colour = RUST if one.kind.startswith(("person", "people")) else TEAL
        if one.low is not None and one.high is not None:
            axes.plot([one.low, one.high], [row, row], color=colour, linewidth=2.5, alpha=0.5)
        axes.plot([one.value], [row], "D" if colour == RUST else "o", color=colour)
    axes.set_yticks(places, [f"{one.criterion}: {one.between}" for one in agreements], fontsize=9)
    axes.set_ylim(places[-1] + 0.6, -0.6)
    lowest = min(-0.05, *(one.low if one.low is not None else float(one.value or 0) for one in agreements))
    axes.set_xlim(max(lowest, -1.02), 1.02)
    axes.axvline(0, color=INK, linewidth=0.8)
    axes.set_xlabel("quadratic kappa (several people: Krippendorff's alpha), 95 % interval; 0 is chance")
    axes.grid(axis="x", color=RULE)
    axes.set_axisbelow(True)
    hide_frame(axes)
    return figure


def _apart(names: Sequence[str]) -> list[float]:
    """A place for each row, with a gap where the name changes."""
    changes = 0
    places = []
    for row, name in enumerate(names):
        changes += row > 0 and name != names[row - 1]
        places.append(row + 0.6 * changes)
    return places


def draw_preferences(preferences: Sequence[Preference]) -> Any:
    """One bar a judge and pair of models: questions won, tied or undecided, and lost."""
    figure = new_figure(9.0, 1.5 + 0.9 * len(preferences), extra="evaluate")
    axes = figure.subplots()
    for row, one in enumerate(preferences):
        start = 0
        parts = (
            (one.first_wins, TEAL, "the upper one is better"),
            (one.ties, RULE, "tie, or not the same in both orders"),
            (one.second_wins, OCHRE, "the lower one is better"),
        )
        for count, colour, label in parts:
            axes.barh(row, count, left=start, color=colour, height=0.5, label=label if row == 0 else None)
            if count:
                ink = INK if colour == RULE else "white"
                axes.text(start + count / 2, row, str(count), ha="center", va="center", color=ink, fontsize=10)
            start += count
        bias = (one.first_place + one.second_place) / one.pairs
        said = f"by {one.judge}; the same place won both times in {bias:.0%} of {one.pairs} pairs"
        axes.text(0.01 * one.n, row + 0.37, said, fontsize=8.5, color=INK, va="center")
    axes.set_yticks(range(len(preferences)), [f"{one.first}\nagainst {one.second}" for one in preferences])
    axes.set_ylim(len(preferences) - 0.45, -0.45)
    axes.set_xlabel("questions")
    axes.xaxis.get_major_locator().set_params(integer=True)
    hide_frame(axes)
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    return figure
