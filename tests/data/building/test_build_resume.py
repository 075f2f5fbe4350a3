"""A build that is killed goes on where it was, and what it leaves does not depend on kills or on who did the work."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gastrovl.core.config import parse_config
from gastrovl.core.errors import OutputError
from gastrovl.core.files import partial_folder, resumed_folder
from gastrovl.data.build import BuildConfig, build_dataset
from gastrovl.data.engines import Engine

IMAGES = 30
CONTENT = {
    "sources": [{"synthetic": {"images": IMAGES, "seed": 3}}],
    "conversations": {"dialogues": 1},
    "figures": False,
}
# A build in a process of its own; it writes the name of every image it decodes to a file, slowly enough to be killed.
SLOW_BUILD = """
import sys, time
from pathlib import Path
from gastrovl.core.config import parse_config
from gastrovl.data import composing, looks
from gastrovl.data.build import BuildConfig, build_dataset

log, output = Path(sys.argv[1]), Path(sys.argv[2])
look_at, compose = looks.look_at, composing._conversations

def slow_look(path, content, options, **further):
    time.sleep(0.02)
    found = look_at(path, content, options, **further)
    with log.open("a") as stream:
        stream.write(path.name + "\\n")
    return found

def slow_compose(*arguments):
    time.sleep(0.02)
    return compose(*arguments)

looks.look_at, composing._conversations = slow_look, slow_compose
build_dataset(parse_config(eval_free, BuildConfig, where="test"), output)
""".replace("eval_free", repr(CONTENT))


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    return build_dataset(parse_config(CONTENT, BuildConfig, where="test"), tmp_path_factory.mktemp("whole") / "out")


def files_of(folder):
    """Every file but the manifest, which says when it was made."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "manifest.json")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def start(log, output):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, "-c", SLOW_BUILD, str(log), str(output)], env=environment)


def lines(path):
    return path.read_text().splitlines() if path.is_file() else []


def test_a_build_killed_five_times_leaves_the_same_files_and_looks_at_no_image_twice(tmp_path, uninterrupted):
    log, output = tmp_path / "log", tmp_path / "out"
    for wanted in (3, 9, 16, 24, IMAGES):  # images done when it is killed; the last time it is writing conversations
        running = start(log, output)
        deadline = time.monotonic() + 120
        while len(lines(log)) < wanted and running.poll() is None and time.monotonic() < deadline:
            time.sleep(0.005)
        running.send_signal(signal.SIGKILL)
        assert running.wait() == -signal.SIGKILL
        assert not output.exists()
    assert start(log, output).wait(timeout=120) == 0
    assert files_of(output) == files_of(uninterrupted)
    # one that was decoded and not yet written down when the process died is decoded again: at most one a kill
    assert sorted(set(lines(log))) == [f"drawn-{index:05d}.jpg" for index in range(IMAGES)]
    assert len(lines(log)) <= IMAGES + 5
    assert not partial_folder(output).exists()


def test_two_processes_leave_the_files_of_one(tmp_path, monkeypatch, uninterrupted):
    monkeypatch.setattr("gastrovl.data.collect.IMAGES_A_TASK", 4)  # more tasks than are done in this process
    settings = parse_config(CONTENT, BuildConfig, where="test")
    assert files_of(build_dataset(settings, tmp_path / "out", engine=Engine(workers=2))) == files_of(uninterrupted)


def test_ray_leaves_the_files_of_one_process(tmp_path, uninterrupted):
    """In a process of its own: Ray opens sockets, which tests do not."""
    pytest.importorskip("ray")
    script = (
        "from gastrovl.core.config import parse_config\n"
        "from gastrovl.data import collect\n"
        "from gastrovl.data.build import BuildConfig, build_dataset\n"
        "from gastrovl.data.engines import Engine\n"
        "from pathlib import Path\n"
        "import sys\n"
        "collect.IMAGES_A_TASK = 8\n"
        f"settings = parse_config({CONTENT!r}, BuildConfig, where='test')\n"
        "build_dataset(settings, Path(sys.argv[1]), engine=Engine('ray', 2))\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr
    assert files_of(tmp_path / "out") == files_of(uninterrupted)


def test_other_settings_for_images_take_up_nothing(tmp_path, uninterrupted):
    settings = parse_config(CONTENT, BuildConfig, where="test")
    partial = partial_folder(tmp_path / "out")
    (partial / "images/drawn").mkdir(parents=True)
    (partial / "images/drawn/drawn-00000.jpg").write_bytes(b"of another build")
    (partial / "images/drawn/left-over.jpg").write_bytes(b"of another build")
    assert files_of(build_dataset(settings, tmp_path / "out")) == files_of(uninterrupted)


def test_what_an_earlier_build_of_other_images_left_is_taken_up_or_removed(tmp_path, uninterrupted):
    larger = {**CONTENT, "sources": [{"synthetic": {"images": IMAGES + 6, "seed": 3}}]}

    def stop(step, *_):
        if step == "writing conversations":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_dataset(parse_config(larger, BuildConfig, where="test"), tmp_path / "out", progress=stop)
    partial = partial_folder(tmp_path / "out")
    assert len(list((partial / "images/drawn").iterdir())) == IMAGES + 6
    (partial / "README.md").write_text("of another build")
    (partial / "left-over").mkdir()
    settings = parse_config(CONTENT, BuildConfig, where="test")
    assert files_of(build_dataset(settings, tmp_path / "out")) == files_of(uninterrupted)


def test_a_folder_that_another_process_writes_is_refused(tmp_path):
    settings = parse_config(CONTENT, BuildConfig, where="test")
    with resumed_folder(tmp_path / "out") as folder:
        with pytest.raises(OutputError, match="another process is writing it"):
            build_dataset(settings, tmp_path / "out")
        (folder / "file").write_text("mine")
    assert [path.name for path in Path(tmp_path / "out").iterdir()] == ["file"]
