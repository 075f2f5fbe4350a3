"""A scored set of replies to `report.html`: scores, figures, and right and wrong cases to look through, in one file."""

from __future__ import annotations

import base64
import hashlib
import math
import random
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path

from gastrovl.core.files import write_text
from gastrovl.core.manifest import Manifest, read_manifest
from gastrovl.core.types import Score, Task
from gastrovl.evaluation import tasks
from gastrovl.evaluation.items import Item
from gastrovl.evaluation.measures.directions import is_better_low
from gastrovl.evaluation.results import ALL, Results
from gastrovl.evaluation.showing import published
from gastrovl.evaluation.showing.gallery import Card, card
from gastrovl.evaluation.showing.names import metric, metric_name, name_with_unit, percent
from gastrovl.evaluation.showing.pictures import pictures
from gastrovl.evaluation.showing.tables import Table, all_tables, overall_table, paper_tables, reading_notes
from gastrovl.evaluation.showing.templating import template, template_text

CASES = 300  # at about 20 kB each
_UNREAD, _SURELY_WRONG = 0.25, 0.4  # most of the cases that may be of these kinds


def write_report(
    folder: Path, results: Results, items: Sequence[Item], images: Callable[[Item], Path] | None, *, seed: int = 7
) -> Path:
    """Write `folder/report.html` from what an evaluation found; plots/ and manifest.json lie in the folder already.

    Args:
        images: Of an item, the folder that its image's path is relative to; None leaves the cases out.
        seed: Of the choice among cases that are alike.

    Raises:
        ImageError: An image of a case is missing or broken.
        MissingExtraError: jinja2 is not installed.
    """
    chosen = choose_cases(items, CASES, seed=seed) if images is not None else []
    shown = _cards(chosen, images)
    manifest = read_manifest(folder)
    script = template_text("report.js")
    unread = sum(not item.is_parsed for item in items)
    context = {
        "title": f"Evaluation of {', '.join(results.models) or 'an unnamed model'}",
        "verdicts": verdicts(results.scores),
        "overall": overall_table(results.scores),
        "tables": all_tables(results.scores)[1:],
        "pictures": pictures(folder / "plots"),
        "meanings": meanings(results.scores),
        "paper": paper_tables(results.scores),
        "caveats": published.caveats(),
        "notes": reading_notes(results),
        "unread": _unread(results),
        "cases": shown,
        "n_all": len(items),
        "n_unread": unread,
        "n_unread_shown": sum(not item.is_parsed for item in chosen),
        "labels": sorted({label for one in shown for label in one.labels}),
        "script": script,
        "script_hash": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii"),
        "has_images": images is not None,
        "datasets": sorted({item.question.source for item in items}),
        "tasks": [task.value for task in Task if any(item.question.task is task for item in items)],
        "seed": seed,
        "results": results,
        "manifest": manifest,
        "command": command_of(manifest),
    }
    write_text(folder / "report.html", template("report.html.j2").render(**context))
    return folder / "report.html"


def choose_cases(items: Sequence[Item], count: int, *, seed: int) -> list[Item]:
    """The cases worth looking at first: unread ones, then wrong ones by falling confidence, then some of all others.

    At most a quarter is unread and two fifths surely wrong, unless too few others are left.
    """
    generator = random.Random(seed)
    shuffled = generator.sample(list(items), len(items))
    unread = [item for item in shuffled if not item.is_parsed]
    wrong = [item for item in shuffled if item.is_parsed and tasks.is_right(item.question, item.answer) is False]
    wrong.sort(key=lambda item: -1.0 if item.reply.confidence is None else -item.reply.confidence)
    first = unread[: math.ceil(count * _UNREAD)]
    first += wrong[: math.ceil(count * _SURELY_WRONG)]
    taken = {item.question.id for item in first}
    rest = [item for item in shuffled if item.question.id not in taken]
    return [*first, *rest][:count]


def verdicts(scores: Sequence[Score]) -> list[str]:
    """One sentence for the main score of each task and split: what was reached, and whether that says anything."""
    return [_verdict(one) for one in scores if one.dataset == ALL and one.metric == tasks.HEADLINE[one.task]]


def meanings(scores: Sequence[Score]) -> list[tuple[str, str]]:
    """Name and meaning of every metric that occurs, in order of report."""
    keys = dict.fromkeys(score.metric for score in scores)
    return [(name_with_unit(key), found) for key in keys if (found := metric(key).meaning)]


def command_of(manifest: Manifest) -> str:
    """The command that made an evaluation, with names of files but not their folders."""
    config = manifest.config
    words = ["gastrovl", manifest.stage, *config["predictions"]]
    for role in ("conversations", "train"):
        words += [word for name in config[role] for word in (f"--{role}", name)]
    words += ["--resamples", str(config["resamples"]), "--seed", str(manifest.seed)]
    words += [] if config["images"] else ["--no-images"]
    words += [] if config["facts"] else ["--no-facts"]
    words += ["--bertscore", config["bertscore"]] if config["bertscore"] else []
    words += ["--bertscore-layer", str(config["bertscore_layer"])] if config["bertscore_layer"] else []
    return shlex.join([*words, "-o", "OUTPUT"])


def _verdict(score: Score) -> str:
    where = f"{score.task}, {score.split}"
    if score.value is None:
        return f"{where}: no score ({score.reason})."
    said = f"{where}: {metric_name(score.metric)} is {percent(score.value)} %"
    if score.low is not None and score.high is not None:
        said += f" [{percent(score.low)}, {percent(score.high)}]"
    said += f" on {score.n:,} questions"
    unread = f"; {score.n_unparsed:,} replies could not be read and count as wrong" if score.n_unparsed else ""
    doubt = f"; {score.reason}" if score.reason else ""
    return f"{said}, {_beside(score)}{unread}{doubt}."


def _beside(score: Score) -> str:
    if score.baseline is None or score.value is None:
        return "with no baseline to stand beside"
    rival = f"the best trivial baseline ({score.baseline_name}, {percent(score.baseline)} %)"
    sign = -1 if is_better_low(score.metric) else 1
    gap = 100 * (score.value - score.baseline) * sign
    if gap <= 0:
        return f"not above {rival}: there is no evidence of seeing in it"
    if score.low is not None and score.low <= score.baseline:
        return f"{gap:.1f} points above {rival}, which its interval does not exclude"
    return f"{gap:.1f} points above {rival}"


def _cards(chosen: Sequence[Item], images: Callable[[Item], Path] | None) -> list[Card]:
    return [] if images is None else [card(item, images(item), number) for number, item in enumerate(chosen)]


def _unread(results: Results) -> Table | None:
    rows = [
        (one.task.value, one.split.value, reason, str(count))
        for one in results.replies
        for reason, count in one.reasons.items()
    ]
    columns = ("task", "split", "why it could not be read", "replies")
    return Table("Replies that could not be read", columns, tuple(rows), first_number=3) if rows else None
