"""WebDataset shards read back with `webdataset`: the same records and pictures, and the same bytes each time."""

from __future__ import annotations

import gc
import hashlib
import io
import json
import tarfile

import pytest
import webdataset
from PIL import Image

from gastrovl.core.errors import ConfigError, RecordError
from gastrovl.core.records import from_line, read_records, write_records
from gastrovl.core.types import Conversation, Sample
from gastrovl.data.exporters import export_dataset

# The library leaves the shards it has read to be closed by whoever collects the garbage.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
FILES = ("train", "val", "test", "val_reworded", "test_dialogues")


@pytest.fixture(autouse=True)
def _close_shards():
    yield
    gc.collect()


@pytest.fixture
def exported(tmp_path, whole_dataset):
    return export_dataset(whole_dataset, "webdataset", tmp_path / "shards")


def read_back(folder):
    """Members of every sample by their ending, as the library hands them out, in the order of the index."""
    index = json.loads((folder / "index.json").read_text(encoding="utf-8"))
    names = [str(folder / shard["name"]) for split in index["splits"].values() for shard in split["shards"]]
    return list(webdataset.WebDataset(names, shardshuffle=False, empty_check=False))


def test_samples_and_conversations_read_back_are_the_records(whole_dataset, exported):
    contents = [json.loads(item["json"]) for item in read_back(exported)]
    samples = [from_line(json.dumps(content["sample"]), Sample, "here") for content in contents]
    assert samples == list(read_records(whole_dataset / "records.jsonl", Sample))
    for name in FILES:
        found = [
            from_line(json.dumps({key: value for key, value in item.items() if key != "file"}), Conversation, "here")
            for content in contents
            for item in content["conversations"]
            if item["file"] == name
        ]
        assert found
        assert found == list(read_records(whole_dataset / f"{name}.jsonl", Conversation))


def test_pictures_keep_their_bytes_and_their_ending(whole_dataset, exported):
    for item in read_back(exported):
        content = json.loads(item["json"])
        path = whole_dataset / content["sample"]["image"]["path"]
        assert item[path.suffix.removeprefix(".")] == path.read_bytes()
        with Image.open(io.BytesIO(path.read_bytes())) as picture:
            assert list(picture.size) == content["size_wh"]


def test_the_library_decodes_pictures_and_json(exported):
    shard = str(exported / "validation-000000.tar")
    rows = webdataset.WebDataset(shard, shardshuffle=False).decode("pil").to_tuple("png;jpg", "json")
    ((picture, content),) = list(rows)
    assert (picture.size, content["id"], content["labels"]) == ((100, 50), "own/p4/frame", ["gastric_ulcer"])


def test_every_sample_has_the_same_keys(exported):
    contents = [json.loads(item["json"]) for item in read_back(exported)]
    for records in (
        contents,
        [content["sample"] for content in contents],
        [item for content in contents for item in content["conversations"]],
    ):
        assert len({tuple(record) for record in records}) == 1


def test_a_shard_ends_before_it_grows_too_large_and_the_index_knows_it(tmp_path, whole_dataset):
    folder = export_dataset(whole_dataset, "webdataset", tmp_path / "small", shard_bytes=1)
    index = json.loads((folder / "index.json").read_text(encoding="utf-8"))
    assert {split: row["samples"] for split, row in index["splits"].items()} == {
        "train": 4,
        "validation": 1,
        "test": 1,
    }
    shards = [shard for row in index["splits"].values() for shard in row["shards"]]
    assert [shard["name"] for shard in shards] == [
        *(f"train-00000{n}.tar" for n in range(4)),
        "validation-000000.tar",
        "test-000000.tar",
    ]
    for shard in shards:
        content = (folder / shard["name"]).read_bytes()
        assert (shard["samples"], shard["bytes"]) == (1, len(content))
        assert shard["sha256"] == hashlib.sha256(content).hexdigest()


def test_shards_are_the_same_bytes_and_say_nothing_of_the_machine(tmp_path, whole_dataset, exported):
    again = export_dataset(whole_dataset, "webdataset", tmp_path / "again")
    for path in sorted(exported.glob("*.tar")):
        assert path.read_bytes() == (again / path.name).read_bytes()
        with tarfile.open(path) as tar:
            assert {(one.mtime, one.uid, one.gid, one.uname, one.gname) for one in tar} == {(0, 0, 0, "", "")}


def test_conversations_out_of_the_order_of_records_are_refused(tmp_path, whole_dataset):
    items = list(read_records(whole_dataset / "train.jsonl", Conversation))
    write_records(whole_dataset / "train.jsonl", reversed(items))
    with pytest.raises(RecordError, match=r"train\.jsonl: conversation own/p\d/frame#\w+-0 is about no sample"):
        export_dataset(whole_dataset, "webdataset", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_two_records_of_one_image_are_refused(tmp_path, whole_dataset):
    samples = list(read_records(whole_dataset / "records.jsonl", Sample))
    write_records(whole_dataset / "records.jsonl", [samples[0], *samples])
    with pytest.raises(RecordError, match="expected one each"):
        export_dataset(whole_dataset, "webdataset", tmp_path / "out")


def test_a_dataset_without_records_and_a_shard_without_size_are_refused(tmp_path, whole_dataset):
    with pytest.raises(ConfigError, match="expected a positive number"):
        export_dataset(whole_dataset, "webdataset", tmp_path / "out", shard_bytes=0)
    (whole_dataset / "records.jsonl").write_text("")
    for name in FILES:
        (whole_dataset / f"{name}.jsonl").write_text("")
    with pytest.raises(RecordError, match="holds no record"):
        export_dataset(whole_dataset, "webdataset", tmp_path / "out")
