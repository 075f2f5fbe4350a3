"""HyperKvasir's bounding-boxes.json to annotations: one entry an image stem, with its size and its boxes in pixels.

An entry reads {height, width, bbox: [{label, xmin, ymin, xmax, ymax}]}.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gastrovl.core.config import Config
from gastrovl.core.errors import SourceError
from gastrovl.data.annotation import Annotation, box_of_pixels
from gastrovl.data.formats.textlines import parse_json, read_utf8, require_file
from gastrovl.data.images import ImageFile, ImageFolder

CORNERS = ("xmin", "ymin", "xmax", "ymax")


class Options(Config):
    """Attributes: `file` is the JSON file, relative to the source's root."""

    file: str


def read(root: Path, options: Options, images: ImageFolder) -> Iterator[Annotation]:
    """One annotation a box.

    Raises:
        SourceError: The file is missing, is not JSON of this form, or a box or size is wrong.
    """
    path = require_file(root, options.file)
    text = read_utf8(path)
    content = parse_json(text, str(path))
    if not isinstance(content, dict):
        raise SourceError(
            f"{path}: found a {type(content).__name__}, expected an object of image names; check `format`"
        )
    lines = _line_numbers(text)
    for stem, entry in content.items():
        where = f"{path}:{lines.get(stem, 1)} (entry {stem!r})"
        image = images.find(stem, where)
        boxes = _boxes(entry, where)
        if image is not None and image.size_wh is not None:
            _check_size(entry, image, where)
            for label, numbers in boxes:
                yield Annotation(image, label, where, box=box_of_pixels(numbers, "xyxy", image.size_wh, where))


def _boxes(entry: Any, where: str) -> list[tuple[str, tuple[float, ...]]]:
    try:
        return [(str(box["label"]), tuple(float(box[corner]) for corner in CORNERS)) for box in entry["bbox"]]
    except (TypeError, KeyError, ValueError, OverflowError) as error:
        raise SourceError(
            f"{where}: found {str(entry)[:120]!r}, expected height, width and bbox: [{{label, {', '.join(CORNERS)}}}] "
            f"({type(error).__name__}: {error}); correct that entry"
        ) from error


def _check_size(entry: dict[str, Any], image: ImageFile, where: str) -> None:
    stated = (entry.get("width"), entry.get("height"))
    if stated != image.size_wh and stated != (None, None):
        raise SourceError(
            f"{where}: states an image of {stated[0]}x{stated[1]} px, but {image.path} has "
            f"{image.size_wh[0] if image.size_wh else 0}x{image.size_wh[1] if image.size_wh else 0}; expected the same "
            "size. Copy the original image, because the boxes are in its pixels"
        )


def _line_numbers(text: str) -> dict[str, int]:
    """Line of every key that opens an object, counted from 1."""
    lines: dict[str, int] = {}
    number, last = 1, 0
    for match in re.finditer(r'"((?:[^"\\]|\\.)*)"\s*:\s*\{', text):
        number += text.count("\n", last, match.start())
        last = match.start()
        lines.setdefault(match.group(1), number)
    return lines
