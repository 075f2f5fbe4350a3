"""The results of a new model and of the last good one to a list of checks, passed or failed with a reason."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from pydantic import Field

from gastrovl.clinical.taxonomy import Taxonomy
from gastrovl.core.config import Config
from gastrovl.core.errors import ConfigError, PredictionError
from gastrovl.core.types import Record, Score, Split, Task
from gastrovl.evaluation import tasks
from gastrovl.evaluation.comparing.compare import Reading, compare_readings, reading_of
from gastrovl.evaluation.comparing.comparison import Compared
from gastrovl.evaluation.comparing.verdict import name_of, p_text
from gastrovl.evaluation.items import read_items
from gastrovl.evaluation.measures.directions import is_better_low
from gastrovl.evaluation.results import ALL, MEAN, Results
from gastrovl.evaluation.showing.names import metric
from gastrovl.evaluation.statistics.multiplicity import holm
from gastrovl.evaluation.statistics.power import ALPHA

_ROUNDING = 1e-9  # a drop of exactly the limit passes
Key = tuple[Task, Split, str, str]  # task, split, metric, dataset


class Watched(Config):
    """A score of either results, in every split that has it."""

    task: Task
    metric: str
    dataset: str = ALL


class Rule(Watched):
    """How many points a score may fall."""

    largest_drop: float = Field(ge=0, le=100)


class GateConfig(Config):
    """What a gate lets pass; see `configs/evaluate/gate.yaml` for what each key means."""

    largest_drop: float = Field(default=1.0, ge=0, le=100)
    rules: tuple[Rule, ...] = (Rule(task=Task.REC, metric="mean_iou", largest_drop=1.0),)
    must_exist: tuple[Watched, ...] = ()
    largest_unread_share: float = Field(default=5.0, ge=0, le=100)
    fails_below_baseline: bool = True
    needs_proof: bool = True
    alpha: float = Field(default=ALPHA, gt=0, lt=1)
    resamples: int = Field(default=2000, ge=1)
    seed: int = 7


class Status(StrEnum):
    """What became of a check."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"


class Check(Record):
    """One thing that was looked at.

    Attributes:
        what: The kind of check, e.g. "drop".
        subject: What it is about, e.g. "REC test acc@IoU 0.5".
        message: What was found and what was allowed, with the reason of a failure.
    """

    what: str
    subject: str
    status: Status
    message: str


class GateReport(Record):
    """All checks; `has_passed` is whether none failed."""

    has_passed: bool
    checks: tuple[Check, ...]

    @property
    def failures(self) -> list[Check]:
        return [check for check in self.checks if check.status is Status.FAILED]


@dataclass(frozen=True)
class Replies:
    """The predictions behind two results, for a test of their difference."""

    predictions: Path
    baseline_predictions: Path
    conversations: Path


def gate(new: Results, baseline: Results, config: GateConfig, replies: Replies | None = None) -> GateReport:
    """Check the results of a new model against those of the last good one.

    Args:
        replies: Predictions of both; then a drop beyond its limit fails only where it is shown (`needs_proof`).

    Raises:
        PredictionError: The predictions do not fit the conversations, or are not those behind the results.
        RecordError: A file of `replies` is missing or broken.
        ConfigError: The baseline results hold no score.
    """
    if not baseline.scores:
        raise ConfigError("the baseline results hold no score, so nothing can be checked; evaluate the last good model")
    now, then = _by_key(new), _by_key(baseline)
    rules = _rules(config, then)
    tested = _tested(replies, now, then, list(rules), config) if replies else {}
    checks = [
        _taxonomy(new, baseline),
        *_questions(new, baseline),
        *_existence(now, then, config),
        *(
            _drop(key, limit, now, then, tested.get(key), config, has_replies=bool(replies))
            for key, limit in rules.items()
        ),
        *_unknown_rules(config, then),
        *_unread(new, config),
        *(_baselines(now) if config.fails_below_baseline else ()),
    ]
    return GateReport(has_passed=all(one.status is not Status.FAILED for one in checks), checks=tuple(checks))


