"""A dataset folder to WebDataset shards: tar files whose members of one name are a picture and its JSON.

A shard is the same bytes for the same dataset: members in the order of records.jsonl, without times and owners.
"""

from __future__ import annotations

import io
import json
import tarfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gastrovl.core.files import sha256_file, write_text
from gastrovl.core.records import schema_name
from gastrovl.core.types import Conversation, Sample
from gastrovl.data.exporters.hubcard import Exported
from gastrovl.data.exporters.parquet import image_row
from gastrovl.data.exporters.streamed import BuiltImage, stream_built
from gastrovl.data.frontmatter import hub_split

SCHEMA = "gastrovl/webdataset/1"


def write_webdataset(dataset: Path, folder: Path, shard_bytes: int) -> Exported:
    """`SPLIT-NNNNNN.tar` of at most about `shard_bytes` each, and `index.json`; memory holds one image.

    A picture keeps its bytes and its ending. Its JSON holds `id`, `labels`, `size_wh` (of the stored image, pixels),
    `sample` (the record), and `conversations`, each a record with the `file` of the dataset that it stands in.

    Raises:
        RecordError, SourceError, ImageError: `dataset` is no whole dataset folder.
    """
    exported, writers = Exported(), dict[str, _ShardWriter]()
    try:
        for number, built in enumerate(stream_built(dataset)):
            split = hub_split(built.sample.split.value)
            if split not in writers:
                writers[split] = _ShardWriter(folder, split, shard_bytes)
            text = json.dumps(_content(built), ensure_ascii=False).encode()
            members = {built.path.suffix.lower(): built.path.read_bytes(), ".json": text}
            writers[split].add(f"{number:09d}", members)
            exported.count(built)
    finally:
        for writer in writers.values():
            writer.close()
    splits = {split: writers[split] for split in ("train", "validation", "test") if split in writers}
    index = {"schema": SCHEMA, "splits": {split: writer.index() for split, writer in splits.items()}}
    write_text(folder / "index.json", json.dumps(index, indent=2) + "\n")
    return exported


def _content(built: BuiltImage) -> dict[str, Any]:
    """Every sample has the same keys, also where they hold nothing, so that a reader need not ask for each."""
    return {
        "id": built.sample.id,
        "labels": image_row(built)["labels"],
        "size_wh": list(built.size_wh),
        "sample": {"schema": schema_name(Sample), **built.sample.model_dump(mode="json")},
        "conversations": [
            {"file": name, "schema": schema_name(Conversation), **item.model_dump(mode="json")}
            for name, items in built.conversations.items()
            for item in items
        ],
    }


@dataclass
class _ShardWriter:
    """Samples to numbered tar files; a new one begins where the next sample would make one too large."""

    folder: Path
    split: str
    shard_bytes: int
    samples: int = 0
    _shards: list[dict[str, Any]] = field(default_factory=list)
    _tar: tarfile.TarFile | None = None

    def add(self, key: str, members: dict[str, bytes]) -> None:
        # A member takes a header of 512 bytes and its content in blocks of 512.
        size = sum(512 + (len(content) + 511) // 512 * 512 for content in members.values())
        if self._tar is None or self._shards[-1]["bytes"] + size > self.shard_bytes:
            self.close()
            self._shards.append({"name": f"{self.split}-{len(self._shards):06d}.tar", "samples": 0, "bytes": 0})
            self._tar = tarfile.open(self.folder / self._shards[-1]["name"], "w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115
        for ending, content in members.items():
            member = tarfile.TarInfo(f"{key}{ending}")  # time 0, owner 0
            member.size = len(content)
            self._tar.addfile(member, io.BytesIO(content))
        self._shards[-1]["samples"] += 1
        self._shards[-1]["bytes"] += size
        self.samples += 1

    def close(self) -> None:
        if self._tar is not None:
            self._tar.close()
            self._tar = None

    def index(self) -> dict[str, Any]:
        """Samples of the split, and name, samples, bytes and sha256 of each of its shards."""
        files = [self.folder / shard["name"] for shard in self._shards]
        return {
            "samples": self.samples,
            "shards": [
                {**shard, "bytes": file.stat().st_size, "sha256": sha256_file(file)}
                for shard, file in zip(self._shards, files, strict=True)
            ],
        }
