"""What is exported reads back: findings, boxes, groups, splits and texts, through the source.yaml beside it."""

from __future__ import annotations

import csv
import json

import pytest
import yaml
from PIL import Image

from gastrovl.core.boxtext import BOX_PATTERN
from gastrovl.core.config import parse_config
from gastrovl.core.errors import ConfigError, OutputError, RecordError, SourceError
from gastrovl.core.manifest import read_manifest
from gastrovl.core.records import read_records, write_records
from gastrovl.core.types import Conversation, Sample, Split, Task
from gastrovl.data.build import BuildConfig, build_dataset
from gastrovl.data.exporters import EXPORTERS, export_dataset

SIZE_WH = (100, 50)
FRAMES = 8


@pytest.fixture
def build(tmp_path):
    """`build(description file, root, name)` builds a dataset folder with the splits that the source states."""

    def run(description, root, name):
        settings = {
            "sources": [{"description": str(description), "root": str(root)}],
            "quality": {"copies": None},
            "figures": False,
            "conversations": {"absent_per_image": 1},
        }
        return build_dataset(parse_config(settings, BuildConfig, where="test"), tmp_path / name)

    return run


@pytest.fixture
def dataset(tmp_path, draw, build):
    """A dataset of eight frames: a site, one or two boxed lesions (one of them graded), a caption of the source."""
    root = tmp_path / "own"
    rows, talk = [], []
    for n in range(FRAMES):
        split = ("train", "val", "test", "train")[n % 4]
        draw(root / f"images/p{n}/frame.png", n, SIZE_WH)
        x = 3.3 * n
        rows.append([f"p{n}/frame", "stomach", f"p{n}", split, "", "", "", ""])
        rows.append([f"p{n}/frame", "ulcer", f"p{n}", split, x, 5.5, x + 20.25, 30])
        if n % 2:
            rows.append([f"p{n}/frame", "esophagitis B", f"p{n}", split, 60, 0, 100, 50])
        talk.append([f"p{n}/frame", "Is it clean?", f"Yes,  \u201cquite\u201d {n}."])
    write_table(root / "t.csv", ["image", "label", "patient", "set", "a", "b", "c", "d"], rows)
    write_table(root / "qa.csv", ["image", "question", "answer"], talk)
    content = {
        "name": "own",
        "title": "Own",
        "licence": "CC BY 4.0",
        "citation": "nobody",
        "images": ["images/**/*.png"],
        "annotations": [
            {"format": "csv_labels", "file": "t.csv", "group": "patient", "split": "set", "box": ["a", "b", "c", "d"]},
            {"format": "qa_pairs", "file": "qa.csv"},
        ],
        "labels": {
            "stomach": "normal_stomach",
            "ulcer": "gastric_ulcer",
            "esophagitis B": {"term": "esophagitis", "grade": "B"},
        },
        "exhaustive": True,
    }
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    return build(tmp_path / "own.yaml", root, "built")


def write_table(path, names, rows):
    with path.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([names, *rows])


def samples_of(folder):
    """Samples by the name of the folder their frame lies in, which every export keeps."""
    return {sample.id.split("/")[-2]: sample for sample in read_records(folder / "records.jsonl", Sample)}


def conversations_of(folder):
    found = [item for split in Split for item in read_records(folder / f"{split.value}.jsonl", Conversation)]
    return {(item.sample_id.split("/")[-2], item.id.split("#")[1]): item for item in found}


def test_the_dataset_holds_what_the_round_trips_are_about(dataset):
    samples = samples_of(dataset)
    assert len(samples) == FRAMES
    assert {finding.grade for sample in samples.values() for finding in sample.findings} == {None, "B"}
    assert {item.task for item in conversations_of(dataset).values()} == {
        Task.CLS,
        Task.REC,
        Task.REG,
        Task.CAP,
        Task.VQA,
    }


# Error of an edge in pixels: COCO keeps floating point, YOLO six decimals of a fraction, VOC whole pixels.
@pytest.mark.parametrize(("name", "tolerance_px"), [("coco", 1e-9), ("yolo", 1.1e-6 * 100), ("voc", 0.5 + 1e-9)])
def test_boxes_labels_groups_and_splits_survive_export_and_import(tmp_path, dataset, build, name, tolerance_px):
    folder = export_dataset(dataset, name, tmp_path / name)
    before, after = samples_of(dataset), samples_of(build(folder / "source.yaml", folder, "again"))
    assert before.keys() == after.keys()
    for key, sample in before.items():
        other = after[key]
        assert other.split is sample.split
        assert other.image.sha256 == sample.image.sha256
        assert [(f.term, f.grade, f.site) for f in other.findings] == [
            (f.term, f.grade, f.site) for f in sample.findings
        ]
        for finding, found in zip(sample.findings, other.findings, strict=True):
            assert len(found.boxes) == len(finding.boxes)
            for box, again in zip(finding.boxes, found.boxes, strict=True):
                for one, two, size in zip(box.xyxy, again.xyxy, SIZE_WH * 2, strict=True):
                    assert abs(one - two) * size <= tolerance_px
    groups = {sample.group: key for key, sample in after.items()}
    assert len(groups) == FRAMES


