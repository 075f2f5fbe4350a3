"""One text file an image to annotations: rows of four pixel numbers and a class, as EDD2020 publishes its boxes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from gastrovl.core.config import Config
from gastrovl.core.errors import SourceError
from gastrovl.data.annotation import Annotation, box_of_pixels, parse_numbers
from gastrovl.data.formats.textlines import files_below, numbered_rows
from gastrovl.data.images import ImageFolder


class Options(Config):
    """Attributes: `folder` holds STEM.txt files; `box_order` is xyxy (corners) or xywh (corner and size), in pixels."""

    folder: str
    box_order: Literal["xyxy", "xywh"] = "xyxy"


def read(root: Path, options: Options, images: ImageFolder) -> Iterator[Annotation]:
    """One annotation a row.

    Raises:
        SourceError: The folder is missing, or a row is not four pixel numbers and a class; the message names the line.
    """
    for path, name in files_below(root, options.folder, ".txt"):
        for where, row in numbered_rows(path):
            texts = row.split(maxsplit=4)
            if len(texts) != 5:
                raise SourceError(
                    f"{where}: found {row!r}, expected four pixel numbers and a class; correct the row, or `format` in "
                    "the source description"
                )
            numbers = parse_numbers(texts[:4], where)
            image = images.find(name, where)
            if image is None or image.size_wh is None:
                continue
            yield Annotation(
                image, texts[4], where, box=box_of_pixels(numbers, options.box_order, image.size_wh, where)
            )
