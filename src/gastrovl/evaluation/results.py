"""`results.json`: everything an evaluation found, as one published schema."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from gastrovl.core.errors import RecordError
from gastrovl.core.files import write_text
from gastrovl.core.types import Record, Score, Split, Task

SCHEMA = "gastrovl/results/1"
ALL = "all"  # the dataset column of scores over every conversation
MEAN = "mean"  # the dataset column of unweighted means over datasets


class BaselineScore(Record):
    """The value of one trivial baseline on the items of one score, None when undefined there."""

    task: Task
    metric: str
    dataset: str
    split: Split
    name: str
    value: float | None
    n: int = Field(ge=0)


class ClassScore(Record):
    """One label of one block; precision, recall and f1 are None when their denominator is zero."""

    task: Task
    dataset: str
    split: Split
    label: str
    n_true: int = Field(ge=0)
    n_predicted: int = Field(ge=0)
    precision: float | None
    recall: float | None
    f1: float | None


class ConfusionMatrix(Record):
    """Counts of conversations with one true label: `counts[row][column]`, rows true, columns predicted."""

    task: Task
    split: Split
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]


class IouCurve(Record):
    """Share of REC questions about present objects right at each IoU threshold; `name` is "model" or a baseline's."""

    split: Split
    name: str
    thresholds: tuple[float, ...]
    shares: tuple[float, ...]


class Replies(Record):
    """What the replies to a task were like, before any scoring.

    Attributes:
        n_unparsed: Replies that could not be read, and `reasons` why, with counts.
        n_cut: Replies that ended at the length limit.
        seconds: Summed time the model spent on them.
    """

    task: Task
    split: Split
    n: int = Field(ge=0)
    n_unparsed: int = Field(ge=0)
    n_cut: int = Field(ge=0)
    seconds: float = Field(ge=0)
    reasons: dict[str, int]


class Results(Record):
    """One evaluation.

    Attributes:
        models: Names that the predictions carry.
        taxonomy: Version of the vocabulary that replies were read with.
        resamples, seed: Of the bootstrap; `level` is that of its intervals.
        bleu: Signature of sacrebleu, or None when no text was scored.
        scores: Flat list; `dataset` is a source, "all" (every conversation) or "mean" (unweighted over sources).
        notes: What a reader must know before quoting a number.
    """

    models: tuple[str, ...]
    taxonomy: str
    resamples: int = Field(ge=0)
    seed: int
    level: float
    bleu: str | None
    scores: tuple[Score, ...]
    baselines: tuple[BaselineScore, ...]
    replies: tuple[Replies, ...]
    per_class: tuple[ClassScore, ...]
    confusion: tuple[ConfusionMatrix, ...]
    iou_curves: tuple[IouCurve, ...]
    notes: tuple[str, ...] = ()


def results_schema() -> dict[str, Any]:
    """The JSON schema of a results file, tag included."""
    schema = Results.model_json_schema(mode="serialization")
    schema["properties"] = {"schema": {"const": SCHEMA, "type": "string"}, **schema["properties"]}
    schema["required"] = ["schema", *schema["required"]]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": SCHEMA, **schema}


def write_schema(folder: Path) -> Path:
    """Write `results.schema.json`; returns its path."""
    path = Path(folder) / "results.schema.json"
    write_text(path, json.dumps(results_schema(), indent=2, ensure_ascii=False) + "\n")
    return path


def write_results(path: Path, results: Results) -> None:
    """Write a results file, whole or not at all."""
    content = {"schema": SCHEMA, **results.model_dump(mode="json")}
    write_text(path, json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def read_results(path: Path) -> Results:
    """The results in a file.

    Raises:
        RecordError: It is missing, broken, or of another version.
    """
    path = Path(path)
    if not path.is_file():
        raise RecordError(f"{path}: no such file; expected the results.json that `gastrovl evaluate` writes")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise RecordError(f"{path}:{error.lineno}: not whole JSON ({error.msg}); evaluate again") from error
    found = content.pop("schema", None) if isinstance(content, dict) else None
    if found != SCHEMA:
        raise RecordError(f"{path}: found schema {found!r}, expected {SCHEMA!r}; evaluate again with this version")
    try:
        return Results.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise RecordError(f"{path}: {field}: {first['msg']}; evaluate again") from error


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(
            "usage: python -m gastrovl.evaluation.results FOLDER    (writes the JSON schema of results.json there)"
        )
    print(write_schema(Path(sys.argv[1])))
