"""A robustness record to tables: scores by corruption and level, all together, traps, and a flat CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from gastrovl.core.types import Split, Task
from gastrovl.evaluation.robustness.record import CellScore, Family, Robustness, Summary
from gastrovl.evaluation.showing.names import NO_VALUE, metric_name, percent

_READING = (
    "Percent. In brackets the 95 % interval, by a bootstrap over groups (patients, exams or videos), {resamples} "
    "resamples, seed {seed}.",
    "A drop is the clean score less the score, over the same questions, with the interval of the paired differences. "
    "A drop whose interval holds 0 is no evidence of any.",
    "The trivial baseline never looks at an image. A score near it says that the model has stopped looking, too.",
    "`right` also counts what is rightly said to be absent.",
)


def to_markdown(found: Robustness) -> str:
    """All tables, with what a reader needs to know."""
    parts = [f"# Robustness of {', '.join(found.models) or 'no model'}"]
    parts.append(f"{found.questions} questions about {found.images} images.")
    if found.summaries:
        parts.append("## All corruptions together\n\n" + _summary_table(found.summaries))
    for split, task in _keys(found.scores):
        own = [one for one in found.scores if (one.split, one.task) == (split, task)]
        if any(one.family is Family.CORRUPTION for one in own):
            parts.append(f"## {task}, {split}: score by corruption and level\n\n" + _level_table(own, found.levels))
    words = [one for one in found.scores if one.family in (Family.LEADING, Family.WORDING)]
    if words:
        parts.append("## Leading questions and other wordings\n\n" + _words_table(words))
        parts.append(
            "*Follows*: replies that say what the trap suggests (for `false_premise`, that name a place for what is "
            "absent). *Unasked*: replies to the plain question that say so anyway. A `true_suggestion` that is "
            "followed is right; the model that needs it looks at the words."
        )
    reading = [line.format(resamples=found.resamples, seed=found.seed) for line in _READING]
    parts.append("\n".join(f"- {line}" for line in (*reading, *found.notes)))
    return "\n\n".join(parts) + "\n"


def to_csv(found: Robustness) -> str:
    """One row a score, fractions and not percent."""
    stream = io.StringIO()
    columns = list(CellScore.model_fields)
    writer = csv.DictWriter(stream, columns, lineterminator="\n")
    writer.writeheader()
    for score in found.scores:
        row = score.model_dump(mode="json")
        writer.writerow({name: "" if row[name] is None else row[name] for name in columns})
    return stream.getvalue()


def _keys(scores: Sequence[CellScore]) -> list[tuple[Split, Task]]:
    present = {(one.split, one.task) for one in scores}
    return [(split, task) for split in Split for task in Task if (split, task) in present]


def _summary_table(summaries: Sequence[Summary]) -> str:
    head = ("task", "split", "metric", "clean", "mean under corruption", "relative drop", "worst cell")
    rows = [
        (
            one.task.value,
            one.split.value,
            metric_name(one.metric),
            percent(one.clean),
            _with_bounds(one.mean_corrupted, one.low, one.high),
            percent(one.relative_drop),
            f"{percent(one.worst)} ({one.worst_name}, level {one.worst_level})" if one.worst_name else NO_VALUE,
        )
        for one in summaries
    ]
    return _table(head, rows, first_number=3)


def _level_table(own: Sequence[CellScore], levels: Sequence[int]) -> str:
    clean = next(one for one in own if one.family is Family.CLEAN)
    cells = {(one.name, one.level): one for one in own if one.family is Family.CORRUPTION}
    head = ("corruption", *(f"level {level}" for level in levels), f"drop at level {levels[-1]}", "relative, mean")
    rows = []
    for name in dict.fromkeys(name for name, _ in cells):
        some = [cells[name, level] for level in levels]
        relative = [one.relative_drop for one in some if one.relative_drop is not None]
        rows.append(
            (
                name.replace("_", " "),
                *(percent(one.value) for one in some),
                _with_bounds(some[-1].drop, some[-1].drop_low, some[-1].drop_high),
                percent(sum(relative) / len(relative)) if relative else NO_VALUE,
            )
        )
    rival = f"; best trivial baseline {percent(clean.baseline)} ({clean.baseline_name})" if clean.baseline_name else ""
    above = (
        f"Clean: {metric_name(clean.metric)} {_with_bounds(clean.value, clean.low, clean.high)}, n = {clean.n}, "
        f"{clean.n_unparsed} unread{rival}."
    )
    return f"{above}\n\n{_table(head, rows, first_number=1)}"


def _words_table(scores: Sequence[CellScore]) -> str:
    head = ("change", "task", "metric", "n", "score", "plain", "drop", "follows", "unasked", "best baseline")
    rows = [
        (
            one.name.replace("_", " "),
            one.task.value,
            metric_name(one.metric),
            str(one.n),
            _with_bounds(one.value, one.low, one.high),
            percent(one.clean),
            _with_bounds(one.drop, one.drop_low, one.drop_high),
            _with_bounds(one.followed, one.followed_low, one.followed_high),
            percent(one.followed_unasked),
            percent(one.baseline),
        )
        for one in scores
    ]
    return _table(head, rows, first_number=3)


def _with_bounds(value: float | None, low: float | None, high: float | None) -> str:
    return percent(value) if low is None or high is None else f"{percent(value)} [{percent(low)}, {percent(high)}]"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], first_number: int) -> str:
    marks = ["---" if index < first_number else "---:" for index in range(len(head))]
    return "\n".join("| " + " | ".join(line) + " |" for line in (head, marks, *rows))
