"""Results to tables in the layout of Tables 4 to 6 of He et al. 2025, with what those lack: interval, n, baseline."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gastrovl.core.files import write_text
from gastrovl.core.types import Score, Split, Task
from gastrovl.evaluation.measures import facts
from gastrovl.evaluation.results import ALL, MEAN, Results
from gastrovl.evaluation.showing import published
from gastrovl.evaluation.showing.names import NO_VALUE, metric, metric_name, name_with_unit, shown
from gastrovl.evaluation.tasks import HEADLINE, TEXT_TASKS

# What a table of main scores shows of texts below the main one, for a right word may stand in a wrong sentence.
_ALSO = (facts.F1, facts.NEGATION, facts.CONTRADICTIONS)
_DATASETS = {ALL: "all", MEAN: "mean of datasets"}
DOUBT = "†"  # beside a score whose `reason` is told below the table
_NAMED = 4  # scores that a note names
_LATEX = {
    **{character: "\\" + character for character in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    NO_VALUE: "--",
    DOUBT: r"\dag{}",
}


@dataclass(frozen=True)
class Table:
    """Text cells with a heading; `totals` are the rows that sum others up, `first_number` the first numeric column."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    first_number: int
    totals: frozenset[int] = frozenset()


def overall_table(scores: Sequence[Score]) -> Table:
    """Table 4: for each task its headline score, n, unread replies and best baseline of each split.

    Captions and reports have rows for their facts as well: F1, negation, contradictions (a count, and no percentage).
    """
    splits = _splits(scores)
    heads = [h for s in splits for h in (f"{s}, % [95 % CI]", "n", "unread", "best baseline, %")]
    rows = []
    for task in _tasks(scores):
        known = {score.metric for score in scores if score.task is task}
        for key in (HEADLINE[task], *(key for key in _ALSO if key in known and task in TEXT_TASKS)):
            cells = [task.value, metric_name(key) if metric(key).is_percent else name_with_unit(key)]
            for split in splits:
                score = _find(scores, task, key, ALL, split)
                cells += _cells(score) if score else [NO_VALUE] * 4
            rows.append(tuple(cells))
    return Table("Overall by task", ("task", "metric", *heads), tuple(rows), first_number=2)


def dataset_table(scores: Sequence[Score], split: Split) -> Table:
    """Tables 5 and 6: one row a task and dataset, then the total over all conversations and the unweighted mean."""
    rows: list[tuple[str, ...]] = []
    totals: set[int] = set()
    for task in _tasks(scores):
        for score in _chosen(scores, split, task, HEADLINE[task]):
            if score.dataset in _DATASETS:
                totals.add(len(rows))
            rows.append(
                (task.value, _DATASETS.get(score.dataset, score.dataset), metric_name(score.metric), *_cells(score))
            )
    columns = ("task", "dataset", "metric", "score, % [95 % CI]", "n", "unread", "best baseline, %")
    return Table(f"By dataset, {split}", columns, tuple(rows), first_number=3, totals=frozenset(totals))


def metric_table(scores: Sequence[Score], split: Split) -> Table:
    """Every metric over all conversations of a split."""
    chosen = [score for score in scores if score.split is split and score.dataset == ALL]
    rows = tuple((score.task.value, name_with_unit(score.metric), *_cells(score)) for score in chosen)
    columns = ("task", "metric", "score [95 % CI]", "n", "unread", "best baseline")
    return Table(f"All metrics, {split}", columns, rows, first_number=2)


def all_tables(scores: Sequence[Score]) -> list[Table]:
    """The overall table, then for each split the one by dataset and the one of all metrics."""
    by_split = [table for s in _splits(scores) for table in (dataset_table(scores, s), metric_table(scores, s))]
    return [overall_table(scores), *by_split]


def paper_tables(scores: Sequence[Score]) -> list[Table]:
    """Tables 4 to 6 of the paper with ours beside them; `published.caveats` belong below."""
    number = {Split.VAL: 5, Split.TEST: 6}
    heads = ("task", "model", "val / seen, %", "test / unseen, %")
    columns = ("task", "model", "dataset", "score, % [95 % CI]", "n")
    return [
        Table("Beside Table 4 of He et al. 2025", heads, tuple(published.overall_rows(scores)), first_number=2),
        *(
            Table(
                f"Beside Table {number[split]} of He et al. 2025 ({split})",
                columns,
                tuple(published.dataset_rows(scores, split)),
                first_number=3,
            )
            for split in _splits(scores)
            if split in number
        ),
    ]


def write_tables(folder: Path, results: Results) -> None:
    """Write tables.md, tables.csv and tables.tex into a folder, and paper.md, .csv and .tex beside the paper's."""
    tables = all_tables(results.scores)
    write_text(folder / "tables.md", to_markdown(tables, results))
    write_text(folder / "tables.csv", to_csv(results.scores))
    write_text(folder / "tables.tex", "\n\n".join(to_latex(table) for table in tables) + "\n")
    beside = paper_tables(results.scores)
    caveats = published.caveats()
    parts = ["# Beside the paper's Tables 4 to 6", *(_markdown(table) for table in beside), _bullets(caveats)]
    write_text(folder / "paper.md", "\n\n".join(parts) + "\n")
    write_text(folder / "paper.csv", _cells_csv(beside))
    notes = "\n".join(f"% {caveat}" for caveat in caveats)
    write_text(folder / "paper.tex", "\n\n".join([notes, *(to_latex(table) for table in beside)]) + "\n")


