"""A CSV table to annotations: one row an image and label, with patient and split columns where the table has them."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from gastrovl.core.config import Config
from gastrovl.core.errors import SourceError
from gastrovl.core.types import Box
from gastrovl.data.annotation import Annotation, box_of_pixels, parse_numbers
from gastrovl.data.formats.textlines import read_utf8, require_file
from gastrovl.data.images import ImageFile, ImageFolder


class Options(Config):
    """Which columns say what.

    Attributes:
        file: The table, relative to the source's root; its first row names the columns.
        image, label: Columns of the image's name and of the label.
        group, split: Columns of the patient (or video) key and of the official split, if any.
        box: The four columns of a box in pixels, if any; empty cells mean the image as a whole.
        delimiter: Between columns.
        label_delimiter: Between several labels in one cell, if that happens.
        skip_unlabelled: Rows with an empty label cell say nothing, e.g. where experts did not agree.
    """

    file: str
    image: str = "image"
    label: str = "label"
    group: str | None = None
    split: str | None = None
    box: tuple[str, str, str, str] | None = None
    box_order: Literal["xyxy", "xywh"] = "xyxy"
    delimiter: str = ","
    label_delimiter: str | None = None
    skip_unlabelled: bool = False


def read(root: Path, options: Options, images: ImageFolder) -> Iterator[Annotation]:
    """One annotation a row and label.

    Raises:
        SourceError: The table is missing, lacks a column, or a row is too short.
    """
    path = require_file(root / options.file)
    rows = csv.DictReader(io.StringIO(read_utf8(path), newline=""), delimiter=options.delimiter)
    _check_columns(path, rows.fieldnames or (), options)
    for row in rows:
        where = f"{path}:{rows.line_num}"
        if options.skip_unlabelled and not (row[options.label] or "").strip():
            continue
        image = images.find(_cell(row, options.image, where), where)
        if image is None:
            continue
        cell = _cell(row, options.label, where)
        labels = cell.split(options.label_delimiter) if options.label_delimiter else [cell]
        for label in labels:
            yield Annotation(
                image,
                label.strip(),
                where,
                box=_box(row, options, image, where),
                group=_cell(row, options.group, where) if options.group else None,
                split=_cell(row, options.split, where) if options.split else None,
            )


def _check_columns(path: Path, names: Sequence[str], options: Options) -> None:
    wanted = [options.image, options.label, options.group, options.split, *(options.box or ())]
    missing = [name for name in wanted if name is not None and name not in names]
    if missing:
        raise SourceError(
            f"{path}:1: found columns {', '.join(names) or 'none'}, expected also {', '.join(missing)}; correct the "
            "column names or `delimiter` in the source description"
        )


def _cell(row: dict[str, str | None], column: str, where: str) -> str:
    value = (row[column] or "").strip()
    if not value:
        raise SourceError(f"{where}: column {column!r} is empty; expected a value. Fill it in or delete the row")
    return value


def _box(row: dict[str, str | None], options: Options, image: ImageFile, where: str) -> Box | None:
    if options.box is None or image.size_wh is None:
        return None
    texts = [(row[column] or "").strip() for column in options.box]
    if not any(texts):
        return None
    return box_of_pixels(parse_numbers(texts, where), options.box_order, image.size_wh, where)
