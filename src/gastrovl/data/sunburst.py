"""Images by place in the taxonomy to a sunburst of three rings, as Figure 3 of He et al. 2025 has it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gastrovl.core.figures import GREY, INK, OCHRE, PURPLE, RUST, TEAL, new_figure

FAMILIES = {"negative": PURPLE, "anatomical_structure": TEAL, "pathological_findings": RUST, "other": GREY}
RINGS = ((0.27, 0.54), (0.54, 0.82), (0.82, 1.0))  # inner and outer radius of levels 1, 2 and 3
_UNIT = 2.7  # inches to a radius of 1
_LINE = 0.165  # inches from one label beside the rings to the next
_LETTER = 0.068  # inches, about, of a letter of such a label
_SMALL_LETTER = 0.064  # of one inside a ring


@dataclass(frozen=True)
class Slice:
    """A term's part of its ring; angles in turns, clockwise from the top, in [0, 1].

    Attributes:
        own: Part of the turn that is the term's own labels, not those of terms below it.
    """

    term: str
    level: int
    start: float
    end: float
    own: float

    @property
    def middle(self) -> float:
        return (self.start + self.end) / 2


def slices(places: Sequence[Mapping[str, Any]]) -> list[Slice]:
    """Where each term of `table_3` lies.

    A term's part of the turn is its share of all labels: an image counts once for each of its labels, since only so do
    the parts below a term add up to it. Labels that are the term itself come first and have nothing outside them.
    """
    total = sum(row["labelled"] for row in places)
    found: list[Slice] = []

    def place(row: Mapping[str, Any], start: float) -> float:
        own = float(row["labelled"] / total)
        end, at = start + own, len(found)
        for below in (other for other in places if other["parent"] == row["term"]):
            end = place(below, end)
        found.insert(at, Slice(row["term"], row["level"], start, end, own))
        return end

    start = 0.0
    for row in (row for row in places if row["parent"] is None):
        start = place(row, start)
    return found


def spread_out(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Heights at least `gap` apart, in the order of `wanted` (rising), near to it and between `low` and `high`.

    Labels that would touch form a block around the mean of their wishes; without room for all, they share it evenly.
    """
    if len(wanted) > 1:
        gap = min(gap, (high - low) / (len(wanted) - 1))
    blocks: list[tuple[float, int]] = []  # height of the middle, labels
    for height in wanted:
        block = _kept_inside(height, 1, gap, low, high)
        while blocks and block[0] - blocks[-1][0] < gap * (block[1] + blocks[-1][1]) / 2 - 1e-12:
            middle, number = blocks.pop()
            both = number + block[1]
            block = _kept_inside((middle * number + block[0] * block[1]) / both, both, gap, low, high)
        blocks.append(block)
    return [middle + gap * (place - (number - 1) / 2) for middle, number in blocks for place in range(number)]


def leader(turn: float, radius: float, end: tuple[float, float]) -> list[tuple[float, float]]:
    """Points of a line from a slice out to `end`, which lies outside the rings on the same side, that crosses no slice.

    Where the straight way would cross, the line follows the outer ring as far as the tangent through `end`.
    """
    outside = 1.04
    reach = math.acos(outside / math.hypot(*end)) / (2 * math.pi)
    towards = math.atan2(*end) / (2 * math.pi) % 1
    touch = min(max(turn, towards - reach), towards + reach)
    steps = max(1, math.ceil(120 * abs(touch - turn)))
    along = [_point(turn + (touch - turn) * step / steps, outside) for step in range(steps + 1)]
    return [_point(turn, radius), *along, end]


def draw_sunburst(counts: Mapping[str, Any]) -> Any:
    """Three rings of labels, with images beside each; thin slices are named beside the rings too.

    Args:
        counts: As in `statistics.json`.
    """
    places = {row["term"]: row for row in counts["table_3"]}
    drawn = slices(counts["table_3"])
    names = [(part, text) for part in drawn if (text := _outer_text(part, drawn, places))]
    sides = [[item for item in names if _is_right(item[0]) is right] for right in (False, True)]
    half_width = _UNIT * 1.12 + 0.35 + _LETTER * max((len(text) for _, text in names), default=0)
    half_height = max(_UNIT * 1.1, _LINE * (max(map(len, sides)) - 1) / 2 + 0.2)
    figure = new_figure(2 * half_width, 2 * half_height + 0.4, extra="data")
    figure.set_layout_engine("none")  # the place of everything is known
    axes = figure.add_axes((0, 0, 1, 2 * half_height / (2 * half_height + 0.4)))
    axes.set_xlim(-half_width / _UNIT, half_width / _UNIT)
    axes.set_ylim(-half_height / _UNIT, half_height / _UNIT)
    axes.set_aspect("equal")
    axes.axis("off")
    for part in drawn:
        _draw_slice(axes, part, _colour(part, drawn, places), places[part.term])
    images = sum(row["images"] for row in counts["splits"].values())
    axes.text(0, 0, f"{images:,}\nimages", ha="center", va="center", fontsize=11, color=INK)
    for own, right in zip(sides, (False, True), strict=True):
        _draw_names(axes, own, right, (half_height - 0.12) / _UNIT)
    figure.suptitle("Images by place in the taxonomy; a slice is the share of all labels", fontsize=11, color=INK)
    return figure


