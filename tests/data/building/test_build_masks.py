"""Masks on their way from a source through a build into records, questions and the card."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from gastrovl.core.errors import SourceError
from gastrovl.core.records import read_records
from gastrovl.core.types import Conversation, Sample, Split, Task
from gastrovl.data.engines import Engine
from gastrovl.data.exporters import export_dataset

RULE = {"masks": {"files": "masks/{stem}_{label}.png"}}


def write_mask(source, name, box=(10, 5, 60, 45), size_wh=(100, 50)):
    mask = np.zeros((size_wh[1], size_wh[0]), dtype=np.uint8)
    x0, y0, x1, y1 = box
    mask[y0:y1, x0:x1] = 255
    Image.fromarray(mask).save(source / f"masks/{name}_polyp.png")


@pytest.fixture
def masked(source):
    """The source with masks of frames 0 to 9 of 12: that of frame 8 is black, that of frame 9 beside its box."""
    (source / "masks").mkdir()
    for n in range(8):
        write_mask(source, f"P{n // 2}_{n}")
    write_mask(source, "P4_8", (0, 0, 0, 0))
    write_mask(source, "P4_9", (70, 5, 90, 45))
    return source


def samples_of(folder):
    return {sample.id.rpartition("_")[2]: sample for sample in read_records(folder / "records.jsonl", Sample)}


def masks_of(folder):
    return {number: [one.mask for one in sample.findings if one.mask] for number, sample in samples_of(folder).items()}


def conversations_of(folder):
    return [one for split in Split for one in read_records(folder / f"{split}.jsonl", Conversation)]


def files_below(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.usefixtures("masked")
def test_findings_name_their_masks_and_other_findings_none(build, config):
    folder = build(config(RULE))
    found = masks_of(folder)
    assert found["0"] == ["masks/own/pylorus/P0_0.gastric_polyp.png"]
    assert [number for number, masks in sorted(found.items()) if masks] == list("01234567")
    assert len(list(folder.rglob("masks/**/*.png"))) == 8
    assert all(one.mask is None for sample in samples_of(folder).values() for one in sample.findings if not one.boxes)


@pytest.mark.usefixtures("masked")
def test_places_of_what_is_there_have_its_mask_and_no_other_question_has(build, config):
    folder = build(config(RULE, conversations={"absent_per_image": 0, "dialogues": 2}))
    masks = {sample.id: sample.findings[-1].mask for sample in samples_of(folder).values()}
    items = conversations_of(folder)
    asked = [one for one in items if one.task is Task.REC]
    assert len({one.sample_id for one in asked}) == 12
    assert [one.target.mask for one in asked] == [masks[one.sample_id] for one in asked]
    assert {one.target.mask for one in items if one.task is not Task.REC} == {None}


@pytest.mark.usefixtures("masked")
@pytest.mark.parametrize("mode", ["link", "copy"])
def test_a_mask_has_the_size_of_the_stored_image(build, config, mode):
    folder = build(config(RULE, images={"mode": mode, "max_side_px": 50}))
    sample = samples_of(folder)["3"]
    with Image.open(folder / sample.findings[-1].mask) as mask, Image.open(folder / sample.image.path) as image:
        assert mask.size == image.size == (50, 25)
        assert mask.getbbox() == (5, 2, 30, 23)  # 10 5 60 45 halved; rows 2 and 22 are half white


@pytest.mark.usefixtures("masked")
def test_card_and_counts_say_what_became_of_each_mask(build, config):
    folder = build(config(RULE))
    counts = {"stored": 8, "absent": 2, "empty": 1, "apart": 1, "broken": 0}
    assert json.loads((folder / "statistics.json").read_text())["masks"] == {"own": counts}
    said = json.loads((folder / "quality.json").read_text())["masks"]["own"]
    assert [why.split("/")[-1].split(":")[0] for why in said["left_out"]] == ["P4_9_polyp.png", "P4_8_polyp.png"]
    assert "| `own` | 8 | 2 | 1 | 1 | 0 |" in (folder / "README.md").read_text()
    assert set(json.loads((folder / "manifest.json").read_text())["inputs"]) >= {"own (masks)"}


@pytest.mark.usefixtures("masked")
def test_a_source_that_speaks_of_no_masks_has_none(build, config):
    folder = build(config())
    assert not any(masks_of(folder).values())
    assert not (folder / "masks").exists()
    assert "masks" not in json.loads((folder / "statistics.json").read_text())


def test_a_copy_of_a_source_without_its_masks_is_built_without(build, config):
    folder = build(config(RULE))
    assert not any(masks_of(folder).values())
    assert json.loads((folder / "statistics.json").read_text())["masks"]["own"]["absent"] == 12


def test_broken_masks_stop_the_build_with_one_list_and_it_goes_on_when_they_are_mended(build, config, masked):
    (masked / "masks/P0_1_polyp.png").write_bytes(b"no picture")
    write_mask(masked, "P1_2", size_wh=(50, 25))
    with pytest.raises(SourceError, match="2 masks cannot be used") as caught:
        build(config(RULE))
    assert "P0_1_polyp.png: not an image" in str(caught.value)
    assert "P1_2_polyp.png: is 50x25 px, but" in str(caught.value)
    write_mask(masked, "P0_1")
    write_mask(masked, "P1_2")
    assert files_below(build(config(RULE)) / "masks") == files_below(build(config(RULE), "whole") / "masks")


def test_broken_masks_are_left_out_on_request(build, config, masked):
    write_mask(masked, "P1_2", size_wh=(50, 25))
    folder = build(config(RULE, quality={"on_broken_image": "skip"}))
    assert masks_of(folder)["2"] == []
    assert len(samples_of(folder)) == 12
    assert json.loads((folder / "quality.json").read_text())["masks"]["own"]["broken"] == 1


@pytest.mark.usefixtures("masked")
def test_the_same_config_gives_the_same_masks_whoever_does_the_work(build, config, monkeypatch):
    one = build(config(RULE))
    monkeypatch.setattr("gastrovl.data.collect.IMAGES_A_TASK", 5)
    two = build(config(RULE), "again", engine=Engine(workers=2))
    assert files_below(one / "masks") == files_below(two / "masks")
    assert (one / "records.jsonl").read_bytes() == (two / "records.jsonl").read_bytes()


def test_what_an_image_left_out_since_had_as_a_mask_goes_too(build, config, masked, tmp_path):
    write_mask(masked, "P1_2", size_wh=(50, 25))
    with pytest.raises(SourceError):
        build(config(RULE))  # leaves its work
    assert list((tmp_path / "built/.out.partial/masks").rglob("P3_7.*"))
    write_mask(masked, "P1_2")
    for path in [*masked.rglob("P3_*")]:
        path.unlink()
    folder = build(config(RULE))
    assert not list((folder / "masks").rglob("P3_*"))
    assert len(list((folder / "masks").rglob("*.png"))) == 6


@pytest.mark.usefixtures("masked")
@pytest.mark.parametrize("name", ["webdataset", "coco"])
def test_exports_name_no_masks(build, config, tmp_path, name):
    folder = build(config(RULE))
    exported = export_dataset(folder, name, tmp_path / "export")
    for path in exported.rglob("*"):
        assert b"P0_0.gastric_polyp" not in (path.read_bytes() if path.is_file() else b"")
        assert b"## Masks" not in (path.read_bytes() if path.name == "README.md" else b"")
