"""`gastrovl serve` at the command line, and what its how-to and its Dockerfile tell a stranger to type."""

from __future__ import annotations

import importlib.util
import json
import logging
import re
import shutil
import subprocess
import sys

import httpx
import pytest
from typer.main import get_command
from typer.testing import CliRunner

from gastrovl.cli.app import app
from gastrovl.core.errors import CheckpointError, ConfigError, MissingExtraError
from gastrovl.serving.app import create_app, make_engine
from gastrovl.serving.logs import write_to_stderr
from gastrovl.serving.run import LIBRARIES, check_extra, make_server
from gastrovl.serving.settings import ServerSettings

from .conftest import Echo, listening, picture

KEY = "0123456789abcdef"


def serve(*arguments, **environment):
    """The error that the command ends with."""
    return CliRunner().invoke(app, ["serve", *map(str, arguments)], env=environment).exception


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ((), "there is nothing to serve"),
        (("--model", "nameless"), "expected NAME=FOLDER"),
        (("model", "--host", "0.0.0.0"), "no API key is set"),
        (("model", "--api-key-env", "NOT_SET_ANYWHERE"), "is not set"),
    ],
)
def test_a_server_that_cannot_be_meant_so_is_refused_before_anything_is_loaded(arguments, complaint):
    error = serve(*arguments)

    assert isinstance(error, ConfigError)
    assert complaint in str(error)


def test_a_short_key_is_refused_and_not_shown():
    error = serve("model", "--host", "0.0.0.0", "--api-key-env", "SHORT", SHORT="hunter2")

    assert isinstance(error, ConfigError)
    assert "fewer than 16 characters" in str(error)
    assert "hunter2" not in str(error)


@pytest.mark.allow_hosts(["127.0.0.1"])
def test_a_folder_that_is_no_checkpoint_is_an_error_of_its_own(tmp_path):
    assert isinstance(serve(tmp_path, "--port", 0), CheckpointError)


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_missing_library_names_the_extra(monkeypatch, library):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == library else found(name))

    with pytest.raises(MissingExtraError, match=rf"serving needs {library}, .*gastrovl\[serve\]"):
        check_extra()


def test_an_unused_connection_is_closed_by_the_client_first():
    """A server that closes it at the same moment cuts the request that is on its way."""
    settings = ServerSettings()
    server = make_server(create_app([make_engine(Echo(), settings)], settings), settings)

    assert server.config.timeout_keep_alive > max(60, httpx.Limits().keepalive_expiry)  # nginx: 60 s


def test_broken_images_write_no_line_that_is_no_json():
    names = ("PIL", "python_multipart", "uvicorn", "gastrovl.serving")
    before = {name: (logging.getLogger(name).level, logging.getLogger(name).handlers) for name in names}
    try:
        write_to_stderr()
        assert not logging.getLogger("PIL.TiffImagePlugin").isEnabledFor(logging.ERROR)
    finally:
        for name, (level, handlers) in before.items():
            logging.getLogger(name).setLevel(level)
            logging.getLogger(name).handlers = handlers
            logging.getLogger(name).propagate = True


@pytest.mark.allow_hosts(["127.0.0.1"])
@pytest.mark.skipif(not all(map(shutil.which, ("bash", "curl", "base64"))), reason="no curl here")
def test_every_curl_command_of_the_how_to_is_answered(repository, tmp_path):
    picture(1, (320, 240)).save(tmp_path / "frame.jpg")
    text = (repository / "docs" / "how-to" / "serve.md").read_text(encoding="utf-8")
    blocks = [block for block in re.findall(r"^```bash\n(.*?)^```", text, re.MULTILINE | re.DOTALL) if "curl" in block]
    answers = []
    with listening([Echo("my-model")]) as site:
        for block in blocks:
            script = "set -e\n" + block.replace("http://127.0.0.1:8000", site.url).replace(
                "curl ", "curl -sS --fail-with-body -w '\\n' "
            )
            done = subprocess.run(
                ["bash", "-c", script],
                cwd=tmp_path,
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
                env={"PATH": "/usr/bin:/bin", "GASTROVL_API_KEY": KEY},
            )
            assert done.returncode == 0, done.stdout + done.stderr
            answers.append(done.stdout)

    assert sum(block.count("curl ") for block in blocks) == 9
    whole = "".join(answers)
    assert [json.loads(line)["text"] for line in answers[0].splitlines()][:3] == [
        "polyp",
        "[100,200,300,400]",
        "gastric ulcer",
    ]
    assert json.loads(answers[1])["box"]["pixels"] == [40, 30, 200, 180]
    assert "data: [DONE]" in whole
    assert "gastrovl_requests_total" in whole


@pytest.mark.allow_hosts(["127.0.0.1"])
def test_the_python_example_of_the_how_to_runs(repository, tmp_path):
    picture(1, (320, 240)).save(tmp_path / "frame.jpg")
    text = (repository / "docs" / "how-to" / "serve.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    with listening([Echo("my-model")]) as site:
        script = example.replace("http://127.0.0.1:8000", site.url)
        done = subprocess.run(
            [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
        )

    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("What does this frame show? 0.25\n")


def test_the_dockerfile_runs_a_command_that_exists_as_nobody_and_copies_no_weights(repository):
    lines = (repository / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ").splitlines()
    steps = [line.split(maxsplit=1) for line in lines if line and not line.startswith("#")]
    last = dict(steps)
    command = json.loads(last["ENTRYPOINT"]) + json.loads(last["CMD"])
    known = {option for parameter in get_command(app).commands["serve"].params for option in parameter.opts}
    copied = [word for name, rest in steps if name == "COPY" for word in rest.split()[:-1] if not word.startswith("--")]

    assert command[:2] == ["gastrovl", "serve"]
    assert {word for word in command if word.startswith("--")} <= known
    assert last["USER"] == "10001"
    assert "/readyz" in last["HEALTHCHECK"]
    assert set(copied) == {
        "pyproject.toml",
        "constraints.txt",
        "README.md",
        "LICENSE",
        "src",
        "./src",
        "/opt/gastrovl",
    } - {"./src"}
    assert all((repository / name).exists() for name in copied if not name.startswith("/"))
