"""Fetching from a server on this machine that cuts connections, changes files and forgets how to resume."""

from __future__ import annotations

import hashlib
import io
import json
import threading
import zipfile
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest
import yaml
from typer.testing import CliRunner

from gastrovl.cli.data import app
from gastrovl.core.config import parse_config
from gastrovl.core.errors import DownloadError
from gastrovl.core.records import read_records
from gastrovl.core.types import Sample
from gastrovl.data.build import BuildConfig, build_dataset
from gastrovl.data.fetch import fetch_source
from gastrovl.data.source import PACKAGED, Download, SourceDescription

pytestmark = pytest.mark.allow_hosts(["127.0.0.1"])

CONTENT = bytes(range(256)) * 4096  # 1 MiB
OTHER = CONTENT[::-1]


@dataclass
class Site:
    """What the server has and does; `seen` are the Range headers asked for (None: the whole file)."""

    content: bytes = CONTENT
    etag: str = '"v1"'
    resumes: bool = True
    cut_after: int | None = None
    status: int | None = None
    location: str | None = None
    seen: list[str | None] = field(default_factory=list)
    url: str = ""


@pytest.fixture
def site():
    """A server on 127.0.0.1 that sends `site.content` and does as the other fields say."""
    site = Site()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked = self.headers.get("Range")
            site.seen.append(asked)
            if site.status:
                self.send_response(site.status)
                if site.location:
                    self.send_header("Location", site.location)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            unchanged = self.headers.get("If-Range") == site.etag
            start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and site.resumes and unchanged else 0
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(site.content) - 1}/{len(site.content)}")
            if site.etag:
                self.send_header("ETag", site.etag)
            self.send_header("Content-Length", str(len(site.content) - start))
            self.end_headers()
            end = len(site.content) if site.cut_after is None else start + site.cut_after
            self.wfile.write(site.content[start:end])

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    site.url = f"http://127.0.0.1:{server.server_port}"
    yield site
    server.shutdown()
    server.server_close()


def source(host, **changes):
    item = {
        "url": f"{host}/set.bin",
        "to": "data/set.bin",
        "sha256": None,
        "note": "no checksum in this test",
        **changes,
    }
    return SourceDescription(
        name="own",
        title="Own",
        licence="CC0",
        citation="none",
        images=("*.png",),
        annotations=({"format": "class_folders"},),
        labels={"antrum": "antrum"},
        downloads=(Download.model_validate(item),),
    )


def fetch(description, folder, **options):
    options = {"accepted_licence_of": "own", "attempts": 1, "wait": lambda _: None, **options}
    return fetch_source(description, folder, **options)


def test_a_file_arrives_whole_and_is_recorded_with_its_hash(site, tmp_path):
    assert fetch(source(site.url), tmp_path) == [tmp_path / "data/set.bin"]
    assert (tmp_path / "data/set.bin").read_bytes() == CONTENT
    record = json.loads((tmp_path / "fetched.json").read_text())
    assert record["licence"] == "CC0"
    assert record["files"]["data/set.bin"]["sha256"] == hashlib.sha256(CONTENT).hexdigest()
    assert list((tmp_path / ".downloads").iterdir()) == []


def test_a_second_fetch_asks_for_nothing(site, tmp_path):
    fetch(source(site.url), tmp_path)
    fetch(source(site.url), tmp_path)
    assert site.seen == [None]


def test_a_cut_connection_leaves_nothing_under_the_final_name_and_is_resumed(site, tmp_path):
    site.cut_after = 400_000
    with pytest.raises(DownloadError, match="run the same command again, it goes on"):
        fetch(source(site.url), tmp_path)
    assert not (tmp_path / "data").exists()
    site.cut_after = None
    fetch(source(site.url), tmp_path)
    assert site.seen == [None, "bytes=400000-"]
    assert (tmp_path / "data/set.bin").read_bytes() == CONTENT


def test_a_connection_that_keeps_breaking_is_taken_up_within_one_call(site, tmp_path):
    site.cut_after = 300_000
    waited = []
    fetch(source(site.url), tmp_path, attempts=4, wait=waited.append)
    assert (tmp_path / "data/set.bin").read_bytes() == CONTENT
    assert waited == [2.0, 4.0, 8.0]


