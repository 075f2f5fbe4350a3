"""A manifest says what made a folder, and comes back as it was written."""

from __future__ import annotations

from datetime import UTC, datetime
from importlib import metadata

import pytest

from gastrovl.core.errors import RecordError
from gastrovl.core.files import whole_folder
from gastrovl.core.manifest import read_manifest, write_manifest

NOON = datetime(2026, 1, 2, 12, 0, 0, tzinfo=UTC)


def test_a_manifest_comes_back_as_it_was_written(tmp_path):
    written = write_manifest(
        tmp_path,
        stage="data build",
        config={"seed": 7, "sources": [{"root": "images"}]},
        seed=7,
        inputs={"images/a.jpg": "0" * 64},
        licences={"drawn": "Apache-2.0"},
        now=NOON,
    )
    assert read_manifest(tmp_path) == written
    assert (written.stage, written.created, written.seed) == ("data build", "2026-01-02T12:00:00+00:00", 7)


def test_a_manifest_names_our_version_and_the_libraries_that_are_installed(tmp_path):
    manifest = write_manifest(tmp_path, stage="train", config={}, seed=None, now=NOON)
    assert manifest.version == metadata.version("gastrovl")
    assert manifest.libraries["numpy"] == metadata.version("numpy")


def test_two_manifests_of_one_moment_are_equal_byte_for_byte(tmp_path):
    for name in ("a", "b"):
        write_manifest(tmp_path / name, stage="train", config={"x": 1}, seed=7, now=NOON)
    assert (tmp_path / "a" / "manifest.json").read_bytes() == (tmp_path / "b" / "manifest.json").read_bytes()


def test_a_folder_with_a_manifest_may_be_replaced(tmp_path):
    write_manifest(tmp_path / "run", stage="train", config={}, seed=7, now=NOON)
    with whole_folder(tmp_path / "run", is_replaced=True) as temporary:
        write_manifest(temporary, stage="train", config={}, seed=8, now=NOON)
    assert read_manifest(tmp_path / "run").seed == 8


def test_a_folder_without_a_manifest_is_named(tmp_path):
    with pytest.raises(RecordError, match=r"manifest\.json: no such file; expected a folder written by a gastrovl"):
        read_manifest(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"stage": "train"}', '{"name": "a web page"}'])
def test_another_programs_manifest_is_refused(tmp_path, text):
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(RecordError, match=r"manifest\.json: not a manifest of this version; make the folder again"):
        read_manifest(tmp_path)
