"""`gastrovl ask`: questions about one image or many."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gastrovl.cli.manner import CHECKPOINT, CHECKS, RAW, ZOOM
from gastrovl.core.errors import ConfigError, ImageError
from gastrovl.core.types import Task

if TYPE_CHECKING:
    from gastrovl.inference.session import Wish


def ask(
    checkpoint: Annotated[Path, typer.Argument(help=CHECKPOINT)],
    given: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGE... [QUESTION]",
            help='One image or several, then what to ask, e.g. "Where is the gastric polyp?"; without a question with '
            "--classify, --locate, --name or --describe.",
        ),
    ],
    task: Annotated[
        Task | None,
        typer.Option(
            case_sensitive=False,
            help="Of QUESTION: let a perception head answer CLS, REC or REG, and hold labels to the taxonomy's names.",
        ),
    ] = None,
    classify: Annotated[bool, typer.Option("--classify", help="Which labels fit, with their probabilities.")] = False,
    locate: Annotated[
        list[str] | None, typer.Option(metavar="TERM", help="Where TERM is, e.g. polyp; may be repeated.")
    ] = None,
    name: Annotated[
        list[str] | None,
        typer.Option(metavar="X0,Y0,X1,Y1", help="What lies in this box, in fractions of the image; repeatable."),
    ] = None,
    describe: Annotated[bool, typer.Option("--describe", help="What the image shows, in words.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object for each image.")] = False,
    draw: Annotated[
        Path | None, typer.Option(help="Write the image with all boxes to this PNG; of several images, to this folder.")
    ] = None,
    zoom: Annotated[bool, typer.Option("--zoom", help=ZOOM)] = False,
    raw: Annotated[bool, typer.Option("--raw", help=RAW)] = False,
    checks: Annotated[bool, typer.Option("--checks", help=CHECKS)] = False,
    device: Annotated[str | None, typer.Option(help="cpu or cuda; the best there is when left out.")] = None,
) -> None:
    """Print what the model answers and what to believe of it; boxes of free answers are per mille of the image."""
    from gastrovl.inference.head.looking import Looking, Manner

    manner = Manner(looking=Looking(zoom), is_raw=raw, makes_checks=checks)
    wishes = _wishes(classify, locate or [], name or [], describe)
    images, question = _split(given, has_wishes=bool(wishes))
    if question is not None:
        from gastrovl.inference.session import Kind, Wish

        wishes = [Wish(Kind.SAY, question, task=task), *wishes]
    elif task is not None:
        raise ConfigError(f"--task {task.value} says how a QUESTION is answered, and there is none; give one")
    from gastrovl.cli.answers import print_answers
    from gastrovl.core.images import open_image
    from gastrovl.inference.loading import load_predictor
    from gastrovl.inference.session import answers
    from gastrovl.inference.starter import remark_of

    pictures = [open_image(image) for image in images]  # all are readable, before a model is loaded
    predictor = load_predictor(checkpoint, device, manner)
    if draw is not None and len(images) > 1:
        draw.mkdir(parents=True, exist_ok=True)
    for image, picture in zip(images, pictures, strict=True):
        found = answers(predictor, picture, wishes)
        print_answers(image, picture.size, wishes, found, as_json=as_json, is_alone=len(images) == len(wishes) == 1)
        if draw is not None:
            from gastrovl.inference.drawing import marked, save_png
            from gastrovl.inference.session import marks_of

            place = draw / f"{image.stem}.png" if len(images) > 1 else draw
            said = zip(wishes, (answer for answer, _ in found), strict=True)
            save_png(marked(picture, marks_of(said)), place)
    if remark := remark_of(checkpoint):
        typer.echo(remark, err=True)
    if not as_json:
        from gastrovl.inference.question import NOTICE

        typer.echo(NOTICE, err=True)


def _wishes(classify: bool, locate: list[str], name: list[str], describe: bool) -> list[Wish]:
    from gastrovl.inference.session import Kind, Wish, parse_box

    found = [Wish(Kind.CLASSIFY)] if classify else []
    found += [Wish(Kind.LOCATE, words) for words in locate]
    found += [Wish(Kind.NAME, box=parse_box(text)) for text in name]
    return [*found, Wish(Kind.DESCRIBE)] if describe else found


def _split(given: list[str], *, has_wishes: bool) -> tuple[list[Path], str | None]:
    """Images and the question behind them, if there is one."""
    is_question = len(given) > 1 and not Path(given[-1]).is_file() and (not has_wishes or " " in given[-1].strip())
    images = [Path(one) for one in (given[:-1] if is_question else given)]
    if missing := [one for one in images if not one.is_file()]:
        raise ImageError(f"{missing[0]}: no such image; expected IMAGE... and, as the last word, a question in quotes")
    if not is_question and not has_wishes:
        raise ConfigError(
            "nothing is asked; expected a question in quotes behind the images, or --classify, --locate TERM, "
            "--name X0,Y0,X1,Y1 or --describe"
        )
    return images, given[-1] if is_question else None
