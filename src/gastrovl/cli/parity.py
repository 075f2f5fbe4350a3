"""`gastrovl parity`: does a checkpoint say the same in every way it can be asked?"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from gastrovl.cli.manner import CHECKPOINT
from gastrovl.core.errors import MissingExtraError
from gastrovl.core.files import write_text

if TYPE_CHECKING:
    from gastrovl.inference.parity import Row, Way

_FAILED = 1


def parity(
    checkpoint: Annotated[Path, typer.Argument(help=CHECKPOINT)],
    conversations: Annotated[
        Path | None, typer.Argument(help="Questions to ask, e.g. val.jsonl; drawn pictures when left out.")
    ] = None,
    most: Annotated[int, typer.Option(min=1, help="Questions to ask, evenly over the tasks.")] = 24,
    tokens: Annotated[int, typer.Option(min=1, help="Of a reply in words, at most.")] = 64,
    least_equal: Annotated[
        float,
        typer.Option(min=0, max=1, help="Share of like answers that bfloat16 and int8 must reach; boxes: IoU 0.9."),
    ] = 0.9,
    most_difference: Annotated[
        float, typer.Option(min=0, help="Of any probability, by bfloat16 and int8, where answers are alike.")
    ] = 0.1,
    output: Annotated[Path | None, typer.Option("--json", help="Also write the table to this file.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu or cuda; the best there is when left out.")] = None,
) -> None:
    """Ask alone, batched, again, without caches, merged, reloaded, served and rounded; exit 1 where answers differ."""
    from gastrovl.inference.parity import Tolerance, check_parity, probe_questions
    from gastrovl.inference.starter import remark_of

    served, missing = _served(checkpoint, device)
    rows = check_parity(
        checkpoint,
        probe_questions(conversations, most),
        device=device,
        most_tokens=tokens,
        rounded=Tolerance(least_equal, most_difference),
        more=served,
    )
    rows += missing
    if output is not None:
        write_text(output, json.dumps([asdict(row) | {"passes": row.passes} for row in rows], indent=2) + "\n")
    Console().print(_table(rows))
    if remark := remark_of(checkpoint):
        typer.echo(remark)
    if not all(row.passes for row in rows):
        raise typer.Exit(_FAILED)


def _served(checkpoint: Path, device: str | None) -> tuple[dict[str, Way], list[Row]]:
    """The way over HTTP, or the row that says why it is not tried."""
    from gastrovl.inference.parity import Row
    from gastrovl.serving.loopback import ask_over_http

    try:
        return {"served": ask_over_http(checkpoint, device)}, []
    except MissingExtraError as error:
        return {}, [Row("served", "one at a time", left_out=str(error))]


def _table(rows: list[Row]) -> Table:
    table = Table("way", "against", "alike", "largest difference", "", title="Does every way say the same?")
    for row in rows:
        if row.left_out is not None:
            table.add_row(row.way, row.against, "-", "-", f"left out: {row.left_out}")
        else:
            needed = "" if row.tolerance.least_equal == 1 else f", {row.tolerance.least_equal:.0%} needed"
            equal = f"{row.equal} of {row.questions}{needed}"
            table.add_row(row.way, row.against, equal, f"{row.difference:.2g}", "passed" if row.passes else "FAILED")
    return table
