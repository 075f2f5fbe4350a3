"""JSONL files of the core types: versioned lines, errors with file and line, atomic writes, JSON schemas."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from gastrovl.core.errors import GeometryError, RecordError
from gastrovl.core.files import atomic_path, write_text
from gastrovl.core.types import Caption, Conversation, Judgement, Prediction, Rating, Record, Sample

VERSION = 1
R = TypeVar("R", bound=Record)
KINDS: dict[str, type[Record]] = {
    "sample": Sample,
    "conversation": Conversation,
    "prediction": Prediction,
    "caption": Caption,
    "rating": Rating,
    "judgement": Judgement,
}


def schema_name(kind: type[Record]) -> str:
    """The tag every line of a file of `kind` carries, e.g. "gastrovl/sample/1"."""
    for name, record_type in KINDS.items():
        if record_type is kind:
            return f"gastrovl/{name}/{VERSION}"
    raise TypeError(f"{kind.__name__} is not written as JSONL; expected one of {sorted(KINDS)}")


def to_line(record: Record) -> str:
    """One record as a JSON line with its schema tag, without the newline."""
    content = record.model_dump_json(exclude_defaults=True)
    start = f'{{"schema":"{schema_name(type(record))}"'
    return f"{start}}}" if content == "{}" else f"{start},{content[1:]}"


def from_line(line: str, kind: type[R], where: str) -> R:
    """The record in a JSON line; `where` ("file:line") opens every error message.

    Raises:
        RecordError: Not JSON, of another kind or version, or a field is wrong.
    """
    try:
        content = json.loads(line)
    except (ValueError, RecursionError) as error:
        reason = f"{error.msg} at column {error.colno}" if isinstance(error, json.JSONDecodeError) else str(error)
        raise RecordError(
            f"{where}: not a whole JSON object ({reason}); the file was probably cut off while it was written. "
            "Write it again, or delete this line"
        ) from error
    if not isinstance(content, dict):
        raise RecordError(f"{where}: found a JSON {type(content).__name__}, expected one object a line (JSONL)")
    _check_schema(content.pop("schema", None), schema_name(kind), where)
    try:
        return kind.model_validate(content)
    except GeometryError as error:
        raise RecordError(f"{where}: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or kind.__name__
        reason = first["msg"].removeprefix("Value error, ")
        raise RecordError(f"{where}: {field}: {reason} (found {_short(first.get('input'))})") from error


def read_records(path: Path, kind: type[R]) -> Iterator[R]:
    """The records of a JSONL file, one by one; blank lines are skipped.

    Raises:
        RecordError: The file is missing or a line is broken; the message names file and line.
    """
    path = Path(path)
    if not path.is_file():
        raise RecordError(f"{path}: no such file; expected a JSONL file of {schema_name(kind)} records")
    with path.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            where = f"{path}:{number}"
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise RecordError(
                    f"{where}: not UTF-8 text ({error.reason} at byte {error.start}); write the file again"
                ) from error
            if text.strip():
                yield from_line(text, kind, where)


def write_records(path: Path, records: Iterable[Record]) -> int:
    """Write records as JSONL, all or nothing; returns how many."""
    count = 0
    with atomic_path(Path(path)) as temporary, temporary.open("w", encoding="utf-8") as stream:
        for record in records:
            stream.write(to_line(record) + "\n")
            count += 1
    return count


def json_schema(kind: type[Record]) -> dict[str, Any]:
    """The JSON schema of one line of a file of `kind`, schema tag included."""
    schema = kind.model_json_schema()
    name = schema_name(kind)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": name,
        **schema,
        "properties": {"schema": {"const": name, "type": "string"}, **schema["properties"]},
        "required": ["schema", *schema["required"]],
    }


def write_schemas(folder: Path) -> list[Path]:
    """Write `<kind>.schema.json` for every kind of record; returns the paths."""
    paths = []
    for name, kind in KINDS.items():
        path = Path(folder) / f"{name}.schema.json"
        write_text(path, json.dumps(json_schema(kind), indent=2, ensure_ascii=False) + "\n")
        paths.append(path)
    return paths


def _check_schema(found: object, expected: str, where: str) -> None:
    if found == expected:
        return
    kind = expected.rpartition("/")[0]
    if isinstance(found, str) and found.rpartition("/")[0] == kind:
        remedy = "the file was written by another version of gastrovl; make it again with this one"
    else:
        remedy = f"this is no file of {kind} records; is it the right file?"
    raise RecordError(f"{where}: found schema {_short(found)}, expected {expected!r}; {remedy}")


def _short(value: object, limit: int = 120) -> str:
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m gastrovl.core.records FOLDER    (writes the JSON schemas of the record files there)")
    for written in write_schemas(Path(sys.argv[1])):
        print(written)
