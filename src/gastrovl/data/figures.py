"""Counts of a dataset to figures: the taxonomy as a sunburst, class balance and tasks by split (PNG and SVG)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gastrovl.clinical.taxonomy import Taxonomy
from gastrovl.core.figures import GREY, INK, OCHRE, RULE, RUST, TEAL, hide_frame, new_figure, save_figure
from gastrovl.core.types import Split
from gastrovl.data.sunburst import FAMILIES, draw_sunburst

FOLDER = "figures"
_WIDE = 30  # a longest bar so many times the shortest calls for a logarithmic axis
_SPLITS = {Split.TRAIN: TEAL, Split.VAL: OCHRE, Split.TEST: RUST}


def save_figures(folder: Path, statistics: Mapping[str, Any], taxonomy: Taxonomy) -> list[Path]:
    """Write `figures/NAME.png` and `figures/NAME.svg` below a dataset folder; returns the paths.

    Args:
        statistics: As in `statistics.json`.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    figures: dict[str, Any] = {}
    if statistics["labels"]:
        figures["taxonomy"] = draw_sunburst(statistics)
        figures["class_balance"] = draw_balance(statistics, taxonomy)
    figures["tasks"] = draw_tasks(statistics)
    return [
        path
        for name, figure in figures.items()
        for path in save_figure(figure, Path(folder) / FOLDER / name, ("png", "svg"))
    ]


def draw_balance(statistics: Mapping[str, Any], taxonomy: Taxonomy) -> Any:
    """Images of each label, a panel a split; a label that a split lacks is marked."""
    rows = [row for row in statistics["table_3"] if row["labelled"]]
    own = {
        split: [round(statistics["balance"][split]["shares"][row["term"]] * _images(statistics, split)) for row in rows]
        for split in Split
    }
    colours = [FAMILIES.get(taxonomy.at_level(row["term"], 1).id, GREY) for row in rows]
    figure = new_figure(12.0, 1.3 + 0.19 * max(len(rows), 3), extra="data")
    panels = figure.subplots(1, len(Split), sharey=True)
    for axes, (split, numbers) in zip(panels, own.items(), strict=True):
        is_wide = _scale(axes, numbers)
        axes.barh(range(len(rows)), numbers, color=colours, height=0.7)
        start = axes.get_xlim()[0]
        for place, number in enumerate(numbers):
            text, colour = (f" {number:,}", INK) if number else (" none", RUST)
            axes.text(max(number, start), place, text, va="center", fontsize=7, color=colour)
        axes.set_xlabel("images, logarithmic" if is_wide else "images")
        axes.set_title(_balance_title(split, statistics["balance"][split]), fontsize=9)
        axes.grid(axis="x", color=RULE)
        axes.set_axisbelow(True)
        hide_frame(axes)
    panels[0].set_yticks(range(len(rows)), [row["name"] for row in rows], fontsize=8)
    panels[0].set_ylim(len(rows) - 0.4, -0.6)
    return figure


def draw_tasks(statistics: Mapping[str, Any]) -> Any:
    """Conversations of each task, a bar a split."""
    table = statistics["table_1"]
    tasks = list(table["train"])
    figure = new_figure(1.6 + 1.25 * len(tasks), 3.8, extra="data")
    axes = figure.subplots()
    everything = [table[split][task] for split in Split for task in tasks]
    is_wide = _scale(axes, everything, vertical=True)
    for offset, (split, colour) in zip((-0.27, 0.0, 0.27), _SPLITS.items(), strict=True):
        numbers = [table[split][task] for task in tasks]
        places = [place + offset for place in range(len(tasks))]
        axes.bar(places, numbers, width=0.25, color=colour, label=split.value)
        for place, number in zip(places, numbers, strict=True):
            height = max(number, axes.get_ylim()[0])
            axes.text(place, height, f"{number:,}", ha="center", va="bottom", fontsize=7, color=INK)
    axes.set_xticks(range(len(tasks)), tasks)
    axes.set_ylabel("conversations, logarithmic" if is_wide else "conversations")
    axes.grid(axis="y", color=RULE)
    axes.set_axisbelow(True)
    hide_frame(axes)
    figure.legend(loc="outside upper center", ncols=3, frameon=False)
    return figure


def _images(statistics: Mapping[str, Any], split: Split) -> int:
    return int(statistics["balance"][split]["images"])


def _balance_title(split: Split, row: Mapping[str, Any]) -> str:
    if not row["labels"]:
        return f"{split}: {row['images']:,} images"
    uneven = f"imbalance {row['imbalance']:,.1f}, effective labels {row['effective_classes']:.1f}"
    return f"{split}: {row['images']:,} images, {row['labels']} labels\n{uneven}"


def _scale(axes: Any, numbers: list[int], *, vertical: bool = False) -> bool:
    """Give an axis room for its bars and the numbers at their ends; returns whether it is logarithmic."""
    seen = [number for number in numbers if number]
    is_wide = bool(seen) and max(seen) > _WIDE * min(seen)
    name = "y" if vertical else "x"
    top = max(seen, default=1)
    if is_wide:
        axes.set(**{f"{name}scale": "log", f"{name}lim": (0.7, top ** (1.1 if vertical else 1.25))})
    else:
        axes.set(**{f"{name}lim": (0, top * (1.1 if vertical else 1.22))})
    return is_wide