def _by_key(results: Results) -> dict[Key, Score]:
    return {(one.task, one.split, one.metric, one.dataset): one for one in results.scores}


def _rules(config: GateConfig, then: Mapping[Key, Score]) -> dict[Key, float]:
    """The scores whose fall is limited, with the limit in points: headlines over all datasets, and what rules name."""
    found = {key: config.largest_drop for key in then if key[3] == ALL and key[2] == tasks.HEADLINE[key[0]]}
    for rule in config.rules:
        found |= dict.fromkeys(_matching(rule, then), rule.largest_drop)
    return found


def _matching(watched: Watched, scores: Mapping[Key, Score]) -> list[Key]:
    return [key for key in scores if (key[0], key[2], key[3]) == (watched.task, watched.metric, watched.dataset)]


def _taxonomy(new: Results, baseline: Results) -> Check:
    if new.taxonomy == baseline.taxonomy:
        return _check("vocabulary", "all tasks", True, f"both were read with {new.taxonomy}")
    found = f"the new results were read with {new.taxonomy}, the baseline with {baseline.taxonomy}"
    return _check("vocabulary", "all tasks", False, f"{found}; evaluate both with one version")


def _questions(new: Results, baseline: Results) -> Iterator[Check]:
    """Whether both answered as many questions, task by task and dataset by dataset."""
    now, then = _counts(new), _counts(baseline)
    for task, split in dict.fromkeys((*then, *now)):
        counts = now.get((task, split), {}), then.get((task, split), {})
        odd = [name for name in sorted(counts[0] | counts[1]) if counts[0].get(name) != counts[1].get(name)]
        told = ", ".join(f"{name}: {counts[0].get(name, 0)} now, {counts[1].get(name, 0)} then" for name in odd)
        message = f"other questions ({told}), so scores cannot be compared" if odd else f"{counts[0][ALL]} each"
        yield _check("questions", f"{task} {split}", not odd, message)


def _counts(results: Results) -> dict[tuple[Task, Split], dict[str, int]]:
    """How many questions each task has in all, and in each dataset by its headline score."""
    found = {(one.task, one.split): {ALL: one.n} for one in results.replies}
    for one in results.scores:
        if one.metric == tasks.HEADLINE[one.task] and one.dataset not in (ALL, MEAN):
            found.setdefault((one.task, one.split), {ALL: 0})[one.dataset] = one.n
    return found


def _existence(now: Mapping[Key, Score], then: Mapping[Key, Score], config: GateConfig) -> Iterator[Check]:
    """Every score over all datasets that the baseline has a value of, and what the config demands."""
    wanted = [key for key, one in then.items() if key[3] == ALL and one.value is not None]
    gone = [key for key in wanted if key not in now or now[key].value is None]
    for key in gone:
        reason = f"it has no value any more: {now[key].reason}" if key in now else "it is missing from the new results"
        yield _check("exists", _name(key), False, reason)
    if not gone:
        yield _check("exists", "all metrics", True, f"all {len(wanted)} scores of the baseline are there")
    for watched in config.must_exist:
        if not any(now[key].value is not None for key in _matching(watched, now)):
            subject = f"{watched.task} {name_of(watched.metric)}, {watched.dataset}"
            yield _check("exists", subject, False, "the config demands it, and the new results lack it")


def _drop(
    key: Key,
    limit: float,
    now: Mapping[Key, Score],
    then: Mapping[Key, Score],
    tested: Compared | None,
    config: GateConfig,
    *,
    has_replies: bool,
) -> Check:
    """Whether a score fell by more than its limit, and whether that is shown."""
    new, old = (now[key].value if key in now else None), then[key].value
    if new is None or old is None:
        return Check(what="drop", subject=_name(key), status=Status.SKIPPED, message="no value in one of the results")
    change = 100 * (old - new if is_better_low(key[2]) else new - old)
    if metric(key[2]).is_percent:
        message = f"{100 * new:.1f} now, {100 * old:.1f} then: {change:+.1f} points (allowed: -{limit:g})"
    else:  # a point is a hundredth
        message = f"{new:.3f} now, {old:.3f} then: {change / 100:+.3f} (allowed: -{limit / 100:g})"
    if change >= -limit - _ROUNDING:
        return _check("drop", _name(key), True, message)
    if not has_replies or not config.needs_proof:
        return _check("drop", _name(key), False, message)
    if tested is None or tested.p_holm is None:
        return _check("drop", _name(key), False, f"{message}; no test of it can be made, so the drop alone decides")
    is_shown = tested.p_holm <= config.alpha
    end = "" if is_shown else ", which is not shown to be more than chance"
    return _check("drop", _name(key), not is_shown, f"{message}, {p_text(tested.p_holm)} after Holm{end}")


