"""`robustness.json`: how the scores of one model change, cell by cell, as one published schema."""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from gastrovl.core.documents import Document
from gastrovl.core.types import Record, Split, Task

SCHEMA = "gastrovl/robustness/1"


class Family(StrEnum):
    """What is changed about the questions of a cell."""

    CLEAN = "clean"
    CORRUPTION = "corruption"
    LEADING = "leading"
    WORDING = "wording"


class CellScore(Record):
    """One task under one change, beside the same questions unchanged.

    Attributes:
        level: 1 to 5 of a corruption, else 0.
        metric: The task's headline; for leading questions and other wordings "right" where answers are right or wrong,
            which also counts what is rightly said to be absent.
        value: The score; `low` and `high` are its 95 % interval, clustered by group.
        clean: The score of the same questions as they were.
        drop: `clean` less `value`, with an interval over the paired differences.
        relative_drop: `drop` over `clean`; None where `clean` is 0.
        baseline: The best trivial baseline on the same questions; it does not look at the image.
        followed: Of a trap that suggests something, the share of replies that say what it suggests.
        followed_unasked: The share that said so to the plain question.
        reason: Why there is no value or interval, or why it deserves little trust.
    """

    family: Family
    name: str
    level: int = Field(ge=0, le=5)
    task: Task
    split: Split
    metric: str
    n: int = Field(ge=0)
    n_unparsed: int = Field(ge=0)
    value: float | None
    low: float | None = None
    high: float | None = None
    clean: float | None = None
    drop: float | None = None
    drop_low: float | None = None
    drop_high: float | None = None
    relative_drop: float | None = None
    baseline: float | None = None
    baseline_name: str | None = None
    followed: float | None = None
    followed_low: float | None = None
    followed_high: float | None = None
    followed_unasked: float | None = None
    reason: str | None = None


class Summary(Record):
    """All corruptions of one task together.

    Attributes:
        mean_corrupted: Mean over all corruptions and levels, each weighing the same; with its interval.
        worst_name, worst_level, worst: The cell with the lowest score; among equals the first.
    """

    task: Task
    split: Split
    metric: str
    clean: float | None
    mean_corrupted: float | None
    low: float | None
    high: float | None
    relative_drop: float | None
    worst_name: str | None
    worst_level: int | None
    worst: float | None


class Robustness(Record):
    """One measurement.

    Attributes:
        models: Names that the predictions carry.
        images, questions: How many of each were asked about, unchanged.
        seed: Of corruptions, traps, the choice of images and the bootstrap.
        notes: What a reader must know before quoting a number.
    """

    models: tuple[str, ...]
    images: int = Field(ge=0)
    questions: int = Field(ge=0)
    corruptions: tuple[str, ...]
    levels: tuple[int, ...]
    resamples: int = Field(ge=0)
    seed: int
    scores: tuple[CellScore, ...]
    summaries: tuple[Summary, ...]
    notes: tuple[str, ...] = ()


_FILE = Document(Robustness, SCHEMA, "the robustness.json that `gastrovl robustness` writes", "measure again")
write_schema, write_robustness, read_robustness = _FILE.write_schema, _FILE.write, _FILE.read
