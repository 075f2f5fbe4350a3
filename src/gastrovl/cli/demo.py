"""`gastrovl demo`: the whole pipeline on drawn images with the nano model."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Annotated

import typer

from gastrovl.cli.run import run_config


def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for everything the demo leaves.")],
    smoke: Annotated[bool, typer.Option("--smoke", help="Smallest size: every stage runs, nothing is learnt.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier demo in OUTPUT.")] = False,
) -> None:
    """Draw upper-GI images, train a small model from random weights on all four tasks, score it, write index.html."""
    name = "demo_smoke.yaml" if smoke else "demo.yaml"
    config = Path(str(resources.files("gastrovl") / name))
    run_config(config, output, None, (), overwrite)