def reading_notes(results: Results) -> list[str]:
    """What a reader of the tables needs to know, one sentence or two each."""
    reasons: dict[str, list[str]] = {}
    for score in results.scores:
        if score.reason and (score.dataset == ALL or score.metric == HEADLINE[score.task]):
            dataset = _DATASETS.get(score.dataset, score.dataset)
            where = f"{score.task} {metric_name(score.metric)} of {dataset} ({score.split})"
            reasons.setdefault(score.reason, []).append(where)
    return [
        "A reply that could not be read counts as wrong.",
        f"CI: percentile bootstrap over groups (patients, exams or videos), {results.resamples} resamples, "
        f"seed {results.seed}.",
        "A baseline answers the same questions blindly, or by a 4x4 colour thumbnail only; the best one is shown.",
        *results.notes,
        *(f"{DOUBT} {reason}: {_places(places)}." for reason, places in reasons.items()),
    ]


def _places(places: Sequence[str]) -> str:
    if len(places) <= _NAMED:
        return ", ".join(places)
    return f"{', '.join(places[:_NAMED])} and {len(places) - _NAMED} more"


def to_markdown(tables: Sequence[Table], results: Results) -> str:
    """All tables as GitHub Markdown, with the notes that belong to them."""
    parts = [f"# Scores of {', '.join(results.models) or 'no model'}"]
    parts += [_markdown(table) for table in tables]
    return "\n\n".join([*parts, _bullets(reading_notes(results))]) + "\n"


def _markdown(table: Table) -> str:
    marks = ["---" if i < table.first_number else "---:" for i in range(len(table.columns))]
    lines = [table.columns, marks, *(_bold(row, i in table.totals) for i, row in enumerate(table.rows))]
    body = "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
    return f"## {table.title}\n\n{body}"


def _bullets(notes: Sequence[str]) -> str:
    return "\n".join(f"- {note}" for note in notes)


def _cells_csv(tables: Sequence[Table]) -> str:
    """Tables one below the other, each cell as it is shown; the first column says which table a row belongs to."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    for table in tables:
        writer.writerow(["table", *table.columns])
        writer.writerows([table.title, *row] for row in table.rows)
    return stream.getvalue()


def to_csv(scores: Sequence[Score]) -> str:
    """One row a score, fractions unrounded; `table` is the paper's table that the row belongs to, empty for others."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["table", *Score.model_fields])
    for score in scores:
        cells = score.model_dump(mode="json")
        writer.writerow([_paper_table(score), *("" if cell is None else cell for cell in cells.values())])
    return stream.getvalue()


def to_latex(table: Table) -> str:
    """One table for a paper; needs the package booktabs."""
    alignment = "".join("l" if i < table.first_number else "r" for i in range(len(table.columns)))
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\begin{{tabular}}{{{alignment}}}",
        r"\toprule",
        _latex_row(table.columns),
        r"\midrule",
    ]
    for index, row in enumerate(table.rows):
        if index and row[0] != table.rows[index - 1][0] and table.totals:
            lines.append(r"\midrule")
        lines.append(_latex_row(row))
    lines += [r"\bottomrule", r"\end{tabular}", rf"\caption{{{_latex(table.title)}.}}", r"\end{table}"]
    return "\n".join(lines)


def _cells(score: Score) -> list[str]:
    interval = "" if score.low is None else f" [{_show(score, score.low)}, {_show(score, score.high)}]"
    rival = NO_VALUE if score.baseline is None else f"{_show(score, score.baseline)} ({score.baseline_name})"
    doubt = f" {DOUBT}" if score.reason else ""
    return [_show(score, score.value) + interval + doubt, str(score.n), str(score.n_unparsed), rival]


def _show(score: Score, value: float | None) -> str:
    return shown(score.metric, value)


def _paper_table(score: Score) -> str:
    if score.metric != HEADLINE[score.task]:
        return ""
    return "4" if score.dataset == ALL else {Split.VAL: "5", Split.TEST: "6"}.get(score.split, "")


def _tasks(scores: Sequence[Score]) -> list[Task]:
    present = {score.task for score in scores}
    return [task for task in Task if task in present]


def _splits(scores: Sequence[Score]) -> list[Split]:
    present = {score.split for score in scores}
    return [split for split in Split if split in present]


def _chosen(scores: Sequence[Score], split: Split, task: Task, metric: str) -> list[Score]:
    return [score for score in scores if (score.split, score.task, score.metric) == (split, task, metric)]


def _find(scores: Sequence[Score], task: Task, metric: str, dataset: str, split: Split) -> Score | None:
    return next((score for score in _chosen(scores, split, task, metric) if score.dataset == dataset), None)


def _bold(row: Sequence[str], is_total: bool) -> list[str]:
    return [f"**{cell}**" if is_total and index < 4 else cell for index, cell in enumerate(row)]


def _latex_row(cells: Sequence[str]) -> str:
    return " & ".join(_latex(cell) for cell in cells) + r" \\"


def _latex(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in text)
