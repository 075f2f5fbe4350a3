"""A dataset folder to Parquet as `datasets.load_dataset` and the Hugging Face Hub read it, with images inside.

Config `images` has a row an image, config `conversations` a row a conversation with its image. Rows of one image follow
each other, so its bytes are written once in a group of rows and named again by the others (dictionary encoding).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gastrovl.core import geometry
from gastrovl.core.errors import MissingExtraError
from gastrovl.core.types import Box, Conversation, Dialogue, Finding, Status
from gastrovl.data.exporters.hubcard import Exported
from gastrovl.data.exporters.streamed import BuiltImage, stream_built
from gastrovl.data.frontmatter import hub_split

GROUP_BYTES = 16 * 2**20  # of images in a group of rows, as a reader has them in memory
_TEXT_BYTES = 2**10  # about, of the other columns of a row
_REPEATED = ["source", "group", "split", "licence", "task", "kind"]  # columns of few values


def write_parquet(dataset: Path, folder: Path, shard_bytes: int) -> Exported:
    """`CONFIG/SPLIT-NNNNN-of-NNNNN.parquet` of about `shard_bytes` each; memory holds a few groups of rows.

    Raises:
        MissingExtraError: pyarrow is not installed.
        RecordError, SourceError, ImageError: `dataset` is no whole dataset folder.
    """
    schemas = _schemas()
    writers: dict[tuple[str, str], _ShardWriter] = {}
    exported = Exported()

    def add(config: str, split: str, row: dict[str, Any]) -> None:
        key = config, hub_split(split)
        if key not in writers:
            writers[key] = _ShardWriter(folder / config, key[1], schemas[config], shard_bytes)
        writers[key].add(row)

    try:
        for built in stream_built(dataset):
            image = {"bytes": built.path.read_bytes(), "path": built.name}
            add("images", built.sample.split.value, {"image": image, **image_row(built)})
            for name, items in built.conversations.items():
                for item in items:
                    add("conversations", name, {"image": image, **conversation_row(item, built)})
            exported.count(built)
        for (config, split), writer in sorted(writers.items(), key=_in_order):
            writer.finish()
            exported.add_split(config, split, f"{config}/{split}-*.parquet", writer.rows, writer.bytes_in_memory)
    finally:
        for writer in writers.values():
            writer.close()
    return exported


def image_row(built: BuiltImage) -> dict[str, Any]:
    """The columns of `images` but for the picture; boxes as fractions, and in pixels of the stored image."""
    sample = built.sample
    return {
        "id": sample.id,
        "labels": list(dict.fromkeys(item.term for item in sample.findings if item.status is Status.PRESENT)),
        "findings": [_finding(finding, built.size_wh) for finding in sample.findings],
        "text": sample.text,
        "dialogues": [_dialogue(dialogue, built.size_wh) for dialogue in sample.dialogues],
        **_origin(built),
    }


def conversation_row(item: Conversation, built: BuiltImage) -> dict[str, Any]:
    """The columns of `conversations` but for the picture."""
    return {
        "id": item.id,
        "sample_id": item.sample_id,
        "task": item.task.value,
        "kind": item.kind.value if item.kind else None,
        "turns": [turn.model_dump(mode="json") for turn in item.turns],
        "answer": item.answer,
        "labels": list(item.target.terms),
        **_boxes(item.target.boxes, built.size_wh),
        **_origin(built),
    }


def _origin(built: BuiltImage) -> dict[str, Any]:
    sample = built.sample
    return {
        "source": sample.source,
        "group": sample.group,
        "split": sample.split.value,
        "licence": sample.licence,
        "width_px": sample.image.width_px,
        "height_px": sample.image.height_px,
        "sha256": sample.image.sha256,
    }


def _finding(finding: Finding, size_wh: tuple[int, int]) -> dict[str, Any]:
    return {**finding.model_dump(mode="json", exclude={"boxes", "mask"}), **_boxes(finding.boxes, size_wh)}


def _dialogue(dialogue: Dialogue, size_wh: tuple[int, int]) -> dict[str, Any]:
    return {
        "task": dialogue.task.value,
        "kind": dialogue.kind.value if dialogue.kind else None,
        "turns": [turn.model_dump(mode="json") for turn in dialogue.turns],
        "labels": list(dialogue.target.terms),
        **_boxes(dialogue.target.boxes, size_wh),
    }


def _boxes(boxes: tuple[Box, ...], size_wh: tuple[int, int]) -> dict[str, Any]:
    return {
        "boxes": [list(box.xyxy) for box in boxes],
        "boxes_px": [list(geometry.to_pixels(box, size_wh)) for box in boxes],
    }


def _in_order(item: tuple[tuple[str, str], object]) -> tuple[str, int, str]:
    """`conversations` first, which the Hub shows; train, validation and test before what stands beside them."""
    config, split = item[0]
    main = ("train", "validation", "test")
    return config, main.index(split) if split in main else len(main), split


def _schemas() -> dict[str, Any]:
    """The columns of each config, with the note by which `datasets` knows that `image` is a picture."""
    pa = _pyarrow()
    text, real, whole = pa.string(), pa.float64(), pa.int64()
    image = pa.struct({"bytes": pa.binary(), "path": text})
    boxes = {"boxes": pa.list_(pa.list_(real)), "boxes_px": pa.list_(pa.list_(real))}
    turns = pa.list_(pa.struct({"role": text, "text": text, "alternatives": pa.list_(text)}))
    dialogue = pa.struct({"task": text, "kind": text, "turns": turns, "labels": pa.list_(text), **boxes})
    named = dict.fromkeys(("term", "status", "site", "grade"), text)
    finding = pa.struct({**named, "confidence": real, "origin": text, **boxes})
    origin = {**dict.fromkeys(("source", "group", "split", "licence"), text), "width_px": whole, "height_px": whole}
    columns: dict[str, dict[str, Any]] = {
        "images": {
            "image": image,
            "id": text,
            "labels": pa.list_(text),
            "findings": pa.list_(finding),
            "text": text,
            "dialogues": pa.list_(dialogue),
            **origin,
            "sha256": text,
        },
        "conversations": {
            "image": image,
            "id": text,
            "sample_id": text,
            "task": text,
            "kind": text,
            "turns": turns,
            "answer": text,
            "labels": pa.list_(text),
            **boxes,
            **origin,
            "sha256": text,
        },
    }
    return {config: _with_features(pa.schema(fields)) for config, fields in columns.items()}


def _pyarrow() -> Any:
    try:
        import pyarrow
    except ImportError as error:
        raise MissingExtraError('pyarrow is not installed; Parquet needs it: pip install "gastrovl[export]"') from error
    return pyarrow


def _with_features(schema: Any) -> Any:
    features = {one.name: {"_type": "Image"} if one.name == "image" else _feature(one.type) for one in schema}
    note = json.dumps({"info": {"features": features}})
    return schema.with_metadata({"huggingface": note})


def _feature(kind: Any) -> Any:
    """A column's type in the words of `datasets`, in a form that old and new versions read (3.6 and 5.2 do)."""
    from pyarrow import types

    if types.is_list(kind):
        return [_feature(kind.value_type)]
    if types.is_struct(kind):
        return {one.name: _feature(one.type) for one in (kind.field(n) for n in range(kind.num_fields))}
    return {"dtype": {"double": "float64"}.get(str(kind), str(kind)), "_type": "Value"}


