"""The `gastrovl` command: registers one file per command and turns our errors into messages.

Modules of this package import only typer, rich, the standard library and `gastrovl.core` at their top. Whatever is
heavy is imported inside the command that needs it, so that `gastrovl --help` answers at once and never imports PyTorch.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from gastrovl.cli.ask import ask
from gastrovl.cli.chat import chat
from gastrovl.cli.compare import compare
from gastrovl.cli.data import app as data_app
from gastrovl.cli.demo import demo
from gastrovl.cli.draw import draw
from gastrovl.cli.evaluate import evaluate
from gastrovl.cli.gate import gate
from gastrovl.cli.judge import judge
from gastrovl.cli.predict import predict
from gastrovl.cli.push import push
from gastrovl.cli.rate import app as rate_app
from gastrovl.cli.robustness import robustness
from gastrovl.cli.run import run
from gastrovl.cli.serve import serve
from gastrovl.cli.shift import app as shift_app
from gastrovl.cli.tokenizer import tokenizer
from gastrovl.cli.train import train
from gastrovl.core import processes
from gastrovl.core.errors import GastroVLError

NOTICE = "Research use only: not a medical device. Every output is a draft; a physician decides."
COMMANDS: tuple[Callable[..., Any], ...] = (
    demo,
    run,
    train,
    draw,
    predict,
    ask,
    chat,
    serve,
    evaluate,
    compare,
    gate,
    judge,
    robustness,
    push,
    tokenizer,
)
USER_ERROR = 2
_OUTSIDE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT)

app = typer.Typer(
    name="gastrovl",
    help="One vision-language model for upper-GI endoscopy: data, training, inference and evaluation.",
    epilog=NOTICE,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(is_asked: bool) -> None:
    if is_asked:
        from gastrovl import __version__

        typer.echo(f"gastrovl {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    del version  # its callback has already acted


def _register() -> None:
    for name, group in (("data", data_app), ("rate", rate_app), ("shift", shift_app)):
        for info in group.registered_commands:
            info.epilog = NOTICE
        app.add_typer(group, name=name, epilog=NOTICE)
    for command in COMMANDS:
        app.command(command.__name__, epilog=NOTICE)(command)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; `arguments` default to those of the process.

    Raises:
        SystemExit: Always; code 0 after success, 2 when the user can put it right, else what the command chose.
    """
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # bars of the libraries; ours see it themselves
    try:
        app(args=None if arguments is None else list(arguments), prog_name="gastrovl")
    except GastroVLError as error:
        processes.let_others_speak(error)
        _complain(str(error))
    except Exception as error:
        processes.let_others_speak(error)
        if not isinstance(error, OSError) or error.errno not in _OUTSIDE:
            raise  # a mistake of this program, whose traceback is worth reading
        _complain(
            f"{error.filename or 'output'}: {error.strerror}; choose another place, or free space and rights there"
        )
    raise SystemExit(USER_ERROR)


def _complain(message: str) -> None:
    Console(stderr=True).print(Text(f"error: {message}", style="red"), soft_wrap=True)


_register()
