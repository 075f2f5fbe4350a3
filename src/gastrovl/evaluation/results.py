"""`results.json`: everything an evaluation found, as one published schema."""

from __future__ import annotations

import sys
from pathlib import Path

from pydantic import Field

from gastrovl.core.documents import Document
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
        bertscore: Signature of the model of BERTScore, or None when texts were not scored by one.
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
    bertscore: str | None = None


_FILE = Document(Results, SCHEMA, "the results.json that `gastrovl evaluate` writes", "evaluate again")
results_schema, write_schema, write_results, read_results = (
    _FILE.json_schema,
    _FILE.write_schema,
    _FILE.write,
    _FILE.read,
)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(
            "usage: python -m gastrovl.evaluation.results FOLDER    (writes the JSON schema of results.json there)"
        )
    print(write_schema(Path(sys.argv[1])))
