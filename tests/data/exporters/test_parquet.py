"""Parquet read back with `datasets`, offline: the same records, the same picture bytes, in files of bounded size."""

from __future__ import annotations

import sys

import pytest
from datasets import Image as ImageFeature
from datasets import load_dataset
from pyarrow import parquet

from gastrovl.core.errors import MissingExtraError
from gastrovl.core.manifest import read_manifest
from gastrovl.core.records import read_records
from gastrovl.core.types import Conversation, Sample
from gastrovl.data.exporters import export_dataset

CONVERSATION_FILES = {
    "train": "train",
    "validation": "val",
    "test": "test",
    "validation_reworded": "val_reworded",
    "test_dialogues": "test_dialogues",
}


@pytest.fixture
def load(tmp_path):
    """`load(folder, config)`: all splits of a config, pictures as bytes."""

    def run(folder, config):
        found = load_dataset(str(folder), config, cache_dir=str(tmp_path / "cache"))
        return {split: rows.cast_column("image", ImageFeature(decode=False)) for split, rows in found.items()}

    return run


@pytest.fixture
def exported(tmp_path, whole_dataset):
    return export_dataset(whole_dataset, "parquet", tmp_path / "parquet")


def boxes(row):
    return [dict(zip(("x0", "y0", "x1", "y1"), box, strict=True)) for box in row["boxes"]]


def image_of(row):
    return {
        "path": f"images/{row['image']['path']}",
        **{name: row[name] for name in ("width_px", "height_px", "sha256")},
    }


def turns(row):
    return [{name: turn[name] for name in ("role", "text", "alternatives")} for turn in row["turns"]]


def sample_of(row):
    findings = [
        {**{name: item[name] for name in ("term", "status", "site", "grade", "confidence", "origin")}}
        | {"boxes": boxes(item)}
        for item in row["findings"]
    ]
    dialogues = [
        {
            "task": item["task"],
            "kind": item["kind"],
            "turns": turns(item),
            "target": {"terms": item["labels"], "boxes": boxes(item)},
        }
        for item in row["dialogues"]
    ]
    same = {name: row[name] for name in ("id", "source", "group", "split", "licence", "text")}
    return Sample.model_validate({**same, "image": image_of(row), "findings": findings, "dialogues": dialogues})


def conversation_of(row):
    same = {name: row[name] for name in ("id", "sample_id", "task", "kind", "source", "group", "split")}
    target = {"terms": row["labels"], "boxes": boxes(row)}
    return Conversation.model_validate({**same, "image": image_of(row), "turns": turns(row), "target": target})


def test_images_read_back_are_the_records_and_the_bytes(whole_dataset, exported, load):
    rows = [row for split in load(exported, "images").values() for row in split]
    assert [sample_of(row) for row in rows] == list(read_records(whole_dataset / "records.jsonl", Sample))
    for row in rows:
        assert row["image"]["bytes"] == (whole_dataset / "images" / row["image"]["path"]).read_bytes()
        assert row["labels"] == ["gastric_ulcer"]  # the uncertain and the absent finding are no labels


def test_conversations_of_every_file_read_back_with_their_images(whole_dataset, exported, load):
    found = load(exported, "conversations")
    assert set(found) == set(CONVERSATION_FILES)
    for split, name in CONVERSATION_FILES.items():
        items = list(read_records(whole_dataset / f"{name}.jsonl", Conversation))
        assert [conversation_of(row) for row in found[split]] == items
        for row, item in zip(found[split], items, strict=True):
            assert row["answer"] == item.answer
            assert row["image"]["bytes"] == (whole_dataset / item.image.path).read_bytes()


def test_a_row_holds_a_picture_and_boxes_in_its_pixels(tmp_path, exported):
    row = load_dataset(str(exported), "images", split="train", cache_dir=str(tmp_path / "cache"))[0]
    # The record says 200 x 100 px; the stored copy has half of that, and the first box its left half.
    assert (row["image"].size, row["width_px"], row["height_px"]) == ((100, 50), 200, 100)
    assert row["findings"][0]["boxes_px"][0] == [0.0, 0.0, 50.0, 50.0]
    assert row["findings"][0]["boxes_px"][1] == pytest.approx([100 / 3, 5, 200 / 3, 35])


def test_conversations_with_pictures_are_what_is_loaded_unasked(tmp_path, exported):
    found = load_dataset(str(exported), cache_dir=str(tmp_path / "cache"))
    assert isinstance(found["train"].features["image"], ImageFeature)
    assert found["train"].num_rows == 8


def test_small_shards_hold_the_same_rows_in_the_same_order(tmp_path, whole_dataset, exported, load):
    small = export_dataset(whole_dataset, "parquet", tmp_path / "small", shard_bytes=1)
    assert sorted(path.name for path in (small / "images").iterdir()) == [
        "test-00000-of-00001.parquet",
        *(f"train-0000{n}-of-00004.parquet" for n in range(4)),
        "validation-00000-of-00001.parquet",
    ]
    for config in ("images", "conversations"):
        assert {split: rows.to_list() for split, rows in load(small, config).items()} == {
            split: rows.to_list() for split, rows in load(exported, config).items()
        }


def test_conversations_of_one_image_store_its_bytes_once(tmp_path, whole_dataset):
    """Two conversations an image in a group of rows: pages of the picture column hold each picture once."""
    folder = export_dataset(whole_dataset, "parquet", tmp_path / "out")
    content = parquet.ParquetFile(folder / "conversations/train-00000-of-00001.parquet").metadata.row_group(0)
    column = next(
        column for n in range(content.num_columns) if (column := content.column(n)).path_in_schema == "image.bytes"
    )
    pictures = sum(
        (whole_dataset / sample.image.path).stat().st_size
        for sample in read_records(whole_dataset / "records.jsonl", Sample)
        if sample.split == "train"
    )
    assert content.num_rows == 8
    assert pictures <= column.total_uncompressed_size < 1.1 * pictures


def test_the_same_dataset_gives_the_same_bytes(tmp_path, whole_dataset, exported):
    again = export_dataset(whole_dataset, "parquet", tmp_path / "again")
    files = sorted(path.relative_to(exported) for path in exported.rglob("*.*") if path.name != "manifest.json")
    assert len(files) == 10  # three files of images, five of conversations, README.md and a figure
    for file in files:
        assert (exported / file).read_bytes() == (again / file).read_bytes()


def test_the_export_carries_card_figures_licences_and_inputs(exported):
    text = (exported / "README.md").read_text(encoding="utf-8")
    assert "Of six frames." in text
    assert "license: mit" not in text
    assert "license_name: cc-by-4.0-and-cc0" in text
    assert (exported / "figures/tasks.png").is_file()
    manifest = read_manifest(exported)
    assert manifest.licences == {"other": "CC0", "own": "CC BY 4.0"}
    assert set(manifest.inputs) == {"records.jsonl", *(f"{name}.jsonl" for name in CONVERSATION_FILES.values())}


def test_without_pyarrow_the_error_names_the_extra(tmp_path, whole_dataset, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r"gastrovl\[export\]"):
        export_dataset(whole_dataset, "parquet", tmp_path / "out")
    assert not (tmp_path / "out").exists()
