"""The files of the web page as the server sends them: closed to every other host, open without a key, off on demand."""

from __future__ import annotations

import re

import pytest
from typer.testing import CliRunner

from gastrovl.cli.app import app
from gastrovl.clinical.taxonomy import Taxonomy
from gastrovl.inference.asking import ASKED
from gastrovl.inference.drawing import COLOURS
from gastrovl.inference.question import NOTICE
from gastrovl.inference.session import SCHEMA, Kind, pixel_digest
from gastrovl.serving import run
from gastrovl.serving.page_files import FOLDER, page_files
from gastrovl.serving.settings import ServerSettings

from .conftest import data_url, listening, picture

pytestmark = pytest.mark.allow_hosts(["127.0.0.1"])
KEY = "0123456789abcdef"
TEXTS = {path.name: path.read_text(encoding="utf-8") for path in sorted(FOLDER.iterdir())}


@pytest.fixture(scope="module")
def client():
    from .conftest import Echo

    with listening([Echo()]) as site:
        yield site.client


def test_every_file_of_the_folder_is_sent_with_its_kind(client):
    kinds = {name: client.get(f"/page/{name}").headers["content-type"].partition(";")[0] for name in TEXTS}

    assert set(TEXTS) == set(page_files())
    assert {name.rsplit(".", 1)[1]: kind for name, kind in kinds.items()} == {
        "css": "text/css",
        "html": "text/html",
        "js": "text/javascript",
        "svg": "image/svg+xml",
    }
    assert client.get("/").content == client.get("/page/index.html").content


def test_what_the_page_and_its_modules_name_is_there(client):
    named = re.findall(r'(?:href|src)="(page/[^"]+)"', TEXTS["index.html"])
    imported = {
        f"page/{name}" for text in TEXTS.values() for name in re.findall(r'from "\./([^"]+)"', text, re.MULTILINE)
    }

    assert {client.get(f"/{path}").status_code for path in {*named, *imported}} == {200}
    assert {path for path in {*named, *imported} if path.endswith(".js")} == {
        f"page/{name}" for name in TEXTS if name.endswith(".js")
    }


@pytest.mark.parametrize("path", ["/", "/page/page.js", "/page/page.css", "/page/icon.svg"])
def test_the_policy_allows_nothing_but_this_server(client, path):
    answer = client.get(path)
    policy = dict(part.split(" ", 1) for part in answer.headers["content-security-policy"].split("; "))

    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert policy["img-src"] == "'self' blob: data:"
    assert policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == "'none'"
    assert not any(word in answer.headers["content-security-policy"] for word in ("unsafe", "*", "http"))
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"


def test_no_file_names_another_host_or_holds_what_the_policy_forbids():
    for name, text in TEXTS.items():
        plain = text.replace('xmlns="http://www.w3.org/2000/svg"', "")
        assert not re.search(r"https?:|wss?:|//[a-z0-9-]+\.[a-z]", plain, re.IGNORECASE), name
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|@import", text), name
    page = TEXTS["index.html"]
    assert re.findall(r"<script[^>]*>(.*?)</script>", page, re.DOTALL) == [""]
    assert not re.search(r"<style|\sstyle=|\son\w+=", page)


def test_files_are_short_enough_to_be_read():
    assert {name for name, text in TEXTS.items() if len(text.splitlines()) > 450} == set()


def test_the_page_says_notice_schema_and_colours_as_the_package_does():
    colours = re.findall(r'"#([0-9a-f]{6})"', TEXTS["stage.js"])

    assert f'<p id="notice" role="note">{NOTICE}</p>' in TEXTS["index.html"]
    assert f'"{SCHEMA}"' in TEXTS["session.js"]
    assert [tuple(bytes.fromhex(colour)) for colour in colours] == list(COLOURS)


@pytest.mark.parametrize("path", ["/page/", "/page/missing.js", "/page/..%2fapp.py", "/page/%2e%2e/app.py", "/pages"])
def test_what_is_no_file_of_the_page_is_404(client, path):
    answer = client.get(path)

    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")


def test_the_page_needs_no_key_and_what_it_asks_for_does():
    from .conftest import Echo

    with listening([Echo()], keys=(KEY,)) as site:
        opened = [site.client.get(path).status_code for path in ("/", "/page/page.js", "/page/none")]
        closed = [site.client.get(path).status_code for path in ("/v1/models", "/v1/terms", "/openapi.json", "/x")]
        image = site.client.post("/v1/image", json={"image": data_url(picture())}).status_code

    assert opened == [200, 200, 404]
    assert [*closed, image] == [401] * 5


def test_without_a_page_its_addresses_are_as_any_other():
    from .conftest import Echo

    with listening([Echo()], keys=(KEY,), has_page=False) as site:
        without = [site.client.get(path).status_code for path in ("/", "/page/page.js")]
        site.client.headers["authorization"] = f"Bearer {KEY}"
        given = [site.client.get(path).status_code for path in ("/", "/page/page.js", "/v1/models", "/v1/terms")]

    assert without == [401, 401]
    assert given == [404, 404, 200, 200]


@pytest.mark.parametrize(("option", "expected"), [([], True), (["--page"], True), (["--no-page"], False)])
def test_no_page_switches_it_off(monkeypatch, option, expected):
    found = []
    monkeypatch.setattr(run, "serve_checkpoints", lambda *given, **_: found.append(given[1]))

    CliRunner().invoke(app, ["serve", "model", *option], catch_exceptions=False)

    assert [settings.has_page for settings in found] == [expected]


def test_only_the_page_is_opened_by_it():
    settings = ServerSettings(open_paths=())

    assert [settings.is_open(path) for path in ("/", "/page/x", "/page", "/v1/models", "/metrics", "//")] == [
        True,
        True,
        False,
        False,
        False,
        False,
    ]


def test_terms_and_wordings_are_those_of_the_package(client):
    found = client.get("/v1/terms").json()
    taxonomy = Taxonomy.load()

    assert [(one["id"], one["name"], one["parent"]) for one in found["terms"]] == [
        (term.id, term.name, term.parent) for term in taxonomy.terms
    ]
    assert set(found["wordings"]) == {kind.value for kind in Kind} - {"say"}
    assert set(found["wordings"].values()) == set(ASKED.values())


def test_an_image_is_examined_as_a_session_would_know_it(client):
    image = picture(3, (50, 30))

    facts = client.post("/v1/image", json={"image": data_url(image)})
    broken = client.post("/v1/image", json={"image": "AAAA"})

    assert facts.json() == {"width_px": 50, "height_px": 30, "sha256": pixel_digest(image)}
    assert (broken.status_code, broken.json()["error"]["code"]) == (400, "invalid_image")
