"""The packaged descriptions against the real folders, where somebody has put them."""

from __future__ import annotations

import json

import numpy as np
import pytest

from gastrovl.clinical.taxonomy import Taxonomy
from gastrovl.core.config import parse_config
from gastrovl.core.geometry import iou
from gastrovl.core.records import read_records
from gastrovl.core.types import Conversation, Sample, Split, Task
from gastrovl.data.build import BuildConfig, build_dataset
from gastrovl.data.colours import overlap
from gastrovl.data.copies import find_copies
from gastrovl.data.formats import FORMATS
from gastrovl.data.harmonise import harmonise
from gastrovl.data.images import list_images
from gastrovl.data.lesionmasks import wanted_masks
from gastrovl.data.looks import look_at
from gastrovl.data.quality import QualityOptions
from gastrovl.data.series import group_keys
from gastrovl.data.source import load_source, read_annotations

pytestmark = pytest.mark.real_data


def test_ten_images_of_each_set_become_a_dataset(real_data_root, tmp_path):
    content = {
        "sources": [
            {"description": "edd2020", "root": "edd2020", "limit": 10},
            {"description": "hyperkvasir", "root": "hyperkvasir", "limit": 10},
        ]
    }
    settings = parse_config(content, BuildConfig, where="test")
    folder = build_dataset(settings, tmp_path / "out", data_root=real_data_root)
    counts = json.loads((folder / "statistics.json").read_text(encoding="utf-8"))["masks"]
    assert all(one["stored"] == sum(one.values()) for one in counts.values())
    samples = list(read_records(folder / "records.jsonl", Sample))
    conversations = [item for split in Split for item in read_records(folder / f"{split}.jsonl", Conversation)]
    assert len(samples) == 20
    assert {item.task for item in conversations} == {Task.CLS, Task.REC, Task.REG, Task.CAP}


def test_every_boxed_term_of_both_sets_has_a_mask_in_its_boxes(real_data_root):
    taxonomy = Taxonomy.load()
    for name, count in (("edd2020", 401), ("hyperkvasir", 818)):
        description, _ = load_source(name)
        root = real_data_root / name
        images = list_images(root, description.images, max_px=10**8)
        said = list(read_annotations(description, root, images))
        wanted = wanted_masks(harmonise(description, images, said, taxonomy).images, description.masks, root)
        assert sum(map(len, wanted.values())) == count
        assert all(path.is_file() for masks in wanted.values() for mask in masks for path in mask.files)


def test_every_label_of_both_sets_is_mapped_or_excluded(real_data_root):
    for name in ("edd2020", "hyperkvasir"):
        description, _ = load_source(name)
        images = list_images(real_data_root / name, description.images, max_px=10**8)
        labels = {annotation.label for annotation in read_annotations(description, real_data_root / name, images)}
        assert labels <= set(description.labels)
        assert images.broken == []


def test_the_three_forms_of_edd2020_say_the_same(real_data_root):
    root = real_data_root / "edd2020"
    images = list_images(root, ["images/*.jpg"], max_px=10**8)

    def read(kind, **options):
        reader = FORMATS[kind]
        return list(reader.read(root, reader.options(**options), images))

    text = read("box_text", folder="bbox")
    yolo = read("yolo", folder="bbox_yolo", classes="class_list.txt")
    assert [(a.image.name, a.label) for a in text] == [(a.image.name, a.label) for a in yolo]
    assert min(iou(a.box, b.box) for a, b in zip(text, yolo, strict=True)) > 0.99
    masks = read("masks", folder="masks", boxes="hull")
    assert {(a.image.name, a.label) for a in masks} == {(a.image.name, a.label) for a in text}


def test_known_duplicates_of_edd2020_share_a_group(real_data_root):
    description, _ = load_source("edd2020")
    pairs = [("AJ0019", "AJ0020"), ("AJ0040", "AJ0041"), ("F0002", "F0006"), ("F0004", "F0005")]
    names = [f"EDD2020_{name}.jpg" for pair in pairs for name in pair]
    images = list_images(real_data_root / "edd2020", [f"images/{name}" for name in names], max_px=10**8)
    options = QualityOptions()
    looks = [look_at(image.path, image.path.read_bytes(), options)[0] for image in images]
    stems = [image.stem.removeprefix("EDD2020_") for image in images]
    found = find_copies(np.stack([look.print for look in looks]), options.copies)
    assert {(stems[copy.i], stems[copy.j]) for copy in found} == set(pairs)

    def likeness(a, b):
        return overlap(looks[a].colours, looks[b].colours)

    keys = dict(zip(stems, group_keys(images.images, description.group, likeness), strict=True))
    assert all(keys[a] == keys[b] for a, b in pairs)
