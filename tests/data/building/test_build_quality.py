"""What a build does about faults of images and about what their files say besides the picture."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest
import yaml
from PIL import Image, ImageDraw

from gastrovl.core.config import parse_config
from gastrovl.core.errors import SourceError
from gastrovl.data.build import BuildConfig, build_dataset

NAME = b"JANE ROE"


@pytest.fixture
def build(tmp_path, draw):
    """`build(**settings)` builds four frames: sound, dark, with a corner square, and a JPEG with a comment."""
    root = tmp_path / "own"
    for n, name in enumerate(("sound", "dark", "square")):
        draw(root / f"images/antrum/{name}.png", n, (256, 192))
    with Image.open(root / "images/antrum/dark.png") as picture:
        Image.fromarray((np.asarray(picture) * 0.1).astype(np.uint8) + 25).save(root / "images/antrum/dark.png")
    with Image.open(root / "images/antrum/square.png") as picture:
        ImageDraw.Draw(picture).rectangle((0, 140, 70, 191), fill=(0, 0, 0))
        picture.save(root / "images/antrum/square.png")
    with Image.open(draw(tmp_path / "plain.png", 9, (256, 192))) as picture:
        picture.save(root / "images/antrum/named.jpg", comment=NAME)
    description = {
        "name": "own",
        "title": "Own frames",
        "licence": "CC0",
        "citation": "nobody",
        "images": ["images/*/*.*"],
        "annotations": [{"format": "class_folders"}],
        "labels": {"antrum": "antrum"},
    }
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump(description), encoding="utf-8")

    def run(faults=None, **images):
        content = {
            "sources": [{"description": str(path), "root": "own"}],
            "quality": {"faults": {"dark_brightness": 0.2, **(faults or {})}, "copies": None},
            "images": images,
            "figures": False,
        }
        settings = parse_config(content, BuildConfig, where="test")
        return build_dataset(settings, tmp_path / "out", data_root=tmp_path, is_replaced=True)

    return run


def rows_of(folder):
    lines = (folder / "quality.jsonl").read_text(encoding="utf-8").splitlines()
    return {row["id"].rpartition("/")[2]: row for row in map(json.loads, lines)}


def ids_of(folder):
    return {json.loads(line)["id"].rpartition("/")[2] for line in (folder / "records.jsonl").read_text().splitlines()}


def test_faults_are_written_down_and_change_nothing_unless_asked(build):
    folder = build()
    rows = rows_of(folder)
    assert rows["sound"]["faults"] == []
    assert "dark" in rows["dark"]["faults"]
    assert rows["square"]["faults"] == ["corner_square"]
    assert {row["action"] for row in rows.values()} == {"keep"}
    assert ids_of(folder) == {"sound", "dark", "square", "named"}
    assert json.loads((folder / "quality.json").read_text())["faults"]["dark"] == {"images": 1, "action": "report"}
    assert "- dark: 1 images (report)" in (folder / "README.md").read_text(encoding="utf-8")


def test_an_excluded_image_has_its_line_and_no_record(build):
    folder = build({"dark": "exclude"})
    assert rows_of(folder)["dark"]["action"] == "exclude"
    assert ids_of(folder) == {"sound", "square", "named"}
    assert json.loads((folder / "quality.json").read_text())["excluded_by_fault"] == ["own/antrum/dark"]
    assert not (folder / "images/own/antrum/dark.png").exists()


def test_excluding_everything_stops_the_build(build):
    with pytest.raises(SourceError, match=r"no image is left: .*`quality\.faults`"):
        build({"letterboxed": "exclude", "dark": "exclude", "dark_brightness": 1.0})


@pytest.mark.parametrize("inpaint", [False, True])
def test_a_masked_square_is_painted_over_in_the_stored_copy_only(build, tmp_path, inpaint):
    source = tmp_path / "own/images/antrum/square.png"
    before = source.read_bytes()
    folder = build({"corner_square": "mask", "inpaint": inpaint})
    assert rows_of(folder)["square"]["action"] == "mask"
    with Image.open(folder / "images/own/antrum/square.png") as stored, Image.open(source) as original:
        assert np.asarray(stored)[150:185, 5:60].mean() > 30  # it was black
        assert np.array_equal(np.asarray(stored)[:120], np.asarray(original)[:120])
    assert source.read_bytes() == before


def test_a_stored_copy_loses_its_comment_and_the_record_keeps_the_hash_of_the_original(build, tmp_path):
    source = tmp_path / "own/images/antrum/named.jpg"
    folder = build()
    stored = folder / "images/own/antrum/named.jpg"
    assert NAME in source.read_bytes()
    assert NAME not in stored.read_bytes()
    row = rows_of(folder)["named"]
    assert row["metadata_removed"] == ["COM"]
    assert row["sha256"] == hashlib.sha256(source.read_bytes()).hexdigest()
    with Image.open(stored) as copy, Image.open(source) as original:
        assert np.array_equal(np.asarray(copy), np.asarray(original))
    assert (folder / "images/own/antrum/sound.png").stat().st_nlink == 2  # nothing to remove: still linked


def test_a_smaller_copy_has_no_comment_either(build):
    assert NAME not in (build(max_side_px=100) / "images/own/antrum/named.jpg").read_bytes()


def test_metadata_can_be_kept(build):
    assert NAME in (build(strip_metadata=False) / "images/own/antrum/named.jpg").read_bytes()
