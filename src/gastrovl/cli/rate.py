"""`gastrovl rate`: replies to blinded sheets for people, and filled sheets to ratings and a summary."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from gastrovl.cli.judge import print_judged
from gastrovl.core.types import Task

HELP = "Have people rate replies: sheets out, ratings in, and how far everybody agrees."
app = typer.Typer(help=HELP, no_args_is_help=True)


@app.callback()
def _rate() -> None:
    """Have people rate replies: sheets out, ratings in, and how far everybody agrees."""


@app.command("export")
def export(
    predictions: Annotated[list[Path], typer.Argument(help="JSONL of replies, one file a model.")],
    conversations: Annotated[Path, typer.Option(help="JSONL of the questions they answer, in its dataset folder.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to make.")],
    raters: Annotated[int, typer.Option(min=1, max=50, help="How many people rate; each gets a sheet.")] = 3,
    questions: Annotated[int, typer.Option(min=1, help="In all; each comes with the reply of every model.")] = 60,
    tasks: Annotated[
        list[Task] | None, typer.Option("--task", help="Task to rate; may be repeated.  [default: CAP, VQA, REPORT]")
    ] = None,
    repeated: Annotated[
        float,
        typer.Option(min=0, max=0.5, help="Share of rows shown a second time, to see who agrees with themselves."),
    ] = 0.1,
    images: Annotated[
        bool, typer.Option("--images", help="Put scaled copies of the images beside the sheets.")
    ] = False,
    max_side: Annotated[int, typer.Option(min=64, help="Longer side of these copies, in pixels.")] = 1024,
    rubric: Annotated[
        list[str] | None, typer.Option(help="Your own rubric (YAML) for the tasks it names; may be repeated.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the choice of questions and of every order.")] = 7,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier export in OUTPUT.")] = False,
) -> None:
    """Write a blinded, shuffled table for each rater, with instructions, and a key that they must not see."""
    from gastrovl.evaluation.judging.rubric import load_rubric
    from gastrovl.evaluation.judging.sheets import KEY, SHEETS, SheetOptions, export_sheets

    options = SheetOptions(
        tasks=tuple(tasks) if tasks else None,
        raters=raters,
        questions=questions,
        repeated=repeated,
        seed=seed,
        with_images=images,
        most_side_px=max_side,
    )
    own = [load_rubric(name) for name in rubric or ()]
    rows = export_sheets(predictions, conversations, output, rubrics=own, options=options, is_replaced=overwrite)
    console = Console()
    lines = [f"{raters} sheets of {rows} rows: {output / SHEETS} (give this folder to the raters, and nothing else)"]
    lines.append(f"Key: {output / KEY} (keep it from them: it says whose reply each row is)")
    if images:
        lines.append("The images are data of patients; mind licence and consent before they leave this machine.")
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


@app.command("import")
def take_back(
    folder: Annotated[Path, typer.Argument(help="Folder that `rate export` wrote.")],
    sheets: Annotated[list[Path], typer.Argument(help="Filled sheets (CSV), one a rater.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="JSONL of ratings to write.")],
    partial: Annotated[bool, typer.Option("--partial", help="Take sheets with empty cells or missing rows.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUTPUT.")] = False,
) -> None:
    """Read filled sheets, say what is wrong in which cell, and write ratings with the models' names."""
    from gastrovl.core.errors import OutputError
    from gastrovl.core.records import write_records
    from gastrovl.evaluation.judging.returned import import_sheets

    if output.exists() and not overwrite:
        raise OutputError(f"{output} exists; choose another -o, or pass --overwrite to replace it")
    found = import_sheets(folder, sheets, is_partial=partial)
    write_records(output, found.ratings)
    said = f"{len(found.ratings):,} ratings of {len(sheets)} raters: {output}"
    if partial:
        said += f" ({found.unrated:,} rows not rated, {found.partly:,} rated in part)"
    Console().print(said, markup=False, highlight=False, soft_wrap=True)


@app.command("import-session")
def take_sessions(
    sessions: Annotated[list[Path], typer.Argument(help="Sessions saved as JSON, by `gastrovl chat` for instance.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to make.")],
    rater: Annotated[str, typer.Option(help="A pseudonym for who rated these sessions.")],
    images: Annotated[
        Path | None,
        typer.Option(help="Folder with the images of the sessions; corrections then become training conversations."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier import in OUTPUT.")] = False,
) -> None:
    """Write what people said of answers: ratings for `rate summary`, and corrections as training conversations."""
    from gastrovl.inference.others.rated import CORRECTIONS, RATINGS, import_sessions

    found = import_sessions(sessions, output, rater=rater, images=images, is_replaced=overwrite)
    lines = [f"{found.ratings:,} ratings: {output / RATINGS} ({found.unrated:,} answers not rated)"]
    if images is not None:
        lines.append(f"{found.corrected:,} corrections to train on, with copies of images: {output / CORRECTIONS}")
        lines += [f"{count:,} corrections left out: {why}" for why, count in sorted(found.skipped.items())]
    for line in lines:
        Console().print(line, markup=False, highlight=False, soft_wrap=True)


@app.command("summary")
def summary(
    conversations: Annotated[Path, typer.Option(help="JSONL of the questions that were rated.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to make.")],
    ratings: Annotated[list[Path] | None, typer.Option(help="JSONL of people's ratings; may be repeated.")] = None,
    judgements: Annotated[
        list[Path] | None, typer.Option(help="judgements.jsonl of `gastrovl judge`; may be repeated.")
    ] = None,
    predictions: Annotated[
        list[Path] | None, typer.Option(help="The replies, to compare ratings with the rules; may be repeated.")
    ] = None,
    rubric: Annotated[list[str] | None, typer.Option(help="Your own rubric (YAML), as it was used.")] = None,
    resamples: Annotated[int, typer.Option(min=0, help="Draws of the bootstrap behind the intervals.")] = 1000,
    seed: Annotated[int, typer.Option(help="Of the bootstrap.")] = 7,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier summary in OUTPUT.")] = False,
) -> None:
    """Put ratings of people and judgements of models beside each other: means, harm, agreement, order, failures."""
    from gastrovl.evaluation.judging.gather import summarise_files
    from gastrovl.evaluation.judging.rubric import load_rubric

    judged = summarise_files(
        conversations,
        output,
        ratings=ratings or (),
        judgements=judgements or (),
        predictions=predictions or (),
        rubrics=[load_rubric(name) for name in rubric or ()],
        resamples=resamples,
        seed=seed,
        is_replaced=overwrite,
    )
    print_judged(judged, output, Console())