@pytest.mark.parametrize("name", ["llava", "coloninst"])
def test_texts_terms_and_boxes_of_conversations_survive(tmp_path, dataset, build, name):
    folder = export_dataset(dataset, name, tmp_path / name)
    before, after = conversations_of(dataset), conversations_of(build(folder / "source.yaml", folder, "again"))
    assert before.keys() == after.keys()
    tolerance_px = 0.5 + 1e-9
    for key, item in before.items():
        other = after[key]
        assert (other.task, other.split, other.target.terms) == (item.task, item.split, item.target.terms)
        assert len(other.target.boxes) == len(item.target.boxes)
        texts = [[turn.text for turn in one.turns] for one in (item, other)]
        if name == "llava":
            assert texts[0] == texts[1]
            tolerance_px = 0.5 / 999 * 100 + 1e-9  # of a bin: the boxes are those of the text
        assert [BOX_PATTERN.sub("", text) for text in texts[0]] == [BOX_PATTERN.sub("", text) for text in texts[1]]
        for box, again in zip(item.target.boxes, other.target.boxes, strict=True):
            for one, two, size in zip(box.xyxy, again.xyxy, SIZE_WH * 2, strict=True):
                assert abs(one - two) * size <= tolerance_px


@pytest.mark.parametrize("name", ["llava", "coloninst"])
def test_a_second_export_is_the_first_one(tmp_path, dataset, build, name):
    first = export_dataset(dataset, name, tmp_path / "first")
    second = export_dataset(build(first / "source.yaml", first, "again"), name, tmp_path / "second")
    for split in Split:
        said = [
            [
                (one["task"], one["labels"], one["conversations"])
                for one in json.loads((folder / f"{split}.json").read_text())
            ]
            for folder in (first, second)
        ]
        assert said[0]
        assert sorted(said[0], key=str) == sorted(said[1], key=str)


def test_coloninst_boxes_are_pixels_of_the_image_that_is_stored(tmp_path, dataset):
    records = json.loads((export_dataset(dataset, "coloninst", tmp_path / "c") / "train.json").read_text())
    (place,) = [
        one for one in records if one["task"] == "REC" and one["labels"] == ["gastric_ulcer"] and "p0" in one["id"]
    ]
    # 0, 5.5, 20.25, 30 px, rounded half up
    assert place["conversations"][1] == {"from": "gpt", "value": "{<0><6><20><30>}"}
    assert place["id"] == place["image"] == "images/own/p0/frame.png"
    assert place["conversations"][0]["value"].startswith("<image>\n")


def test_every_export_names_licences_and_holds_whole_images(tmp_path, dataset):
    for name in EXPORTERS:
        folder = export_dataset(dataset, name, tmp_path / name)
        assert read_manifest(folder).licences == {"own": "CC BY 4.0"}
        stored = list(folder.rglob("*.png"))
        assert len(stored) == FRAMES
        for path in stored:
            with Image.open(path) as picture:
                assert picture.size == SIZE_WH


def test_pixels_of_a_scaled_copy_are_its_own(tmp_path, dataset):
    sample = next(iter(samples_of(dataset).values()))
    path = dataset / sample.image.path
    with Image.open(path) as picture:
        small = picture.resize((50, 25))
    path.unlink()  # the file may be a hard link
    small.save(path)
    content = json.loads(
        (export_dataset(dataset, "coco", tmp_path / "c") / f"annotations/instances_{sample.split}.json").read_text()
    )
    (image,) = [one for one in content["images"] if one["file_name"] == sample.image.path.removeprefix("images/")]
    boxes = [one["bbox"] for one in content["annotations"] if one["image_id"] == image["id"]]
    (box,) = [box for finding in sample.findings for box in finding.boxes]
    assert (image["width"], image["height"]) == (50, 25)
    assert boxes == [pytest.approx([box.x0 * 50, box.y0 * 25, (box.x1 - box.x0) * 50, (box.y1 - box.y0) * 25])]


def test_a_record_that_leads_out_of_the_folder_is_refused(tmp_path, dataset, draw):
    draw(tmp_path / "elsewhere.png")
    samples = list(read_records(dataset / "records.jsonl", Sample))
    image = samples[0].image.model_copy(update={"path": "../elsewhere.png"})
    write_records(dataset / "records.jsonl", [samples[0].model_copy(update={"image": image}), *samples[1:]])
    with pytest.raises(SourceError, match="leads out of"):
        export_dataset(dataset, "coco", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_unknown_format_and_a_taken_folder_are_refused(tmp_path, dataset):
    with pytest.raises(ConfigError, match="expected one of coco, voc"):
        export_dataset(dataset, "cocoo", tmp_path / "out")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine").touch()
    with pytest.raises(OutputError):
        export_dataset(dataset, "coco", tmp_path / "out")
    with pytest.raises(RecordError, match=r"records\.jsonl: no such file"):
        export_dataset(tmp_path / "own", "coco", tmp_path / "new")
