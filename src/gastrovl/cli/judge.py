"""`gastrovl judge`: replies and a judge model to ratings or a comparison, with what they are worth."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from gastrovl.cli.progress import progress_bar
from gastrovl.cli.server import endpoint_options
from gastrovl.core.errors import ConfigError
from gastrovl.core.types import Task

if TYPE_CHECKING:
    from gastrovl.core.endpoint import EndpointOptions
    from gastrovl.evaluation.judging.judge import JudgeModel
    from gastrovl.evaluation.judging.judged import Judged


def judge(
    predictions: Annotated[Path, typer.Argument(help="JSONL of replies, as `gastrovl predict` writes it.")],
    conversations: Annotated[Path, typer.Option(help="JSONL of the questions they answer, in its dataset folder.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write; an earlier start goes on there.")],
    endpoint: Annotated[
        str | None, typer.Option(help="Base address of an OpenAI-compatible server, e.g. http://127.0.0.1:8000/v1.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Name by which that server knows the judge.")] = None,
    local: Annotated[
        Path | None, typer.Option(help="Local folder of a vision-language model (Hugging Face layout), run here.")
    ] = None,
    against: Annotated[
        Path | None, typer.Option(help="Replies of a second model: say for each question whose reply is better.")
    ] = None,
    tasks: Annotated[
        list[Task] | None, typer.Option("--task", help="Task to judge; may be repeated.  [default: CAP, VQA, REPORT]")
    ] = None,
    questions: Annotated[int, typer.Option(min=1, help="Of each task at most so many, drawn by --seed.")] = 100,
    repeats: Annotated[int, typer.Option(min=1, max=20, help="How often each thing is asked in each order.")] = 1,
    with_image: Annotated[bool, typer.Option("--with-image", help="Show the judge the image as well.")] = False,
    max_side: Annotated[int, typer.Option(min=64, help="Longer side in pixels of an image that is shown.")] = 1024,
    ratings: Annotated[
        list[Path] | None, typer.Option(help="JSONL of people's ratings to measure the judge by; may be repeated.")
    ] = None,
    rubric: Annotated[
        list[str] | None, typer.Option(help="Your own rubric (YAML) for the tasks it names; may be repeated.")
    ] = None,
    retry_failures: Annotated[
        bool, typer.Option("--retry-failures", help="Ask again where an earlier start got nothing usable.")
    ] = False,
    resamples: Annotated[int, typer.Option(min=0, help="Draws of the bootstrap behind the intervals.")] = 1000,
    seed: Annotated[int, typer.Option(help="Of the sample, the bootstrap, and sent to the server.")] = 7,
    workers: Annotated[int, typer.Option(min=1, max=256, help="Requests under way at once.")] = 4,
    requests_per_minute: Annotated[float | None, typer.Option(min=0.01, help="At most so many requests.")] = None,
    max_tokens: Annotated[int, typer.Option(min=16, help="Longest reply, in the judge's tokens.")] = 512,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds to wait for a reply.")] = 120.0,
    tries: Annotated[
        int, typer.Option(min=1, max=20, help="Connections for one reply, when the server is busy or fails.")
    ] = 5,
    api_key_env: Annotated[str | None, typer.Option(help="Environment variable that holds the server's key.")] = None,
    allow_remote: Annotated[
        bool, typer.Option("--allow-remote", help="Let texts and images leave this machine, over https.")
    ] = False,
    device: Annotated[
        str | None, typer.Option(help="Of --local: cpu or cuda; the best there is when left out.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the results of other options in OUTPUT; its cache stays.")
    ] = False,
) -> None:
    """Have a model rate the replies of PREDICTIONS by a rubric, or compare them with another model's.

    Everything is asked twice, the second time in swapped order. Interrupted, the same command goes on where it stopped.
    A judge model is no physician: read its agreement with people before its levels.
    """
    from gastrovl.core.records import read_records
    from gastrovl.core.types import Rating
    from gastrovl.evaluation.judging.judge import JudgeOptions, judge_predictions
    from gastrovl.evaluation.judging.rubric import load_rubric

    if (endpoint is None) == (local is None) or (endpoint is not None and not model):
        raise ConfigError("give either --endpoint ADDRESS with --model NAME, or --local FOLDER")
    options = JudgeOptions(
        tasks=tuple(tasks) if tasks else None,
        questions=questions,
        repeats=repeats,
        seed=seed,
        with_image=with_image,
        most_side_px=max_side,
        resamples=resamples,
    )
    rated = [one for path in ratings or () for one in read_records(path, Rating)]
    own = [load_rubric(name) for name in rubric or ()]
    if endpoint is not None:
        server = endpoint_options(
            endpoint,
            model or "",
            tries=tries,
            timeout_s=timeout,
            most_tokens=max_tokens,
            seed=seed,
            allows_remote=allow_remote,
            key_env=api_key_env,
        )
        judging = _server(server, requests_per_minute)
    else:
        judging, workers = _local(local or Path(), device, max_tokens), 1
    with progress_bar() as show:
        judged = judge_predictions(
            predictions,
            conversations,
            output,
            judging,
            against=against,
            rubrics=own,
            options=options,
            ratings=rated,
            workers=workers,
            retries_failures=retry_failures,
            is_replaced=overwrite,
            progress=show,
        )
    print_judged(judged, output, Console())


def print_judged(judged: Judged, output: Path, console: Console) -> None:
    """Means or preferences, failures and notes; all else stands in judged.md."""
    from gastrovl.evaluation.judging.judged import ALL

    if judged.means:
        table = Table("model", "criterion", "by", "mean", "of", "n", title="Mean levels")
        for one in (one for one in judged.means if one.task == ALL and one.value is not None):
            between = "" if one.low is None or one.high is None else f" [{one.low:.2f}, {one.high:.2f}]"
            table.add_row(one.model, one.criterion, one.by, f"{one.value:.2f}{between}", str(one.most), str(one.n))
        console.print(table)
    for found in judged.preferences:
        said = (
            f"{found.judge}: {found.first} better on {found.first_wins} of {found.n} questions, {found.second} on "
            f"{found.second_wins}, neither on {found.ties}; the same place won both times in "
            f"{found.first_place + found.second_place} of {found.pairs} pairs"
        )
        console.print(said, markup=False, highlight=False, soft_wrap=True)
    for failed in judged.failures:
        if failed.failed:
            said = f"note: {failed.failed} of {failed.asked} judgements of {failed.judge} are unusable"
            console.print(said, markup=False, highlight=False, soft_wrap=True)
    for note in judged.notes:
        console.print(f"note: {note}", markup=False, highlight=False, soft_wrap=True)
    console.print(judged.notice, markup=False, highlight=False, soft_wrap=True)
    console.print(f"All tables: {output / 'judged.md'}", markup=False, highlight=False, soft_wrap=True)


def _server(options: EndpointOptions, per_minute: float | None) -> JudgeModel:
    """A server as a judge; each repeat is asked with the next seed, which at temperature 0 most servers ignore."""
    from gastrovl.core.endpoint import ChatEndpoint, Pace
    from gastrovl.evaluation.judging.asking import Ask
    from gastrovl.evaluation.judging.judge import JudgeModel, through_endpoint

    pace = Pace(per_minute)

    def ask_of(repeat: int) -> Ask:
        return through_endpoint(ChatEndpoint(replace(options, seed=options.seed + repeat), pace))

    return JudgeModel(options.model, ask_of, {"seed": options.seed, "max_tokens": options.most_tokens})


def _local(folder: Path, device: str | None, most_tokens: int) -> JudgeModel:
    from gastrovl.evaluation.judging.judge import JudgeModel
    from gastrovl.inference.others.describe import load_describer

    loaded = load_describer(folder, device=device, most_tokens=most_tokens)
    return JudgeModel(loaded.name, lambda _repeat: loaded, {"max_tokens": most_tokens})
