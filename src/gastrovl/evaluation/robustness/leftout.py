"""A dataset folder to folders that each leave one source out of training, and replies of their models to one table.

A source is a stand-in for a centre: its scopes, its patients, its annotators. What a model scores on a source that it
has not seen is what it would score in the next hospital, as far as one can know.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from gastrovl.clinical.taxonomy import Taxonomy
from gastrovl.core.errors import RecordError
from gastrovl.core.files import sha256_file, whole_folder, write_text
from gastrovl.core.manifest import write_manifest
from gastrovl.core.records import to_line
from gastrovl.core.types import Conversation, Record, Split, Task
from gastrovl.evaluation.items import Item, read_items
from gastrovl.evaluation.measures.measure import mean_measure, value
from gastrovl.evaluation.questions import numbered
from gastrovl.evaluation.robustness.drops import Draws, by_task, headline
from gastrovl.evaluation.showing.names import NO_VALUE, metric_name, percent
from gastrovl.evaluation.statistics.intervals import intervals

ALL_SOURCES = "all-sources"  # the folder whose model has seen every source
CONFIG, REPLIES, PLAN = "train.yaml", "replies.jsonl", "left_out.json"
SCHEMA = "gastrovl/left-out/1"


@dataclass(frozen=True)
class Held:
    """A folder without one source.

    Attributes:
        train, test: Questions to learn from, and about the source to be asked.
        shared: Questions left out of training although they are of another source, because their patient, exam, video
            or near-duplicate also stands in the source that is held out.
    """

    source: str
    train: int
    test: int
    shared: int


class LeftOutScore(Record):
    """One source and task: the model that has seen the source, and the one that has not, asked the same questions.

    Attributes:
        seen, unseen: Headline scores with 95 % intervals.
        drop: `seen` less `unseen`, with an interval over the paired differences.
    """

    source: str
    task: Task
    metric: str
    n: int
    seen: float | None
    seen_low: float | None
    seen_high: float | None
    unseen: float | None
    unseen_low: float | None
    unseen_high: float | None
    drop: float | None
    drop_low: float | None
    drop_high: float | None


def prepare(
    dataset: Path, output: Path, config: Mapping[str, Any], *, seed: int, is_replaced: bool = False
) -> list[Held]:
    """Write a dataset folder for each source left out, one with all of them, and a training config in each.

    `output/SOURCE/` holds train.jsonl and val.jsonl without the source, and test.jsonl with it alone;
    `output/all-sources/` holds train, val and test with all. Images are linked, or copied where that cannot be.

    Args:
        dataset: A folder that `gastrovl data build` wrote.
        config: Content of a training config; `train`, `val` and `name` are filled in for each folder.
        seed: Of the training config, for the manifest.

    Raises:
        RecordError: A file is missing or broken, or there is only one source.
        OutputError: `output` is not free.
    """
    dataset, output = Path(dataset), Path(output)
    lines = {split: _read(dataset / f"{split}.jsonl") for split in Split}
    sources = sorted({one.source for one in lines[Split.TEST]})
    if len({one.source for some in lines.values() for one in some}) < 2 or not sources:
        raise RecordError(f"{dataset}: holds questions of {sources or 'no source'}; leaving one out needs two at least")
    held = []
    with whole_folder(output, is_replaced=is_replaced) as folder:
        _write_folder(folder / ALL_SOURCES, lines, dataset)
        _write_config(folder / ALL_SOURCES, output / ALL_SOURCES, config, ALL_SOURCES)
        for source in sources:
            parts, shared = _without(lines, source)
            _write_folder(folder / source, parts, dataset)
            _write_config(folder / source, output / source, config, f"without-{source}")
            held.append(Held(source, len(parts[Split.TRAIN]), len(parts[Split.TEST]), shared))
        said = {"schema": SCHEMA, "sources": [vars(one) for one in held]}
        write_text(folder / PLAN, json.dumps(said, indent=1) + "\n")
        files = [dataset / f"{split}.jsonl" for split in Split]
        inputs = {path.name: sha256_file(path) for path in files}
        write_manifest(folder, stage="shift prepare", config={"train": dict(config)}, seed=seed, inputs=inputs)
    return held


def gather(folder: Path, draws: Draws) -> list[LeftOutScore]:
    """The table of all sources, from `replies.jsonl` in each folder.

    Those of `all-sources` answer its test.jsonl, which holds the test questions of all sources.

    Raises:
        RecordError: The folder was not prepared, or replies are missing.
        PredictionError: Replies do not fit their questions.
    """
    folder = Path(folder)
    try:
        sources = [one["source"] for one in json.loads((folder / PLAN).read_text(encoding="utf-8"))["sources"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RecordError(f"{folder}: holds no {PLAN} of ours; run `gastrovl shift prepare` first") from error
    seen = {item.question.id: item for item in _items(folder / ALL_SOURCES)}
    found = []
    for source in sources:
        for (_, task), unseen in by_task(_items(folder / source)).items():
            found.append(_compare(source, task, [seen[item.question.id] for item in unseen], unseen, draws))
    return found


def to_markdown(found: Sequence[LeftOutScore]) -> str:
    """The table, with the mean over sources of each task below it."""

    def cell(middle: float | None, low: float | None, high: float | None) -> str:
        return (
            percent(middle) if low is None or high is None else f"{percent(middle)} [{percent(low)}, {percent(high)}]"
        )

    lines = [
        "| task | source left out | metric | n | trained with it | trained without it | drop |",
        "| --- | --- | --- | ---: | ---: | ---: | ---: |",
    ]
    for task in (task for task in Task if any(one.task is task for one in found)):
        own = [one for one in found if one.task is task]
        for one in own:
            cells = (
                task.value,
                one.source,
                metric_name(one.metric),
                str(one.n),
                cell(one.seen, one.seen_low, one.seen_high),
                cell(one.unseen, one.unseen_low, one.unseen_high),
                cell(one.drop, one.drop_low, one.drop_high),
            )
            lines.append("| " + " | ".join(cells) + " |")
        means = [[getattr(one, name) for one in own] for name in ("seen", "unseen", "drop")]
        defined = [[value for value in some if value is not None] for some in means]
        shown = [percent(sum(some) / len(some)) if some else NO_VALUE for some in defined]
        lines.append(f"| {task.value} | **mean of sources** | {metric_name(own[0].metric)} | | {' | '.join(shown)} |")
    return "\n".join(lines) + "\n"


def _compare(source: str, task: Task, seen: Sequence[Item], unseen: Sequence[Item], draws: Draws) -> LeftOutScore:
    a, b = headline(task, seen), headline(task, unseen)
    measures = [
        mean_measure(a.metric, column, a.applies, "no question to score")
        for column in (a.earned, b.earned, a.earned - b.earned)
    ]
    groups = [item.question.group for item in unseen]
    bounds = intervals(measures, groups, resamples=draws.resamples, seed=draws.seed)
    values = [value(one) for one in measures]
    return LeftOutScore(
        source=source,
        task=task,
        metric=a.metric,
        n=int(np.sum(a.applies)),
        seen=values[0],
        seen_low=bounds[0].low,
        seen_high=bounds[0].high,
        unseen=values[1],
        unseen_low=bounds[1].low,
        unseen_high=bounds[1].high,
        drop=values[2],
        drop_low=bounds[2].low,
        drop_high=bounds[2].high,
    )


def _items(folder: Path) -> list[Item]:
    if not (folder / REPLIES).is_file():
        raise RecordError(
            f"{folder / REPLIES}: no such file; train with {folder / CONFIG}, then run "
            f"`gastrovl predict RUN {folder / 'test.jsonl'} -o {folder / REPLIES}`"
        )
    return read_items(folder / REPLIES, folder / "test.jsonl", Taxonomy.load())


def _read(path: Path) -> list[Conversation]:
    return [one for _, one in numbered(path, Conversation)]


def _without(lines: Mapping[Split, Sequence[Conversation]], source: str) -> tuple[dict[Split, list[Conversation]], int]:
    """The questions of each split when a source is left out, and how many more left with it."""
    groups = {one.group for some in lines.values() for one in some if one.source == source}
    others = {split: [one for one in lines[split] if one.source != source] for split in (Split.TRAIN, Split.VAL)}
    kept = {split: [one for one in some if one.group not in groups] for split, some in others.items()}
    shared = sum(len(others[split]) - len(kept[split]) for split in others)
    return {**kept, Split.TEST: [one for one in lines[Split.TEST] if one.source == source]}, shared


def _write_folder(folder: Path, parts: Mapping[Split, Sequence[Conversation]], dataset: Path) -> None:
    folder.mkdir(parents=True)
    for split, some in parts.items():
        write_text(folder / f"{split}.jsonl", "".join(to_line(one) + "\n" for one in some))
    for path in sorted({one.image.path for some in parts.values() for one in some}):
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link((dataset / path).resolve(), target)
        except FileNotFoundError as error:
            raise RecordError(f"{dataset / path}: no such image; build the dataset again") from error
        except OSError:  # another file system, or one without hard links
            shutil.copyfile(dataset / path, target)


def _write_config(folder: Path, final: Path, config: Mapping[str, Any], name: str) -> None:
    """A training config for a folder, in the words of the given one."""
    content = {
        **config,
        "name": f"{config.get('name', 'model')}-{name}",
        "train": str(final / "train.jsonl"),
        "val": str(final / "val.jsonl") if (folder / "val.jsonl").stat().st_size else None,
    }
    write_text(folder / CONFIG, yaml.safe_dump(content, sort_keys=False, allow_unicode=True))
