"""Who may ask, how often, and how much at once: keys in constant time, rates, hosts, and bodies of bounded size."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import math
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

from gastrovl.core.endpoint import is_loopback
from gastrovl.core.errors import ConfigError
from gastrovl.serving.refusals import RefusedError

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
FAILURES = "30/minute"  # wrong keys of one address


class Keys:
    """API keys, kept and compared as SHA-256 digests; every key is looked at, whichever fits."""

    def __init__(self, digests: tuple[bytes, ...]) -> None:
        self._digests = digests

    def __bool__(self) -> bool:
        return bool(self._digests)

    def number(self, authorization: str | None) -> int:
        """Which key, counted from 1, an Authorization header holds.

        Raises:
            RefusedError: It holds none of ours.
        """
        scheme, _, given = (authorization or "").partition(" ")
        digest = hashlib.sha256(given.strip().encode("utf-8", "surrogateescape")).digest()
        found = 0
        for number, known in enumerate(self._digests, start=1):
            found = number if hmac.compare_digest(digest, known) else found
        if scheme.lower() != "bearer" or not found:
            said = "a wrong API key" if authorization else "no API key"
            raise RefusedError(401, "invalid_api_key", f"{said} was given; send `Authorization: Bearer KEY`")
        return found


class Rates:
    """Requests of each client within a moving window.

    Raises:
        ConfigError: The rate cannot be read.
    """

    def __init__(self, rate: str) -> None:
        from limits import parse
        from limits.storage import MemoryStorage
        from limits.strategies import MovingWindowRateLimiter

        try:
            self._rate = parse(rate)
        except ValueError as error:
            raise ConfigError(
                f"rate {rate!r}: cannot be read; expected NUMBER/UNIT, e.g. 120/minute or 5/second"
            ) from error
        self._limiter = MovingWindowRateLimiter(MemoryStorage())

    def count(self, client: str) -> None:
        """Raises:
        RefusedError: The client has asked too often; not counted then.
        """
        if not self._limiter.hit(self._rate, client):
            raise self._refusal(client)

    def check(self, client: str) -> None:
        """As `count`, but counts nothing."""
        if not self._limiter.test(self._rate, client):
            raise self._refusal(client)

    def _refusal(self, client: str) -> RefusedError:
        reset = self._limiter.get_window_stats(self._rate, client).reset_time
        seconds = max(1, math.ceil(reset - time.time()))
        return RefusedError(429, "rate_limit_exceeded", f"more than {self._rate}; try later", retry_after_s=seconds)


def check_local(headers: dict[str, str]) -> None:
    """Refuse what a page of another site would send to a server of this machine that asks for no key.

    Raises:
        RefusedError: The request was meant for, or comes from, a host that is not this machine (DNS rebinding).
    """
    origin = headers.get("origin")
    try:
        named = [urlsplit(f"//{headers.get('host', '')}").hostname, *([urlsplit(origin).hostname] if origin else [])]
    except ValueError:
        named = [None]
    if not all(name and is_loopback(name) for name in named):
        raise RefusedError(
            403,
            "foreign_host",
            "this server answers requests from its own machine only, by the name localhost or an "
            "address of it; behind a proxy, give it an API key",
        )


async def read_body(headers: dict[str, str], receive: Receive, most_bytes: int, timeout_s: float) -> bytes:
    """The whole body of a request.

    Raises:
        RefusedError: It is too large, comes too slowly, or the client went away.
    """
    too_large = RefusedError(413, "too_large", f"the request has more than {most_bytes:,} bytes; send a smaller image")
    said = headers.get("content-length", "0")
    if said.isdecimal() and int(said[:19]) > most_bytes:
        raise too_large
    content = bytearray()
    try:
        async with asyncio.timeout(timeout_s):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise RefusedError(400, "client_gone", "the client went away before its request was whole")
                content += message.get("body", b"")
                if len(content) > most_bytes:
                    raise too_large
                if not message.get("more_body", False):
                    return bytes(content)
    except TimeoutError:
        raise RefusedError(408, "too_slow", f"the request took more than {timeout_s:g} s to arrive") from None


async def drain(receive: Receive, most_bytes: int, timeout_s: float) -> None:
    """Take what a client still sends and throw it away: one that is cut off while it sends never reads the answer."""
    left = most_bytes
    try:
        async with asyncio.timeout(timeout_s):
            while left > 0:
                message = await receive()
                if message["type"] == "http.disconnect" or not message.get("more_body", False):
                    return
                left -= len(message.get("body", b""))
    except TimeoutError:
        return
