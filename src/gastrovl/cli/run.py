"""`gastrovl run`: every stage of one config, ending in a page to look at."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gastrovl.cli.progress import progress_bar


def run(
    config: Annotated[Path, typer.Argument(help="YAML of the run, e.g. configs/run/real.yaml.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for everything the run leaves.")],
    data_root: Annotated[
        Path | None, typer.Option(help="Folder that the sources' roots are relative to.  [default: $GASTROVL_DATA]")
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="Override one setting, e.g. --set train.seed=8; repeatable.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier run in OUTPUT.")] = False,
) -> None:
    """Build data, train, predict, evaluate and write index.html; interrupted, the same command goes on."""
    run_config(config, output, data_root, tuple(overrides or ()), overwrite)


def run_config(config: Path, output: Path, data_root: Path | None, overrides: tuple[str, ...], overwrite: bool) -> None:
    """Run a config file and print where the result lies."""
    from gastrovl.core.config import load_config
    from gastrovl.inference.question import NOTICE
    from gastrovl.pipeline import RunConfig
    from gastrovl.pipeline import run as run_pipeline

    settings = load_config(config, RunConfig, overrides)
    with progress_bar() as show:
        page = run_pipeline(settings, output, data_root=data_root, is_replaced=overwrite, say=typer.echo, progress=show)
    typer.echo(f"open {page}\n{NOTICE}")
