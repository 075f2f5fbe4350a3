"""`gastrovl robustness`: how a model's answers change with corrupted images, leading questions and other wordings."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from gastrovl.cli.progress import progress_bar
from gastrovl.core.errors import ConfigError

_NONE = "none"


def robustness(
    model: Annotated[Path, typer.Argument(metavar="CHECKPOINT", help="Checkpoint folder written by `gastrovl train`.")],
    conversations: Annotated[Path, typer.Argument(help="JSONL of questions, e.g. test.jsonl of a dataset folder.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to make.")],
    corruptions: Annotated[
        str | None, typer.Option(help="Names joined by commas, or `none`.  [default: all twelve]")
    ] = None,
    levels: Annotated[
        str, typer.Option(help="Levels joined by commas, 1 (slight) to 5 (hardly usable).")
    ] = "1,2,3,4,5",
    leading: Annotated[
        str | None, typer.Option(help="Leading questions to ask, joined by commas, or `none`.  [default: all six]")
    ] = None,
    tasks: Annotated[str | None, typer.Option(help="Tasks to ask, joined by commas.  [default: all there are]")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most this many images, drawn by the seed.")] = None,
    train: Annotated[
        Path | None, typer.Option(help="Training split for the baselines.  [default: train.jsonl beside CONVERSATIONS]")
    ] = None,
    resamples: Annotated[int, typer.Option(min=0, help="Draws of the bootstrap behind the intervals.")] = 1000,
    seed: Annotated[int, typer.Option(help="Of corruptions, traps, chosen images and bootstrap.")] = 7,
    keep_images: Annotated[bool, typer.Option("--keep-images", help="Leave the changed images in OUTPUT.")] = False,
    batch_size: Annotated[int, typer.Option(min=1, help="Questions answered together.")] = 32,
    device: Annotated[str | None, typer.Option(help="cpu or cuda; the best there is when left out.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier measurement in OUTPUT.")] = False,
) -> None:
    """Ask the same questions of corrupted images and in misleading words; interrupted, the same command goes on."""
    from gastrovl.core.types import Task
    from gastrovl.evaluation.robustness.corruptions import CORRUPTIONS
    from gastrovl.evaluation.robustness.leading import Trap
    from gastrovl.evaluation.robustness.run import Plan, measure

    plan = Plan(
        corruptions=_names(corruptions, tuple(CORRUPTIONS), "--corruptions"),
        levels=tuple(int(one) for one in _names(levels, tuple("12345"), "--levels")),
        traps=tuple(Trap(one) for one in _names(leading, tuple(Trap), "--leading")),
        tasks=tuple(Task(one) for one in _names(tasks and tasks.upper(), tuple(Task), "--tasks")),
        limit=limit,
        resamples=resamples,
        seed=seed,
    )
    with progress_bar() as show:
        found = measure(
            conversations,
            output,
            _asker(model, batch_size, device, show),
            plan,
            model=_identity(model),
            train=train,
            keeps_images=keep_images,
            is_replaced=overwrite,
            progress=show,
        )
    for one in found.summaries:
        worst = f"worst {_percent(one.worst)} ({one.worst_name}, level {one.worst_level})"
        typer.echo(
            f"{one.task} {one.metric}: clean {_percent(one.clean)}, mean under corruption "
            f"{_percent(one.mean_corrupted)}, {worst}"
        )
    for score in found.scores:
        if score.followed is not None:
            typer.echo(
                f"{score.task} {score.name}: follows {_percent(score.followed)}, unasked "
                f"{_percent(score.followed_unasked)}"
            )
    typer.echo(f"tables and plot: {output}")


def _asker(
    model: Path, batch_size: int, device: str | None, show: Callable[[str, int, int], None]
) -> Callable[[Path, Path], object]:
    """What answers a file of questions; the model is opened when the first file comes."""
    from gastrovl.inference.batch import predict_file
    from gastrovl.inference.predictor import Predictor

    opened: list[Predictor] = []

    def ask(conversations: Path, output: Path) -> object:
        if not opened:
            opened.append(Predictor.load(model, device))
        return predict_file(
            opened[0],
            conversations,
            output,
            batch_size=batch_size,
            progress=lambda done, total: show(f"answers {conversations.name.partition('.')[0]}", done, total),
        )

    return ask


def _identity(model: Path) -> str:
    """The model's name with a hash of what describes it and of how large its files are."""
    digest = hashlib.sha256()
    for path in sorted(model.rglob("*")) if model.is_dir() else [model]:
        if path.is_file() and path.suffix in (".json", ".yaml", ".yml", ".safetensors"):
            digest.update(f"{path.relative_to(model.parent)}\n{path.stat().st_size}\n".encode())
            if path.suffix != ".safetensors":
                digest.update(path.read_bytes())
    return f"{model.name} {digest.hexdigest()[:16]}"


def _names(given: str | None, known: tuple[str, ...], option: str) -> tuple[str, ...]:
    """The names in a list with commas; all known ones where nothing is given."""
    if given is None:
        return known
    if given.strip().lower() == _NONE:
        return ()
    found = tuple(dict.fromkeys(one.strip() for one in given.split(",") if one.strip()))
    for one in found:
        if one not in known:
            raise ConfigError(f"{option}: {one!r} does not exist; expected some of {', '.join(known)}")
    return found


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"
