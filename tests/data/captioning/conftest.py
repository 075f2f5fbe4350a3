"""A drawn dataset of a few records, and a server on this machine that speaks like a model and fails as it is told."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from gastrovl.core.files import sha256_file
from gastrovl.core.records import write_records
from gastrovl.core.types import Box, Finding, ImageRef, Sample, Split

SITES = ("antrum", "body", "fundus", "pylorus")


def honest(prompt: str) -> str:
    """A caption from the facts in a prompt, as a good model would write it."""
    views = re.findall("^- in view: (.+)$", prompt, re.MULTILINE)
    findings = [line.split(",")[0] for line in re.findall("^- finding: (.+)$", prompt, re.MULTILINE)]
    return f"This view of the {' and '.join(views)} shows {' and '.join(findings) or 'its surface'}."


@dataclass
class Served:
    """What the server does.

    Attributes:
        answer: The prompt of a request to the words of the reply.
        plan: What befalls the first requests, one each: "ok", a status, ("status", code, headers), "garbage",
            "truncated", "empty", "cut" (at the token limit), "hang" (until the client gives up), "redirect".
        seconds: How long a reply takes.
        requests: Bodies received, in order; `images` the hashes of their pictures, `headers` what came with them.
    """

    answer: Callable[[str], str] = honest
    plan: list[Any] = field(default_factory=list)
    seconds: float = 0.0
    requests: list[dict[str, Any]] = field(default_factory=list)
    images: list[str] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    url: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)


@pytest.fixture
def served() -> Iterator[Served]:
    """A server on 127.0.0.1; needs the marker `allow_hosts(["127.0.0.1"])`."""
    state = Served()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            image, text = body["messages"][0]["content"]
            picture = base64.b64decode(image["image_url"]["url"].partition(",")[2])
            with state.lock:
                state.requests.append(body)
                state.images.append(hashlib.sha256(picture).hexdigest())
                state.headers.append(dict(self.headers))
                state.paths.append(self.path)
                step = state.plan.pop(0) if state.plan else "ok"
            time.sleep(state.seconds)
            content = {"role": "assistant", "content": "" if step == "empty" else state.answer(text["text"])}
            choice = {"index": 0, "message": content, "finish_reason": "length" if step == "cut" else "stop"}
            payload = json.dumps({"object": "chat.completion", "choices": [choice]}).encode()
            if isinstance(step, int | tuple):
                code, headers = (step, {}) if isinstance(step, int) else step[1:]
                self._send(code, b"busy", headers)
            elif step == "redirect":
                self._send(307, b"", {"Location": f"{state.url}/elsewhere"})
            elif step == "hang":
                time.sleep(1.5)
                self.close_connection = True
            elif step == "garbage":
                self._send(200, b"<html>not what you think</html>", {})
            elif step == "truncated":
                self._send(200, payload, {}, kept=len(payload) // 2)
            else:
                self._send(200, payload, {})

        def _send(self, code: int, payload: bytes, headers: dict[str, str], kept: int | None = None) -> None:
            self.send_response(code)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(payload)))
            self.end_headers()
            self.wfile.write(payload[:kept])

        def log_message(self, *_):
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, request, client_address):
            """A client that was killed or gave up is no news."""

    server = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    state.url = f"http://127.0.0.1:{server.server_port}/v1"
    yield state
    server.shutdown()
    server.server_close()


@pytest.fixture
def dataset(tmp_path: Path, draw: Callable[..., Path]) -> Callable[..., Path]:
    """`dataset(images=3)` writes a folder of records and images: each a site of the stomach with one ulcer or polyp."""

    def make(images: int = 3, **changes: Any) -> Path:
        folder = tmp_path / "set"
        samples = []
        for number in range(images):
            path = draw(folder / f"images/{number:03d}.png", seed=number)
            box = Box(x0=0.1, y0=0.1, x1=0.3, y1=0.3)
            term = "gastric_polyp" if number % 2 else "gastric_ulcer"
            image = ImageRef(path=f"images/{number:03d}.png", width_px=64, height_px=48, sha256=sha256_file(path))
            fields = {
                "id": f"own/{number:03d}",
                "image": image,
                "source": "own",
                "group": str(number),
                "split": Split.TRAIN,
                "findings": (Finding(term=SITES[number % 4]), Finding(term=term, boxes=(box,))),
            }
            samples.append(Sample.model_validate(fields | changes))
        write_records(folder / "records.jsonl", samples)
        return folder

    return make
