"""`gastrovl data draw`: frames that are drawn, with labels, boxes and masks, in the form of a public dataset."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gastrovl.cli.progress import progress_bar


def draw(
    output: Annotated[Path, typer.Argument(help="Folder to make: images/, masks/, labels.csv, boxes.json.")],
    images: Annotated[int, typer.Option(min=1, help="How many frames; six make an examination.")] = 12,
    seed: Annotated[int, typer.Option(min=0, help="The same seed draws the same frames.")] = 9,
) -> None:
    """Draw upper-GI frames, to try commands without a patient's image; they are no evidence of how a model does."""
    from gastrovl.core.files import whole_folder
    from gastrovl.data.synthetic.drawn_set import write_drawn_set

    with whole_folder(output) as begun, progress_bar() as show:
        write_drawn_set(begun, images, seed, progress=lambda done, total: show("drawing", done, total))
    typer.echo(f"{images} drawn frames in {output / 'images'}, what they show in {output / 'labels.csv'}")