def _unknown_rules(config: GateConfig, then: Mapping[Key, Score]) -> Iterator[Check]:
    for rule in config.rules:
        if not _matching(rule, then):
            yield Check(
                what="drop",
                subject=f"{rule.task} {name_of(rule.metric)}, {rule.dataset}",
                status=Status.SKIPPED,
                message="the baseline results have no such score; name it in must_exist if they should",
            )


def _unread(new: Results, config: GateConfig) -> Iterator[Check]:
    for one in new.replies:
        share = 100 * one.n_unparsed / one.n if one.n else 0.0
        message = f"{one.n_unparsed} of {one.n}: {share:.1f} % (allowed: {config.largest_unread_share:g} %)"
        is_fine = share <= config.largest_unread_share + _ROUNDING
        yield _check("unread replies", f"{one.task} {one.split}", is_fine, message)


def _baselines(now: Mapping[Key, Score]) -> Iterator[Check]:
    for key, one in now.items():
        if key[3] != ALL or key[2] != tasks.HEADLINE[key[0]] or one.value is None or one.baseline is None:
            continue
        message = f"{100 * one.value:.1f}, the best trivial baseline ({one.baseline_name}) {100 * one.baseline:.1f}"
        worse = one.value - one.baseline if is_better_low(key[2]) else one.baseline - one.value
        yield _check("above baseline", _name(key), worse <= _ROUNDING, message)


def _tested(
    replies: Replies, now: Mapping[Key, Score], then: Mapping[Key, Score], keys: Sequence[Key], config: GateConfig
) -> dict[Key, Compared]:
    """The differences of the watched scores with p values, adjusted by Holm over just these."""
    taxonomy = Taxonomy.load()
    files = replies.baseline_predictions, replies.predictions
    first, second = (reading_of(read_items(path, replies.conversations, taxonomy)) for path in files)
    readings: dict[str, Reading] = {"baseline": first, "new": second}
    found = compare_readings(
        readings,
        [path.name for path in files],
        taxonomy,
        wanted=None,
        resamples=config.resamples,
        seed=config.seed,
    )
    by_key = {(one.task, one.split, one.metric, one.dataset): one for one in found.compared}
    _check_source(files[0], then, by_key, lambda one: one.reference_value)
    _check_source(files[1], now, by_key, lambda one: one.other_value)
    known = [key for key in keys if key in by_key]
    adjusted = holm([by_key[key].p for key in known])
    return {key: by_key[key].model_copy(update={"p_holm": p}) for key, p in zip(known, adjusted, strict=True)}


def _check_source(
    path: Path,
    scores: Mapping[Key, Score],
    compared: Mapping[Key, Compared],
    value_of: Callable[[Compared], float | None],
) -> None:
    """Results and predictions belong together: the headline scores worked out anew are those of the results."""
    for key, one in compared.items():
        told, found = scores[key].value if key in scores else None, value_of(one)
        if one.is_headline and told is not None and (found is None or abs(told - found) > 1e-6):
            raise PredictionError(
                f"{path}: {_name(key)} is {found} by these predictions, but {told} by the results; expected the "
                "predictions that the results were made from. Evaluate them again, or name the right file"
            )


def _name(key: Key) -> str:
    task, split, metric, dataset = key
    return f"{task} {split} {name_of(metric)}" + ("" if dataset == ALL else f", {dataset}")


def _check(what: str, subject: str, is_fine: bool, message: str) -> Check:
    return Check(what=what, subject=subject, status=Status.PASSED if is_fine else Status.FAILED, message=message)
