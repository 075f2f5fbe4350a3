"""`gastrovl serve` under load on loopback: latency, lost or crossed answers, memory, unruly clients and fuzzed bodies.

    python benchmarks/serving.py --json benchmarks/results/serving.json

A checkpoint with random weights, widened so that its replies differ, answers in a process of its own: preset `nano`, or
with `--preset tiny` one so small that the server's own work is what takes the time.
Every request has its own image and question, whose right reply was computed before, without a server: text and
confidence together tell it from all others. Then clients abort, crawl, send bombs and wrong keys, and requests made at
random from the OpenAPI schema arrive; a server's fault (5xx), a leak of a path or a traceback, or another form of error
than OpenAI's counts. CPU time is of the server's process alone.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import io
import json
import os
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image

from fuzzed_bodies import Fuzzer, complaint

SIZE_WH = (160, 120)
TOKENS = 4
OFFLINE = 16  # questions answered together before the server is started
WIDER = 4.0  # than the usual initialisation
SAME = 1e-4  # relative difference of confidences that another batch makes at most
MODEL = "served"
SHAPE = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
FLAT = 1.1  # most that memory may grow over a phase of load


@dataclass(frozen=True)
class Asked:
    """A request with the reply that it must get."""

    body: bytes
    text: str
    confidence: float


TINY: dict[str, Any] = {
    "vision": {"config": {"model_type": "siglip_vision_model", "image_size": 32, "patch_size": 8, **SHAPE}},
    "language": {"config": {"model_type": "llama", "max_position_embeddings": 2048, **SHAPE}},
    "connector": {"kind": "mlp"},
    "feature_layer": -1,
    "tokenizer": "gastrovl",
    "chat_template": "gastrovl",
    "image_size_px": 32,
}


def make_checkpoint(folder: Path, preset: str) -> None:
    """Write a checkpoint of random weights."""
    import torch

    from gastrovl.model.checkpoint import build_model, save_checkpoint
    from gastrovl.model.config import ModelConfig

    model, processor = build_model(ModelConfig.model_validate(TINY if preset == "tiny" else {"preset": preset}), seed=1)
    with torch.no_grad():
        for parameter in model.model.language_model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(WIDER)
    save_checkpoint(folder, model, processor, MODEL)


def drawn(number: int) -> Image.Image:
    """A picture of large coloured blocks, different for each number."""
    blocks = np.random.default_rng((3, number)).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(blocks).resize(SIZE_WH, Image.Resampling.BICUBIC)


def make_requests(folder: Path, count: int) -> list[Asked]:
    """Requests with an image and a question of their own, answered before without a server."""
    import torch

    from gastrovl.inference.predictor import Predictor
    from gastrovl.inference.question import Question

    torch.set_num_threads(1)
    predictor = Predictor.load(folder, "cpu")
    found: list[Asked] = []
    while len(found) < count:
        numbers = range(len(found), min(count, len(found) + OFFLINE))
        pictures = [drawn(number) for number in numbers]
        texts = [f"Question {number}: what lies in the lower half?" for number in numbers]
        asked = [Question(picture, (("user", text),)) for picture, text in zip(pictures, texts, strict=True)]
        replies = predictor.answer(asked, TOKENS)
        for picture, text, reply in zip(pictures, texts, replies, strict=True):
            parts = [image_part(picture), {"type": "text", "text": text}]
            body = {"model": MODEL, "messages": [{"role": "user", "content": parts}], "max_tokens": TOKENS}
            found.append(Asked(json.dumps(body).encode(), reply.text, reply.confidence))
    return found


def image_part(picture: Image.Image) -> dict[str, Any]:
    """A picture in OpenAI's form, without loss."""
    stream = io.BytesIO()
    picture.save(stream, "PNG")
    url = "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()
    return {"type": "image_url", "image_url": {"url": url}}


