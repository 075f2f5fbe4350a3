"""A comparison to comparison.md and comparison.csv, and to the table that the terminal shows."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from gastrovl.core.files import write_text
from gastrovl.evaluation.comparing.comparison import Compared, Comparison, Family, RightWrong
from gastrovl.evaluation.comparing.verdict import name_of
from gastrovl.evaluation.results import ALL
from gastrovl.evaluation.showing.names import NO_VALUE, name_with_unit, percent, shown, shown_difference
from gastrovl.evaluation.showing.tables import Table
from gastrovl.evaluation.statistics.intervals import FEW_GROUPS

_GAP = "difference [95 % CI]"


def headline_table(comparison: Comparison) -> Table:
    """One row a task and model: both scores, the difference in points with its interval, and what the tests say."""
    columns = ("task", "metric", "model", "reference, %", "model, %", _GAP, "p", "p, Holm", "could show", "n", "groups")
    rows = tuple(
        (*_place(one), name_of(one.metric), one.other, *_values(one), _p(one.p_holm), _could_show(one), *_sizes(one))
        for one in comparison.compared
        if one.family is Family.HEADLINE
    )
    return Table(f"All against {comparison.reference}", columns, rows, first_number=3)


def short_table(comparison: Comparison) -> Table:
    """The headline table in the width of a terminal."""
    columns = ("task", "model", "reference, %", "model, %", "difference", "p, Holm", "groups")
    rows = tuple(
        (str(one.task), one.other, *_values(one)[:3], _p(one.p_holm), str(one.n_groups))
        for one in comparison.compared
        if one.family is Family.HEADLINE
    )
    return Table(f"All against {comparison.reference}, with 95 % CI", columns, rows, first_number=2)


def dataset_table(comparison: Comparison) -> Table:
    """The headline metrics in each dataset."""
    columns = ("task", "dataset", "metric", "model", "reference, %", "model, %", _GAP, "p", "p, Holm", "n", "groups")
    rows = tuple(
        (*_place(one), one.dataset, name_of(one.metric), one.other, *_values(one), _p(one.p_holm), *_sizes(one))
        for one in comparison.compared
        if one.family is Family.BY_DATASET
    )
    return Table("By dataset", columns, rows, first_number=4)


def metric_table(comparison: Comparison) -> Table:
    """Every metric over all datasets, each in its unit; no verdict rests on these, so p values are not adjusted."""
    columns = ("task", "metric", "model", "reference", "model", _GAP, "p", "could show", "n", "groups")
    rows = tuple(
        (*_place(one), name_with_unit(one.metric), one.other, *_in_unit(one), *_sizes(one))
        for one in comparison.compared
        if one.dataset == ALL
    )
    return Table("All metrics", columns, rows, first_number=3)


def right_wrong_table(comparison: Comparison) -> Table:
    """Who alone is right how often, with McNemar's tests that take questions, and groups, as independent."""
    columns = (
        "task",
        "metric",
        "model",
        "only reference right",
        "only model right",
        "p, exact",
        "p, mid-p",
        "p, by group",
        "design effect",
    )
    rows = tuple(
        (*_place(one), name_of(one.metric), one.other, *_right_wrong(one.right_wrong), _number(one.design_effect))
        for one in comparison.compared
        if one.family is Family.HEADLINE and one.right_wrong
    )
    return Table("Rights and wrongs on the same questions", columns, rows, first_number=3)


def rank_table(comparison: Comparison) -> Table:
    """One row a model: its place in each task and their mean, the best mean first."""
    blocks = list(dict.fromkeys((rank.task, rank.split) for rank in comparison.ranks))
    has_splits = len({split for _, split in blocks}) > 1
    place = {(rank.name, rank.task, rank.split): rank for rank in comparison.ranks}
    means: list[tuple[float, tuple[str, ...]]] = []
    for contender in comparison.contenders:
        found = [place.get((contender.name, *block)) for block in blocks]
        places = [rank.place for rank in found if rank]
        if places:
            mean = sum(places) / len(places)
            cells = [NO_VALUE if rank is None else f"{rank.place} ({percent(rank.value)})" for rank in found]
            means.append((mean, (contender.name, *cells, f"{mean:.1f}")))
    heads = [f"{task} {split}" if has_splits else str(task) for task, split in blocks]
    rows = tuple(row for _, row in sorted(means, key=lambda pair: pair[0]))
    return Table("Places by headline value, %", ("model", *heads, "mean place"), rows, first_number=1)


