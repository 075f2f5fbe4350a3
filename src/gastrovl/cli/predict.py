"""`gastrovl predict`: any model, or people's answers in a CSV, and conversations to files of predictions.

A file may be divided among processes (`torchrun`, `--shard`); whoever ends last, or `--join`, makes one of the parts.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gastrovl.cli.manner import CHECKS, RAW, ZOOM
from gastrovl.cli.progress import progress_bar
from gastrovl.core import processes
from gastrovl.core.errors import ConfigError

if TYPE_CHECKING:
    from gastrovl.inference.head.looking import Manner
    from gastrovl.inference.sharding import Shard


def predict(
    given: Annotated[
        list[Path],
        typer.Argument(
            metavar="[MODEL] CONVERSATIONS",
            help="MODEL: a checkpoint folder (or `starter`), the folder of a Hugging Face model, or a YAML that "
            "describes a model (configs/evaluate/models); left out with --from-csv, --template and --join. "
            "CONVERSATIONS: e.g. test.jsonl of a dataset folder.",
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
    shard: Annotated[
        str | None,
        typer.Option(
            help="Answer this part of the images only, such as 2/8; the last part to end makes OUTPUT of all. Under "
            "torchrun each process takes its part by itself."
        ),
    ] = None,
    join: Annotated[bool, typer.Option("--join", help="Make OUTPUT of parts that were answered with --shard.")] = False,
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
    if (from_csv is not None) + template + join > 1:
        raise ConfigError("give either --from-csv FILE, --template or --join")
    if shard and (people or join):
        raise ConfigError("--shard: divides the questions to a model; leave it out here")
    if len(given) != (1 if people or join else 2):
        expected = "CONVERSATIONS alone" if people or join else "MODEL and CONVERSATIONS"
        raise ConfigError(f"found {len(given)} paths ({', '.join(map(str, given))}); expected {expected}")
    if people:
        _people(given[0], from_csv, output, is_replaced=overwrite)
        return
    if join:
        from gastrovl.inference.sharding import join_shards

        _say_all(join_shards(given[0], output, is_replaced=overwrite), output)
        return
    from gastrovl.inference.head.looking import Looking, Manner

    manner = Manner(head, Looking(zoom, views), is_raw=raw, makes_checks=checks)
    _model(given[0], given[1], output, batch_size, device, retry_failed, overwrite, manner, shard)


def _model(
    model: Path,
    conversations: Path,
    output: Path,
    batch_size: int,
    device: str | None,
    retries_failed: bool,
    is_replaced: bool,
    manner: Manner,
    named: str | None,
) -> None:
    from gastrovl.inference.batch import predict_file
    from gastrovl.inference.loading import load_answerer
    from gastrovl.inference.sharding import predict_shard
    from gastrovl.inference.starter import remark_of

    shard = _shard(named)
    answerer = load_answerer(model, conversations, device, manner)
    with progress_bar() as show:
        ask = partial(predict_file if shard is None else partial(predict_shard, shard=shard), answerer, conversations)
        found = ask(
            output,
            batch_size=batch_size,
            is_replaced=is_replaced,
            retries_failed=retries_failed,
            progress=None if processes.rank() else lambda done, total: show("answering", done, total),
        )
    if isinstance(found, int):
        _say_all(found, output, remark_of(model))
    elif found.is_joined:
        _say_all(found.answered, output, remark_of(model))
    else:
        done = f"{found.asked} questions answered, {found.answered} of them now"
        typer.echo(f"shard {shard}: {done}; {output} is written when all parts are whole")


def _say_all(count: int, output: Path, remark: str | None = None) -> None:
    """What a finished file holds."""
    from gastrovl.inference.question import NOTICE
    from gastrovl.inference.runrecord import read_run

    typer.echo(
        "\n".join([f"{count} replies in {output}", *read_run(output).lines(), *([remark] if remark else []), NOTICE])
    )


def _shard(named: str | None) -> Shard | None:
    """The part that is this process's: by its option, or by the launcher that started it."""
    from gastrovl.inference.sharding import Shard

    launched = Shard.of_launcher()
    if named and launched:
        raise ConfigError(
            f"--shard {named}: a launcher started {launched.of} processes, each of which takes its part by itself; "
            "leave it out"
        )
    return Shard.parse(named) if named else launched


def _people(conversations: Path, answers: Path | None, output: Path, *, is_replaced: bool) -> None:
    from gastrovl.inference.others.raters import read_raters, write_template

    if answers is None:
        count = write_template(conversations, output, is_replaced=is_replaced)
        typer.echo(f"{count} questions in {output}, their images in {output.stem}-images beside it")
        return
    for path, count in read_raters(answers, conversations, output, is_replaced=is_replaced):
        typer.echo(f"{count} answers in {path}")
