"""A table (CSV, Excel or JSON) to annotations: one row an image and label, with patient and split columns."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic import Field

from gastrovl.core.config import Config
from gastrovl.core.types import Box
from gastrovl.data.annotation import Annotation, box_of_pixels, parse_numbers
from gastrovl.data.formats.tables import Row, read_table
from gastrovl.data.formats.textlines import require_file
from gastrovl.data.images import ImageFile, ImageFolder


class Options(Config):
    """Which columns say what.

    Attributes:
        file: The table, relative to the source's root (.csv, .xlsx, .json or .jsonl); its first row names the columns.
        sheet: The sheet of an Excel file; its first one by default.
        image, label: Columns of the image's name and of the label; `label: null` when the table only gives patients or
            splits.
        group, split: Columns of the patient (or video) key and of the official split, if any.
        box: The four columns of a box in pixels, if any; empty cells mean the image as a whole.
        delimiter: Between columns of a CSV file.
        label_delimiter: Between several labels in one cell, if that happens.
        skip_unlabelled: Rows with an empty label cell say nothing, e.g. where experts did not agree.
    """

    file: str
    sheet: str | None = None
    image: str = "image"
    label: str | None = "label"
    group: str | None = None
    split: str | None = None
    box: tuple[str, str, str, str] | None = None
    box_order: Literal["xyxy", "xywh"] = "xyxy"
    delimiter: str = Field(default=",", min_length=1, max_length=1)
    label_delimiter: str | None = Field(default=None, min_length=1)
    skip_unlabelled: bool = False


def read(root: Path, options: Options, images: ImageFolder) -> Iterator[Annotation]:
    """One annotation a row and label.

    Raises:
        SourceError: The table is missing, cannot be read or lacks a column, or a cell that counts is empty.
        MissingExtraError: It is an Excel file, and openpyxl is not installed.
    """
    path = require_file(root, options.file)
    wanted = (options.image, options.label, options.group, options.split, *(options.box or ()))
    for row in read_table(path, wanted, delimiter=options.delimiter, sheet=options.sheet):
        if options.skip_unlabelled and options.label is not None and not row.cells.get(options.label):
            continue
        image = images.find(row.text(options.image), row.where)
        if image is None:
            continue
        for label in _labels(row, options):
            yield Annotation(
                image,
                label,
                row.where,
                box=_box(row, options, image),
                group=row.text(options.group) if options.group else None,
                split=row.text(options.split) if options.split else None,
            )


def _labels(row: Row, options: Options) -> list[str | None]:
    if options.label is None:
        return [None]
    cell = row.text(options.label)
    return [label.strip() for label in (cell.split(options.label_delimiter) if options.label_delimiter else [cell])]


def _box(row: Row, options: Options, image: ImageFile) -> Box | None:
    if options.box is None or image.size_wh is None:
        return None
    texts = [row.cells.get(column, "") for column in options.box]
    if not any(texts):
        return None
    return box_of_pixels(parse_numbers(texts, row.where), options.box_order, image.size_wh, row.where)
