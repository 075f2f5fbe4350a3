"""`gastrovl push`: a finished checkpoint to the Hugging Face Hub, after showing what would be sent."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def push(
    checkpoint: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    repo: Annotated[str, typer.Option(help="Repository on the Hub, OWNER/NAME; made if it is not there.")],
    private: Annotated[
        bool, typer.Option("--private/--public", help="Who can read the repository if it is made now.")
    ] = True,
    yes: Annotated[bool, typer.Option("--yes", help="Send without asking.")] = False,
) -> None:
    """Send a checkpoint and its card to the Hugging Face Hub; nothing else of the run leaves this machine."""
    from gastrovl.training.publishing.hub import push as push_checkpoint

    address = push_checkpoint(
        checkpoint, repo, is_private=private, agrees=lambda: yes or typer.confirm("send this?"), say=typer.echo
    )
    typer.echo("nothing was sent" if address is None else f"sent to {address}")
