"""`judged.json`: what judges and people found, and how far they agree, as one published schema."""

from __future__ import annotations

from pydantic import Field

from gastrovl.core.documents import Document
from gastrovl.core.types import Record

SCHEMA = "gastrovl/judged/1"
NOTICE = (
    "Research software, not a medical device. A judge model is no physician: its levels are the reading of an "
    "instrument, worth what its agreement with people says, and no clinical verdict."
)
ALL = "all"
PEOPLE = "people"


class CriterionMean(Record):
    """Mean level of a model's replies; levels of several passes or raters are averaged for each reply first.

    Attributes:
        by: "people", or the name of the judge.
        task: A task, or "all".
        most: The highest level there is.
        low, high: 95 % interval, whole groups drawn.
    """

    model: str
    criterion: str
    by: str
    task: str
    value: float | None
    low: float | None
    high: float | None
    most: int
    n: int = Field(ge=0)
    reason: str | None = None


class HarmRate(Record):
    """Share of replies at or above a level of a criterion in which higher is worse.

    A reply counts by the median of its levels, the worse one of two middle ones. The interval is exact for independent
    replies (Clopper and Pearson); replies of one patient are not, so it is too narrow where there are several.
    """

    model: str
    criterion: str
    by: str
    level: int
    name: str
    count: int
    n: int
    low: float
    high: float


class Agreement(Record):
    """One coefficient of agreement; `kind` says who is compared, and `n` over how many replies."""

    criterion: str
    kind: str
    between: str
    coefficient: str
    value: float | None
    low: float | None
    high: float | None
    n: int
    reason: str | None = None


class OrderShift(Record):
    """Mean level with reference and reply swapped, less that without: zero for a judge that the order does not move."""

    judge: str
    criterion: str
    value: float | None
    low: float | None
    high: float | None
    n: int


class Preference(Record):
    """Which of two models a judge prefers; a preference counts where it is the same in both orders, else it is a tie.

    Attributes:
        first_wins, second_wins, ties: Questions, by the sum over repeats.
        net: Mean of +1 (first), 0 and -1 (second), with its 95 % interval over groups.
        pairs: Questions times repeats with both orders usable, of which `inconsistent` gave different winners.
        first_place, second_place: Pairs in which the reply shown first (second) won both times, whosever it was.
        bias_low, bias_high: Exact interval of (first_place + second_place) / pairs, the rate of position bias.
    """

    judge: str
    first: str
    second: str
    n: int
    first_wins: int
    second_wins: int
    ties: int
    net: float | None
    low: float | None
    high: float | None
    pairs: int
    inconsistent: int
    first_place: int
    second_place: int
    bias_low: float | None
    bias_high: float | None
    reason: str | None = None


class Failures(Record):
    """Judgements that a judge was asked for, and why some cannot be used; these have no score."""

    judge: str
    asked: int
    failed: int
    reasons: dict[str, int]


class Judged(Record):
    """Everything that was found.

    Attributes:
        rubrics: "<name>/<version>" of all rubrics used.
        notes: What a reader must know before quoting a number.
    """

    notice: str = NOTICE
    models: tuple[str, ...]
    judges: tuple[str, ...]
    raters: tuple[str, ...]
    rubrics: tuple[str, ...]
    resamples: int
    seed: int
    level: float
    means: tuple[CriterionMean, ...]
    harms: tuple[HarmRate, ...]
    agreements: tuple[Agreement, ...]
    shifts: tuple[OrderShift, ...]
    preferences: tuple[Preference, ...]
    failures: tuple[Failures, ...]
    notes: tuple[str, ...] = ()


_FILE = Document(Judged, SCHEMA, "the judged.json that `gastrovl judge` writes", "judge again")
write_schema, write_judged = _FILE.write_schema, _FILE.write
