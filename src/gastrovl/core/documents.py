"""JSON files that hold one record: tagged with their version, written whole, read with errors that say what to do."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import ValidationError

from gastrovl.core.errors import RecordError
from gastrovl.core.files import write_text
from gastrovl.core.types import Record

R = TypeVar("R", bound=Record)


@dataclass(frozen=True)
class Document(Generic[R]):
    """A kind of file, one record each.

    Attributes:
        schema: Tag of the file, "gastrovl/<name>/<version>".
        made_by: The file and what writes it, for who looks for one in vain.
        again: What to do about one that cannot be read, e.g. "evaluate again".
    """

    kind: type[R]
    schema: str
    made_by: str
    again: str

    def json_schema(self) -> dict[str, Any]:
        """The JSON schema of a file, tag included."""
        schema = self.kind.model_json_schema(mode="serialization")
        schema["properties"] = {"schema": {"const": self.schema, "type": "string"}, **schema["properties"]}
        schema["required"] = ["schema", *schema["required"]]
        return {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": self.schema, **schema}

    def write_schema(self, folder: Path) -> Path:
        """Write `<name>.schema.json`; returns its path."""
        path = Path(folder) / f"{self.schema.split('/')[1]}.schema.json"
        write_text(path, json.dumps(self.json_schema(), indent=2, ensure_ascii=False) + "\n")
        return path

    def write(self, path: Path, record: R) -> None:
        """Write a file, whole or not at all."""
        content = {"schema": self.schema, **record.model_dump(mode="json")}
        write_text(path, json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n")

    def read(self, path: Path) -> R:
        """The record in a file.

        Raises:
            RecordError: It is missing, broken, or of another version.
        """
        path = Path(path)
        if not path.is_file():
            raise RecordError(f"{path}: no such file; expected {self.made_by}")
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except json.JSONDecodeError as error:
            raise RecordError(f"{path}:{error.lineno}: not whole JSON ({error.msg}); {self.again}") from error
        except ValueError as error:  # no UTF-8
            raise RecordError(f"{path}: not whole JSON ({error}); {self.again}") from error
        found = content.pop("schema", None) if isinstance(content, dict) else None
        if found != self.schema:
            wrong = f"{path}: found schema {found!r}, expected {self.schema!r}"
            raise RecordError(f"{wrong}; {self.again} with this version")
        try:
            return self.kind.model_validate(content)
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(str(part) for part in first["loc"])
            raise RecordError(f"{path}: {field}: {first['msg']}; {self.again}") from error
