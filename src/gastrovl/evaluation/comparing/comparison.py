"""`comparison.json`: everything a comparison of models found, as one published schema."""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from gastrovl.core.documents import Document
from gastrovl.core.types import Record, Split, Task

SCHEMA = "gastrovl/comparison/1"


class Family(StrEnum):
    """Comparisons whose p values are adjusted together."""

    HEADLINE = "headline"
    BY_DATASET = "headline by dataset"


class Method(StrEnum):
    """Where a p value comes from."""

    SWAPS = "swaps of whole groups"
    BOOTSTRAP = "paired bootstrap"


class Outcome(StrEnum):
    """What can be said of a model beside the reference in one task."""

    BETTER = "better"
    WORSE = "worse"
    ALIKE = "alike"
    NOT_SHOWN = "not shown"
    UNDECIDED = "undecided"
    NOTHING = "nothing to compare"


class Contender(Record):
    """One model; `models` are the names that its predictions carry, `file` is where they were read from."""

    name: str
    models: tuple[str, ...]
    file: str


class Unread(Record):
    """Replies of one model to one task that could not be read, each counted as wrong."""

    name: str
    task: Task
    split: Split
    n: int = Field(ge=0)
    n_unread: int = Field(ge=0)


class RightWrong(Record):
    """McNemar's table and tests for a metric of rights and wrongs.

    Attributes:
        only_reference, only_other: Questions that this model alone answered rightly.
        exact, mid_p: P values that take questions as independent.
        clustered: P value of Obuchowski's test, with groups as the units; None with fewer than two groups.
    """

    only_reference: int = Field(ge=0)
    only_other: int = Field(ge=0)
    exact: float
    mid_p: float
    clustered: float | None


class Compared(Record):
    """One metric of one model beside the reference on the same questions; values and differences are fractions.

    Attributes:
        dataset: A source, or "all".
        n, n_groups: Questions and groups that the metric is about.
        difference: `other_value` minus `reference_value`, or None when either is undefined; `reason` says why.
        low, high: 95 % interval of the difference, not adjusted for several comparisons.
        p, test: Two-sided p value and where it comes from.
        p_holm, family: P value adjusted over its family; None for metrics that are shown without a claim.
        n_differing: Questions on which the two earn different scores; None where questions have no score each.
        detectable: Least difference that 80 % of such test sets would have shown (at 5 %, two-sided); None where they
            would have shown none.
        design_effect: Variance of the difference with groups as the units over that with questions as the units.
        groups_needed: Groups that would show the difference that was asked for.
    """

    task: Task
    split: Split
    metric: str
    dataset: str
    reference: str
    other: str
    is_headline: bool
    n: int = Field(ge=0)
    n_groups: int = Field(ge=0)
    reference_value: float | None
    other_value: float | None
    difference: float | None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    test: Method | None = None
    p_holm: float | None = None
    family: Family | None = None
    n_differing: int | None = None
    detectable: float | None = None
    design_effect: float | None = None
    groups_needed: int | None = None
    right_wrong: RightWrong | None = None
    reason: str | None = None


class Conclusion(Record):
    """The verdict on one model in one task, in words."""

    task: Task
    split: Split
    other: str
    outcome: Outcome
    text: str


class Rank(Record):
    """A model's place by the headline value of a task, 1 the best; equals share a place."""

    task: Task
    split: Split
    place: int = Field(ge=1)
    name: str
    value: float


class Comparison(Record):
    """Several models on the same questions, all against the first.

    Attributes:
        taxonomy: Version of the vocabulary that replies were read with.
        resamples, seed: Of the bootstrap; `level` is that of its intervals.
        alpha, power: What verdicts and `detectable` are worked out for.
        wanted: The difference that `groups_needed` is about, a fraction.
        family_sizes: How many p values each family adjusts together.
        conclusions: One a task and model.
    """

    reference: str
    contenders: tuple[Contender, ...]
    taxonomy: str
    resamples: int = Field(ge=0)
    seed: int
    level: float
    alpha: float
    power: float
    wanted: float | None
    family_sizes: dict[Family, int]
    unread: tuple[Unread, ...]
    compared: tuple[Compared, ...]
    conclusions: tuple[Conclusion, ...]
    ranks: tuple[Rank, ...]
    notes: tuple[str, ...] = ()


_FILE = Document(Comparison, SCHEMA, "the comparison.json that `gastrovl compare` writes", "compare again")
comparison_schema, write_schema, write_comparison, read_comparison = (
    _FILE.json_schema,
    _FILE.write_schema,
    _FILE.write,
    _FILE.read,
)
