"""Boxes of a dataset folder to COCO, Pascal VOC and YOLO, with tables for what those formats have no place for.

`labels.csv` holds labels of whole images, `groups.csv` the group, split, source and licence of every image.
"""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath
from typing import Any
from xml.etree import ElementTree  # writes only; what is read goes through data/formats/xmltree.py

import yaml

from gastrovl.core import geometry
from gastrovl.core.errors import OutputError
from gastrovl.core.files import write_text
from gastrovl.core.types import Box, Sample, Split
from gastrovl.data.exporters.built import BuiltSet, above_of, image_name, label_of, present, write_csv


def write_coco(built: BuiltSet, folder: Path) -> dict[str, Any]:
    """`annotations/instances_SPLIT.json` and `images/`; boxes as x, y, width, height in pixels of the stored image."""
    labels = _boxed_labels(built)
    above = {label_of(finding): above_of(finding) for one in built.samples for finding in present(one)}
    categories = [
        {"id": number, "name": label, "supercategory": above[label]} for number, label in enumerate(labels, start=1)
    ]
    terms = sorted(set(built.licences.values()))
    licences = [{"id": number, "name": licence, "url": ""} for number, licence in enumerate(terms, start=1)]
    files: dict[str, str] = {}
    for split in Split:
        own = [(number, sample) for number, sample in enumerate(built.samples, start=1) if sample.split is split]
        images = [_coco_image(number, sample, built, terms) for number, sample in own]
        boxes = [
            {"image_id": number, "category_id": labels.index(label) + 1, **_coco_box(box, built.sizes_wh[sample.id])}
            for number, sample in own
            for label, box in _boxes(sample)
        ]
        content = {
            "images": images,
            "categories": categories,
            "licenses": licences,
            "annotations": [{"id": number, **box} for number, box in enumerate(boxes, start=1)],
        }
        files[split.value] = f"annotations/instances_{split.value}.json"
        write_text(folder / files[split.value], json.dumps(content, ensure_ascii=False) + "\n")
    for sample in built.samples:
        built.store_image(sample, folder / "images" / image_name(sample))
    return _read_back(built, folder, "images", {"format": "coco", "files": files})


def write_voc(built: BuiltSet, folder: Path) -> dict[str, Any]:
    """`Annotations/`, `JPEGImages/` and `ImageSets/Main/`; edges in whole pixels, at least one pixel apart.

    Raises:
        OutputError: An image's name holds a character that XML cannot hold.
    """
    for sample in built.samples:
        name = image_name(sample)
        built.store_image(sample, folder / "JPEGImages" / name)
        tree = _voc_tree(sample, name, built.sizes_wh[sample.id])
        ElementTree.indent(tree)
        text = ElementTree.tostring(tree, encoding="unicode")
        write_text(folder / "Annotations" / PurePosixPath(name).with_suffix(".xml"), text + "\n")
    for split in Split:
        names = [str(PurePosixPath(image_name(one)).with_suffix("")) for one in built.samples if one.split is split]
        write_text(folder / f"ImageSets/Main/{split.value}.txt", "".join(f"{name}\n" for name in names))
    # Tools ask for a list of labels that are not those of the original VOC: name, colour, parts, actions.
    write_text(folder / "labelmap.txt", "".join(f"{label}:::\n" for label in ["background", *_boxed_labels(built)]))
    return _read_back(built, folder, "JPEGImages", {"format": "voc", "folder": "Annotations"})


def write_yolo(built: BuiltSet, folder: Path) -> dict[str, Any]:
    """`images/SPLIT/`, `labels/SPLIT/`, `classes.txt` and `data.yaml`; centre and size as fractions, six decimals."""
    labels = _boxed_labels(built)
    for sample in built.samples:
        name = f"{sample.split.value}/{image_name(sample)}"
        built.store_image(sample, folder / "images" / name)
        rows = [f"{labels.index(label)} {_yolo_numbers(box)}\n" for label, box in _boxes(sample)]
        write_text(folder / "labels" / PurePosixPath(name).with_suffix(".txt"), "".join(rows))
    write_text(folder / "classes.txt", "".join(f"{label}\n" for label in labels))
    names = {"path": ".", **{split.value: f"images/{split.value}" for split in Split}, "names": dict(enumerate(labels))}
    write_text(folder / "data.yaml", yaml.safe_dump(names, sort_keys=False))
    options = {"format": "yolo", "folder": "labels", "classes": "classes.txt"}
    return _read_back(built, folder, "images", options, by_split=True)


def _read_back(
    built: BuiltSet, folder: Path, images: str, boxes: dict[str, Any], *, by_split: bool = False
) -> dict[str, Any]:
    """Write both tables; returns what a source description says of the whole export."""

    def name(sample: Sample) -> str:
        return f"{sample.split.value}/{image_name(sample)}" if by_split else image_name(sample)

    write_csv(
        folder / "groups.csv",
        ("image", "group", "split", "source", "licence"),
        ((name(one), one.group, one.split.value, one.source, one.licence) for one in built.samples),
    )
    whole = [(name(one), label_of(finding)) for one in built.samples for finding in present(one) if not finding.boxes]
    write_csv(folder / "labels.csv", ("image", "label"), whole)
    tables = [
        {"format": "csv_labels", "file": "groups.csv", "label": None, "group": "group", "split": "split"},
        {"format": "csv_labels", "file": "labels.csv"},
    ]
    return {"images": [f"{images}/**/*.*"], "annotations": [boxes, *tables]}


def _boxes(sample: Sample) -> list[tuple[str, Box]]:
    return [(label_of(finding), box) for finding in present(sample) for box in finding.boxes]


def _boxed_labels(built: BuiltSet) -> list[str]:
    return sorted({label for sample in built.samples for label, _ in _boxes(sample)})


def _coco_image(number: int, sample: Sample, built: BuiltSet, licences: list[str]) -> dict[str, Any]:
    width, height = built.sizes_wh[sample.id]
    return {
        "id": number,
        "file_name": image_name(sample),
        "width": width,
        "height": height,
        "license": licences.index(sample.licence) + 1 if sample.licence in licences else 0,
    }


def _coco_box(box: Box, size_wh: tuple[int, int]) -> dict[str, Any]:
    x0, y0, x1, y1 = geometry.to_pixels(box, size_wh)
    width, height = x1 - x0, y1 - y0
    return {"bbox": [x0, y0, width, height], "area": width * height, "iscrowd": 0, "segmentation": []}


def _voc_tree(sample: Sample, name: str, size_wh: tuple[int, int]) -> ElementTree.Element:
    if not name.isprintable():
        raise OutputError(f"image {name!r} has a character in its name that XML cannot hold; rename the image")
    tree = ElementTree.Element("annotation")
    ElementTree.SubElement(tree, "filename").text = name
    size = ElementTree.SubElement(tree, "size")
    for key, value in zip(("width", "height", "depth"), (*size_wh, 3), strict=True):
        ElementTree.SubElement(size, key).text = str(value)
    for label, box in _boxes(sample):
        thing = ElementTree.SubElement(tree, "object")
        ElementTree.SubElement(thing, "name").text = label
        corners = ElementTree.SubElement(thing, "bndbox")
        for key, value in zip(("xmin", "ymin", "xmax", "ymax"), geometry.to_whole_pixels(box, size_wh), strict=True):
            ElementTree.SubElement(corners, key).text = str(value)
    return tree


def _yolo_numbers(box: Box) -> str:
    numbers = ((box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2, box.x1 - box.x0, box.y1 - box.y0)
    return " ".join(f"{number:.6f}" for number in numbers)
