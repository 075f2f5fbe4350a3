"""`gastrovl predict`: any model, or people's answers in a CSV, and conversations to files of predictions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gastrovl.cli.manner import CHECKS, RAW, ZOOM
from gastrovl.cli.progress import progress_bar
from gastrovl.core.errors import ConfigError

if TYPE_CHECKING:
    from gastrovl.inference.head.looking import Manner


def predict(
    given: Annotated[
        list[Path],
        typer.Argument(
            metavar="[MODEL] CONVERSATIONS",
            help="MODEL: a checkpoint folder (or `starter`), the folder of a Hugging Face model, or a YAML that "
            "describes a model (configs/evaluate/models); left out with --from-csv and --template. CONVERSATIONS: "
            "e.g. test.jsonl of a dataset folder.",
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="JSONL of predictions to write.")],
    batch_size: Annotated[int, typer.Option(min=1, help="Questions answered together by a checkpoint.")] = 32,
    device: Annotated[str | None, typer.Option(help="cpu or cuda; the best there is when left out.")] = None,
    head: Annotated[
        bool,
        typer.Option(
            help="Let a checkpoint's perception head answer CLS, REC and REG; --no-head decodes words instead."
        ),
    ] = True,
    zoom: Annotated[bool, typer.Option("--zoom", help=ZOOM)] = False,
    views: Annotated[
        int,
        typer.Option(
            help="Average the perception head's CLS, REC and REG over the image and its mirror images: 1 (the image "
            "alone), 2 or 4, as many passes of the tower."
        ),
    ] = 1,
    raw: Annotated[bool, typer.Option("--raw", help=RAW)] = False,
    checks: Annotated[bool, typer.Option("--checks", help=CHECKS)] = False,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Ask again what got no usable reply; keep all else of OUTPUT.")
    ] = False,
    from_csv: Annotated[
        Path | None,
        typer.Option(help="Answers of people: conversation_id, answer[, rater, seconds, confidence, x0_px...]."),
    ] = None,
    template: Annotated[
        bool, typer.Option("--template", help="Write OUTPUT as an empty CSV of the questions, for people to fill in.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUTPUT.")] = False,
) -> None:
    """Answer every conversation; interrupted, the same command goes on where it stopped."""
    people = from_csv is not None or template
    if from_csv is not None and template:
        raise ConfigError("give either --from-csv FILE or --template")
    if len(given) != (1 if people else 2):
        expected = "CONVERSATIONS alone" if people else "MODEL and CONVERSATIONS"
        raise ConfigError(f"found {len(given)} paths ({', '.join(map(str, given))}); expected {expected}")
    if people:
        _people(given[0], from_csv, output, is_replaced=overwrite)
    else:
        from gastrovl.inference.head.looking import Looking, Manner

        manner = Manner(head, Looking(zoom, views), is_raw=raw, makes_checks=checks)
        _model(given[0], given[1], output, batch_size, device, retry_failed, overwrite, manner)


def _model(
    model: Path,
    conversations: Path,
    output: Path,
    batch_size: int,
    device: str | None,
    retries_failed: bool,
    is_replaced: bool,
    manner: Manner,
) -> None:
    from gastrovl.inference.batch import predict_file
    from gastrovl.inference.loading import load_answerer
    from gastrovl.inference.question import NOTICE
    from gastrovl.inference.runrecord import read_run
    from gastrovl.inference.starter import remark_of

    answerer = load_answerer(model, conversations, device, manner)
    with progress_bar() as show:
        count = predict_file(
            answerer,
            conversations,
            output,
            batch_size=batch_size,
            is_replaced=is_replaced,
            retries_failed=retries_failed,
            progress=lambda done, total: show("answering", done, total),
        )
    said = [f"{count} replies in {output}", *read_run(output).lines(), remark_of(model), NOTICE]
    typer.echo("\n".join(filter(None, said)))


def _people(conversations: Path, answers: Path | None, output: Path, *, is_replaced: bool) -> None:
    from gastrovl.inference.others.raters import read_raters, write_template

    if answers is None:
        count = write_template(conversations, output, is_replaced=is_replaced)
        typer.echo(f"{count} questions in {output}, their images in {output.stem}-images beside it")
        return
    for path, count in read_raters(answers, conversations, output, is_replaced=is_replaced):
        typer.echo(f"{count} answers in {path}")
