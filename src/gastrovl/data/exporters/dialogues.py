"""Conversations of a dataset folder to LLaVA or ColonINST JSON, one list a split.

Each record has, besides `id`, `image` and `conversations`, the keys task, labels (term ids), group, split, source and
licence, and questions of a kind of our own `kind` and the `boxes` (fractions) that they rest on; trainers pass them
over, and the reader `conversations` needs them to lose nothing. Texts are written word by word; other wordings of a
training turn are not, because the formats have no place for them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gastrovl.clinical.answers import SEPARATOR
from gastrovl.core.boxtext import into_coloninst
from gastrovl.core.files import write_text
from gastrovl.core.types import Conversation, Sample
from gastrovl.data.exporters.built import BuiltSet, image_name

IMAGE_MARK = "<image>\n"


def write_llava(built: BuiltSet, folder: Path) -> dict[str, Any]:
    """Boxes stay as this package writes them, `[x0,y0,x1,y1]` in bins 0-999; ids are the conversations'."""
    return _write(built, folder, is_coloninst=False)


def write_coloninst(built: BuiltSet, folder: Path) -> dict[str, Any]:
    """Boxes become raw pixels of the stored image, `{<x0><y0><x1><y1>}`; the id is the image's path, as there."""
    return _write(built, folder, is_coloninst=True)


def _write(built: BuiltSet, folder: Path, *, is_coloninst: bool) -> dict[str, Any]:
    samples = {sample.id: sample for sample in built.samples}
    files = {}
    for split, items in built.conversations.items():
        records = [_record(item, samples[item.sample_id], built, is_coloninst) for item in items]
        files[split] = f"{split}.json"
        write_text(folder / files[split], json.dumps(records, indent=1, ensure_ascii=False) + "\n")
    for sample in built.samples:
        built.store_image(sample, folder / "images" / image_name(sample))
    reader = {
        "format": "conversations",
        "files": files,
        "boxes": "pixels" if is_coloninst else "bins",
        "label_separator": SEPARATOR,
        "wording": "source",
    }
    return {"images": ["images/**/*.*"], "annotations": [reader]}


def _record(item: Conversation, sample: Sample, built: BuiltSet, is_coloninst: bool) -> dict[str, Any]:
    size_wh = built.sizes_wh[sample.id]
    turns = []
    for number, turn in enumerate(item.turns):
        text = into_coloninst(turn.text, item.target.boxes, size_wh) if is_coloninst else turn.text
        speaker = "human" if turn.role == "user" else "gpt"
        turns.append({"from": speaker, "value": IMAGE_MARK + text if number == 0 else text})
    path = f"images/{image_name(sample)}"
    return {
        "id": path if is_coloninst else item.id,
        "image": path,
        "conversations": turns,
        "task": item.task.value,
        **({"kind": item.kind.value, "boxes": [box.xyxy for box in item.target.boxes]} if item.kind else {}),
        "labels": list(item.target.terms),
        "group": item.group,
        "split": item.split.value,
        "source": item.source,
        "licence": sample.licence,
    }