class Served:
    """A running server: its address, and what its process has taken."""

    def __init__(self, process: subprocess.Popen[str], url: str) -> None:
        self.process, self.url = process, url

    @property
    def resident_bytes(self) -> int:
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="utf-8")
        return int(status.split("VmRSS:")[1].split()[0]) * 1024

    @property
    def cpu_seconds(self) -> float:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def server(folder: Path, *options: str, log: Path, key: str | None = None) -> Iterator[Served]:
    """`gastrovl serve` on a free port of 127.0.0.1."""
    command = [sys.executable, "-m", "gastrovl", "serve", str(folder), "--port", "0", "--device", "cpu", *options]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"} | ({"SERVE_KEY": key} if key else {})
    with log.open("w", encoding="utf-8") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment)
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if " at " not in line:
                raise SystemExit(f"the server did not start: {log.read_text(encoding='utf-8')[-2000:]}")
            yield Served(process, line.rsplit(" at ", 1)[1].strip())
        finally:
            process.terminate()
            process.wait(60)


def client_of(url: str, clients: int) -> httpx.AsyncClient:
    limits = httpx.Limits(max_connections=clients)
    return httpx.AsyncClient(base_url=url, timeout=300, limits=limits, trust_env=False)


async def at_once(jobs: list[Callable[[], Any]], clients: int) -> list[Any]:
    """Results of coroutine functions in their order; so many are under way at once."""
    results: list[Any] = [None] * len(jobs)
    numbers = iter(range(len(jobs)))

    async def work() -> None:
        for number in numbers:
            results[number] = await jobs[number]()

    await asyncio.gather(*(work() for _ in range(clients)))
    return results


async def load(served: Served, asked: list[Asked], clients: int) -> dict[str, Any]:
    """Every request once."""
    before, cpu, begin = served.resident_bytes, served.cpu_seconds, time.perf_counter()
    async with client_of(served.url, clients) as client:

        async def post(one: Asked) -> tuple[float, int, Any]:
            started = time.perf_counter()
            answer = await client.post("/v1/chat/completions", content=one.body, headers=JSON)
            return time.perf_counter() - started, answer.status_code, answer.json()

        results = await at_once([lambda one=one: post(one) for one in asked], clients)
        metrics = (await client.get("/metrics")).text
    seconds = time.perf_counter() - begin
    waits = sorted(row[0] for row in results)
    replies = [
        (body["choices"][0]["message"]["content"], body["gastrovl"]["confidence"]) if status == 200 else None
        for _, status, body in results
    ]
    wrong = [place for place, reply in enumerate(replies) if reply is None or not is_same(asked[place], reply)]
    others = sum(any(is_same(one, replies[place]) for one in asked) for place in wrong if replies[place] is not None)
    return {
        "clients": clients,
        "requests": len(asked),
        "statuses": dict(Counter(str(row[1]) for row in results)),
        "lost": sum(reply is None for reply in replies),
        "not_as_offline": len(wrong),
        "crossed": others,
        "p50_ms": round(1000 * statistics.median(waits), 1),
        "p95_ms": round(1000 * waits[int(0.95 * len(waits))], 1),
        "requests_per_second": round(len(asked) / seconds, 1),
        "server_cpu_ms_per_request": round(1000 * (served.cpu_seconds - cpu) / len(asked), 1),
        "mean_batch_so_far": mean_batch(metrics),
        "resident_mib_before": before >> 20,
        "resident_mib_after": served.resident_bytes >> 20,
    }


JSON = {"content-type": "application/json"}


def is_same(one: Asked, reply: tuple[str, float]) -> bool:
    return one.text == reply[0] and abs(one.confidence - reply[1]) <= SAME * one.confidence


def mean_batch(metrics: str) -> float:
    found = {
        line.split("{")[0].rsplit("_", 1)[1]: float(line.split()[-1])
        for line in metrics.splitlines()
        if line.startswith(("gastrovl_batch_size_sum", "gastrovl_batch_size_count"))
    }
    return round(found["sum"] / found["count"], 2)


