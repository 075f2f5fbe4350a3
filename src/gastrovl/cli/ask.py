"""`gastrovl ask`: one question about one image."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from gastrovl.core.types import Task


def ask(
    checkpoint: Annotated[Path, typer.Argument(help="Checkpoint folder written by `gastrovl train`.")],
    image: Annotated[Path, typer.Argument(help="An endoscopic image.")],
    text: Annotated[str, typer.Argument(help='What to ask, e.g. "Where is the gastric polyp?"')],
    task: Annotated[
        Task | None,
        typer.Option(
            case_sensitive=False,
            help="Let a perception head answer CLS, REC or REG, and hold labels to the taxonomy's names.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")] = False,
    draw: Annotated[Path | None, typer.Option(help="Also write the image with the reply's boxes to this PNG.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu or cuda; the best there is when left out.")] = None,
) -> None:
    """Print the model's reply with its (uncalibrated) confidence; boxes are per mille of width and height."""
    from gastrovl.inference.description import NOTICE
    from gastrovl.inference.predictor import Predictor

    reply = Predictor.load(checkpoint, device).ask(image, text, task=task)
    if draw is not None:
        from gastrovl.inference.drawing import draw_reply

        draw_reply(image, reply.text, draw)
    if as_json:
        content = {"text": reply.text, "confidence": round(reply.confidence, 4), "stop_reason": reply.stop_reason}
        typer.echo(json.dumps(content | {"notice": NOTICE}, ensure_ascii=False))
        return
    typer.echo(reply.text)
    note = " (cut at the length limit)" if reply.stop_reason == "length" else ""
    typer.echo(f"confidence {reply.confidence:.2f}, not calibrated{note}\n{NOTICE}", err=True)
