"""A built dataset folder to the files of another tool, with a source description that reads them back."""

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

# Each writes its files into an empty folder and returns `images` and `annotations` of the description that reads them.
EXPORTERS: dict[str, Callable[[BuiltSet, Path], dict[str, Any]]] = {
    "coco": write_coco,
    "voc": write_voc,
    "yolo": write_yolo,
    "llava": write_llava,
    "coloninst": write_coloninst,
}


def export_dataset(dataset: Path, name: str, output: Path, *, is_replaced: bool = False) -> Path:
    """Write the dataset folder `dataset` in the format `name` to the folder `output`; all of it appears or nothing.

    `output` also holds `source.yaml`, a source description with which `gastrovl data build` reads the export back.

    Raises:
        ConfigError: There is no such format.
        RecordError, SourceError, ImageError: `dataset` is no whole dataset folder.
        OutputError: `output` is not free.
    """
    if name not in EXPORTERS:
        raise ConfigError(f"format {name!r} is not known; expected one of {', '.join(EXPORTERS)}")
    dataset = Path(dataset)
    built = read_built(dataset)
    with whole_folder(Path(output), is_replaced=is_replaced) as folder:
        read_back = EXPORTERS[name](built, folder)
        write_text(folder / "source.yaml", _description(built, name, read_back))
        write_manifest(
            folder,
            stage="data export",
            config={"format": name},
            seed=None,
            inputs={
                path.name: sha256_file(path)
                for path in (dataset / "records.jsonl", *(dataset / f"{split}.jsonl" for split in built.conversations))
                if path.is_file()
            },
            licences=built.licences,
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
