"""`gastrovl predict`: a checkpoint and conversations to a file of predictions."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gastrovl.cli.progress import progress_bar


def predict(
    checkpoint: Annotated[Path, typer.Argument(help="Checkpoint folder written by `gastrovl train`.")],
    conversations: Annotated[Path, typer.Argument(help="JSONL of conversations, e.g. test.jsonl of a dataset folder.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="JSONL of predictions to write.")],
    batch_size: Annotated[int, typer.Option(min=1, help="Questions answered together.")] = 32,
    device: Annotated[str | None, typer.Option(help="cpu or cuda; the best there is when left out.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUTPUT.")] = False,
) -> None:
    """Answer every conversation; interrupted, the same command goes on where it stopped."""
    from gastrovl.inference.batch import predict_file
    from gastrovl.inference.predictor import NOTICE, Predictor

    predictor = Predictor.load(checkpoint, device)
    with progress_bar() as show:
        count = predict_file(
            predictor,
            conversations,
            output,
            batch_size=batch_size,
            is_replaced=overwrite,
            progress=lambda done, total: show("answering", done, total),
        )
    typer.echo(f"{count} replies in {output}\n{NOTICE}")
