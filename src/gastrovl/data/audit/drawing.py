"""The crossings of an audit to the shapes of a small drawing, in the pixels of its SVG view box."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gastrovl.data.audit.report import AuditReport, Place
from gastrovl.data.audit.verdict import percent

MOST_PLACES = 10
_CELL_WH = (112, 56)
_LABEL_PX = 168
_HEAD_PX = 54
_BAR_WH = (640, 34)
_LETTERS = 20  # of a row's name
_COLUMN_LETTERS = 14


@dataclass(frozen=True)
class Cell:
    """How many images of the row have a copy in the column; `strength` in [0, 1] is how deep the colour is."""

    x: int
    y: int
    kind: str
    strength: float
    count: str
    share: str
    words: str


@dataclass(frozen=True)
class Label:
    """A text with its full form for a tooltip."""

    x: float
    y: float
    text: str
    words: str


@dataclass(frozen=True)
class Matrix:
    """Places against places; `left_out` of them did not fit."""

    width: int
    height: int
    cell_width: int
    cell_height: int
    cells: tuple[Cell, ...]
    rows: tuple[Label, ...]
    columns: tuple[Label, ...]
    words: str
    left_out: int
    is_matrix: bool = True


@dataclass(frozen=True)
class Bar:
    """Images with a copy beside those without, when there is only one place."""

    width: int
    height: int
    filled: float
    words: str
    is_matrix: bool = False


def draw_matrix(report: AuditReport) -> Matrix:
    """Rows are what has a copy, columns where the copy is; places with most copies elsewhere if there are too many."""
    places = _most_telling(report.places)
    found = {(one.of, one.inside): one for one in report.crossings}
    width, height = _CELL_WH
    cells = []
    for row, a in enumerate(places):
        for column, b in enumerate(places):
            one = found.get((a.name, b.name))
            copies = one.copies if one else 0
            kind = "same" if a is b else "leak" if _is_leak(a, b) else "other"
            cells.append(
                Cell(
                    x=_LABEL_PX + column * width,
                    y=_HEAD_PX + row * height,
                    kind=kind if copies else "none",
                    strength=round(0.2 + 0.8 * (copies / a.images) ** 0.5, 3) if copies else 0,
                    count=f"{copies:,}",
                    share=percent(one) if one else "",
                    words=f"{copies:,} of {a.images:,} images of {a.name} have a copy in {b.name}",
                )
            )
    return Matrix(
        width=_LABEL_PX + len(places) * width,
        height=_HEAD_PX + len(places) * height,
        cell_width=width,
        cell_height=height,
        cells=tuple(cells),
        rows=tuple(
            Label(_LABEL_PX - 10, _HEAD_PX + (n + 0.5) * height, _short(one.name, _LETTERS), one.name)
            for n, one in enumerate(places)
        ),
        columns=tuple(
            Label(_LABEL_PX + (n + 0.5) * width, _HEAD_PX - 12, _short(one.name, _COLUMN_LETTERS), one.name)
            for n, one in enumerate(places)
        ),
        words="Images of each row that have a copy in each column",
        left_out=len(report.places) - len(places),
    )


def draw_bar(report: AuditReport) -> Bar:
    """One bar over all images."""
    width, height = _BAR_WH
    share = report.images_with_copy / report.images if report.images else 0.0
    words = f"{report.images_with_copy:,} of {report.images:,} images have a copy among the others"
    return Bar(width, height, round(width * share, 1), words)


def _most_telling(places: Sequence[Place]) -> list[Place]:
    ranked = sorted(places, key=lambda one: -one.copies_elsewhere)[:MOST_PLACES]
    return [one for one in places if one in ranked]


def _is_leak(a: Place, b: Place) -> bool:
    return a.folder != b.folder or bool(a.split and b.split and a.split is not b.split)


def _short(name: str, letters: int) -> str:
    """The name, or its beginning and its end, where "a/b: train" and "a/b: test" differ."""
    if len(name) <= letters:
        return name
    head = letters // 3
    return f"{name[:head]}…{name[len(name) - (letters - head - 1) :]}"
