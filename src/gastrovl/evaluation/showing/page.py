"""A finished run folder to one HTML file that shows what the model can and cannot do; no remote asset, no script."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from gastrovl.clinical.taxonomy import Taxonomy
from gastrovl.core.errors import RecordError
from gastrovl.core.files import write_text
from gastrovl.core.manifest import Manifest, read_manifest
from gastrovl.core.trainlog import read_log
from gastrovl.core.types import Split, Task
from gastrovl.evaluation.items import read_items
from gastrovl.evaluation.questions import read_questions
from gastrovl.evaluation.results import ALL, Results, read_results
from gastrovl.evaluation.showing.curves import draw_loss, draw_scores_over_time
from gastrovl.evaluation.showing.gallery import Card, cards
from gastrovl.evaluation.showing.names import NO_VALUE, name_with_unit, shown
from gastrovl.evaluation.showing.tables import Table, dataset_table, metric_table, overall_table, reading_notes
from gastrovl.evaluation.showing.templating import template

_SPLITS = (Split.TEST, Split.VAL)  # the unseen one first
_MANIFESTS = (".", "data", "train", "evaluation/val", "evaluation/test")
_ASKS = {
    Task.CLS: "name what the image shows",
    Task.REC: "find the named thing, or say that it is absent",
    Task.REG: "name what is in the box",
    Task.CAP: "describe the image",
    Task.VQA: "answer the question",
    Task.REPORT: "write the report",
}
_PLOTS = {
    "datasets": "Main score of each task by dataset, with 95 % intervals and best trivial baselines",
    "scores": "Every metric over all conversations, with its 95 % interval and the best trivial baseline",
    "iou": "Share of questions about present objects answered rightly, over the overlap that is asked for",
    "confusion": "Confusion matrix: truth in rows, answers in columns",
}


@dataclass(frozen=True)
class Picture:
    """A plot inside a `data:` address, with the words for who cannot see it; a wide one takes a row of its own."""

    address: str
    words: str
    is_wide: bool = False


@dataclass(frozen=True)
class SplitSection:
    """What the page shows of one evaluated split."""

    split: Split
    tables: list[Table]
    pictures: list[Picture]
    notes: list[str]


@dataclass(frozen=True)
class StageRecord:
    """One manifest, its settings as YAML."""

    folder: str
    manifest: Manifest
    settings: str


def write_run_page(folder: Path, *, seed: int = 7) -> Path:
    """Write `folder/index.html` from data/, train/, predictions/ and evaluation/ beside it.

    A folder without train/log.jsonl gets a page without curves; one split evaluated is enough.

    Args:
        folder: A finished run.
        seed: Of the choice of examples.

    Raises:
        RecordError: No evaluation is there, or a file of the run is missing or broken.
        ImageError: An image of an example is missing or broken.
        MissingExtraError: A library of the extra "evaluate" is not installed.
    """
    folder = Path(folder)
    found = {split: folder / "evaluation" / split / "results.json" for split in _SPLITS}
    results = {split: read_results(path) for split, path in found.items() if path.is_file()}
    if not results:
        raise RecordError(
            f"{folder}: holds no evaluation/val/results.json or evaluation/test/results.json; expected a finished run. "
            "Score its predictions with `gastrovl evaluate` first"
        )
    shown = next(iter(results))
    write_text(folder / "index.html", template("run_page.html.j2").render(**_context(folder, results, shown, seed)))
    return folder / "index.html"


def _context(folder: Path, results: dict[Split, Results], shown: Split, seed: int) -> dict[str, Any]:
    scores = [score for split in reversed(_SPLITS) if split in results for score in results[split].scores]
    loss, course, n_broken = _curves(folder / "train" / "log.jsonl")
    stages = _stages(folder)
    sections = [_section(folder, split, one) for split, one in results.items()]
    return {
        "title": f"GastroVL run: {folder.resolve().name}",
        "models": sorted({model for one in results.values() for model in one.models}),
        "overall": overall_table(scores),
        "lead": next((picture for picture in sections[0].pictures if picture.is_wide), None),
        "sections": sections,
        "baselines": [_baseline_table(one, split) for split, one in results.items()],
        "replies": _reply_table(results),
        "unread": _unread(results),
        "asks": _ASKS,
        "counts": _count_table(folder / "data"),
        "loss": loss,
        "course": course,
        "n_broken": n_broken,
        "gallery": _gallery(folder, shown, seed),
        "gallery_split": shown.value,
        "seed": seed,
        "stages": stages,
        "licences": {name: text for stage in stages for name, text in stage.manifest.licences.items()},
        "results": results[shown],
    }


def _gallery(folder: Path, split: Split, seed: int) -> dict[Task, list[Card]]:
    conversations = folder / "data" / f"{split}.jsonl"
    items = read_items(folder / "predictions" / f"{split}.jsonl", conversations, Taxonomy.load())
    return cards(items, conversations.parent, seed=seed)


def _section(folder: Path, split: Split, results: Results) -> SplitSection:
    plots = folder / "evaluation" / split / "plots"
    pictures = [
        Picture(png_uri(path.read_bytes()), f"{words} ({path.stem.replace('_', ' ')})", is_wide=kind == "datasets")
        for kind, words in _PLOTS.items()
        for path in sorted(plots.glob(f"{kind}_*.png"))
    ]
    tables = [dataset_table(results.scores, split), metric_table(results.scores, split)]
    return SplitSection(split, tables, pictures, reading_notes(results))


def _baseline_table(results: Results, split: Split) -> Table:
    """Every baseline on its own, over all conversations."""
    rows = tuple(
        (one.task.value, one.name, name_with_unit(one.metric), shown(one.metric, one.value), str(one.n))
        for one in results.baselines
        if one.dataset == ALL
    )
    return Table(f"Baselines one by one, {split}", ("task", "baseline", "metric", "score", "n"), rows, first_number=3)


def _reply_table(results: dict[Split, Results]) -> Table:
    rows = []
    for split, one in results.items():
        for replies in one.replies:
            seconds = f"{replies.seconds / replies.n:.2f}" if replies.n else NO_VALUE
            counts = (str(replies.n), str(replies.n_unparsed), str(replies.n_cut), seconds)
            rows.append((replies.task.value, split.value, *counts))
    columns = ("task", "split", "n", "unread", "cut off", "seconds each")
    return Table("Replies", columns, tuple(rows), first_number=2)


def _unread(results: dict[Split, Results]) -> list[str]:
    return [
        f"{replies.task} {split}: {reason} ({count})"
        for split, one in results.items()
        for replies in one.replies
        for reason, count in replies.reasons.items()
    ]


def _count_table(data: Path) -> Table:
    """Table 1 of the paper: conversations by split and task, and images."""
    paths = {split: data / f"{split}.jsonl" for split in Split}
    found = {split: read_questions(path) for split, path in paths.items() if path.is_file()}
    is_asked = any(one.task is Task.VQA for some in found.values() for one in some)
    columns = (Task.CAP, Task.CLS, Task.REC, Task.REG, *([Task.VQA] if is_asked else []))
    rows = tuple(
        (
            split.value,
            *(str(sum(one.task is task for one in some)) for task in columns),
            str(len({one.image.sha256 for one in some})),
        )
        for split, some in found.items()
    )
    return Table("Conversations and images", ("split", *columns, "images"), rows, first_number=1)


def _curves(path: Path) -> tuple[Picture | None, Picture | None, int]:
    if not path.is_file():
        return None, None, 0
    log = read_log(path)
    loss, course = draw_loss(log.entries), draw_scores_over_time(log.entries)
    return (
        Picture(_figure_uri(loss), "Training and validation loss over optimiser steps") if loss else None,
        Picture(_figure_uri(course), "Validation scores over optimiser steps") if course else None,
        log.n_broken,
    )


def _stages(folder: Path) -> list[StageRecord]:
    found = []
    for name in _MANIFESTS:
        if (folder / name / "manifest.json").is_file():
            manifest = read_manifest(folder / name)
            settings = yaml.safe_dump(manifest.config, sort_keys=False, allow_unicode=True)
            found.append(StageRecord(name, manifest, settings))
    return found


def _figure_uri(figure: Any) -> str:
    stream = io.BytesIO()
    figure.savefig(stream, format="png", metadata={"Software": None})
    return png_uri(stream.getvalue())


def png_uri(content: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(content).decode("ascii")
