"""`gastrovl calibrate`: validation predictions of a checkpoint to confidences one can use, kept in its folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gastrovl.cli.progress import progress_bar


def calibrate(
    checkpoint: Annotated[Path, typer.Argument(help="Checkpoint folder; calibration.json is written there.")],
    predictions: Annotated[
        list[Path],
        typer.Argument(
            help="Its raw predictions for validation data, by `gastrovl predict` (with --raw). Several are the folds "
            "of a cross-validation, each with its own --conversations and --answered-by."
        ),
    ],
    conversations: Annotated[
        list[Path], typer.Option(help="JSONL of the questions they answer, e.g. val.jsonl; once a fold.")
    ],
    answered_by: Annotated[
        list[Path] | None,
        typer.Option(help="Checkpoint that was trained without the fold and gave the predictions; once a fold."),
    ] = None,
    train: Annotated[
        Path | None,
        typer.Option(
            help="Training split, to tell pictures out of scope.  [default: train.jsonl beside CONVERSATIONS, if one]"
        ),
    ] = None,
    outside: Annotated[
        list[Path] | None,
        typer.Option(help="Folder of pictures that the model is not for, such as colon; may be given several times."),
    ] = None,
    level: Annotated[float, typer.Option(min=0.5, max=0.999, help="How often a label set holds the truth.")] = 0.9,
    risk: Annotated[float, typer.Option(min=0.001, max=0.5, help="Share of given answers that may be wrong.")] = 0.1,
    checks: Annotated[
        bool, typer.Option(help="Ask the model the other way round, too; --no-checks fits without that.")
    ] = True,
    device: Annotated[str | None, typer.Option(help="cpu or cuda; the best there is when left out.")] = None,
    head: Annotated[bool, typer.Option(help="As in `gastrovl predict`, with which the predictions were made.")] = True,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the calibration that is there.")] = False,
) -> None:
    """Fit temperatures, label sets, abstention and scope on validation data; `gastrovl predict` then uses them."""
    from gastrovl.inference.belief.calibrating import Wishes, calibrate_checkpoint
    from gastrovl.inference.belief.pooling import paired
    from gastrovl.inference.question import NOTICE

    folds = paired(predictions, conversations, answered_by or [])
    beside = conversations[0].with_name("train.jsonl")
    wishes = Wishes(
        level=level,
        risk=risk,
        makes_checks=checks,
        train=train or (beside if len(folds) == 1 and beside.is_file() else None),
        outside=tuple(outside or ()),
    )
    with progress_bar() as show:
        found = calibrate_checkpoint(
            checkpoint,
            folds,
            judge=judge,
            wishes=wishes,
            device=device,
            uses_head=head,
            is_replaced=overwrite,
            progress=show,
        )
    typer.echo("\n".join([*found, NOTICE]))


def judge(predictions: Path, conversations: Path) -> dict[str, tuple[bool, list[float]]]:
    """By conversation: whether the reply is right, and the IoU of each box given with the nearest true one."""
    from gastrovl.clinical.answers import BoxAnswer
    from gastrovl.clinical.taxonomy import Taxonomy
    from gastrovl.core.geometry import iou
    from gastrovl.evaluation.items import read_items
    from gastrovl.evaluation.tasks import is_right

    found: dict[str, tuple[bool, list[float]]] = {}
    for item in read_items(predictions, conversations, Taxonomy.load()):
        given = item.answer.boxes if isinstance(item.answer, BoxAnswer) else ()
        ious = [max((iou(box, true) for true in item.question.boxes), default=0.0) for box in given]
        found[item.question.id] = (bool(is_right(item.question, item.answer)), ious)
    return found
