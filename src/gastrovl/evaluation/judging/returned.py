"""Filled rating sheets and their key to ratings, read strictly and unblinded."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from gastrovl.core.config import Config
from gastrovl.core.errors import RecordError
from gastrovl.core.types import Rating
from gastrovl.evaluation.judging.sheets import KEY, KEY_SCHEMA

_SEPARATORS = (",", ";", "\t")
_SHOWN = 5  # faults named in one message


class _KeyRow(Config):
    conversation_id: str
    model: str
    rubric: str
    is_repeat: bool


class _Key(Config):
    schema_: str
    warning: str
    criteria: dict[str, dict[str, int]]  # criterion -> name of a level -> level
    sheets: dict[str, dict[str, _KeyRow]]  # rater -> code of a row


@dataclass(frozen=True)
class Returned:
    """What came back.

    Attributes:
        unrated: Rows of the sheets that came back without any level; `partly` with some.
    """

    ratings: tuple[Rating, ...]
    unrated: int
    partly: int


def import_sheets(folder: Path, sheets: Sequence[Path], *, is_partial: bool = False) -> Returned:
    """Read filled sheets of an export.

    Commas, semicolons and tabs between cells are understood, as are UTF-8, UTF-16 and Windows-1252, "3", "3,0" and
    "3.0", and the name of a level in the place of its number.

    Args:
        folder: Of the export, with its key.
        is_partial: Take sheets with empty cells or missing rows; the default refuses them.

    Raises:
        RecordError: The key or a sheet is missing or malformed; a cell is empty or no level; a row is unknown, double,
            missing or of another rater. The message names file, row and column.
    """
    key = _read_key(Path(folder) / KEY)
    ratings: list[Rating] = []
    seen: dict[str, Path] = {}
    unrated = partly = 0
    for path in map(Path, sheets):
        rater, rows = _read_sheet(path, key, is_partial=is_partial)
        if rater in seen:
            raise RecordError(f"{path}: is a sheet of {rater}, as {seen[rater]} is; give one sheet a rater")
        seen[rater] = path
        for code, (scores, comment) in rows.items():
            partly += 0 < len(scores) < len(key.criteria)
            unrated += not scores
            if scores:
                place = key.sheets[rater][code]
                ratings.append(Rating(rater=rater, scores=scores, comment=comment, **place.model_dump()))
        unrated += len(key.sheets[rater]) - len(rows)
    ratings.sort(key=lambda one: (one.rater, one.conversation_id, one.model, one.is_repeat))
    return Returned(tuple(ratings), unrated, partly)


def _read_key(path: Path) -> _Key:
    if not path.is_file():
        raise RecordError(f"{path}: no such file; expected the folder that `gastrovl rate export` wrote, with its key")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        key = _Key.model_validate({"schema_": content.pop("schema", None), **content})
    except (ValueError, AttributeError, TypeError, RecursionError) as error:
        reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
        raise RecordError(f"{path}: not a key of rating sheets ({reason}); take the one that was exported") from error
    if key.schema_ != KEY_SCHEMA:
        raise RecordError(f"{path}: found schema {key.schema_!r}, expected {KEY_SCHEMA!r}; export with this version")
    return key


def _read_sheet(path: Path, key: _Key, *, is_partial: bool) -> tuple[str, dict[str, tuple[dict[str, int], str]]]:
    """Whose sheet it is, and levels and comment by code of row."""
    lines = _cells(path)
    column_of = _columns(lines[0], key.criteria, path)
    rater_of = {code: rater for rater, codes in key.sheets.items() for code in codes}
    found: dict[str, tuple[dict[str, int], str]] = {}
    faults: list[str] = []
    raters: set[str] = set()
    for number, cells in enumerate(lines[1:], start=2):
        if not any(cell.strip() for cell in cells):
            continue
        cells = [*cells, *[""] * (len(lines[0]) - len(cells))]
        code = cells[column_of["row"]].strip().lstrip("'")
        where = f"row {number} ({code})"
        if code not in rater_of:
            faults.append(f"row {number}, column row: {code!r} is no row of this export")
            continue
        if code in found:
            faults.append(f"{where}, column row: stands there twice")
            continue
        raters.add(rater_of[code])
        scores = {}
        for criterion, levels in key.criteria.items():
            level, fault = _level(cells[column_of[criterion]], levels, is_partial=is_partial)
            if fault:
                faults.append(f"{where}, column {criterion}: {fault}")
            elif level is not None:
                scores[criterion] = level
        found[code] = scores, cells[column_of["comment"]].strip() if "comment" in column_of else ""
    if len(raters) > 1:
        faults.insert(0, f"holds rows of {', '.join(sorted(raters))}; expected the sheet of one rater")
    if not raters and not faults:
        faults.append("holds no row")
    if not faults and not is_partial:
        missing = sorted(key.sheets[next(iter(raters))].keys() - found.keys())
        faults += [f"row {code} is missing; put it back, or pass --partial" for code in missing]
    if faults:
        more = f"; and {len(faults) - _SHOWN} more like these" if len(faults) > _SHOWN else ""
        raise RecordError(f"{path}: {'; '.join(faults[:_SHOWN])}{more}")
    return next(iter(raters)), found


def _level(cell: str, levels: Mapping[str, int], *, is_partial: bool) -> tuple[int | None, str | None]:
    """The level in a cell, or what is wrong with it."""
    text = cell.strip().lstrip("'").strip()
    most = max(levels.values())
    allowed = f"allowed are the whole numbers 0 to {most}"
    if not text:
        return None, None if is_partial else f"is empty; {allowed} (pass --partial to take sheets with gaps)"
    if text.casefold() in levels:
        return levels[text.casefold()], None
    whole, _, rest = text.replace(",", ".").partition(".")
    if whole.isascii() and whole.isdigit() and len(whole) < 4 and not rest.strip("0") and int(whole) <= most:
        return int(whole), None
    return None, f"{text[:40]!r} is no level; {allowed}, or {', '.join(levels)}"


def _cells(path: Path) -> list[list[str]]:
    if not path.is_file():
        raise RecordError(f"{path}: no such file; expected a filled rating sheet (CSV)")
    text = _decoded(path.read_bytes(), path)
    head = text.lstrip("\r\n").partition("\n")[0]
    if head.lower().startswith("sep=") and len(head.strip()) == 5:  # a line that tells Excel the separator
        text = text.lstrip("\r\n").partition("\n")[2]
        head = text.partition("\n")[0]
    separator = max(_SEPARATORS, key=head.count)
    try:
        lines = list(csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True))
    except csv.Error as error:
        raise RecordError(f"{path}: not whole CSV ({error}); save it from the spreadsheet again") from error
    if not lines:
        raise RecordError(f"{path}: is empty; expected a filled rating sheet")
    return lines


def _decoded(content: bytes, path: Path) -> str:
    if content.startswith(b"PK"):
        raise RecordError(f"{path}: is a workbook and no CSV; save the sheet as CSV (UTF-8)")
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return content.decode("utf-16", "replace")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("cp1252", "replace")  # older Excel; codes and levels are plain ASCII in any case


def _columns(head: Sequence[str], criteria: Mapping[str, object], path: Path) -> dict[str, int]:
    """Where each column stands, by the first word of its head."""
    found: dict[str, int] = {}
    for place, cell in enumerate(head):
        name = (cell.split() or [""])[0].casefold()
        if name in ("row", "comment", *criteria):
            if name in found:
                raise RecordError(f"{path}: column {name!r} stands there twice; delete the one that was added")
            found[name] = place
    missing = [name for name in ("row", *criteria) if name not in found]
    if missing:
        raise RecordError(
            f"{path}: column {missing[0]!r} is missing (found {', '.join(cell[:20] for cell in head[:12])}); expected "
            "the header of the exported sheet unchanged"
        )
    return found
