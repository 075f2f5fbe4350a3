"""Requests to a judge's raw replies: several at once, each a line on disk before it counts, none asked twice."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from PIL import Image

from gastrovl.core.endpoint import UnusableReplyError
from gastrovl.core.errors import EndpointError, RecordError
from gastrovl.core.files import lock_handle

SCHEMA = "gastrovl/asked/1"
MOST_UNANSWERED = 20  # in a row; then something is wrong with the server and not with the questions
_KEPT = 20_001  # letters of a reply; one more than a verdict may have, so that a cut one still fails
Ask = Callable[[Image.Image | None, str], str]  # called by several threads


@dataclass(frozen=True)
class Request:
    """One thing to ask.

    Attributes:
        sha256: Hash of all that decides the reply.
        repeat: Which of the repeated askings it is.
        image: Path of the image to be shown, or None.
        fault_of: What is wrong with a reply, or None when it can be used.
    """

    sha256: str
    prompt: str
    repeat: int
    image: Path | None
    fault_of: Callable[[str], str | None]


@dataclass(frozen=True)
class Outcome:
    """What came of a request: the words of the judge, and why they cannot be used if they cannot."""

    text: str
    failure: str | None


def ask_all(
    requests: Iterable[Request],
    path: Path,
    ask_of: Callable[[int], Ask],
    *,
    workers: int = 1,
    retries_failures: bool = False,
    show: Callable[[Path], Image.Image],
    progress: Callable[[int, int], None] | None = None,
) -> tuple[dict[str, Outcome], int]:
    """Outcomes by hash of request, and how many were asked for now.

    Args:
        path: The cache: JSONL, one line an outcome, appended and never rewritten; a later line goes before an earlier.
        ask_of: Which function answers the requests of a repeat.
        retries_failures: Ask again what failed before.
        show: Opens an image as the judge is to see it.

    Raises:
        EndpointError: The judge cannot be reached, or 20 requests in a row got no reply. What was done is kept.
        RecordError: A whole line of the cache is no outcome.
        OutputError: Another process is writing the cache.
        ImageError: An image is missing or broken.
    """
    unique = {one.sha256: one for one in requests}
    with _opened(path) as stream:
        known = {key: one for key, one in _read(path).items() if key in unique}
        left = [
            one
            for key, one in unique.items()
            if key not in known or (retries_failures and known[key].failure is not None)
        ]
        asks = {repeat: ask_of(repeat) for repeat in sorted({one.repeat for one in left})}
        lock = threading.Lock()

        def work(request: Request) -> Outcome:
            outcome = _ask(asks[request.repeat], request, show)
            with lock:  # on disk before anything else happens, so that a killed run has paid for it once
                stream.write(_line(request, outcome))
                stream.flush()
                os.fsync(stream.fileno())
            return outcome

        known |= _run(work, left, workers, len(unique), progress)
    return known, len(left)


def _run(
    work: Callable[[Request], Outcome],
    requests: list[Request],
    workers: int,
    total: int,
    progress: Callable[[int, int], None] | None,
) -> dict[str, Outcome]:
    done: dict[str, Outcome] = {}
    in_a_row = 0
    with ThreadPoolExecutor(workers) as pool:
        futures = {pool.submit(work, one): one for one in requests}
        try:
            for future in as_completed(futures):
                outcome = future.result()
                done[futures[future].sha256] = outcome
                in_a_row = in_a_row + 1 if outcome.failure and not outcome.text else 0
                if in_a_row >= MOST_UNANSWERED:
                    raise EndpointError(
                        f"{in_a_row} requests in a row got no reply of the judge, the last: {outcome.failure}. Mend "
                        "the model or its server, then run the same command again with --retry-failures"
                    )
                if progress:
                    progress(total - len(requests) + len(done), total)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return done


def _ask(ask: Ask, request: Request, show: Callable[[Path], Image.Image]) -> Outcome:
    image = None if request.image is None else show(request.image)
    try:
        text = ask(image, request.prompt)
    except UnusableReplyError as error:
        return Outcome("", f"no reply: {error}")
    text = text.encode("utf-8", "replace").decode("utf-8")[:_KEPT]
    return Outcome(text, request.fault_of(text))


@contextmanager
def _opened(path: Path) -> Iterator[IO[str]]:
    """The cache, held by this process alone, with a last line that was cut off removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as stream:
        lock_handle(stream.fileno(), f"{path}: another process is writing it; wait for its end, or choose another -o")
        content = path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole != len(content):
            stream.truncate(whole)
        yield stream


def _line(request: Request, outcome: Outcome) -> str:
    content = {"schema": SCHEMA, "request_sha256": request.sha256, "text": outcome.text, "failure": outcome.failure}
    return json.dumps(content, ensure_ascii=False) + "\n"


def _read(path: Path) -> Mapping[str, Outcome]:
    found = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n")[:-1], start=1):
        try:
            content = json.loads(line)
            if content["schema"] != SCHEMA:
                raise ValueError(content["schema"])
            found[str(content["request_sha256"])] = Outcome(content["text"], content["failure"])
        except (ValueError, LookupError, TypeError, RecursionError) as error:
            raise RecordError(
                f"{path}:{number}: not a line of {SCHEMA} ({error}); delete that line, and what it held is asked again"
            ) from error
    return found
