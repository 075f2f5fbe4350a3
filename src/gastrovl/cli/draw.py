"""`gastrovl draw`: the log of a training, running or finished, to one picture."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def draw(
    run: Annotated[Path, typer.Argument(help="Folder that `gastrovl train` was given with -o.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="PNG to write.  [default: training.png in RUN]")
    ] = None,
) -> None:
    """Draw losses, validation scores and learning rate of a run, also while it goes on."""
    from gastrovl.training.watching.picture import save_picture

    typer.echo(f"picture in {save_picture(run, output)}")