def reading_notes(comparison: Comparison) -> list[str]:
    """What a reader of the tables needs to know, one sentence or two each."""
    sizes = comparison.family_sizes
    notes = [
        "A reply that could not be read counts as wrong: "
        + ", ".join(f"{one.n_unread} of {one.n} of {one.name} ({one.task} {one.split})" for one in comparison.unread)
        + ".",
        f"Difference: model minus {comparison.reference}, in percentage points (in its own unit where a metric is no "
        "share), on the same questions. CI: percentile bootstrap that draws the same groups (patients, exams or "
        f"videos) for both, {comparison.resamples} resamples, seed {comparison.seed}; each interval is for itself, not "
        "adjusted.",
        "p: two-sided. Of the headline metric of a task by swapping the two models in whole groups; of any other by "
        "the bootstrap of its interval. Groups are taken as independent of each other, questions are not.",
        f"p, Holm: adjusted over the {sizes.get(Family.HEADLINE, 0)} headline comparisons over all datasets, on which "
        f"the verdicts rest; apart from them, over the {sizes.get(Family.BY_DATASET, 0)} by dataset.",
        f"A verdict takes {FEW_GROUPS} groups or more and p, Holm <= {comparison.alpha:g}.",
        f"Could show: the least difference that {100 * comparison.power:.0f} % of such test sets would have shown, at "
        f"{100 * comparison.alpha:g} % before Holm.",
        "Places are by value; only differences from the reference were tested, so neighbours may be equal.",
    ]
    doubts: dict[str, list[str]] = {}
    for one in comparison.compared:
        if one.reason and one.is_headline:
            doubts.setdefault(one.reason, []).append(f"{one.task} {one.split} {one.dataset} ({one.other})")
    return [*notes, *comparison.notes, *(f"{reason}: {', '.join(places)}." for reason, places in doubts.items())]


def write_report(folder: Path, comparison: Comparison) -> None:
    """Write comparison.md and comparison.csv into a folder."""
    write_text(folder / "comparison.md", to_markdown(comparison))
    write_text(folder / "comparison.csv", to_csv(comparison.compared))


def to_markdown(comparison: Comparison) -> str:
    """Verdicts, tables and notes as GitHub Markdown."""
    others = ", ".join(one.name for one in comparison.contenders if one.name != comparison.reference)
    parts = [f"# {_escaped(others)} against {_escaped(comparison.reference)}"]
    parts.append("## Verdicts\n\n" + "\n".join(f"- {_escaped(one.text)}" for one in comparison.conclusions))
    tables = [headline_table(comparison), right_wrong_table(comparison), dataset_table(comparison)]
    if len(comparison.contenders) > 2:
        tables.insert(1, rank_table(comparison))
    for table in (*tables, metric_table(comparison)):
        if table.rows:
            marks = ["---" if i < table.first_number else "---:" for i in range(len(table.columns))]
            lines = [table.columns, marks, *table.rows]
            body = "\n".join("| " + " | ".join(_escaped(cell) for cell in line) + " |" for line in lines)
            parts.append(f"## {_escaped(table.title)}\n\n{body}")
    parts.append("\n".join(f"- {_escaped(note)}" for note in reading_notes(comparison)))
    return "\n\n".join(parts) + "\n"


def to_csv(compared: Sequence[Compared]) -> str:
    """One row a metric, dataset and model, fractions unrounded."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    plain = [name for name in Compared.model_fields if name != "right_wrong"]
    writer.writerow([*plain, *RightWrong.model_fields])
    for one in compared:
        cells = one.model_dump(mode="json")
        table = cells.pop("right_wrong") or dict.fromkeys(RightWrong.model_fields)
        writer.writerow(["" if cell is None else cell for cell in (*cells.values(), *table.values())])
    return stream.getvalue()


def _place(one: Compared) -> tuple[str]:
    return (f"{one.task} ({one.split})",)


def _values(one: Compared) -> tuple[str, str, str, str]:
    gap = NO_VALUE if one.difference is None else f"{100 * one.difference:+.1f}"
    interval = "" if one.low is None or one.high is None else f" [{100 * one.low:+.1f}, {100 * one.high:+.1f}]"
    return percent(one.reference_value), percent(one.other_value), gap + interval, _p(one.p)


def _in_unit(one: Compared) -> tuple[str, ...]:
    """Both scores, their difference, its p value, and what could be shown, shares in percent and points."""
    key, gap = one.metric, shown_difference(one.metric, one.difference)
    if one.low is not None and one.high is not None:
        gap += f" [{shown_difference(key, one.low)}, {shown_difference(key, one.high)}]"
    return shown(key, one.reference_value), shown(key, one.other_value), gap, _p(one.p), shown(key, one.detectable)


def _could_show(one: Compared) -> str:
    return NO_VALUE if one.detectable is None else f"{100 * one.detectable:.1f}"


def _sizes(one: Compared) -> tuple[str, str]:
    return str(one.n), str(one.n_groups)


def _right_wrong(one: RightWrong | None) -> tuple[str, ...]:
    if one is None:
        return (NO_VALUE,) * 5
    return str(one.only_reference), str(one.only_other), _p(one.exact), _p(one.mid_p), _p(one.clustered)


def _p(p: float | None) -> str:
    if p is None:
        return NO_VALUE
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def _number(number: float | None) -> str:
    return NO_VALUE if number is None else f"{number:.1f}"


def _escaped(text: str) -> str:
    """Text whose characters GitHub Markdown would take for markup or for the end of a cell."""
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*").replace("_", "\\_")
