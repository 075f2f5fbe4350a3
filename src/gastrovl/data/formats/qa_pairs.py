"""Questions with answers, in a table or JSON, to annotations that keep both word by word."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pydantic import Field

from gastrovl.core.config import Config
from gastrovl.core.types import Task
from gastrovl.data.annotation import Annotation, SourceDialogue
from gastrovl.data.formats.tables import read_table
from gastrovl.data.formats.textlines import require_file
from gastrovl.data.images import ImageFolder


class Options(Config):
    """Which columns (or keys) say what.

    Attributes:
        file: The table, relative to the source's root (.csv, .xlsx, .json or .jsonl).
        sheet: The sheet of an Excel file; its first one by default.
        image, question, answer: Columns of the image's name, the question and its answer.
        group, split: Columns of the patient (or video) key and of the official split, if any.
        delimiter: Between columns of a CSV file.
    """

    file: str
    sheet: str | None = None
    image: str = "image"
    question: str = "question"
    answer: str = "answer"
    group: str | None = None
    split: str | None = None
    delimiter: str = Field(default=",", min_length=1, max_length=1)


def read(root: Path, options: Options, images: ImageFolder) -> Iterator[Annotation]:
    """One annotation a question, without a label of its own; it becomes a conversation of the task VQA.

    Raises:
        SourceError: The table is missing, cannot be read or lacks a column, or a cell that counts is empty.
        MissingExtraError: It is an Excel file, and openpyxl is not installed.
    """
    path = require_file(root, options.file)
    wanted = (options.image, options.question, options.answer, options.group, options.split)
    for row in read_table(path, wanted, delimiter=options.delimiter, sheet=options.sheet):
        image = images.find(row.text(options.image), row.where)
        if image is None:
            continue
        turns = ((row.text(options.question), row.text(options.answer)),)
        yield Annotation(
            image,
            None,
            row.where,
            group=row.text(options.group) if options.group else None,
            split=row.text(options.split) if options.split else None,
            dialogue=SourceDialogue(Task.VQA, turns),
        )
