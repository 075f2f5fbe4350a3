"""`gastrovl shift`: scores by source or camera, and what a model scores on a source that it was not trained on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="Scores by source or camera, and with one source left out of training.")


@app.command()
def groups(
    predictions: Annotated[Path, typer.Argument(help="JSONL of replies, as `gastrovl predict` writes it.")],
    conversations: Annotated[Path, typer.Option(help="JSONL of the questions they answer.")],
    by: Annotated[
        str, typer.Option(help="source, or size (width x height of the original, a trace of the device).")
    ] = ("source"),
    output: Annotated[Path | None, typer.Option("--output", "-o", help="JSON to write.")] = None,
    resamples: Annotated[int, typer.Option(min=0, help="Draws of the bootstrap behind the intervals.")] = 1000,
    seed: Annotated[int, typer.Option(help="Of the bootstrap.")] = 7,
) -> None:
    """Print scores by group, the worst group, and how far it lies behind the best."""
    from gastrovl.clinical.taxonomy import Taxonomy
    from gastrovl.core.errors import ConfigError
    from gastrovl.core.files import write_text
    from gastrovl.evaluation.items import read_items
    from gastrovl.evaluation.robustness.drops import Draws
    from gastrovl.evaluation.robustness.shift import GroupBy, shifts

    if by not in tuple(GroupBy):
        raise ConfigError(f"--by: {by!r} does not exist; expected one of {', '.join(GroupBy)}")
    items = read_items(predictions, conversations, Taxonomy.load())
    found = shifts(items, GroupBy(by), Draws(resamples, seed))
    for one in found:
        typer.echo(f"{one.task} {one.split}, {one.metric}, by {one.by}")
        for group in one.groups:
            typer.echo(f"  {group.group:24s} n={group.n:<6d} {_cell(group.value, group.low, group.high)}")
        if one.gap is not None:
            typer.echo(
                f"  worst {one.worst}, best {one.best}, gap {_cell(one.gap, one.gap_low, one.gap_high)} "
                "(chosen by their scores, so chance alone makes a gap)"
            )
    if output is not None:
        content = {"schema": "gastrovl/shift/1", "shifts": [one.model_dump(mode="json") for one in found]}
        write_text(output, json.dumps(content, indent=1) + "\n")


@app.command()
def prepare(
    dataset: Annotated[Path, typer.Argument(help="Folder that `gastrovl data build` wrote, of several sources.")],
    config: Annotated[Path, typer.Option(help="Training config, e.g. configs/train/nano.yaml.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to make.")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what was prepared in OUTPUT.")] = False,
) -> None:
    """Write a dataset folder and a training config for each source left out, and one pair with all sources."""
    from gastrovl.core.config import load_config
    from gastrovl.evaluation.robustness.leftout import ALL_SOURCES, CONFIG, REPLIES
    from gastrovl.evaluation.robustness.leftout import prepare as run_prepare
    from gastrovl.training.config import TrainConfig

    settings = load_config(config, TrainConfig)
    content = settings.model_dump(mode="json", exclude_defaults=True)
    held = run_prepare(dataset, output, content, seed=settings.seed, is_replaced=overwrite)
    for one in held:
        note = f"; {one.shared} more questions left training, which share a patient or video" if one.shared else ""
        typer.echo(f"without {one.source}: {one.train} questions to learn from, {one.test} to be asked{note}")
    for name in (ALL_SOURCES, *(one.source for one in held)):
        place = output / name
        typer.echo(f"gastrovl train {place / CONFIG} -o {place / 'run'}")
        typer.echo(f"gastrovl predict {place / 'run'} {place / 'test.jsonl'} -o {place / REPLIES}")
    typer.echo(f"gastrovl shift gather {output}")


@app.command()
def gather(
    folder: Annotated[Path, typer.Argument(help="Folder that `gastrovl shift prepare` made, with replies in it.")],
    resamples: Annotated[int, typer.Option(min=0, help="Draws of the bootstrap behind the intervals.")] = 1000,
    seed: Annotated[int, typer.Option(help="Of the bootstrap.")] = 7,
) -> None:
    """Compare, for each source, the model that has seen it with the one that has not; writes left_out.md."""
    from gastrovl.core.files import write_text
    from gastrovl.evaluation.robustness import leftout
    from gastrovl.evaluation.robustness.drops import Draws

    found = leftout.gather(folder, Draws(resamples, seed))
    table = leftout.to_markdown(found)
    write_text(folder / "left_out.md", table)
    content = {"schema": "gastrovl/left-out-scores/1", "scores": [one.model_dump(mode="json") for one in found]}
    write_text(folder / "left_out.scores.json", json.dumps(content, indent=1) + "\n")
    typer.echo(table, nl=False)


def _cell(value: float | None, low: float | None, high: float | None) -> str:
    if value is None:
        return "–"
    bounds = "" if low is None or high is None else f" [{100 * low:.1f}, {100 * high:.1f}]"
    return f"{100 * value:.1f} %{bounds}"
