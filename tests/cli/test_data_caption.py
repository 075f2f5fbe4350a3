"""`gastrovl data caption`: what it refuses, asks, prints and leaves."""

from __future__ import annotations

import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from typer.testing import CliRunner

from gastrovl.cli.data import app
from gastrovl.core.errors import ConfigError, EndpointError, OutputError
from gastrovl.core.records import read_records
from gastrovl.core.types import Caption

pytestmark = pytest.mark.allow_hosts(["127.0.0.1"])
CONFIG = """
sources: [{synthetic: {images: 12, seed: 3}}]
quality: {copies: null}
figures: false
splits: {train: 1, val: 0, test: 0}
"""


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Twelve drawn frames, all for training."""
    folder = tmp_path_factory.mktemp("built")
    (folder / "c.yaml").write_text(CONFIG)
    built = CliRunner().invoke(app, ["build", str(folder / "c.yaml"), "-o", str(folder / "set")])
    assert built.exit_code == 0, built.output
    return folder / "set"


@pytest.fixture
def server():
    """`server.url`; every third reply invents a size, and `server.keys` are the keys that were sent."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            server.keys.append(self.headers.get("Authorization"))
            prompt = body["messages"][0]["content"][1]["text"]
            findings = [
                line.split(",")[0] for line in re.findall("^- (?:in view|finding): (.+)$", prompt, re.MULTILINE)
            ]
            text = f"In view: {' and '.join(findings)}." + " It is 8 mm wide." * (len(server.keys) % 3 == 0)
            payload = json.dumps({"choices": [{"message": {"content": text}, "finish_reason": "stop"}]}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(payload)))
            self.end_headers()
            self.wfile.write(payload)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.keys = []
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    server.url = f"http://127.0.0.1:{server.server_port}/v1"
    yield server
    server.shutdown()
    server.server_close()


def caption(*arguments):
    return CliRunner().invoke(app, ["caption", *map(str, arguments)])


def test_a_run_prints_verdicts_reasons_and_where_the_file_lies(dataset, server, tmp_path):
    output = tmp_path / "captions.jsonl"
    result = caption(dataset, "-o", output, "--endpoint", server.url, "--model", "tiny", "--concurrency", 1)
    assert result.exit_code == 0, result.output
    assert re.search(r"accepted +│ +8 ", result.output)
    assert re.search(r"repaired +│ +4 ", result.output)
    assert "invented size" in result.output
    assert f"Captions: {output} (12; 12 images asked about now)" in result.output
    assert len(list(read_records(output, Caption))) == 12


def test_the_key_comes_from_the_environment_and_is_not_printed(dataset, server, tmp_path, monkeypatch):
    monkeypatch.setenv("CAPTION_KEY", "hush-hush")
    options = ("--endpoint", server.url, "--model", "tiny", "--api-key-env", "CAPTION_KEY", "--limit", 1)
    result = caption(dataset, "-o", tmp_path / "c.jsonl", *options)
    assert server.keys == ["Bearer hush-hush"]
    assert "hush-hush" not in result.output + (tmp_path / "c.jsonl").read_text()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((), ConfigError, "either --endpoint"),
        (("--endpoint", "http://127.0.0.1:1/v1"), ConfigError, "either --endpoint"),
        (("--endpoint", "http://127.0.0.1:1/v1", "--model", "m", "--local", "x"), ConfigError, "either --endpoint"),
        (("--endpoint", "https://api.example.com/v1", "--model", "m"), ConfigError, "--allow-remote"),
        (("--endpoint", "http://127.0.0.1:1/v1", "--model", "m", "--template", "no"), ConfigError, "note, visual"),
        (("--endpoint", "http://127.0.0.1:1/v1", "--model", "m", "--api-key-env", "NO_SUCH"), ConfigError, "NO_SUCH"),
        (("--endpoint", "http://127.0.0.1:1/v1", "--model", "m", "--split", "trian"), ConfigError, "splits"),
        (
            ("--endpoint", "http://127.0.0.1:1/v1", "--model", "m", "--tries", "1"),
            EndpointError,
            "is the server running",
        ),
    ],
)
def test_what_cannot_be_done_is_refused(dataset, tmp_path, arguments, error, message):
    found = caption(dataset, "-o", tmp_path / "c.jsonl", *arguments).exception
    assert isinstance(found, error)
    assert message in str(found)
    assert not (tmp_path / "c.jsonl").exists()


def test_what_counts_as_wrong_can_be_configured(dataset, server, tmp_path):
    (tmp_path / "check.yaml").write_text("faults: [missing finding, denied finding]\n")
    options = ("--endpoint", server.url, "--model", "tiny", "--check", tmp_path / "check.yaml")
    assert re.search(r"accepted +│ +12 ", caption(dataset, "-o", tmp_path / "c.jsonl", *options).output)


def test_another_model_needs_overwrite(dataset, server, tmp_path):
    def ask(*options):
        return caption(dataset, "-o", tmp_path / "c.jsonl", "--endpoint", server.url, "--limit", 1, *options)

    assert ask("--model", "one").exit_code == 0
    assert isinstance(ask("--model", "two").exception, OutputError)
    assert ask("--model", "two", "--overwrite").exit_code == 0
