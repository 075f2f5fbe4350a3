"""Words and images to a reply of an OpenAI-compatible server: paced, retried, and never sent elsewhere.

Written with the standard library's urllib, as `data/fetch.py` is: one kind of request, no streaming, and no
dependency of the base install. Redirects are refused, because an image would follow them.
"""

from __future__ import annotations

import base64
import http.client
import io
import ipaddress
import json
import os
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.message import Message
from email.utils import parsedate_to_datetime
from typing import IO, Any
from urllib.parse import urlsplit

from PIL import Image

from gastrovl import __version__
from gastrovl.core.errors import ConfigError, EndpointError

RETRIED = (408, 425, 429, 500, 502, 503, 504)
HOPELESS = (401, 403, 404, 405)  # the same for every image, so the run stops
MOST_BYTES = 4 * 2**20  # of a reply
LONGEST_WAIT_S = 300.0
JPEG_QUALITY = 92


class UnusableReplyError(Exception):
    """One image got no reply that can be used, after all attempts; the others may."""


class Pace:
    """Lets requests of several threads go at most so many a minute, evenly, and none before a hold is over.

    Args:
        per_minute: None: as fast as they come.
        clock, wait: Seconds on a clock that never goes back; called to sleep.
    """

    def __init__(
        self,
        per_minute: float | None,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        self._gap = 60.0 / per_minute if per_minute else 0.0
        self._clock, self.wait = clock, wait
        self._lock, self._next = threading.Lock(), 0.0

    def take(self) -> None:
        """Wait for a turn."""
        with self._lock:
            turn = max(self._clock(), self._next)
            self._next = turn + self._gap
        if (left := turn - self._clock()) > 0:
            self.wait(left)

    def hold(self, seconds: float) -> None:
        """Let no thread start for so long: the server asked for it."""
        with self._lock:
            self._next = max(self._next, self._clock() + seconds)


@dataclass(frozen=True)
class EndpointOptions:
    """How a server is asked.

    Attributes:
        url: Its base, e.g. http://127.0.0.1:8000/v1.
        model: Name that the server knows the model by.
        attempts: Connections for one reply, the first included.
        timeout_s: Of one connection.
        most_tokens: Of a reply; a longer one is cut by the server, and useless.
        allows_remote: Images may leave this machine; the address must be https then.
        api_key: Sent as a bearer token, never shown.
    """

    url: str
    model: str
    attempts: int = 5
    timeout_s: float = 120.0
    most_tokens: int = 256
    seed: int = 0
    allows_remote: bool = False
    api_key: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        check_endpoint(self.url, allows_remote=self.allows_remote)


def key_of(variable: str | None, setting: str) -> str | None:
    """The key in an environment variable, None for no variable; `setting` named it, and opens the error.

    Raises:
        ConfigError: The variable is not set.
    """
    if variable is None:
        return None
    if not os.environ.get(variable):
        raise ConfigError(f"{setting}: environment variable {variable} is not set; put the key there")
    return os.environ[variable]


def check_endpoint(url: str, *, allows_remote: bool) -> None:
    """Refuse an address to which images must not go.

    Raises:
        ConfigError: It is no http address, carries a password, or leaves this machine without leave or in clear text.
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise ConfigError(
            f"endpoint {url!r}: not an address ({error}); expected e.g. http://127.0.0.1:8000/v1"
        ) from error
    if parts.scheme not in ("http", "https") or not host or parts.query or parts.fragment:
        raise ConfigError(f"endpoint {url!r}: expected http(s)://HOST[:PORT]/PATH, e.g. http://127.0.0.1:8000/v1")
    if parts.username or parts.password:
        raise ConfigError(f"endpoint at {host}: a name or password in an address ends in logs; use --api-key-env")
    if is_loopback(host):
        return
    if not allows_remote:
        raise ConfigError(
            f"endpoint {url!r}: {host} is another machine, so every image and its labels would leave this one. "
            "Serve the model here, forward a port (`ssh -L 8000:localhost:8000 HOST`), or pass --allow-remote if the "
            "licence of the data and the consent of the patients permit it"
        )
    if parts.scheme != "https":
        raise ConfigError(f"endpoint {url!r}: images would travel in clear text; expected https:// for another machine")


def is_loopback(host: str) -> bool:
    """Whether a host name means this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True)
class ChatReply:
    """What a server answered.

    Attributes:
        is_cut: It ended at the token limit.
        prompt_tokens, completion_tokens: As the server counts them, None where it does not say.
        attempts: Connections it took, the first included.
        seconds: Wall-clock time from the first connection to the reply, waits included.
    """

    text: str
    is_cut: bool
    prompt_tokens: int | None
    completion_tokens: int | None
    attempts: int
    seconds: float


