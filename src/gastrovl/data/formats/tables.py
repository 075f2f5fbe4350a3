"""Tables to numbered rows of texts, whatever file they come in: CSV, Excel, a JSON list of objects, or JSON lines."""

from __future__ import annotations

import csv
import datetime
import io
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gastrovl.core.errors import MissingExtraError, SourceError
from gastrovl.data.formats.textlines import numbered_rows, parse_json, read_bytes, read_json, read_utf8

EXCEL = (".xlsx", ".xlsm")
MAX_UNPACKED_BYTES = 500_000_000  # of a workbook, which is a ZIP file and could unfold without bound
MAX_CELLS = 50_000_000  # of a sheet, empty ones between others included; a few bytes can claim 17,000,000,000


@dataclass(frozen=True)
class Row:
    """One row of a table: texts by column, without surrounding white space; an absent cell is an empty text.

    Attributes:
        where: "file:line", or "file [sheet] row n" of a workbook.
    """

    where: str
    cells: dict[str, str]

    def text(self, column: str) -> str:
        """The text of a cell.

        Raises:
            SourceError: It is empty.
        """
        value = self.cells.get(column, "")
        if not value:
            raise SourceError(
                f"{self.where}: column {column!r} is empty; expected a value. Fill it in or delete the row"
            )
        return value


def read_table(
    path: Path, wanted: Iterable[str | None], *, delimiter: str = ",", sheet: str | None = None
) -> Iterator[Row]:
    """The rows of a table; its first row names the columns, and blank rows are skipped.

    Args:
        wanted: Columns that must be there; None among them is passed over.
        delimiter: Between the columns of a CSV file.
        sheet: Name of the sheet of a workbook; its first one by default.

    Raises:
        SourceError: The file cannot be read as its suffix says, or lacks a column.
        MissingExtraError: It is a workbook, and openpyxl is not installed.
    """
    needed = [name for name in wanted if name is not None]
    suffix = path.suffix.lower()
    if suffix in (".json", ".jsonl"):
        return _json_rows(path, needed)
    return _rows(_excel_cells(path, sheet) if suffix in EXCEL else _csv_cells(path, delimiter), needed, path)


def _rows(lines: Iterator[tuple[str, Sequence[str]]], needed: list[str], path: Path) -> Iterator[Row]:
    where, names = next(lines, (f"{path}:1", []))
    missing = [name for name in needed if name not in names]
    if missing:
        raise SourceError(
            f"{where}: found columns {', '.join(names)[:500] or 'none'}, expected also {', '.join(missing)}; correct "
            "the column names, `sheet` or `delimiter` in the source description"
        )
    double = sorted({name for name in needed if names.count(name) > 1})
    if double:
        raise SourceError(f"{where}: column {double[0]!r} is there twice; expected it once. Rename one of the two")
    for where, cells in lines:
        if any(cells):
            if len(cells) > len(names) and any(cells[len(names) :]):
                raise SourceError(
                    f"{where}: found {len(cells)} cells, expected at most the {len(names)} of the first row; quote "
                    "cells that hold the delimiter"
                )
            yield Row(where, dict(zip(names, cells, strict=False)))


def _csv_cells(path: Path, delimiter: str) -> Iterator[tuple[str, Sequence[str]]]:
    rows = csv.reader(io.StringIO(read_utf8(path), newline=""), delimiter=delimiter)
    try:
        for cells in rows:
            yield f"{path}:{rows.line_num}", [cell.strip() for cell in cells]
    except csv.Error as error:
        raise SourceError(
            f"{path}:{rows.line_num}: not a table that can be read ({error}); correct the quotes"
        ) from error


def _json_rows(path: Path, needed: list[str]) -> Iterator[Row]:
    if path.suffix.lower() == ".jsonl":
        objects = ((where, parse_json(row, where)) for where, row in numbered_rows(path))
    else:
        content = read_json(path)
        if not isinstance(content, list):
            raise SourceError(f"{path}: found a {type(content).__name__}, expected a list of objects; check `format`")
        objects = ((f"{path} ([{index}])", entry) for index, entry in enumerate(content))
    for where, entry in objects:
        missing = [name for name in needed if name not in entry] if isinstance(entry, dict) else needed
        if missing:
            raise SourceError(
                f"{where}: found {str(entry)[:80]}, expected an object with {', '.join(needed)}; correct the entry"
            )
        yield Row(where, {str(name): _text(value, f"{where}: {name}") for name, value in entry.items()})


def _excel_cells(path: Path, sheet: str | None) -> Iterator[tuple[str, Sequence[str]]]:
    """Cells as they were last computed; a formula that was never computed is an empty cell."""
    try:
        import defusedxml  # noqa: F401 - openpyxl then refuses entities in the XML of a workbook
        import openpyxl
    except ImportError as error:
        raise MissingExtraError(
            f"{path}: reading Excel files needs the libraries openpyxl and defusedxml; install them with "
            '`pip install "gastrovl[formats]"`, or save the sheet as CSV'
        ) from error
    content = io.BytesIO(read_bytes(path))
    _check_workbook(content, path)
    try:
        with closing(openpyxl.load_workbook(content, read_only=True, data_only=True)) as book:
            if sheet is not None and sheet not in book.sheetnames:
                raise SourceError(
                    f"{path}: found sheets {', '.join(book.sheetnames)}, expected also {sheet!r}; correct `sheet` in "
                    "the source description"
                )
            page = book[sheet] if sheet is not None else book.worksheets[0]
            if hasattr(page, "reset_dimensions"):  # else rows are as wide as the sheet says, whatever it holds
                page.reset_dimensions()
            seen = 0
            for number, cells in enumerate(page.iter_rows(values_only=True), start=1):
                where = f"{path} [{page.title}] row {number}"
                seen += len(cells)
                if seen > MAX_CELLS:
                    raise SourceError(
                        f"{where}: more than {MAX_CELLS:,} cells; expected a table. Delete empty columns, or save the "
                        "sheet as CSV"
                    )
                yield where, [_text(cell, where) for cell in cells]
    except SourceError:
        raise
    except Exception as error:  # openpyxl raises whatever its parsers meet in a broken workbook
        raise SourceError(
            f"{path}: not a workbook that can be read ({type(error).__name__}: {str(error)[:200]}); save it again as "
            ".xlsx, or as CSV"
        ) from error


def _check_workbook(content: io.BytesIO, path: Path) -> None:
    try:
        with zipfile.ZipFile(content) as packed:
            size = sum(member.file_size for member in packed.infolist())
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError) as error:
        raise SourceError(f"{path}: not an .xlsx workbook ({error}); save it again as .xlsx, or as CSV") from error
    if size > MAX_UNPACKED_BYTES:
        raise SourceError(
            f"{path}: unfolds to {size:,} bytes; expected at most {MAX_UNPACKED_BYTES:,}. Save the sheet as CSV"
        )


def _text(value: Any, where: str) -> str:
    """A cell as text: 3.0 as "3", a date as 2024-05-31."""
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, datetime.datetime) and value.time() == datetime.time():
        return value.date().isoformat()
    if isinstance(value, list | dict):
        raise SourceError(f"{where}: found {str(value)[:80]}, expected one value; correct that entry")
    return str(value).strip()
