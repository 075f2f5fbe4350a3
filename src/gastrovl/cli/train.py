"""`gastrovl train`: conversations to a checkpoint."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from gastrovl.cli.progress import progress_bar
from gastrovl.core.errors import ConfigError

INTERRUPTED = 130  # what shells report of a program that Ctrl-C ended


def train(
    config: Annotated[Path, typer.Argument(help="YAML of the run, e.g. configs/train/nano.yaml.")],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Checkpoint folder to make.")] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="Override one setting, e.g. --set stages.0.steps=100; repeatable.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the unfinished run in OUTPUT.")] = False,
    plan: Annotated[
        bool, typer.Option("--plan", help="Print memory and time the run will need, and stop; needs no OUTPUT.")
    ] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="With --plan: write it to this file too.")] = None,
    push: Annotated[
        bool,
        typer.Option("--push", help="At the end, send the checkpoint to the Hub repository `push_to_hub`, private."),
    ] = False,
) -> None:
    """Train a model in stages; each stage says what trains and at which rate before it starts."""
    from gastrovl.core import processes
    from gastrovl.core.config import load_config
    from gastrovl.pipeline import answer_scorer
    from gastrovl.training.config import TrainConfig
    from gastrovl.training.runfolder import what_is_kept
    from gastrovl.training.train import train as run_training

    settings = load_config(config, TrainConfig, tuple(overrides or ()))
    if push and settings.push_to_hub is None:
        raise ConfigError(f"{config}: --push needs to know where to; set `push_to_hub: OWNER/NAME` in the config")
    if plan:
        from gastrovl.cli.plan import show_plan

        show_plan(settings, json_file)
        return
    if output is None or json_file is not None:
        raise ConfigError("give -o OUTPUT, the checkpoint folder to make; --json goes with --plan only")
    try:
        with progress_bar() as show:
            run_training(
                settings, output, resume=resume, say=typer.echo, progress=show, score_answers=answer_scorer(settings)
            )
    except KeyboardInterrupt:
        words = ["gastrovl", "train", str(config), "-o", str(output), *(f"--set={one}" for one in overrides or ())]
        kept = what_is_kept(output, settings)
        goes_on = f"go on with: {shlex.join([*words, '--resume'])}" if kept else "nothing was begun"
        typer.echo(f"\ninterrupted. {kept}{goes_on}", err=True)
        raise typer.Exit(INTERRUPTED) from None
    if processes.rank() != 0:
        return
    typer.echo(f"checkpoint in {output}; losses and validation scores in {output / 'log.jsonl'}")
    if push and settings.push_to_hub:
        from gastrovl.training.publishing.hub import push as push_checkpoint

        address = push_checkpoint(output, settings.push_to_hub, is_private=True, agrees=lambda: True, say=typer.echo)
        typer.echo(f"sent to {address}")