def _kept_inside(middle: float, number: int, gap: float, low: float, high: float) -> tuple[float, int]:
    half = gap * (number - 1) / 2
    return min(max(middle, low + half), high - half), number


def _is_right(part: Slice) -> bool:
    return part.middle < 0.5


def _point(turn: float, radius: float) -> tuple[float, float]:
    return radius * math.sin(2 * math.pi * turn), radius * math.cos(2 * math.pi * turn)


def _lines_inside(part: Slice, name: str) -> list[str] | None:
    """A name in lines along the radius, or None where its slice has no room for them."""
    inner, outer = RINGS[part.level - 1]
    lines: list[str] = []
    for word in name.split():
        if lines and len(lines[-1]) + 1 + len(word) <= (outer - inner) * _UNIT / _SMALL_LETTER:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    arc = 2 * math.pi * (part.end - part.start) * inner * _UNIT
    return lines if arc >= 0.125 * len(lines) else None


def _outer_text(part: Slice, drawn: Sequence[Slice], places: Mapping[str, Mapping[str, Any]]) -> str:
    """What stands beside the rings: a term of level 3, or one above it that has no other room or labels of its own."""
    row = places[part.term]
    if part.level < 3:
        if _lines_inside(part, row["name"]) or any(places[one.term]["parent"] == part.term for one in drawn):
            return ""
        return f"{row['name']}  {sum(row['images'].values()):,}"
    parents = {one.term: one for one in drawn}
    above = [row["parent"], places[row["parent"]]["parent"]]
    unnamed = [places[term]["name"] for term in above if not _lines_inside(parents[term], places[term]["name"])]
    return f"{row['name']}  {sum(row['images'].values()):,}" + (f"  ({', '.join(unnamed)})" if unnamed else "")


def _colour(part: Slice, drawn: Sequence[Slice], places: Mapping[str, Mapping[str, Any]]) -> tuple[float, ...]:
    """The colour of the term's family, lighter at each level, and in turns a little so that neighbours differ."""
    top = part.term
    while places[top]["parent"] is not None:
        top = places[top]["parent"]
    siblings = [one.term for one in drawn if one.level == part.level]
    base = FAMILIES.get(top, OCHRE)
    light = (0.0, 0.32, 0.55)[part.level - 1] + (0.12 * (siblings.index(part.term) % 2) if part.level > 1 else 0)
    return tuple(value + (1 - value) * light for value in (int(base[n : n + 2], 16) / 255 for n in (1, 3, 5)))


def _draw_slice(axes: Any, part: Slice, colour: tuple[float, ...], row: Mapping[str, Any]) -> None:
    inner, outer = RINGS[part.level - 1]
    steps = max(2, math.ceil(180 * (part.end - part.start)))
    turns = [part.start + (part.end - part.start) * step / steps for step in range(steps + 1)]
    edge = [_point(turn, outer) for turn in turns] + [_point(turn, inner) for turn in reversed(turns)]
    is_thin = 2 * math.pi * (part.end - part.start) * outer * _UNIT < 0.03
    xs, ys = zip(*edge, strict=True)
    axes.fill(xs, ys, facecolor=colour, edgecolor=colour if is_thin else "white", linewidth=0.6)
    if part.level == 3:
        return
    lines = _lines_inside(part, row["name"])
    if lines is None:
        return
    number = f"{sum(row['images'].values()):,}"
    if 2 * math.pi * (part.end - part.start) * inner * _UNIT >= 0.125 * (len(lines) + 1):
        lines.append(number)
    x, y = _point(part.middle, (inner + outer) / 2)
    angle = 90 - 360 * part.middle
    axes.text(
        x,
        y,
        "\n".join(lines),
        ha="center",
        va="center",
        rotation=angle if _is_right(part) else angle + 180,
        rotation_mode="anchor",
        fontsize=7.5,
        linespacing=1.0,
        color="white" if sum(colour) < 1.9 else INK,
    )


def _draw_names(axes: Any, names: Sequence[tuple[Slice, str]], right: bool, high: float) -> None:
    """Names beside one half of the rings, each with a line to its slice."""
    side = 1 if right else -1
    rising = sorted(names, key=lambda item: -item[0].middle if right else item[0].middle)
    wanted = [_point(part.middle, 1.08)[1] for part, _ in rising]
    heights = spread_out(wanted, _LINE / _UNIT, -high, high)
    for (part, text), height in zip(rising, heights, strict=True):
        line = [*leader(part.middle, RINGS[part.level - 1][1], (side * 1.14, height)), (side * 1.17, height)]
        xs, ys = zip(*line, strict=True)
        axes.plot(xs, ys, color=GREY, linewidth=0.6)
        axes.text(side * 1.19, height, text, ha="left" if right else "right", va="center", fontsize=8, color=INK)
