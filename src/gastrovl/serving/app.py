"""Engines and settings to an ASGI app, and that to a server that listens."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio.to_thread
from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from gastrovl import __version__
from gastrovl.core.errors import ConfigError
from gastrovl.inference.head.looking import Manner
from gastrovl.inference.question import NOTICE
from gastrovl.serving import openapi
from gastrovl.serving.checkpoints import ServedCheckpoint
from gastrovl.serving.engine import Engine, Model
from gastrovl.serving.gate import LOG, Gate
from gastrovl.serving.intake import Intake
from gastrovl.serving.metrics import Metrics
from gastrovl.serving.openai_api import openai_routes
from gastrovl.serving.page_files import page_routes
from gastrovl.serving.refusals import RefusedError
from gastrovl.serving.settings import ServerSettings
from gastrovl.serving.typed_api import typed_routes
from gastrovl.serving.vocabulary_api import vocabulary_routes


def make_engine(model: Model, settings: ServerSettings) -> Engine:
    """An engine for a model, within the limits of the settings; it starts with the app it is given to."""
    return Engine(
        model,
        max_queue=settings.max_queue,
        max_batch=settings.max_batch,
        max_queued_pixels=settings.max_queued_pixels,
    )


def load_engines(
    folders: Sequence[tuple[str | None, Path]],
    settings: ServerSettings,
    device: str | None = None,
    manner: Manner | None = None,
) -> list[Engine]:
    """Read checkpoints; each is served under the name given, or its own.

    Raises:
        CheckpointError, ConfigError: A folder cannot be loaded, or two have one name.
    """
    models = [ServedCheckpoint.load(folder, name, device, manner) for name, folder in folders]
    names = [model.name for model in models]
    if double := {name for name in names if names.count(name) > 1}:
        raise ConfigError(f"two checkpoints are called {double.pop()!r}; name them: --model NAME=FOLDER")
    return [make_engine(model, settings) for model in models]


def create_app(engines: Sequence[Engine], settings: ServerSettings, *, started: int | None = None) -> FastAPI:
    """The whole API over some engines, which it starts and closes; the first is asked where a request names none.

    Routes that are added to the app afterwards stand behind the same gate: key, rate, size of body.

    Args:
        started: Unix time that /v1/models gives as `created`; now when left out.

    Raises:
        ConfigError: There is no engine, or the rate cannot be read.
    """
    if not engines:
        raise ConfigError("there is nothing to serve; expected at least one checkpoint")
    metrics, intake = Metrics(), Intake(engines, settings)
    metrics.watch(engines)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        for engine in engines:
            engine.watch = engine.watch or metrics
            engine.start()
        yield
        for engine in engines:
            await anyio.to_thread.run_sync(engine.close, settings.grace_s)

    app = FastAPI(
        title="GastroVL", version=__version__, description=NOTICE, lifespan=lifespan, docs_url=None, redoc_url=None
    )
    app.add_middleware(Gate, settings=settings, metrics=metrics)
    app.add_exception_handler(RefusedError, _refused)
    app.add_exception_handler(HTTPException, _not_ours)
    app.include_router(openai_routes(intake, int(time.time()) if started is None else started))
    app.include_router(typed_routes(intake))
    app.include_router(vocabulary_routes(intake))
    if settings.has_page:
        app.include_router(page_routes())
    _add_watching(app, engines, metrics)
    app.openapi = lambda: _described(app)  # type: ignore[method-assign]
    return app


def _add_watching(app: FastAPI, engines: Sequence[Engine], metrics: Metrics) -> None:
    """What a supervisor asks: alive, ready, and how it goes."""

    @app.get("/healthz", tags=["watching"])
    async def healthz() -> dict[str, str]:
        """The process lives."""
        return {"status": "ok"}

    @app.get("/readyz", tags=["watching"], responses={503: {"description": "A model is not loaded, or leaves."}})
    async def readyz() -> Response:
        """Every model takes questions."""
        is_ready = all(engine.is_ready for engine in engines)
        return JSONResponse({"status": "ready" if is_ready else "not ready"}, 200 if is_ready else 503)

    @app.get("/metrics", tags=["watching"], response_class=Response)
    async def show_metrics() -> Response:
        """Numbers for Prometheus."""
        content, media = metrics.text()
        return Response(content, headers={"content-type": media})


def _described(app: FastAPI) -> dict[str, Any]:
    if app.openapi_schema is None:
        app.openapi_schema = openapi.describe(app)
    return app.openapi_schema


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, RefusedError)
    request.scope[LOG]["code"] = error.code
    return JSONResponse(error.body, error.status, error.headers)


async def _not_ours(request: Request, error: Exception) -> Response:
    """No such path or method, in OpenAI's form."""
    assert isinstance(error, HTTPException)
    said = {404: "there is no such address", 405: "this address knows no such method"}
    refusal = RefusedError(error.status_code, "not_found", said.get(error.status_code, "the request cannot be served"))
    answer = await _refused(request, refusal)
    answer.headers.update(error.headers or {})  # of 405, the methods that the address knows
    return answer
