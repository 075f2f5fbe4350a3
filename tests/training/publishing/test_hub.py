"""A push sends the model and its card, shows them first, and refuses a folder in which anything else lies."""

from __future__ import annotations

import base64
import json
import shutil
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import yaml
from typer.testing import CliRunner

from gastrovl.cli.app import app
from gastrovl.core.errors import CheckpointError, ConfigError, OutputError
from gastrovl.training.publishing import hub

MODEL = {
    "README.md",
    "chat_template.jinja",
    "config.json",
    "gastrovl.json",
    "generation_config.json",
    "model.safetensors",
    "processor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "training.png",
}


@pytest.fixture
def finished(learnt, tmp_path):
    shutil.copytree(learnt[0], tmp_path / "run")
    return tmp_path / "run"


def test_only_the_model_and_its_card_are_packed(finished):
    (finished / "validation").mkdir()
    (finished / "validation" / "predictions.jsonl").write_text("{}", encoding="utf-8")
    parcel = hub.pack(finished, "clinic/nano")
    assert {name for name, _ in parcel.files} == MODEL
    assert parcel.stays == ("log.jsonl", "manifest.json", "run.json", "tensorboard", "training.json", "validation")
    shown = parcel.lines(is_private=True)
    assert shown[0].startswith("to clinic/nano (private), 10 files, ")
    assert parcel.lines(is_private=False)[0].startswith("to clinic/nano (PUBLIC, everybody can read it)")


@pytest.mark.parametrize(
    "name",
    ["gastroscopy.png", "train.jsonl", "stages", "optimizer.pt", "pytorch_model.bin", "training_args.bin", "a.pkl"],
)
def test_a_folder_with_anything_else_is_refused_whole(finished, name):
    if name == "stages":
        (finished / name).mkdir()
    else:
        (finished / name).write_bytes(b"x")
    with pytest.raises(CheckpointError, match=f"holds {name}, which is no part of a checkpoint; nothing was sent"):
        hub.pack(finished, "clinic/nano")


def test_a_link_is_refused_even_under_a_known_name(finished, tmp_path):
    (tmp_path / "secret.txt").write_text("x", encoding="utf-8")
    (finished / "vocab.json").symlink_to(tmp_path / "secret.txt")
    with pytest.raises(CheckpointError, match=r"holds vocab\.json"):
        hub.pack(finished, "clinic/nano")


def test_without_a_card_or_weights_or_a_whole_name_nothing_goes(finished):
    with pytest.raises(OutputError, match="expected the owner and a name"):
        hub.pack(finished, "nano")
    (finished / "README.md").write_text("# mine", encoding="utf-8")
    with pytest.raises(CheckpointError, match="no model card with its YAML head"):
        hub.pack(finished, "clinic/nano")
    (finished / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"no model\.safetensors there"):
        hub.pack(finished, "clinic/nano")


def test_the_command_asks_and_a_no_sends_nothing(finished, monkeypatch):
    sent = []
    monkeypatch.setattr(
        hub, "send", lambda parcel, is_private: sent.append((parcel.repository, is_private)) or "address"
    )
    words = ["push", str(finished), "--repo", "clinic/nano"]

    refused = CliRunner().invoke(app, words, input="n\n")
    assert "model.safetensors" in refused.stdout
    assert "nothing was sent" in refused.stdout
    assert sent == []
    CliRunner().invoke(app, words, input="y\n")
    CliRunner().invoke(app, [*words, "--public", "--yes"])
    assert sent == [("clinic/nano", True), ("clinic/nano", False)]


def test_training_pushes_only_with_both_the_setting_and_the_flag(tmp_path):
    result = CliRunner().invoke(app, ["train", "configs/train/nano.yaml", "-o", str(tmp_path / "run"), "--push"])
    assert isinstance(result.exception, ConfigError)
    assert "set `push_to_hub: OWNER/NAME`" in str(result.exception)
    assert not (tmp_path / "run").exists()


def test_training_sends_its_checkpoint_private_at_the_end(tiny_data, tiny_model, tmp_path, monkeypatch):
    sent = []
    monkeypatch.setattr(hub, "send", lambda parcel, is_private: sent.append((parcel, is_private)) or "address")
    content = {
        "name": "tiny",
        "model": tiny_model().model_dump(mode="json", exclude_none=True),
        "train": str(tiny_data()),
        "push_to_hub": "clinic/tiny",
        "stages": [{"name": "align", "tasks": ["CAP"], "trains": ["projector"], "learning_rate": 1e-3, "steps": 1}],
    }
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    words = ["train", str(tmp_path / "tiny.yaml"), "-o"]

    CliRunner().invoke(app, [*words, str(tmp_path / "kept")])
    assert sent == []
    result = CliRunner().invoke(app, [*words, str(tmp_path / "sent"), "--push"])
    assert result.exit_code == 0, result.output
    [(parcel, is_private)] = sent
    assert (parcel.repository, is_private) == ("clinic/tiny", True)
    # one step is fewer than `log_every`: there is nothing to draw, and the run says so
    assert {name for name, _ in parcel.files} == MODEL - {"training.png"}
    assert "no picture of the run" in result.stdout


class Hub(BaseHTTPRequestHandler):
    """As much of the Hub as one push needs; every file comes inside the commit."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.seen.append((self.path, body))
        if self.path.endswith("/preupload/main"):
            asked = json.loads(body)["files"]
            self.answer(
                {"files": [{"path": one["path"], "uploadMode": "regular", "shouldIgnore": False} for one in asked]}
            )
        elif self.path.endswith("/commit/main"):
            self.answer({"commitOid": "0" * 40, "commitUrl": f"{self.server.address}/clinic/nano/commit/{'0' * 40}"})
        else:
            self.answer({"url": f"{self.server.address}/clinic/nano", "name": "clinic/nano"})

    def do_GET(self):
        self.answer({"id": "clinic/nano", "modelId": "clinic/nano", "private": self.server.is_private, "sha": "0" * 40})

    def answer(self, content):
        text = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_):
        """Quiet."""


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_made_up_for_this_test")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    service = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    service.seen, service.is_private = [], True
    service.address = f"http://127.0.0.1:{service.server_address[1]}"
    thread = threading.Thread(target=service.serve_forever, daemon=True)
    thread.start()
    yield service
    service.shutdown()
    thread.join()
    service.server_close()


@pytest.mark.allow_hosts(["127.0.0.1"])
def test_what_reaches_the_hub_is_what_was_shown_byte_for_byte(finished, server):
    parcel = hub.pack(finished, "clinic/nano")

    hub.send(parcel, endpoint=server.address)

    [created] = [json.loads(body) for path, body in server.seen if path == "/api/repos/create"]
    assert (created["name"], created.get("organization"), created.get("private", created.get("visibility"))) in (
        ("nano", "clinic", True),
        ("nano", "clinic", "private"),
    )
    [commit] = [body for path, body in server.seen if path.endswith("/commit/main")]
    lines = [json.loads(line) for line in commit.splitlines() if line]
    arrived = {one["value"]["path"]: base64.b64decode(one["value"]["content"]) for one in lines if one["key"] == "file"}
    assert arrived == {name: (finished / name).read_bytes() for name, _ in parcel.files}


@pytest.mark.allow_hosts(["127.0.0.1"])
def test_a_public_repository_gets_nothing_that_was_meant_to_be_private(finished, server):
    server.is_private = False
    with pytest.raises(OutputError, match="exists and is public; nothing was sent"):
        hub.send(hub.pack(finished, "clinic/nano"), endpoint=server.address)
    assert not [path for path, _ in server.seen if path.endswith("/commit/main")]
