"""Confusion matrices and scores of single labels to pictures, in the order and the groups of the vocabulary."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gastrovl.clinical.taxonomy import Taxonomy
from gastrovl.core.figures import GREY, INK, RULE, TEAL, hide_frame, new_figure
from gastrovl.evaluation.results import ClassScore, ConfusionMatrix

_FEW = 25  # labels up to which every cell carries its count
_MOST_CLASSES = 40  # bars that can be read in one figure
_ODD = "(other)"
_LABEL_PX = 8.0


def in_groups(matrix: ConfusionMatrix, taxonomy: Taxonomy) -> ConfusionMatrix:
    """The same matrix with labels of one level-2 group side by side; columns that are no labels stay last."""
    rows = sorted(range(len(matrix.rows)), key=lambda i: _place(matrix.rows[i], taxonomy))
    columns = sorted(range(len(matrix.columns)), key=lambda i: _place(matrix.columns[i], taxonomy))
    return ConfusionMatrix(
        task=matrix.task,
        split=matrix.split,
        rows=tuple(matrix.rows[i] for i in rows),
        columns=tuple(matrix.columns[i] for i in columns),
        counts=tuple(tuple(matrix.counts[i][j] for j in columns) for i in rows),
    )


def by_group(matrix: ConfusionMatrix, taxonomy: Taxonomy) -> ConfusionMatrix:
    """The matrix of level-2 groups: what is confused within a group stands on the diagonal."""
    ordered = in_groups(matrix, taxonomy)
    row_groups = [group_of(label, taxonomy) for label in ordered.rows]
    column_groups = [group_of(label, taxonomy) for label in ordered.columns]
    rows, columns = tuple(dict.fromkeys(row_groups)), tuple(dict.fromkeys(column_groups))
    counts = np.zeros((len(rows), len(columns)), dtype=np.int64)
    for row, group in zip(ordered.counts, row_groups, strict=True):
        for count, column_group in zip(row, column_groups, strict=True):
            counts[rows.index(group), columns.index(column_group)] += count
    return ConfusionMatrix(
        task=matrix.task, split=matrix.split, rows=rows, columns=columns, counts=tuple(map(tuple, counts.tolist()))
    )


def group_of(label: str, taxonomy: Taxonomy) -> str:
    """The id of the level-2 term above a label; of a level-1 term or of what is no term, the label itself."""
    if label not in taxonomy:
        return label
    above = [taxonomy[one] for one in (label, *taxonomy.ancestors(label))]
    return next((term.id for term in above if term.level == 2), label)


def draw_confusion(matrix: ConfusionMatrix, taxonomy: Taxonomy) -> Any:
    """Truth in rows, answers in columns, shaded by the share of the row; lines part the level-2 groups.

    Up to 25 labels every cell carries its count; beyond, only cells of at least a tenth of their row carry that share.
    """
    matrix = in_groups(matrix, taxonomy)
    counts = np.array(matrix.counts, dtype=float)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    rows, columns = counts.shape
    is_small = max(rows, columns) <= _FEW
    side = 0.42 if is_small else 0.27
    figure = new_figure(3.6 + side * columns, 2.8 + side * rows, extra="evaluate")
    axes = figure.subplots()
    axes.imshow(shares, cmap="GnBu", vmin=0, vmax=1, aspect="equal")
    for row, column in zip(*np.nonzero(counts if is_small else shares >= 0.1), strict=True):
        text = f"{counts[row, column]:.0f}" if is_small else f"{100 * shares[row, column]:.0f}"
        colour = "white" if shares[row, column] > 0.6 else INK
        said = axes.text(column, row, text, ha="center", va="center", fontsize=8 if is_small else 6, color=colour)
        said.set_in_layout(False)  # it lies inside; the layout need not measure hundreds of these
    size = _LABEL_PX if is_small else 7.0
    names = [_name(label, taxonomy) for label in matrix.columns]
    axes.set_xticks(range(columns), names, rotation=50, ha="right", rotation_mode="anchor", fontsize=size)
    row_names = [
        f"{_name(label, taxonomy)} ({int(n)})" for label, n in zip(matrix.rows, counts.sum(axis=1), strict=True)
    ]
    axes.set_yticks(range(rows), row_names, fontsize=size)
    _draw_lines(axes, matrix, taxonomy)
    axes.set_xlabel("model's answer")
    axes.set_ylabel("truth (questions)")
    shown = "counts" if is_small else "percent of the row, from 10 up"
    axes.set_title(f"{matrix.task}, {matrix.split}: {shown}, shaded by share of the row", fontsize=10)
    return figure


def draw_classes(scores: Sequence[ClassScore], taxonomy: Taxonomy) -> Any | None:
    """Recall of each label as a bar and its precision as a mark, the most frequent labels first; None without any.

    Args:
        scores: Of one task, split and dataset. Labels that are true nowhere are left out.
    """
    known = sorted((one for one in scores if one.n_true), key=lambda one: (-one.n_true, one.label))
    shown = known[:_MOST_CLASSES]
    if not shown:
        return None
    figure = new_figure(7.6, 1.5 + 0.27 * max(len(shown), 3), extra="evaluate")
    axes = figure.subplots()
    places = range(len(shown))
    axes.barh(places, [100 * (one.recall or 0.0) for one in shown], color="#7fb3b8", height=0.7, label="recall")
    precise = [(one, place) for place, one in enumerate(shown) if one.precision is not None]
    axes.plot(
        [100 * (one.precision or 0.0) for one, _ in precise],
        [place for _, place in precise],
        "D",
        color=TEAL,
        markersize=5,
        label="precision",
        clip_on=False,
    )
    axes.set_yticks(places, [f"{_name(one.label, taxonomy)} ({one.n_true})" for one in shown], fontsize=8)
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.set_xlim(0, 100)
    axes.set_xlabel("percent")
    axes.grid(axis="x", color=RULE)
    axes.set_axisbelow(True)
    hide_frame(axes)
    left_out = f", the {len(shown)} most frequent of {len(known)} labels" if len(shown) < len(known) else ""
    axes.set_title(f"{shown[0].task}, {shown[0].split}: by true label (questions){left_out}", fontsize=10)
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    return figure


def _draw_lines(axes: Any, matrix: ConfusionMatrix, taxonomy: Taxonomy) -> None:
    """Thin lines between cells, strong ones between groups."""
    rows, columns = len(matrix.rows), len(matrix.columns)
    axes.tick_params(length=0)
    thin = (np.arange(1, rows) - 0.5, np.arange(1, columns) - 0.5)
    strong = ([y - 0.5 for y in _borders(matrix.rows, taxonomy)], [x - 0.5 for x in _borders(matrix.columns, taxonomy)])
    for (ys, xs), colour, width in ((thin, RULE, 0.6), (strong, GREY, 1.1)):
        axes.hlines(ys, -0.5, columns - 0.5, colors=colour, linewidths=width)
        axes.vlines(xs, -0.5, rows - 0.5, colors=colour, linewidths=width)
    axes.set_xlim(-0.5, columns - 0.5)
    axes.set_ylim(rows - 0.5, -0.5)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _borders(labels: Sequence[str], taxonomy: Taxonomy) -> list[int]:
    groups = [_ODD if label not in taxonomy else group_of(label, taxonomy) for label in labels]
    return [place for place in range(1, len(groups)) if groups[place] != groups[place - 1]]


def _place(label: str, taxonomy: Taxonomy) -> tuple[int, int]:
    """Group first, then place in the vocabulary; what is no term comes last, in the order it has."""
    if label not in taxonomy:
        return len(taxonomy.terms), 0
    return taxonomy.order(group_of(label, taxonomy)), taxonomy.order(label)


def _name(label: str, taxonomy: Taxonomy) -> str:
    return taxonomy[label].name if label in taxonomy else label
