"""JSONL files of the core types: versioned lines, errors with file and line, atomic writes, JSON schemas."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from gastrovl.core.errors import GeometryError, RecordError
from gastrovl.core.files import atomic_path
from gastrovl.core.types import Conversation, Prediction, Record, Sample

VERSION = 1
R = TypeVar("R", bound=Record)
KINDS: dict[str, type[Record]] = {"sample": Sample, "conversation": Conversation, "prediction": Prediction}


def schema_name(kind: type[Record]) -> str:
    """The tag every line of a file of `kind` carries, e.g. "gastrovl/sample/1"."""
    for name, record_type in KINDS.items():
        if record_type is kind:
            return f"gastrovl/{name}/{VERSION}"
    raise TypeError(f"{kind.__name__} is not written as JSONL; expected one of {sorted(KINDS)}")


def to_line(record: Record) -> str:
    """One record as a JSON line with its schema tag, without the newline."""
    content = record.model_dump(mode="json", exclude_defaults=True)
    return json.dumps({"schema": schema_name(type(record)), **content}, ensure_ascii=False)


def from_line(line: str, kind: type[R], where: str) -> R:
    """The record in a JSON line; `where` ("file:line") opens every error message.

    Raises:
        RecordError: Not JSON, of another kind or version, or a field is wrong.
    """
    try:
        content = json.loads(line)
    except json.JSONDecodeError as error:
        raise RecordError(
            f"{where}: not a whole JSON object ({error.msg} at column {error.colno}); the file was probably cut off "
            "while it was written. Write it again, or delete this line"
        ) from error
    expected = schema_name(kind)
    found = content.pop("schema", None) if isinstance(content, dict) else None
    if found != expected:
        raise RecordError(f"{where}: found schema {found!r}, expected {expected!r}; is this the right file, and of this version?")
    try:
        return kind.model_validate(content)
    except GeometryError as error:
        raise RecordError(f"{where}: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or kind.__name__
        raise RecordError(f"{where}: {field}: {first['msg']} (found {_short(first.get('input'))})") from error


def read_records(path: Path, kind: type[R]) -> Iterator[R]:
    """The records of a JSONL file, one by one; blank lines are skipped.

    Raises:
        RecordError: The file is missing or a line is broken; the message names file and line.
    """
    path = Path(path)
    if not path.is_file():
        raise RecordError(f"{path}: no such file; expected a JSONL file of {schema_name(kind)} records")
    with path.open(encoding="utf-8") as stream:
        for number, line in enumerate(stream, start=1):
            if line.strip():
                yield from_line(line, kind, f"{path}:{number}")


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
    schema["$id"] = name
    schema["properties"] = {"schema": {"const": name, "type": "string"}, **schema["properties"]}
    schema["required"] = ["schema", *schema["required"]]
    return schema


def _short(value: object, limit: int = 120) -> str:
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."
