"""A built dataset folder to the files of another tool: for editing, in shards for training, or as a benchmark task."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from gastrovl.core.errors import ConfigError
from gastrovl.core.files import sha256_file, whole_folder, write_text
from gastrovl.core.manifest import write_manifest
from gastrovl.data.exporters.built import BuiltSet, read_built
from gastrovl.data.exporters.detection import write_coco, write_voc, write_yolo
from gastrovl.data.exporters.dialogues import write_coloninst, write_llava
from gastrovl.data.exporters.harnesses import SPLITS, write_lmms_eval, write_vlmevalkit
from gastrovl.data.exporters.hubcard import Exported, write_hub_card
from gastrovl.data.exporters.parquet import write_parquet
from gastrovl.data.exporters.streamed import conversation_files
from gastrovl.data.exporters.webdataset import write_webdataset

# Each writes its files into an empty folder and returns `images` and `annotations` of the description that reads them.
EXPORTERS: dict[str, Callable[[BuiltSet, Path], dict[str, Any]]] = {
    "coco": write_coco,
    "voc": write_voc,
    "yolo": write_yolo,
    "llava": write_llava,
    "coloninst": write_coloninst,
}

# Each streams a dataset folder into an empty folder, in files of about so many bytes; these are for reading by others.
SHARDED: dict[str, Callable[[Path, Path, int], Exported]] = {"parquet": write_parquet, "webdataset": write_webdataset}
# Each writes the val and test questions as a task of another evaluation harness, and returns the sources' licences.
HARNESSES: dict[str, Callable[[Path, Path], dict[str, str]]] = {
    "lmms-eval": write_lmms_eval,
    "vlmevalkit": write_vlmevalkit,
}
SHARD_BYTES = 400 * 10**6  # of a shard unless asked otherwise
_NOTES = {
    "parquet": (
        "Config `conversations` has a row a conversation with its image, config `images` a row an image with its "
        "findings. Boxes are [x0, y0, x1, y1]: `boxes` in fractions of the image, `boxes_px` in pixels of the picture "
        "in `image`; `width_px` and `height_px` are those of the original.",
        '```python\nimport datasets\n\nrows = datasets.load_dataset("FOLDER", "conversations", split="train")\n```',
    ),
    "webdataset": (
        "`SPLIT-NNNNNN.tar` hold a picture and its JSON under one name: `labels`, the record of the image under "
        "`sample`, and `conversations`, each with the `file` of the dataset it stands in. `index.json` lists the "
        "shards of each split with samples, bytes and sha256. Images stand in the order of the records, so neighbours "
        "are alike: read shards in random order and through a buffer that shuffles.",
        "```python\nimport webdataset\n\n"
        'shards = webdataset.WebDataset("FOLDER/train-{000000..000009}.tar", shardshuffle=100)\n'
        'rows = shards.shuffle(1000).decode("pil").to_tuple("png;jpg;jpeg", "json")\n```',
        "The library `datasets` cannot read them, because it guesses a field's type from the first few samples; for "
        "it, export to Parquet.",
    ),
}


def export_dataset(
    dataset: Path, name: str, output: Path, *, is_replaced: bool = False, shard_bytes: int = SHARD_BYTES
) -> Path:
    """Write the dataset folder `dataset` in the format `name` to the folder `output`; all of it appears or nothing.

    Formats of `EXPORTERS` come with `source.yaml`, a source description with which `gastrovl data build` reads the
    export back, those of `SHARDED` with the dataset's card as README.md. Those of `HARNESSES` hold val and test
    questions only.

    Args:
        shard_bytes: About the size of a file, of the formats of `SHARDED`.

    Raises:
        ConfigError: There is no such format, or `shard_bytes` is not positive.
        MissingExtraError: The format needs a library that is not installed.
        RecordError, SourceError, ImageError: `dataset` is no whole dataset folder.
        OutputError: `output` is not free.
    """
    known = [*EXPORTERS, *SHARDED, *HARNESSES]
    if name not in known:
        raise ConfigError(f"format {name!r} is not known; expected one of {', '.join(known)}")
    if shard_bytes <= 0:
        raise ConfigError(f"shard size: found {shard_bytes} bytes, expected a positive number")
    dataset = Path(dataset)
    built = read_built(dataset) if name in EXPORTERS else None
    with whole_folder(Path(output), is_replaced=is_replaced) as folder:
        if built is not None:
            write_text(folder / "source.yaml", _description(built, name, EXPORTERS[name](built, folder)))
            files, licences = list(built.conversations), built.licences
        elif name in HARNESSES:
            licences = dict(sorted(HARNESSES[name](dataset, folder).items()))
            files = [split.value for split in SPLITS]
        else:
            exported = SHARDED[name](dataset, folder, shard_bytes)
            write_hub_card(dataset, folder, exported, _NOTES[name])
            files, licences = conversation_files(dataset), dict(sorted(exported.licences.items()))
        write_manifest(
            folder,
            stage="data export",
            config={"format": name, **({"shard_bytes": shard_bytes} if name in SHARDED else {})},
            seed=None,
            inputs={
                path.name: sha256_file(path)
                for path in (dataset / "records.jsonl", *(dataset / f"{file}.jsonl" for file in files))
                if path.is_file()
            },
            licences=licences,
        )
    return Path(output)


def _description(built: BuiltSet, name: str, read_back: dict[str, Any]) -> str:
    content = {
        "name": f"exported_{name}",
        "title": f"Export of {', '.join(built.licences)} in the format {name}",
        "licence": "; ".join(dict.fromkeys(built.licences.values())) or "not stated",
        "citation": f"Cite the sources: {', '.join(built.licences)}",
        **read_back,
        "labels": built.label_rules(),
    }
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=110)
    return "# Reads this export back: `gastrovl data build` with this description and this folder as its root.\n" + text