class ChatEndpoint:
    """Asks a server, one conversation at a time; may be called by several threads.

    Args:
        pace: Shared by all threads.
    """

    def __init__(self, options: EndpointOptions, pace: Pace | None = None) -> None:
        self.options, self._pace = options, pace or Pace(None)
        handlers: list[urllib.request.BaseHandler] = [_NoRedirect()]
        if is_loopback(urlsplit(options.url).hostname or ""):
            handlers.append(urllib.request.ProxyHandler({}))  # a proxy of the environment would see the images
        self._opener = urllib.request.build_opener(*handlers)

    def __call__(self, image: Image.Image, prompt: str) -> str:
        """The model's words about an image, whole and not empty.

        Raises:
            UnusableReplyError: Not for this image: broken or empty replies only, cut at the limit, or refused.
            EndpointError: Not for any image: nobody listens, no such model or address, or the key is wrong.
        """
        reply = self.chat([{"role": "user", "content": [image_part(image), text_part(prompt)]}])
        if reply.is_cut:
            raise UnusableReplyError("the reply was cut at the token limit; raise --max-tokens")
        return reply.text

    def chat(self, messages: Sequence[Mapping[str, Any]]) -> ChatReply:
        """The model's reply to messages in OpenAI's form; it may be cut, but it is not empty.

        Raises:
            UnusableReplyError: Broken or empty replies only, or refused.
            EndpointError: Nobody listens, no such model or address, or the key is wrong.
        """
        begin = time.monotonic()
        body = json.dumps(self._request(messages)).encode()
        last: Exception | None = None
        for attempt in range(self.options.attempts):
            self._pace.take()
            try:
                return _reply(self._send(body), attempt + 1, time.monotonic() - begin)
            except _PassingError as error:
                last = error
                if attempt + 1 < self.options.attempts:
                    seconds = min(2.0**attempt, 60.0) if error.seconds is None else min(error.seconds, LONGEST_WAIT_S)
                    if error.is_for_all:
                        self._pace.hold(seconds)
                    else:
                        self._pace.wait(seconds)
        if isinstance(last, _PassingError) and last.is_unreachable:
            raise EndpointError(f"{self.options.url}: {last}; is the server running? Run the same command again")
        raise UnusableReplyError(f"{last} ({self.options.attempts} attempts)")

    def _request(self, messages: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        return {
            "model": self.options.model,
            "messages": list(messages),
            "temperature": 0,
            "seed": self.options.seed,
            "max_tokens": self.options.most_tokens,
            "stream": False,
        }

    def _send(self, body: bytes) -> bytes:
        headers = {"Content-Type": "application/json", "User-Agent": f"gastrovl/{__version__}"}
        if self.options.api_key:
            headers["Authorization"] = f"Bearer {self.options.api_key}"
        request = urllib.request.Request(f"{self.options.url.rstrip('/')}/chat/completions", body, headers)
        try:
            with self._opener.open(request, timeout=self.options.timeout_s) as reply:
                content: bytes = reply.read(MOST_BYTES + 1)
        except urllib.error.HTTPError as error:
            raise self._refusal(error) from None
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", error)
            is_unreachable = isinstance(reason, ConnectionRefusedError)
            raise _PassingError(f"no reply ({reason or type(error).__name__})", is_unreachable=is_unreachable) from None
        if len(content) > MOST_BYTES:
            raise _PassingError(f"the reply is longer than {MOST_BYTES:,} bytes")
        return content

    def _refusal(self, error: urllib.error.HTTPError) -> Exception:
        with error:
            said = error.read(300).decode("utf-8", "replace").strip()
        if self.options.api_key:
            said = said.replace(self.options.api_key, "***")
        what = f"HTTP {error.code} {error.reason}" + (f": {said}" if said else "")
        if error.code in RETRIED:
            return _PassingError(what, _retry_after(error.headers), is_for_all=error.code in (429, 503))
        if error.code in HOPELESS or error.code < 400:
            return EndpointError(f"{self.options.url}: {what}; check --endpoint, --model and the key")
        return UnusableReplyError(what)


class _PassingError(Exception):
    """A failure that may pass.

    Attributes:
        seconds: How long the server asks to wait, or None.
        is_for_all: The server has too much to do, so that every thread waits.
    """

    def __init__(
        self, what: str, seconds: float | None = None, *, is_for_all: bool = False, is_unreachable: bool = False
    ) -> None:
        super().__init__(what)
        self.seconds, self.is_for_all, self.is_unreachable = seconds, is_for_all, is_unreachable


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> None:
        """Follow nothing; the redirect becomes an HTTPError."""
        del req, fp, code, msg, headers, newurl


def data_url(image: Image.Image) -> str:
    """An RGB image as a JPEG inside a URL."""
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=JPEG_QUALITY, comment=b"")  # that of the file may hold a name
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode("ascii")


def image_part(image: Image.Image) -> dict[str, Any]:
    """An RGB image as one part of a message."""
    return {"type": "image_url", "image_url": {"url": data_url(image)}}


def text_part(text: str) -> dict[str, Any]:
    """Words as one part of a message."""
    return {"type": "text", "text": text}


def _reply(content: bytes, attempts: int, seconds: float) -> ChatReply:
    """What a server sent as a reply; an empty one may come out whole the next time."""
    try:
        whole = json.loads(content)
        choice = whole["choices"][0]
        said = choice["message"]["content"]
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise _PassingError(f"the reply is no chat completion ({type(error).__name__}: {content[:80]!r})") from None
    if isinstance(said, list):
        said = "".join(str(part.get("text", "")) for part in said if isinstance(part, dict))
    is_cut = choice.get("finish_reason") == "length"
    if not is_cut and (not isinstance(said, str) or not said.strip()):
        raise _PassingError("the reply is empty")
    usage = whole.get("usage")
    counts = usage if isinstance(usage, dict) else {}
    return ChatReply(
        text=said if isinstance(said, str) else "",
        is_cut=is_cut,
        prompt_tokens=_count(counts.get("prompt_tokens")),
        completion_tokens=_count(counts.get("completion_tokens")),
        attempts=attempts,
        seconds=seconds,
    )


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _retry_after(headers: Message) -> float | None:
    """Seconds of a Retry-After header, given as a number or as a date."""
    value = headers.get("Retry-After")
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds()
        except (ValueError, TypeError):
            return None
    return max(seconds, 0.0) if seconds == seconds else None  # NaN differs from itself