async def unruly(served: Served, asked: list[Asked], count: int) -> dict[str, Any]:
    """Clients that abort, crawl, send too much, and a question behind them all."""
    host, port = served.url.removeprefix("http://").split(":")
    begin = time.perf_counter()
    slow = [await asyncio.open_connection(host, int(port)) for _ in range(20)]
    for _, writer in slow:
        writer.write(b"POST /v1/classify HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n{")
        await writer.drain()
    for number in range(count):  # a request, half of them streamed, that nobody waits for
        _, writer = await asyncio.open_connection(host, int(port))
        body = json.dumps(json.loads(asked[number % len(asked)].body) | {"stream": number % 2 == 0}).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        await writer.drain()
        writer.close()
    async with client_of(served.url, 4) as client:
        bomb = base64.b64encode(unfolding()).decode()
        large = [await client.post("/v1/classify", json={"image": bomb}) for _ in range(20)]
        large += [await client.post("/v1/classify", content=b"a" * 20_000_000, headers=JSON) for _ in range(5)]
        statuses = Counter(str(answer.status_code) for answer in large)
        answer = await client.post("/v1/chat/completions", content=asked[0].body, headers=JSON)
        waiting = (await client.get("/metrics")).text
    for _, writer in slow:
        writer.close()
    return {
        "aborted_requests": count,
        "slow_clients": len(slow),
        "bombs_and_oversized": dict(statuses),
        "a_question_behind_them_is_answered": answer.status_code == 200,
        "questions_left_waiting": sum(
            float(line.split()[-1]) for line in waiting.splitlines() if line.startswith("gastrovl_waiting{")
        ),
        "seconds": round(time.perf_counter() - begin, 1),
        "resident_mib_after": served.resident_bytes >> 20,
    }


def unfolding() -> bytes:
    """A PNG of few kilobytes and 400 million pixels."""
    stream = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(stream, "PNG")
    return stream.getvalue()


