"""The split that a source publishes, from a table's column, lists of names or the path, in our three words."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from gastrovl.core.errors import SourceError
from gastrovl.core.types import Split
from gastrovl.data.formats.textlines import numbered_rows, read_utf8, require_file
from gastrovl.data.images import ImageFile
from gastrovl.data.source import OfficialSplit, SplitTable


def official_splits(
    images: Sequence[ImageFile], said: Sequence[str | None], rule: OfficialSplit | None, root: Path
) -> list[Split | None]:
    """The official split of each image, or None where the source gives none.

    Args:
        said: What a split column of the annotations says of each image.
        rule: The source's `official_split`.
        root: The source's folder, in which lists of names lie.

    Raises:
        SourceError: A list or table is missing or names none of the images, an image is in two splits, or a word for a
            split is not known.
    """
    rule = rule or OfficialSplit()
    listed = _read_lists(rule, root)
    splits: list[Split | None] = []
    for image, word in zip(images, said, strict=True):
        where = str(image.path)
        if word is None and rule.pattern:
            match = re.search(rule.pattern, image.name)
            word = match.groupdict().get("split") if match else None
        if word is not None:
            splits.append(_translate(word, rule, where))
        else:
            splits.append(next((listed[key] for key in _keys(image) if key in listed), None))
    if listed and images and not any(splits):
        raise SourceError(
            f"{root}: the official split names {len(listed):,} images, but none of the {len(images):,} that are there, "
            f"e.g. {images[0].name!r}; expected the files of one release. Correct `official_split`, or leave it out"
        )
    return splits


def _keys(image: ImageFile) -> tuple[str, ...]:
    """The names under which a list may speak of an image, the longest first."""
    return (image.name, image.key, "/".join(PurePosixPath(image.name).parts[-2:]), image.stem)


def _read_lists(rule: OfficialSplit, root: Path) -> dict[str, Split]:
    listed: dict[str, Split] = {}
    for where, name, split in _rows(rule, root):
        for key in {name, str(PurePosixPath(name).with_suffix(""))}:
            if listed.get(key, split) is not split:
                raise SourceError(
                    f"{where}: {name!r} is also listed for {listed[key].value}; expected each image in one split. "
                    "Delete one of the two lines"
                )
            listed[key] = split
    return listed


def _rows(rule: OfficialSplit, root: Path) -> Iterator[tuple[str, str, Split]]:
    """("file:line", name, split) of every row of all lists and tables."""
    for split, file in rule.lists.items():
        for where, name in numbered_rows(require_file(root, file)):
            yield where, name, split
    for table in rule.tables:
        yield from _table_rows(table, rule, root)


def _table_rows(table: SplitTable, rule: OfficialSplit, root: Path) -> Iterator[tuple[str, str, Split]]:
    path = require_file(root, table.file)
    rows = csv.DictReader(io.StringIO(read_utf8(path), newline=""), delimiter=table.delimiter)
    wanted = [name for name in (table.image, table.folder, table.column) if name]
    missing = [name for name in wanted if name not in (rows.fieldnames or ())]
    if missing:
        raise SourceError(
            f"{path}:1: found columns {', '.join(rows.fieldnames or ()) or 'none'}, expected also "
            f"{', '.join(missing)}; correct `official_split.tables` in the source description"
        )
    for row in rows:
        where = f"{path}:{rows.line_num}"
        cells = [(row[name] or "").strip() for name in wanted]
        if not all(cells):
            raise SourceError(f"{where}: a column of {', '.join(wanted)} is empty; expected a value. Fill it in")
        name = f"{row[table.folder]}/{row[table.image]}" if table.folder else str(row[table.image])
        yield where, name, table.split or _translate(cells[-1], rule, where)


def _translate(word: str, rule: OfficialSplit, where: str) -> Split:
    if word in rule.names:
        return rule.names[word]
    try:
        return Split(word.lower())
    except ValueError as error:
        raise SourceError(
            f"{where}: found split {word!r}, expected train, val or test; add it to `official_split.names` in the "
            f"source description, e.g. `{word}: val`"
        ) from error
