"""`gastrovl serve`: checkpoints behind an HTTP server of this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gastrovl.cli.manner import CHECKPOINT, CHECKS, RAW, ZOOM
from gastrovl.core.errors import ConfigError


def serve(
    checkpoint: Annotated[Path | None, typer.Argument(help=f"{CHECKPOINT} It is served under its own name.")] = None,
    model: Annotated[
        list[str] | None, typer.Option("--model", help="NAME=FOLDER: another checkpoint and its name; may be repeated.")
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on; any but this machine's own needs an API key.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes one that is free.")] = 8000,
    api_key_env: Annotated[
        str | None, typer.Option(help="Environment variable with the API key (several: separated by commas).")
    ] = None,
    api_key_file: Annotated[Path | None, typer.Option(help="File with API keys, one a line.")] = None,
    max_queue: Annotated[int, typer.Option(min=1, help="Questions that may wait for one model.")] = 64,
    max_batch: Annotated[int, typer.Option(min=1, help="Questions answered together.")] = 8,
    rate: Annotated[
        str | None, typer.Option(help="Requests of one key (or address), e.g. 120/minute; any number when left out.")
    ] = None,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds from a question to its whole answer.")] = 60.0,
    max_tokens: Annotated[int, typer.Option(min=1, help="Of a reply, whatever is asked for.")] = 768,
    max_megabytes: Annotated[float, typer.Option(min=0.01, help="Of a request.")] = 16.0,
    max_megapixels: Annotated[float, typer.Option(min=0.001, max=100, help="Of an image.")] = 25.0,
    page: Annotated[bool, typer.Option("--page/--no-page", help="The web page at /, for people.")] = True,
    zoom: Annotated[bool, typer.Option("--zoom", help=ZOOM)] = False,
    raw: Annotated[bool, typer.Option("--raw", help=RAW)] = False,
    checks: Annotated[bool, typer.Option("--checks", help=CHECKS)] = False,
    device: Annotated[str | None, typer.Option(help="cpu or cuda; the best there is when left out.")] = None,
) -> None:
    """Answer over HTTP: typed endpoints, OpenAI's chat interface, a web page. Stops at Ctrl-C, after what it began."""
    from gastrovl.inference.head.looking import Looking, Manner
    from gastrovl.inference.starter import remark_of

    folders = _folders(checkpoint, model or [])
    for remark in {remark_of(folder) for _, folder in folders} - {None}:
        typer.echo(remark)
    manner = Manner(looking=Looking(zoom), is_raw=raw, makes_checks=checks)
    from gastrovl.core.config import parse_config
    from gastrovl.serving.run import serve_checkpoints
    from gastrovl.serving.settings import ServerSettings, read_keys

    content = {
        "host": host,
        "port": port,
        "has_page": page,
        "keys": read_keys(api_key_env, api_key_file),
        "max_queue": max_queue,
        "max_batch": max_batch,
        "max_new_tokens": max_tokens,
        "rate": rate,
        "timeout_s": timeout,
        "max_body_bytes": round(max_megabytes * 2**20),
        "max_pixels": round(max_megapixels * 1e6),
    }
    settings = parse_config(content, ServerSettings, where="gastrovl serve")
    serve_checkpoints(folders, settings, device, manner, say=typer.echo)


def _folders(checkpoint: Path | None, named: list[str]) -> list[tuple[str | None, Path]]:
    found: list[tuple[str | None, Path]] = [] if checkpoint is None else [(None, checkpoint)]
    for one in named:
        name, sign, folder = one.partition("=")
        if not (sign and name and folder):
            raise ConfigError(f"--model {one}: expected NAME=FOLDER, e.g. --model before=runs/first/model")
        found.append((name, Path(folder)))
    if not found:
        raise ConfigError("there is nothing to serve; give a CHECKPOINT folder, or --model NAME=FOLDER")
    return found