def test_a_file_that_changed_in_between_is_not_glued_on(site, tmp_path):
    site.cut_after = 400_000
    with pytest.raises(DownloadError):
        fetch(source(site.url), tmp_path)
    site.cut_after, site.content, site.etag = None, OTHER, '"v2"'
    fetch(source(site.url), tmp_path)
    assert (tmp_path / "data/set.bin").read_bytes() == OTHER


def test_a_server_that_cannot_resume_sends_it_all_again(site, tmp_path):
    site.cut_after, site.resumes = 400_000, False
    with pytest.raises(DownloadError):
        fetch(source(site.url), tmp_path)
    site.cut_after = None
    fetch(source(site.url), tmp_path)
    assert (tmp_path / "data/set.bin").read_bytes() == CONTENT


def test_without_anything_that_identifies_the_file_the_rest_is_not_asked_for(site, tmp_path):
    site.cut_after, site.etag = 400_000, ""
    with pytest.raises(DownloadError):
        fetch(source(site.url), tmp_path)
    site.cut_after = None
    fetch(source(site.url), tmp_path)
    assert site.seen == [None, None]


def test_a_wrong_checksum_is_refused_and_the_file_deleted(site, tmp_path):
    with pytest.raises(DownloadError, match=r"came with sha256 \w{64}, expected 0{64}; deleted"):
        fetch(source(site.url, sha256="0" * 64), tmp_path)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_right_checksum_and_size_are_accepted(site, tmp_path):
    fetch(source(site.url, sha256=hashlib.sha256(CONTENT).hexdigest(), bytes=len(CONTENT)), tmp_path)
    assert (tmp_path / "data/set.bin").exists()


def test_another_size_than_promised_is_refused_before_anything_is_read(site, tmp_path):
    with pytest.raises(DownloadError, match="has 1,048,576 bytes, expected 5"):
        fetch(source(site.url, bytes=5), tmp_path)


@pytest.mark.parametrize("accepted", ["", "yes", "other"])
def test_without_consent_nothing_is_asked_of_the_network(site, tmp_path, accepted):
    with pytest.raises(DownloadError, match=r"licence was not accepted \(CC0\); .*--accept-licence own"):
        fetch(source(site.url), tmp_path / "out", accepted_licence_of=accepted)
    assert site.seen == []
    assert not (tmp_path / "out").exists()


def test_a_missing_file_is_told_at_once(site, tmp_path):
    site.status = 404
    with pytest.raises(DownloadError, match="the server answers 404"):
        fetch(source(site.url), tmp_path, attempts=5)
    assert len(site.seen) == 1


@pytest.mark.parametrize("location", ["http://example.org/x", "file:///etc/passwd", "ftp://example.org/x"])
def test_a_redirect_to_an_unsafe_place_is_not_followed(site, tmp_path, location):
    site.status, site.location = 302, location
    with pytest.raises(DownloadError, match=r"not followed|is not allowed"):
        fetch(source(site.url), tmp_path)


@pytest.mark.parametrize("url", ["http://example.org/a.zip", "file:///etc/a.zip", "ftp://x/a.zip", "//x/a.zip"])
def test_only_https_may_be_described(url):
    with pytest.raises(ValueError, match="expected https://"):
        source("", url=url)


@pytest.mark.parametrize("to", ["../a", "/a", "", "a/../../b", ".downloads/x", "a\\b"])
def test_a_target_outside_the_folder_may_not_be_described(to):
    with pytest.raises(ValueError, match="no relative path below"):
        source("https://example.org", to=to)


def test_a_missing_checksum_must_be_explained():
    with pytest.raises(ValueError, match="sha256 is null; say in `note` why"):
        source("https://example.org", note="")


def zipped(*members):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members:
            archive.writestr(name, content)
    return buffer.getvalue()


def test_an_archive_is_unpacked_and_then_deleted(site, tmp_path):
    site.content = zipped(("set/images/1.jpg", b"one"))
    fetch(source(site.url, to="set", unpack="zip", strip=1), tmp_path)
    assert (tmp_path / "set/images/1.jpg").read_bytes() == b"one"
    assert list((tmp_path / ".downloads").iterdir()) == []


def test_an_archive_that_climbs_out_leaves_nothing_behind(site, tmp_path):
    site.content = zipped(("set/1.jpg", b"one"), ("set/../../../evil", b"x"))
    with pytest.raises(DownloadError, match="leaves the folder"):
        fetch(source(site.url, to="set", unpack="zip"), tmp_path / "out")
    assert not (tmp_path / "out/set").exists()
    assert not (tmp_path / "evil").exists()


