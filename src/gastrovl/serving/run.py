"""An app and settings to a server that listens until it is told to stop."""

from __future__ import annotations

import importlib.util
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gastrovl.core.errors import ConfigError, MissingExtraError
from gastrovl.inference.description import NOTICE

if TYPE_CHECKING:
    from fastapi import FastAPI
    from uvicorn import Server

    from gastrovl.inference.looking import Manner
    from gastrovl.serving.settings import ServerSettings

CONNECTIONS_BESIDE = 64  # open at once beside those that wait in a queue; more are told that the server is busy
LIBRARIES = ("fastapi", "uvicorn", "prometheus_client", "python_multipart", "limits")


def check_extra() -> None:
    """Raises:
    MissingExtraError: A library that serving needs is not installed.
    """
    missing = [name for name in LIBRARIES if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingExtraError(
            f'serving needs {", ".join(missing)}, not installed here: pip install "gastrovl[serve]"'
        )


def make_server(app: FastAPI, settings: ServerSettings, models: int = 1) -> Server:
    """A uvicorn server for an app: HTTP/1.1 only, no access log, no Server header, connections bounded."""
    import uvicorn

    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        http="h11",
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=2 * models * (settings.max_queue + settings.max_batch) + CONNECTIONS_BESIDE,
        timeout_graceful_shutdown=max(1, round(settings.grace_s)),
    )
    return uvicorn.Server(config)


def bind(settings: ServerSettings) -> socket.socket:
    """The socket that the server will listen on, so that a port in use is known before models are loaded.

    Raises:
        ConfigError: The address is not of this machine, or the port is taken.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    found = socket.socket(family, socket.SOCK_STREAM)
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind((settings.host, settings.port))
    except OSError as error:
        found.close()
        raise ConfigError(
            f"cannot listen on {settings.host}:{settings.port} ({error.strerror or error}); choose another --port "
            "or --host"
        ) from error
    return found


def serve_checkpoints(
    folders: Sequence[tuple[str | None, Path]],
    settings: ServerSettings,
    device: str | None = None,
    manner: Manner | None = None,
    *,
    say: Callable[[str], None] = print,
) -> None:
    """Load checkpoints and serve them until the process is told to stop (Ctrl-C, SIGTERM).

    Args:
        folders: (name or None for its own, checkpoint folder).
        manner: How far answers are calibrated and checked.

    Raises:
        CheckpointError, ConfigError: A checkpoint cannot be loaded, or the address not be listened on.
        MissingExtraError: A library of the extra `serve` is not installed.
    """
    check_extra()
    from gastrovl.serving.app import create_app, load_engines
    from gastrovl.serving.logs import write_to_stderr

    with bind(settings) as listening:
        engines = load_engines(folders, settings, device, manner)
        server = make_server(create_app(engines, settings), settings, len(engines))
        write_to_stderr()
        host, port = listening.getsockname()[:2]
        names = ", ".join(engine.name for engine in engines)
        page = "; open it in a browser" if settings.has_page else ""
        say(f"serving {names} at http://{f'[{host}]' if ':' in host else host}:{port}{page}\n{NOTICE}")
        server.run(sockets=[listening])
