"""`gastrovl evaluate`: replies beside the truth, in numbers with intervals and baselines."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table as RichTable

from gastrovl.cli.progress import progress_bar

if TYPE_CHECKING:
    from gastrovl.evaluation.showing.tables import Table


def evaluate(
    predictions: Annotated[
        list[Path],
        typer.Argument(
            help="JSONL of replies, as `gastrovl predict` writes it. Several are the folds of a cross-validation, each "
            "with its own --conversations."
        ),
    ],
    conversations: Annotated[
        list[Path], typer.Option(help="JSONL of the questions they answer, in its dataset folder; once a fold.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to make.")],
    train: Annotated[
        list[Path] | None,
        typer.Option(help="Training split for the baselines.  [default: train.jsonl beside CONVERSATIONS]"),
    ] = None,
    resamples: Annotated[int, typer.Option(min=0, help="Draws of the bootstrap behind the intervals.")] = 1000,
    seed: Annotated[int, typer.Option(help="Of the bootstrap.")] = 7,
    images: Annotated[
        bool, typer.Option(help="Open the images for the nearest-neighbour baseline; --no-images leaves it out.")
    ] = True,
    facts: Annotated[
        bool, typer.Option(help="Score captions and reports by the facts they state; --no-facts leaves them out.")
    ] = True,
    bertscore: Annotated[
        Path | None, typer.Option(help="Folder of a text encoder: score captions and reports by BERTScore, too.")
    ] = None,
    bertscore_layer: Annotated[
        int | None, typer.Option(min=1, help="Layer of it that is compared.  [default: the last]")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes that read facts of thousands of texts.  [default: up to 4]")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier evaluation in OUTPUT.")] = False,
) -> None:
    """Score PREDICTIONS into report.html, results.json, tables (Markdown, CSV, LaTeX) and plots, beside baselines."""
    from gastrovl.core.parallel import MOST_THREADS
    from gastrovl.evaluation.evaluate import evaluate as run_evaluation
    from gastrovl.evaluation.showing.tables import overall_table

    console = Console()
    with progress_bar() as show:
        results = run_evaluation(
            predictions,
            conversations,
            output,
            train=train,
            resamples=resamples,
            seed=seed,
            uses_images=images,
            is_replaced=overwrite,
            by_facts=facts,
            bertscore=bertscore,
            bertscore_layer=bertscore_layer,
            workers=workers or min(os.cpu_count() or 1, MOST_THREADS),
            progress=show,
        )
    console.print(_rich(overall_table(results.scores)))
    for name, signature in (("BLEU", results.bleu), ("BERTScore", results.bertscore)):
        if signature:
            console.print(f"{name}: {signature}", markup=False, highlight=False, soft_wrap=True)
    for note in results.notes:
        console.print(f"note: {note}", markup=False, highlight=False)
    console.print(
        f"Scores, tables and plots: {output}; to look at: {output / 'report.html'}",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )


def _rich(table: Table) -> RichTable:
    shown = RichTable(title=table.title)
    for index, name in enumerate(table.columns):
        shown.add_column(name, justify="left" if index < table.first_number else "right")
    for row in table.rows:
        shown.add_row(*row)
    return shown
