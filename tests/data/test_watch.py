"""The watch that the fuzz tests rely on can fail: it sees a reader that leaves its folder, in Python and in C."""

from __future__ import annotations

import ctypes
import os
import sys

import pytest


@pytest.fixture
def secret(tmp_path):
    """A file beside a source's folder `root`, and a link in the folder that leads to it."""
    (tmp_path / "root").mkdir()
    (tmp_path / "secret").write_text("name of a patient", encoding="utf-8")
    (tmp_path / "root/link").symlink_to(tmp_path / "secret")
    return tmp_path / "secret"


def outside(opened, root):
    return [path for path in opened if not os.path.realpath(path).startswith(f"{root.resolve()}{os.sep}")]


@pytest.mark.parametrize("name", ["../secret", "link", "../root/../secret"])
def test_a_reader_that_opens_a_file_outside_is_caught(watched, secret, name):
    root = secret.parent / "root"
    with watched() as opened:
        assert (root / name).read_bytes()
    assert outside(opened, root) == [str(root / name)]


def test_a_reader_that_lists_a_folder_outside_is_caught(watched, secret):
    root = secret.parent / "root"
    with watched() as opened:
        assert list((root / "..").iterdir())
    assert outside(opened, root) == [str(root / "..")]


def test_a_reader_that_stays_inside_is_not_caught(watched, secret):
    root = secret.parent / "root"
    (root / "a.txt").write_text("x", encoding="utf-8")
    with watched(secret.parent) as opened:
        assert (root / "a.txt").read_bytes()
    assert opened
    assert outside(opened, root) == []


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the kernel's part of the watch is Linux's inotify")
def test_a_library_in_c_that_opens_a_file_outside_is_caught(watched, secret):
    root = secret.parent / "root"
    libc = ctypes.CDLL(None)
    with watched(secret.parent) as opened:
        number = libc.open(os.fsencode(root / "link"), os.O_RDONLY)
        os.close(number)
    assert str(secret) in outside(opened, root)


def test_nothing_is_noted_when_the_watch_is_over(watched, secret):
    with watched(secret.parent) as opened:
        pass
    secret.read_bytes()
    assert opened == []
