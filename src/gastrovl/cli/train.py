"""`gastrovl train`: conversations to a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gastrovl.cli.progress import progress_bar


def train(
    config: Annotated[Path, typer.Argument(help="YAML of the run, e.g. configs/train/nano.yaml.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Checkpoint folder to make.")],
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="Override one setting, e.g. --set stages.0.steps=100; repeatable.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the unfinished run in OUTPUT.")] = False,
) -> None:
    """Train a model in stages; each stage says what trains and at which rate before it starts."""
    from gastrovl.core import processes
    from gastrovl.core.config import load_config
    from gastrovl.training.config import TrainConfig
    from gastrovl.training.train import train as run_training

    settings = load_config(config, TrainConfig, tuple(overrides or ()))
    with progress_bar() as show:
        run_training(settings, output, resume=resume, say=typer.echo, progress=show)
    if processes.rank() == 0:
        typer.echo(f"checkpoint in {output}; losses and validation scores in {output / 'log.jsonl'}")
