"""The door of a server, as ASGI middleware: who may enter, with what; then one log line and one count a request."""

from __future__ import annotations

import time
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gastrovl.serving import logs
from gastrovl.serving.limits import FAILURES, Keys, Rates, check_local, drain, read_body
from gastrovl.serving.metrics import Metrics
from gastrovl.serving.refusals import RefusedError, broken
from gastrovl.serving.settings import ServerSettings

LOG = "gastrovl.log"  # key of a scope: fields that handlers add to the request's log line
DRAINED, DRAIN_S = 4, 2.0  # bodies' worth of a refused request that is still read, and for how long
_HEADERS = ((b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff"))


class Gate:
    """Lets a request in only with a key, in time, at its rate and of bounded size; hands the whole body on.

    What is raised behind it becomes an answer here, so that no traceback reaches a client.
    """

    def __init__(self, app: ASGIApp, settings: ServerSettings, metrics: Metrics) -> None:
        self.app, self.settings, self.metrics = app, settings, metrics
        self._keys = Keys(settings.key_digests)
        self._rates = Rates(settings.rate) if settings.rate else None
        self._failures = Rates(FAILURES) if self._keys else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif scope["type"] == "http":
            await self._request(scope, receive, send)
        else:  # a WebSocket; nothing of ours uses one
            await send({"type": "websocket.close", "code": 1008})

    async def _request(self, scope: Scope, receive: Receive, send: Send) -> None:
        begin, request_id = time.perf_counter(), uuid.uuid4().hex
        fields: dict[str, Any] = {}
        scope[LOG] = fields
        status = 0

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = int(message["status"])
                message["headers"] = [*message["headers"], *_HEADERS, (b"x-request-id", request_id.encode())]
            await send(message)

        try:
            await self._enter(scope, receive, answer, fields)
        except Exception as error:
            refusal = error if isinstance(error, RefusedError) else broken()
            if refusal is not error:
                fields |= logs.places(error)
            fields["code"] = refusal.code
            if status == 0:
                if not fields.pop("is_read", False) and refusal.code not in ("too_slow", "client_gone"):
                    await drain(receive, DRAINED * self.settings.max_body_bytes, DRAIN_S)
                await JSONResponse(refusal.body, refusal.status, refusal.headers)(scope, receive, answer)
        finally:
            self._record(scope, status, time.perf_counter() - begin, request_id, fields)

    async def _enter(self, scope: Scope, receive: Receive, send: Send, fields: dict[str, Any]) -> None:
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        client = str((scope.get("client") or ("unknown",))[0])
        if not self.settings.is_open(scope["path"]):
            if self._keys:
                client = f"key {self._key(headers, client)}"
                fields["client"] = client
            elif self.settings.is_local:
                check_local(headers)
            if self._rates:
                self._rates.count(client)
        body = await read_body(headers, receive, self.settings.max_body_bytes, self.settings.body_timeout_s)
        fields["is_read"] = True
        await self.app(scope, _after(body, receive), send)

    def _key(self, headers: dict[str, str], host: str) -> int:
        """Which key was given; an address that tried too many wrong ones has to wait."""
        assert self._failures is not None
        self._failures.check(host)
        try:
            return self._keys.number(headers.get("authorization"))
        except RefusedError:
            self._failures.count(host)
            raise

    def _record(self, scope: Scope, status: int, seconds: float, request_id: str, fields: dict[str, Any]) -> None:
        fields.pop("is_read", None)
        route = getattr(scope.get("route"), "path", None) or "other"
        self.metrics.requested(route, status, seconds)
        if "code" in fields:
            self.metrics.refused(fields["code"])
        logs.say(
            "request",
            id=request_id,
            method=scope["method"] if scope["method"] in ("GET", "POST", "HEAD", "OPTIONS") else "other",
            route=route,
            status=status or 499,  # nobody was there to be told
            milliseconds=round(seconds * 1000, 1),
            **fields,
        )


def _after(body: bytes, receive: Callable[[], Awaitable[Message]]) -> Receive:
    """A `receive` that gives a body that is read already, then whatever comes behind it."""
    is_given = False

    async def again() -> Message:
        nonlocal is_given
        if not is_given:
            is_given = True
            return {"type": "http.request", "body": body, "more_body": False}
        return await receive()

    return again