@dataclass
class _ShardWriter:
    """Rows to numbered files; how many there are, and so their names, is known only at the end."""

    folder: Path
    split: str
    schema: Any
    shard_bytes: int
    rows: int = 0
    bytes_in_memory: int = 0
    _waiting: list[Mapping[str, Any]] = field(default_factory=list)
    _waiting_bytes: int = 0
    _files: list[Path] = field(default_factory=list)
    _open: Any = None
    _sink: Any = None

    def add(self, row: Mapping[str, Any]) -> None:
        self._waiting.append(row)
        self._waiting_bytes += len(row["image"]["bytes"]) + _TEXT_BYTES
        self.rows += 1
        if self._waiting_bytes >= min(GROUP_BYTES, self.shard_bytes):
            self._flush()

    def finish(self) -> None:
        """Write what waits, and give the files their names."""
        self._flush()
        self.close()
        for number, file in enumerate(self._files):
            file.rename(self.folder / f"{self.split}-{number:05d}-of-{len(self._files):05d}.parquet")

    def close(self) -> None:
        if self._open is not None:
            self._open.close()
            self._sink.close()
            self._open = self._sink = None

    def _flush(self) -> None:
        import pyarrow as pa
        from pyarrow import parquet

        if not self._waiting:
            return
        table = pa.Table.from_pylist(self._waiting, schema=self.schema)
        if self._open is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._files.append(self.folder / f".{self.split}-{len(self._files):05d}")
            self._sink = self._files[-1].open("wb")
            repeated = [name for name in _REPEATED if name in self.schema.names]
            if "sample_id" in self.schema.names:  # rows that share their image
                repeated.append("image.bytes")
            self._open = parquet.ParquetWriter(
                self._sink,
                self.schema,
                compression="zstd",
                use_dictionary=repeated,
                dictionary_pagesize_limit=2 * GROUP_BYTES,
                write_statistics=repeated[:4],
            )
        self._open.write_table(table, row_group_size=len(table))
        self.bytes_in_memory += table.nbytes
        self._waiting, self._waiting_bytes = [], 0
        if self._sink.tell() >= self.shard_bytes:
            self.close()


class RowFile:
    """Rows with a picture under `image` and texts under all other keys, to one Parquet file as `datasets` reads it.

    Raises:
        MissingExtraError: pyarrow is not installed.
    """

    def __init__(self, path: Path) -> None:
        self.path, self._waiting, self._bytes = path, list[Mapping[str, Any]](), 0
        self._schema: Any = None
        self._open: Any = None

    def add(self, row: Mapping[str, Any]) -> None:
        """Take a row; all have the keys of the first."""
        self._waiting.append(row)
        self._bytes += len(row["image"]["bytes"]) + _TEXT_BYTES
        if self._bytes >= GROUP_BYTES:
            self._flush()

    def close(self) -> None:
        """Write what waits."""
        self._flush()
        if self._open is not None:
            self._open.close()

    def _flush(self) -> None:
        if not self._waiting:
            return
        pa = _pyarrow()
        from pyarrow import parquet

        if self._open is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            picture = pa.struct({"bytes": pa.binary(), "path": pa.string()})
            fields = {name: picture if name == "image" else pa.string() for name in self._waiting[0]}
            self._schema = _with_features(pa.schema(fields))
            self._open = parquet.ParquetWriter(self.path, self._schema, compression="zstd")
        self._open.write_table(pa.Table.from_pylist(self._waiting, schema=self._schema))
        self._waiting, self._bytes = [], 0
