"""An OpenAPI schema and a seed to requests that no client in its senses sends: what benchmarks/serving.py throws."""

from __future__ import annotations

import base64
import io
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from PIL import Image

WORDS = ("", " ", "polyp", "<image>", "<|user|>", "<|end|>", "[100,200,300,400]", "[900,1,2,3]", "[-1,0,9999,5]", "\0")
WORDS += (
    "\ud800",
    "é" * 50,
    "a" * 5000,
    "../../etc/passwd",
    "http://127.0.0.1:1/x",
    "data:image/png;base64,",
    "{{7*7}}",
)
NUMBERS = (0, -1, 1, 2, 0.5, 1e308, -1e308, 2**63, 10**40, float("nan"), float("inf"), True)
HEADERS = ("application/json", "multipart/form-data", "multipart/form-data; boundary=x", "text/plain", "", "*/*", "é")


@dataclass(frozen=True)
class Sent:
    """A request, and which way it was made."""

    method: str
    path: str
    media: str
    body: bytes
    way: str


class Fuzzer:
    """Makes requests for the endpoints of a schema: of it, beside it, and broken on the way.

    Args:
        models: Names that are served.
    """

    def __init__(self, schema: dict[str, Any], models: list[str], seed: int) -> None:
        self.schema, self.models, self.random = schema, models, random.Random(seed)
        self.endpoints = {path: one["post"] for path, one in schema["paths"].items() if "post" in one}

    def requests(self, count: int) -> Iterator[Sent]:
        """So many, each way alike often."""
        ways = (self._valid, self._of_schema, self._changed, self._changed, self._bytes, self._image, self._form)
        for number in range(count):
            yield ways[number % len(ways)](self.random.choice(list(self.endpoints)))

    def _valid(self, path: str) -> Sent:
        return self._json(path, self._good(path), "valid")

    def _of_schema(self, path: str) -> Sent:
        """Whatever the schema allows, with strings and numbers of any kind."""
        body = self.endpoints[path]["requestBody"]["content"]["application/json"]["schema"]
        return self._json(path, self._value(body, 0), "of schema")

    def _changed(self, path: str) -> Sent:
        content = self._good(path)
        for _ in range(self.random.randint(1, 3)):
            content = self._change(content)
        return self._json(path, content, "changed")

    def _bytes(self, path: str) -> Sent:
        body = bytearray(json.dumps(self._good(path)).encode())
        for _ in range(self.random.randint(1, 20)):
            place = self.random.randrange(len(body) + 1)
            body[place : place + self.random.randint(0, 3)] = self.random.randbytes(self.random.randint(0, 3))
            body = body or bytearray(b"x")
        if self.random.random() < 0.2:
            body = bytearray(self.random.choice((b"[" * 50_000, b'{"a":' * 20_000, b"", b"null", b"1" * 5000)))
        return Sent("POST", path, self.random.choice(HEADERS[:1] * 5 + HEADERS), bytes(body), "bytes")

    def _image(self, path: str) -> Sent:
        """An image that is damaged."""
        content = bytearray(picture(self.random, self.random.choice(("PNG", "JPEG", "WEBP", "BMP", "TIFF"))))
        for _ in range(self.random.randint(1, 8)):
            content[self.random.randrange(len(content))] = self.random.randrange(256)
        if self.random.random() < 0.3:
            del content[self.random.randrange(len(content)) :]
        return self._json(path, self._good(path, bytes(content)), "image")

    def _form(self, path: str) -> Sent:
        if "chat" in path:
            path = "/v1/classify"
        parts = [(b"image", picture(self.random, "PNG")), (b"what", b"polyp"), (b"box", b"0,0,0.5,0.5")]
        self.random.shuffle(parts)
        body = b""
        for name, value in parts[: self.random.randint(0, 3)]:
            file = b'; filename="x.png"' if name == b"image" and self.random.random() < 0.8 else b""
            body += (
                b'--x\r\nContent-Disposition: form-data; name="' + name + b'"' + file + b"\r\n\r\n" + value + b"\r\n"
            )
        body += self.random.choice((b"--x--\r\n", b"--x", b"", b"--y--\r\n"))
        if self.random.random() < 0.5 and body:
            place = self.random.randrange(len(body))
            body = body[:place] + self.random.randbytes(2) + body[place + 2 :]
        return Sent("POST", path, self.random.choice(HEADERS[2:3] * 5 + HEADERS), body, "form")

    def _json(self, path: str, content: Any, way: str) -> Sent:
        return Sent("POST", path, "application/json", json.dumps(content).encode(), way)

    def _good(self, path: str, image: bytes | None = None) -> dict[str, Any]:
        """A request that is answered."""
        encoded = base64.b64encode(image or picture(self.random, "PNG")).decode()
        if "chat" not in path:
            asked = {"classify": {}, "locate": {"what": "polyp"}, "describe": {"max_tokens": 2}, "image": {}}
            return {"image": encoded} | asked.get(path.rsplit("/", 1)[1], {"box": [0.1, 0.1, 0.5, 0.5]})
        shown = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{encoded}"}}
        said = [{"role": "user", "content": [shown, {"type": "text", "text": "What is in [100,100,500,500]?"}]}]
        others = self.random.choice(({}, {"stream": True}, {"task": "CLS"}, {"task": "REG"}, {"response_format": FORM}))
        return {"model": self.random.choice(self.models), "messages": said, "max_tokens": 2} | others

    def _change(self, content: Any) -> Any:
        """One part replaced, left out, or added to."""
        if isinstance(content, dict) and content and self.random.random() < 0.85:
            name = self.random.choice(list(content))
            changed = dict(content)
            what = self.random.random()
            if what < 0.15:
                del changed[name]
            elif what < 0.25:
                changed[self.random.choice(WORDS)] = self._junk()
            else:
                changed[name] = self._change(content[name])
            return changed
        if isinstance(content, list) and content and self.random.random() < 0.7:
            place = self.random.randrange(len(content))
            return [*content[:place], self._change(content[place]), *content[place + self.random.randint(0, 1) :]]
        return self._junk()

    def _junk(self) -> Any:
        return self.random.choice(
            (None, [], {}, [[]], {"a": []}, self.random.choice(WORDS), self.random.choice(NUMBERS), ["a"] * 100)
        )

    def _value(self, schema: Any, depth: int) -> Any:
        while "$ref" in schema:
            schema = self.schema["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]]
        for several in ("anyOf", "oneOf"):
            if several in schema:
                return self._value(self.random.choice(schema[several]), depth)
        if "const" in schema or "enum" in schema:
            return self.random.choice(schema.get("enum", [schema.get("const")]))
        kind = schema.get("type")
        if kind == "object":
            properties, needed = schema.get("properties", {}), schema.get("required", [])
            chosen = [name for name in properties if name in needed or self.random.random() < 0.3]
            return {name: self._value(properties[name], depth + 1) for name in chosen}
        if kind == "array":
            if "prefixItems" in schema:
                return [self._value(one, depth + 1) for one in schema["prefixItems"]]
            return [self._value(schema.get("items", {}), depth + 1) for _ in range(self.random.randint(0, 3))]
        if kind == "string":
            return self.random.choice((*WORDS, *self.models, base64.b64encode(picture(self.random, "PNG")).decode()))
        if kind in ("integer", "number"):
            return self.random.choice((0, 1, 2, 0.5, 100, -1))
        return self.random.choice((True, False)) if kind == "boolean" else None


FORM = {"type": "json_schema", "json_schema": {"name": "classify", "schema": {"type": "object"}}}


def picture(rng: random.Random, form: str) -> bytes:
    """A small image file of noise."""
    size = (rng.randint(1, 24), rng.randint(1, 24))
    stream = io.BytesIO()
    Image.frombytes("RGB", size, rng.randbytes(3 * size[0] * size[1])).save(stream, form)
    return stream.getvalue()


def complaint(status: int, text: str, is_events: bool = False) -> str | None:
    """What is wrong with an answer to a fuzzed request: a server's fault, a leak, or no error form; None: nothing."""
    if status >= 500 or status < 200:
        return f"status {status}"
    if leak := next(
        (word for word in ("Traceback", "site-packages", '.py"', "object at 0x", "/src/") if word in text), None
    ):
        return f"the answer holds {leak!r}"
    if is_events:
        return "an error in the events" if '"internal_error"' in text else None
    try:
        content = json.loads(text)
    except ValueError:
        return "the answer is no JSON"
    if status >= 400 and set(content.get("error", {})) != {"message", "type", "param", "code"}:
        return "the error has another form"
    return None
