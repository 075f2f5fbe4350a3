"""What was found by judges and people, to judged.json, judged.md and pictures in a folder."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from gastrovl.core.files import write_text
from gastrovl.evaluation.judging.judged import Agreement, CriterionMean, Judged, Preference, write_judged
from gastrovl.evaluation.judging.pictures import save_pictures

NO_VALUE = "–"
DOUBT = "†"
_SHORT = ("same level", "Cohen's kappa", "Cohen's kappa, quadratic", "ICC(2,1)", "Spearman")
_TOGETHER = ("people, all", "rules")  # kinds with coefficients of their own
_HARM = (
    "A reply counts by the middle one of its levels, the worse one where two are in the middle. The interval is exact "
    "for independent replies and too narrow where a patient has several."
)


def write_report(folder: Path, judged: Judged) -> None:
    """Write judged.json, judged.md and plots/*.png.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    write_judged(folder / "judged.json", judged)
    write_text(folder / "judged.md", to_markdown(judged))
    save_pictures(folder / "plots", judged)


def to_markdown(judged: Judged) -> str:
    """All tables, with what a reader must know first."""
    people = f"{len(judged.raters)} people" if judged.raters else "no people"
    head = [
        "# What judges and people said",
        f"> {judged.notice}",
        f"Rubrics: {', '.join(judged.rubrics) or 'none'}. Judges: {', '.join(judged.judges) or 'none'}. "
        f"Rated by {people}. Intervals: {judged.level:.0%}, {judged.resamples} draws of whole groups (patient, exam, "
        f"near-duplicates), seed {judged.seed}.",
    ]
    parts = [*head, *(f"**Note.** {note}" for note in judged.notes)]
    parts += _section("Mean levels", mean_rows(judged.means))
    parts += _section("Harm", _harm_rows(judged), _HARM)
    for one in judged.preferences:
        parts += _section("Which model is preferred", _preference_rows(one))
    parts += _section("Agreement of two", _pair_rows(judged.agreements))
    parts += _section("Agreement of several people, and with the rules", _together_rows(judged.agreements))
    parts += _section("What the order of the prompt does", _shift_rows(judged))
    parts += _section("Judgements that cannot be used", _failure_rows(judged))
    doubts = _doubts([*judged.means, *judged.agreements])
    parts += [f"{DOUBT} {reason}." for reason in doubts]
    return "\n\n".join(parts) + "\n"


def mean_rows(means: Sequence[CriterionMean]) -> list[tuple[str, ...]]:
    """Head and rows of the table of means."""
    if not means:
        return []
    head = ("model", "task", "criterion", "by", "mean [95 % CI]", "of", "n")
    return [
        head,
        *(
            (
                one.model,
                one.task,
                one.criterion,
                one.by,
                _number(one.value, one.low, one.high, one.reason),
                str(one.most),
                str(one.n),
            )
            for one in means
        ),
    ]


def _harm_rows(judged: Judged) -> list[tuple[str, ...]]:
    if not judged.harms:
        return []
    head = ("model", "by", "at least", "replies", "share [exact 95 % CI]")
    rows = [
        (
            one.model,
            one.by,
            one.name,
            f"{one.count} of {one.n}",
            f"{one.count / one.n:.1%} [{one.low:.1%}, {one.high:.1%}]",
        )
        for one in judged.harms
    ]
    return [head, *rows]


def _preference_rows(one: Preference) -> list[tuple[str, ...]]:
    bias = one.first_place + one.second_place
    rows: list[tuple[str, ...]] = [
        (f"{one.first} against {one.second}", f"by {one.judge}"),
        (f"prefers {one.first}", f"{one.first_wins} of {one.n} questions"),
        (f"prefers {one.second}", f"{one.second_wins} of {one.n}"),
        ("tie, or not the same in both orders", f"{one.ties} of {one.n}"),
        (f"net for {one.first}, from -1 to 1", _number(one.net, one.low, one.high, one.reason)),
        ("pairs whose two orders disagree", f"{one.inconsistent} of {one.pairs}"),
        (
            "position bias: the same place won both times",
            f"{bias} of {one.pairs}: {bias / one.pairs:.1%} [{one.bias_low or 0:.1%}, {one.bias_high or 0:.1%}], "
            f"{one.first_place} times the first, {one.second_place} times the second",
        ),
    ]
    return rows


def _pair_rows(agreements: Sequence[Agreement]) -> list[tuple[str, ...]]:
    """One row a criterion and pair, one column a coefficient."""
    found: dict[tuple[str, str], dict[str, Agreement]] = {}
    for one in agreements:
        if one.kind not in _TOGETHER:
            found.setdefault((one.criterion, one.between), {})[one.coefficient] = one
    if not found:
        return []
    head = ("criterion", "between", *(name.replace("Cohen's kappa", "kappa") for name in _SHORT), "n")
    rows = [head]
    for key, some in found.items():
        cells = [_number(one.value, one.low, one.high, one.reason) for one in (some[name] for name in _SHORT)]
        rows.append((*key, *cells, str(some[_SHORT[0]].n)))
    return rows


def _together_rows(agreements: Sequence[Agreement]) -> list[tuple[str, ...]]:
    """Several people at once, and everybody against the rules: one row a coefficient."""
    rows = [
        (one.criterion, one.between, one.coefficient, _number(one.value, one.low, one.high, one.reason), str(one.n))
        for one in agreements
        if one.kind in _TOGETHER
    ]
    return [("criterion", "between", "coefficient", "value [95 % CI]", "n"), *rows] if rows else []


def _shift_rows(judged: Judged) -> list[tuple[str, ...]]:
    if not judged.shifts:
        return []
    head = ("judge", "criterion", "swapped less as it is [95 % CI]", "n")
    rows = [(one.judge, one.criterion, _number(one.value, one.low, one.high), str(one.n)) for one in judged.shifts]
    return [head, *rows]


def _failure_rows(judged: Judged) -> list[tuple[str, ...]]:
    if not judged.failures:
        return []
    rows: list[tuple[str, ...]] = [("judge", "reason", "judgements")]
    for one in judged.failures:
        rows.append((one.judge, "all", f"{one.failed} of {one.asked}"))
        rows += [(one.judge, reason, str(count)) for reason, count in one.reasons.items()]
    return rows


def _section(title: str, rows: Sequence[tuple[str, ...]], said: str | None = None) -> list[str]:
    return [f"## {title}", *([said] if said else []), _table(rows)] if rows else []


def _table(rows: Sequence[tuple[str, ...]]) -> str:
    lines = ["| " + " | ".join(_cell(cell) for cell in row) + " |" for row in rows]
    lines.insert(1, "|" + " --- |" * len(rows[0]))
    return "\n".join(lines)


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").replace("<", "&lt;").split())


def _number(value: float | None, low: float | None, high: float | None, reason: str | None = None) -> str:
    if value is None:
        return NO_VALUE + DOUBT
    doubt = DOUBT if reason else ""
    return f"{value:.2f}{doubt}" if low is None or high is None else f"{value:.2f} [{low:.2f}, {high:.2f}]{doubt}"


def _doubts(rows: Iterable[CriterionMean | Agreement]) -> list[str]:
    return list(dict.fromkeys(one.reason for one in rows if one.reason))
