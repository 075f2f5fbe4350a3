"""`gastrovl compare`: several models' replies to the same questions to differences and a verdict in words."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table as RichTable

from gastrovl.cli.progress import progress_bar

if TYPE_CHECKING:
    from gastrovl.evaluation.showing.tables import Table


def compare(
    predictions: Annotated[
        list[Path],
        typer.Argument(
            metavar="PREDICTIONS...", help="Two or more JSONL files of replies; the first is the reference."
        ),
    ],
    conversations: Annotated[Path, typer.Option(help="JSONL of the questions that all of them answer.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to make.")],
    wanted: Annotated[
        float | None,
        typer.Option(min=0.01, max=100.0, help="Points: also say how many groups would show such a difference."),
    ] = None,
    resamples: Annotated[int, typer.Option(min=0, help="Draws of the bootstrap behind the intervals.")] = 2000,
    seed: Annotated[int, typer.Option(help="Of the bootstrap and of the swaps of groups.")] = 7,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier comparison in OUTPUT.")] = False,
) -> None:
    """Compare models on the same questions, all against the first: differences, p values, and a sentence a task."""
    from gastrovl.evaluation.comparing.compare import compare as run_comparison
    from gastrovl.evaluation.comparing.report import rank_table, short_table

    console = Console()
    with progress_bar() as show:
        found = run_comparison(
            predictions,
            conversations,
            output,
            wanted=None if wanted is None else wanted / 100,
            resamples=resamples,
            seed=seed,
            is_replaced=overwrite,
            progress=show,
        )
    console.print(_rich(short_table(found)))
    if len(found.contenders) > 2:
        console.print(_rich(rank_table(found)))
    for note in found.notes:
        console.print(f"note: {note}", markup=False, highlight=False)
    for one in found.conclusions:
        console.print(one.text, markup=False, highlight=False, soft_wrap=True)
    console.print(f"Comparison, tables and plot: {output}", markup=False, highlight=False, soft_wrap=True)


def _rich(table: Table) -> RichTable:
    shown = RichTable(title=escape(table.title))
    for index, name in enumerate(table.columns):
        shown.add_column(
            escape(name), justify="left" if index < table.first_number else "right", no_wrap="difference" in name
        )
    for row in table.rows:
        shown.add_row(*(escape(cell) for cell in row))
    return shown