def test_a_fetch_killed_while_unpacking_goes_on_without_downloading_again(site, tmp_path, monkeypatch):
    site.content = zipped(("1.jpg", b"one"))
    description = source(site.url, to="set", unpack="zip")

    def killed(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("gastrovl.data.fetch.unpack", killed)
        with pytest.raises(KeyboardInterrupt):
            fetch(description, tmp_path)
    assert not (tmp_path / "set").exists()
    fetch(description, tmp_path)
    assert (tmp_path / "set/1.jpg").read_bytes() == b"one"
    assert len(site.seen) == 1


def test_a_fetch_killed_before_its_record_was_written_is_finished(site, tmp_path):
    description = source(site.url)
    fetch(description, tmp_path, keeps_archives=True)
    facts = json.loads((tmp_path / "fetched.json").read_text())["files"]["data/set.bin"]
    (tmp_path / "fetched.json").unlink()
    (tmp_path / ".downloads/data__set.bin.whole.json").write_text(json.dumps({**facts, "placing": True}))
    fetch(description, tmp_path)
    assert json.loads((tmp_path / "fetched.json").read_text())["files"]["data/set.bin"] == facts
    assert len(site.seen) == 1


def test_what_somebody_else_put_there_is_left_alone(site, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data/set.bin").write_text("mine")
    with pytest.raises(DownloadError, match="was not fetched by gastrovl"):
        fetch(source(site.url), tmp_path)
    assert (tmp_path / "data/set.bin").read_text() == "mine"


def test_a_folder_of_another_source_is_refused(site, tmp_path):
    (tmp_path / "fetched.json").write_text('{"source": "other", "files": {}}')
    with pytest.raises(DownloadError, match="this folder holds 'other'"):
        fetch(source(site.url), tmp_path)


def test_progress_is_told_in_bytes(site, tmp_path):
    told = []
    fetch(source(site.url), tmp_path, progress=lambda *step: told.append(step))
    assert told[-1] == ("fetching set.bin (bytes)", len(CONTENT), len(CONTENT))


@pytest.fixture
def kvasir(site, tmp_path, draw):
    """The packaged description of Kvasir v2, whose archive this machine serves: three classes, as published."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for seed, label in enumerate(("normal-pylorus", "esophagitis", "polyps")):
            picture = draw(tmp_path / f"drawn/{label}.jpg", seed, (720, 576))
            archive.write(picture, f"kvasir-dataset-v2/{label}/{label}-0a1b.jpg")
    site.content = stream.getvalue()
    content = yaml.safe_load((PACKAGED / "kvasir_v2.yaml").read_text(encoding="utf-8"))
    content["downloads"][0]["url"] = f"{site.url}/kvasir-dataset-v2.zip"
    (tmp_path / "kvasir.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    return tmp_path / "kvasir.yaml"


def test_a_source_is_fetched_by_the_command_line_and_built(kvasir, tmp_path):
    command = ["fetch", str(kvasir), "-o", str(tmp_path / "got"), "--accept-licence", "kvasir_v2"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    assert "licence: free for research and education" in result.output
    assert "cite: Pogorelov" in result.output
    settings = {"sources": [{"description": str(kvasir), "root": str(tmp_path / "got")}]}
    folder = build_dataset(parse_config(settings, BuildConfig, where="test"), tmp_path / "built")
    found = {sample.id: sample.findings[0].term for sample in read_records(folder / "records.jsonl", Sample)}
    assert found == {
        "kvasir_v2/esophagitis/esophagitis-0a1b": "esophagitis",
        "kvasir_v2/normal-pylorus/normal-pylorus-0a1b": "pylorus",
    }


@pytest.mark.parametrize(("answer", "requests"), [("y", 1), ("n", 0), ("", 0)])
def test_at_a_terminal_the_licence_is_asked_for_before_anything_is_fetched(
    site, kvasir, tmp_path, monkeypatch, answer, requests
):
    monkeypatch.setattr("gastrovl.cli.data.sys", SimpleNamespace(stdin=SimpleNamespace(isatty=lambda: True)))
    result = CliRunner().invoke(app, ["fetch", str(kvasir), "-o", str(tmp_path / "got")], input=f"{answer}\n")
    assert "Do you accept this licence (https://datasets.simula.no/kvasir)?" in result.output
    assert len(site.seen) == requests
    assert (tmp_path / "got/kvasir-dataset-v2").exists() is bool(requests)
    assert (result.exit_code == 0) is bool(requests)
