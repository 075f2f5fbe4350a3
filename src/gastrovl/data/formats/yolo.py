"""YOLO text files to annotations: rows of class index, centre and size as fractions, with a list of class names."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path

from gastrovl.core import geometry
from gastrovl.core.config import Config
from gastrovl.core.errors import GeometryError, SourceError
from gastrovl.core.types import Box
from gastrovl.data.annotation import Annotation, parse_numbers
from gastrovl.data.formats.textlines import files_below, numbered_rows, require_file
from gastrovl.data.images import ImageFolder

_INDEX = re.compile("[0-9]{1,6}")
TOLERANCE = 0.01  # fractions: rounding may push an edge this far outside the image


class Options(Config):
    """Attributes: `folder` holds STEM.txt files; `classes` is a text file of class names, one a line, in order."""

    folder: str
    classes: str


def read(root: Path, options: Options, images: ImageFolder) -> Iterator[Annotation]:
    """One annotation a row.

    Raises:
        SourceError: A folder or file is missing, or a row is wrong; the message names the line.
    """
    classes_path = require_file(root, options.classes)
    classes = [row for _, row in numbered_rows(classes_path)]
    for path, name in files_below(root, options.folder, ".txt"):
        if path == classes_path:
            continue
        for where, row in numbered_rows(path):
            texts = row.split()
            if len(texts) != 5:
                raise SourceError(
                    f"{where}: found {row!r}, expected `class x-centre y-centre width height`; correct the row, or "
                    "`format` in the source description"
                )
            label = _class_name(texts[0], classes, classes_path, where)
            box = _box(parse_numbers(texts[1:], where), where)
            image = images.find(name, where)
            if image is not None:
                yield Annotation(image, label, where, box=box)


def _class_name(index: str, classes: list[str], path: Path, where: str) -> str:
    if not _INDEX.fullmatch(index) or int(index) >= len(classes):
        raise SourceError(
            f"{where}: found class {index!r}, expected an index from 0 to {len(classes) - 1} into {path}; correct the "
            "row or complete the list of classes"
        )
    return classes[int(index)]


def _box(numbers: tuple[float, ...], where: str) -> Box:
    centre_x, centre_y, width, height = numbers
    found = " ".join(f"{number:g}" for number in numbers)
    if not all(math.isfinite(number) for number in numbers) or width <= 0 or height <= 0:
        raise SourceError(
            f"{where}: box {found} has width {width:g} and height {height:g}; expected both above 0 for (x-centre, "
            "y-centre, width, height) in fractions. Correct the row"
        )
    edges = (centre_x - width / 2, centre_y - height / 2, centre_x + width / 2, centre_y + height / 2)
    if min(edges) < -TOLERANCE or max(edges) > 1 + TOLERANCE:
        raise SourceError(
            f"{where}: box {found} leaves the image; expected fractions of it. If the numbers are pixels, use "
            "`format: box_text`"
        )
    try:
        return geometry.clip(*edges)
    except GeometryError as error:
        raise SourceError(f"{where}: box {found}: {error}") from error
