"""`gastrovl data audit` on a few drawn pictures: what it prints, what it leaves, and how it ends."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from gastrovl.cli.data import app
from gastrovl.core.errors import OutputError, SourceError
from gastrovl.core.manifest import read_manifest
from gastrovl.data.audit import audit_folders
from gastrovl.data.copies import CopyOptions


def run(*arguments):
    return CliRunner().invoke(app, ["audit", *map(str, arguments)])


@pytest.fixture
def folder(tmp_path):
    """Two training and two test pictures, no two alike."""
    for seed, name in enumerate(("train/1.png", "train/2.png", "test/3.png", "test/4.png")):
        path = tmp_path / "set" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        blots = np.random.default_rng(seed).integers(0, 256, (7, 8, 3), dtype=np.uint8)
        Image.fromarray(blots).resize((320, 240), Image.Resampling.BICUBIC).save(path)
    return tmp_path / "set"


@pytest.fixture
def leaking(folder):
    """The same, with a training picture among the test pictures as well."""
    shutil.copy(folder / "train/1.png", folder / "test/5.png")
    return folder


def test_the_verdict_and_the_place_of_the_page_are_printed(leaking, tmp_path):
    result = run(leaking, "-o", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "LEAK: 1 of 3 images of test (33.3 %) has a copy in train." in result.output
    assert f"Page: {tmp_path / 'out/audit.html'}" in result.output
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["audit.html", "audit.json", "manifest.json"]


def test_a_leak_fails_a_check_only_when_asked(folder, leaking, tmp_path):
    assert run(leaking).exit_code == 0
    assert run(leaking, "--fail-on-leak", "-o", tmp_path / "out").exit_code == 1
    assert (tmp_path / "out/audit.html").is_file()
    (folder / "test/5.png").unlink()
    assert run(folder, "--fail-on-leak").exit_code == 0


def test_without_output_nothing_is_written_and_the_option_is_named(folder, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    result = run(folder)
    assert "No copies found among 4 images." in result.output
    assert "-o FOLDER" in result.output
    assert sorted(tmp_path.rglob("*")) == before


def test_json_prints_what_audit_json_holds(leaking, tmp_path):
    result = run(leaking, "--json", "-o", tmp_path / "out")
    assert json.loads(result.stdout) == json.loads((tmp_path / "out/audit.json").read_text(encoding="utf-8"))


def test_the_manifest_tells_two_sets_of_images_apart(leaking, folder, tmp_path):
    run(leaking, "-o", tmp_path / "a", "--likeness", "0.9")
    (folder / "test/5.png").unlink()
    run(folder, "-o", tmp_path / "b")
    a, b = read_manifest(tmp_path / "a"), read_manifest(tmp_path / "b")
    assert a.config["copies"]["likeness"] == 0.9
    assert a.stage == "data audit"
    assert a.inputs.keys() == b.inputs.keys() == {"images"}
    assert a.inputs != b.inputs


def test_the_likeness_that_is_asked_for_is_used(folder):
    Image.open(folder / "train/1.png").crop((20, 15, 320, 240)).save(folder / "test/part.jpg", quality=30)
    likeness = json.loads(run(folder, "--json").stdout)["pairs"][0]["likeness"]
    assert likeness < 1
    assert json.loads(run(folder, "--json", "--likeness", likeness + 0.0002).stdout)["pairs"] == []


def test_the_result_names_the_likeness_that_was_used(folder):
    assert f"likeness is at least {CopyOptions().likeness:g}" in run(folder).output
    assert "likeness is at least 0.95" in run(folder, "--likeness", "0.95").output


def test_broken_files_are_told(folder):
    (folder / "test/broken.png").write_bytes(b"")
    assert "not read: 1 file(s), e.g. test/broken.png: empty (0 bytes)" in run(folder).output


def test_overwrite_is_needed_to_replace(folder, tmp_path):
    assert run(folder, "-o", tmp_path / "out").exit_code == 0
    assert isinstance(run(folder, "-o", tmp_path / "out").exception, OutputError)
    assert run(folder, "-o", tmp_path / "out", "--overwrite").exit_code == 0


def test_a_failed_audit_leaves_nothing(tmp_path):
    (tmp_path / "empty").mkdir()
    assert isinstance(run(tmp_path / "empty", "-o", tmp_path / "out").exception, SourceError)
    assert not (tmp_path / "out").exists()


def test_a_build_of_ours_has_no_leak(tmp_path):
    (tmp_path / "small.yaml").write_text(
        "sources:\n  - synthetic: {images: 18, seed: 3}\nfigures: false\n", encoding="utf-8"
    )
    CliRunner().invoke(app, ["build", str(tmp_path / "small.yaml"), "-o", str(tmp_path / "data")])
    report, images = audit_folders([tmp_path / "data"])
    assert len(images) == 18
    assert report.stated_groups_across_splits == ()
    assert report.by_source == {"drawn": 18}
