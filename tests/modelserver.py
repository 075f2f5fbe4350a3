"""A server on this machine that speaks like a model behind OpenAI's interface, and fails as it is told."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest


@dataclass
class Served:
    """What the server does.

    Attributes:
        answer: The last text of a request to the words of the reply; the text itself when nothing is set.
        plan: What befalls the first requests, one each: "ok", a status, ("status", code, headers), "garbage",
            "truncated", "empty", "cut" (at the token limit), "hang" (until the client gives up), "redirect".
        seconds: How long a reply takes.
        requests: Bodies received, in order; `images` the hashes of their pictures, `headers` what came with them.
    """

    answer: Callable[[str], str] = str
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
            content = body["messages"][-1]["content"]
            parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
            pictures = [base64.b64decode(part["image_url"]["url"].partition(",")[2]) for part in parts[:-1]]
            with state.lock:
                state.requests.append(body)
                state.images += [hashlib.sha256(picture).hexdigest() for picture in pictures]
                state.headers.append(dict(self.headers))
                state.paths.append(self.path)
                step = state.plan.pop(0) if state.plan else "ok"
            time.sleep(state.seconds)
            content = {"role": "assistant", "content": "" if step == "empty" else state.answer(parts[-1]["text"])}
            choice = {"index": 0, "message": content, "finish_reason": "length" if step == "cut" else "stop"}
            usage = {"prompt_tokens": 11, "completion_tokens": 5, "total_tokens": 16}
            payload = json.dumps({"object": "chat.completion", "choices": [choice], "usage": usage}).encode()
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
