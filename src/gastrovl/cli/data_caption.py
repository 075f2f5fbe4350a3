"""`gastrovl data caption`: a dataset folder and a multimodal model to a file of checked captions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from gastrovl.cli.progress import progress_bar
from gastrovl.cli.server import endpoint_options
from gastrovl.core.errors import ConfigError

if TYPE_CHECKING:
    from gastrovl.data.captioning.run import CaptionRun

LISTED = 6  # reasons in the table at the end


def caption(
    dataset: Annotated[Path, typer.Argument(help="Dataset folder that `data build` wrote.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="JSONL of captions to write.")],
    endpoint: Annotated[
        str | None, typer.Option(help="Base address of an OpenAI-compatible server, e.g. http://127.0.0.1:8000/v1.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Name by which that server knows the model.")] = None,
    local: Annotated[
        Path | None, typer.Option(help="Local folder of a vision-language model (Hugging Face layout), run here.")
    ] = None,
    template: Annotated[str, typer.Option(help="Prompt: note, visual, or the path of your own YAML.")] = "note",
    splits: Annotated[
        list[str] | None, typer.Option("--split", help="Split to caption; may be repeated.  [default: train]")
    ] = None,
    attempts: Annotated[
        int, typer.Option(min=1, max=8, help="How often an image is asked about, corrections included.")
    ] = 2,
    check: Annotated[
        Path | None, typer.Option(help="YAML of what counts as wrong: faults, most_words, repairs.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many images.")] = None,
    max_side: Annotated[int, typer.Option(min=64, help="Longer side in pixels of the image that is shown.")] = 1024,
    max_tokens: Annotated[int, typer.Option(min=16, help="Longest reply, in the model's tokens.")] = 256,
    seed: Annotated[int, typer.Option(help="Sent to the server; the temperature is 0.")] = 0,
    concurrency: Annotated[int, typer.Option(min=1, max=256, help="Requests under way at once.")] = 4,
    requests_per_minute: Annotated[float | None, typer.Option(min=0.01, help="At most so many requests.")] = None,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds to wait for a reply.")] = 120.0,
    tries: Annotated[
        int, typer.Option(min=1, max=20, help="Connections for one reply, when the server is busy or fails.")
    ] = 5,
    api_key_env: Annotated[str | None, typer.Option(help="Environment variable that holds the server's key.")] = None,
    allow_remote: Annotated[
        bool, typer.Option("--allow-remote", help="Let images and labels leave this machine, over https.")
    ] = False,
    device: Annotated[
        str | None, typer.Option(help="Of --local: cpu or cuda; the best there is when left out.")
    ] = None,
    gives_up: Annotated[
        bool, typer.Option("--give-up", help="Write images without a usable reply as rejected, and finish.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Drop captions of OUTPUT that are not asked for now.")
    ] = False,
) -> None:
    """Ask a multimodal model for a caption of each image, check it against the record, and keep what is true.

    Interrupted, the same command goes on where it stopped. Use the file in a build by `conversations: {captions: ...}`.
    """
    from gastrovl.core.config import load_config, parse_config
    from gastrovl.data.captioning.check import CheckOptions
    from gastrovl.data.captioning.prompts import load_template
    from gastrovl.data.captioning.run import CaptionOptions, caption_dataset

    if (endpoint is None) == (local is None) or (endpoint is not None and not model):
        raise ConfigError("give either --endpoint ADDRESS with --model NAME, or --local FOLDER")
    options = parse_config(
        {
            "splits": splits or ["train"],
            "attempts": attempts,
            "most_side_px": max_side,
            "limit": limit,
            "check": load_config(check, CheckOptions) if check else CheckOptions(),
            "gives_up": gives_up,
        },
        CaptionOptions,
        where="options",
    )
    wording = load_template(template)
    sampling: dict[str, int | str] = {"max_tokens": max_tokens}
    describe: Callable[..., str]
    if endpoint is not None:
        from gastrovl.core.endpoint import ChatEndpoint, Pace

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
        describe = ChatEndpoint(server, Pace(requests_per_minute))
        name, workers = model or "", concurrency
        sampling["seed"] = seed
    else:
        from gastrovl.inference.others.describe import load_describer

        loaded = load_describer(local or Path(), device=device, most_tokens=max_tokens)
        describe, name, workers = loaded, loaded.name, 1
    with progress_bar() as show:
        run = caption_dataset(
            dataset,
            output,
            describe,
            model=name,
            template=wording,
            options=options,
            sampling=sampling,
            workers=workers,
            is_replaced=overwrite,
            progress=lambda done, total: show("captioning", done, total),
        )
    _report(run, output, Console())


def _report(run: CaptionRun, output: Path, console: Console) -> None:
    from gastrovl.data.captioning.file import caption_statistics

    counts: dict[str, Any] = caption_statistics(run.captions)
    table = Table("verdict", "captions", "share", title="Captions against their records")
    for verdict, count in counts["verdicts"].items():
        table.add_row(verdict, f"{count:,}", f"{count / counts['captions']:.1%}")
    console.print(table)
    if counts["reasons"]:
        reasons = Table("reason", "captions", title="Faults found")
        for kind, count in list(counts["reasons"].items())[:LISTED]:
            reasons.add_row(kind, f"{count:,}")
        console.print(reasons)
    if run.unanswered:
        console.print(f"note: {len(run.unanswered):,} images got no usable reply", markup=False, highlight=False)
    said = f"Captions: {output} ({counts['captions']:,}; {run.asked:,} images asked about now)"
    console.print(said, markup=False, highlight=False, soft_wrap=True)