async def fuzz(served: Served, count: int, clients: int, seed: int) -> dict[str, Any]:
    """Requests made at random from the server's own schema."""
    before, begin = served.resident_bytes, time.perf_counter()
    async with client_of(served.url, clients) as client:
        schema = (await client.get("/openapi.json")).json()
        cut: list[str] = []
        resident: list[int] = []

        async def send(number: int, sent: Any) -> tuple[str, int, str | None]:
            if number % -(-count // 10) == 0:
                resident.append(served.resident_bytes >> 20)
            media = {"content-type": sent.media.encode()} if sent.media else {}
            while True:
                try:
                    answer = await client.request(sent.method, sent.path, content=sent.body, headers=media)
                except httpx.TransportError:  # a kept connection that the server has just closed; counted
                    if served.process.poll() is not None:
                        raise
                    cut.append(sent.way)
                    continue
                if answer.status_code != 429:
                    break
                await asyncio.sleep(1)
            is_events = answer.headers["content-type"].startswith("text/event-stream")
            return sent.way, answer.status_code, complaint(answer.status_code, answer.text, is_events)

        requests = list(Fuzzer(schema, [MODEL], seed).requests(count))
        results = await at_once([lambda one=one: send(*one) for one in enumerate(requests)], clients)
        is_ready = (await client.get("/readyz")).status_code == 200
    return {
        "requests": count,
        "statuses": dict(sorted(Counter(str(status) for _, status, _ in results).items())),
        "answered_by_way": dict(sorted(Counter(way for way, status, _ in results if status == 200).items())),
        "complaints": dict(Counter(found for _, _, found in results if found)),
        "sent_again_after_a_cut_connection": len(cut),
        "is_ready_after": is_ready,
        "seconds": round(time.perf_counter() - begin, 1),
        "resident_mib_before": before >> 20,
        "resident_mib_at_each_tenth": resident,
        "resident_mib_after": served.resident_bytes >> 20,
    }


async def wrong_keys(served: Served, key: str, count: int) -> dict[str, Any]:
    """Statuses with wrong keys, and with the right one from the same address."""
    async with client_of(served.url, 4) as client:
        right = await client.get("/v1/models", headers={"authorization": f"Bearer {key}"})
        guesses = [
            await client.get("/v1/models", headers={"authorization": f"Bearer {secrets.token_hex(16)}"})
            for _ in range(count)
        ]
    return {"right": right.status_code, "wrong": dict(Counter(str(one.status_code) for one in guesses))}


def check_log(log: Path) -> dict[str, int]:
    """Lines of a server's log, and how many hold what must not stand there."""
    lines = log.read_text(encoding="utf-8").splitlines()
    leaks = sum(any(word in line for word in ("Question ", "base64", "/src/", "site-packages")) for line in lines)
    return {
        "lines": len(lines),
        "that_quote_a_request_or_a_path": leaks,
        "that_are_no_json": sum(not line.startswith("{") for line in lines),
    }


def main() -> None:
    """Run the parts, print what they found, and put them into the JSON file beside those that stand there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--clients", type=int, nargs="+", default=[16, 64])
    parser.add_argument("--fuzzed", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=7, help="of the fuzzed requests")
    parser.add_argument("--preset", default="nano", help="nano, small or tiny")
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--hardware", default="2-core CPU (Intel Xeon, shared)")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder, log = Path(name) / MODEL, Path(name) / "log"
        make_checkpoint(folder, options.preset)
        found = {part: PARTS[part](folder, log, options) for part in options.parts}
    if options.json:
        about = {
            "date": datetime.now(UTC).date().isoformat(),
            "hardware": options.hardware,
            "nice": os.nice(0),
            "load_average": [round(value, 1) for value in os.getloadavg()],
            "command": f"python benchmarks/serving.py {' '.join(sys.argv[1:])}",
            "model": f"{options.preset}, random weights {WIDER:g} times as wide; images of {SIZE_WH} px",
        }
        rows = {part: about | row for part, row in found.items()}
        before = json.loads(options.json.read_text(encoding="utf-8")) if options.json.is_file() else {}
        options.json.write_text(json.dumps(before | rows, indent=1) + "\n", encoding="utf-8")


def run_load(folder: Path, log: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Everybody asks at once; then the unruly clients."""
    asked = make_requests(folder, options.requests)
    found: dict[str, Any] = {
        "tokens_a_reply": TOKENS,
        "distinct_replies_offline": len({one.text for one in asked}),
        "distinct_replies_with_confidence_offline": len({(one.text, round(one.confidence, 6)) for one in asked}),
        "rows": [],
    }
    with server(folder, "--max-queue", "128", "--timeout", "300", log=log) as served:
        asyncio.run(load(served, asked[:200], 16))  # warm
        for clients in options.clients:
            found["rows"].append(asyncio.run(load(served, asked, clients)))
            tell(f"{clients} clients", found["rows"][-1])
        found["unruly"] = asyncio.run(unruly(served, asked, 200))
    tell("unruly", found["unruly"])
    rows = found["rows"]
    found["memory_is_flat"] = all(row["resident_mib_after"] <= FLAT * row["resident_mib_before"] for row in rows)
    return found | {"log": check_log(log)}


def run_fuzz(folder: Path, log: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Fuzzed requests; replies are kept short, since nothing of them matters here."""
    with server(folder, "--max-tokens", "2", "--timeout", "300", log=log) as served:
        found = asyncio.run(fuzz(served, options.fuzzed, 16, options.seed))
    found |= {"log": check_log(log)}
    tell("fuzzed", found)
    return found


def run_keys(folder: Path, log: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Keys that are guessed."""
    del options
    key = secrets.token_hex(16)
    with server(folder, "--api-key-env", "SERVE_KEY", log=log, key=key) as served:
        found = asyncio.run(wrong_keys(served, key, 50))
    tell("keys", found)
    return found


PARTS = {"load": run_load, "fuzzed": run_fuzz, "keys": run_keys}


def tell(what: str, row: dict[str, Any]) -> None:
    print(f"{what}: {json.dumps(row)}", flush=True)


if __name__ == "__main__":
    main()
