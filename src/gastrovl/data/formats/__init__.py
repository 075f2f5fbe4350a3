"""Foreign annotation formats, one file each: a folder as it was published to annotations in the source's own words."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gastrovl.core.config import Config
from gastrovl.data.annotation import Annotation
from gastrovl.data.formats import (
    box_text,
    class_folders,
    coco,
    conversations,
    csv_labels,
    cvat,
    json_boxes,
    labelme,
    masks,
    qa_pairs,
    voc,
    yolo,
)
from gastrovl.data.images import ImageFolder


@dataclass(frozen=True)
class Format:
    """A reader with the type of its options: `read(root, options, images)` yields annotations."""

    options: type[Config]
    read: Callable[[Path, Any, ImageFolder], Iterator[Annotation]]


FORMATS: dict[str, Format] = {
    "class_folders": Format(class_folders.Options, class_folders.read),
    "csv_labels": Format(csv_labels.Options, csv_labels.read),
    "box_text": Format(box_text.Options, box_text.read),
    "yolo": Format(yolo.Options, yolo.read),
    "json_boxes": Format(json_boxes.Options, json_boxes.read),
    "masks": Format(masks.Options, masks.read),
    "coco": Format(coco.Options, coco.read),
    "voc": Format(voc.Options, voc.read),
    "cvat": Format(cvat.Options, cvat.read),
    "labelme": Format(labelme.Options, labelme.read),
    "qa_pairs": Format(qa_pairs.Options, qa_pairs.read),
    "conversations": Format(conversations.Options, conversations.read),
}
