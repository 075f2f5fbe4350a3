"""Several models' replies to the same questions to differences from the first model, with tests and verdicts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np

from gastrovl.clinical.taxonomy import Taxonomy
from gastrovl.core.errors import PredictionError
from gastrovl.core.files import sha256_file, whole_folder
from gastrovl.core.manifest import write_manifest
from gastrovl.core.types import Split, Task
from gastrovl.evaluation import tasks
from gastrovl.evaluation.comparing.comparison import (
    Compared,
    Comparison,
    Conclusion,
    Contender,
    Family,
    Rank,
    Unread,
    write_comparison,
)
from gastrovl.evaluation.comparing.contrast import contrasts
from gastrovl.evaluation.comparing.forest import save_forest
from gastrovl.evaluation.comparing.report import write_report
from gastrovl.evaluation.comparing.verdict import conclude
from gastrovl.evaluation.items import Item, read_items
from gastrovl.evaluation.measures.measure import Flags
from gastrovl.evaluation.measures.weighted import AnyMeasure
from gastrovl.evaluation.results import ALL
from gastrovl.evaluation.statistics.intervals import LEVEL
from gastrovl.evaluation.statistics.multiplicity import holm
from gastrovl.evaluation.statistics.power import ALPHA, POWER

Progress = Callable[[str, int, int], None]
Key = tuple[Split, Task]


@dataclass(frozen=True)
class Block:
    """One model's measures of the questions of one split and task, in the order of the conversations."""

    ids: tuple[str, ...]
    groups: tuple[str, ...]
    sources: tuple[str, ...]
    measures: list[AnyMeasure]
    is_unread: Flags


@dataclass(frozen=True)
class Reading:
    """One model's replies, scored."""

    models: tuple[str, ...]
    blocks: dict[Key, Block]


def compare(
    files: Sequence[Path],
    conversations: Path,
    output: Path,
    *,
    wanted: float | None = None,
    resamples: int = 2000,
    seed: int = 7,
    is_replaced: bool = False,
    progress: Progress | None = None,
    now: datetime | None = None,
) -> Comparison:
    """Compare predictions files and write comparison.json, .md and .csv, plots/differences.png and manifest.json.

    Args:
        files: Two or more JSONL files of Prediction, exactly one for each conversation; the first is the reference.
        conversations: JSONL of Conversation.
        output: Folder to make.
        wanted: A difference (a fraction in (0, 1]) for which to work out how many groups would show it.
        resamples: Draws of the bootstrap; 0 leaves the intervals out.
        seed: Of the bootstrap and of the swaps of groups.
        is_replaced: Replace `output` when it holds an earlier comparison.
        progress: Called with what is being done, steps done and steps in all.

    Raises:
        RecordError: A file is missing or broken.
        PredictionError: Fewer than two files, or a reply is missing, double, or answers no known conversation.
        MissingExtraError: A library of the extra "evaluate" is not installed.
        OutputError: `output` cannot be written or holds something else.
    """
    files, conversations, output = [Path(path) for path in files], Path(conversations), Path(output)
    if len(files) < 2:
        raise PredictionError(
            f"{len(files)} predictions file given; a comparison takes two or more, the reference first"
        )
    taxonomy = Taxonomy.load()
    with whole_folder(output, is_replaced=is_replaced) as folder:
        readings = []
        for done, path in enumerate(files):
            if progress:
                progress("reading replies", done, len(files))
            readings.append(reading_of(read_items(path, conversations, taxonomy)))
        if progress:
            progress("reading replies", len(files), len(files))
        names = unique_names([reading.models for reading in readings], files)
        comparison = compare_readings(
            dict(zip(names, readings, strict=True)),
            [path.name for path in files],
            taxonomy,
            wanted=wanted,
            resamples=resamples,
            seed=seed,
            progress=progress,
        )
        write_comparison(folder / "comparison.json", comparison)
        write_report(folder, comparison)
        save_forest(folder / "plots" / "differences", comparison)
        inputs = {f"predictions {place}: {path.name}": sha256_file(path) for place, path in enumerate(files, start=1)}
        write_manifest(
            folder,
            stage="compare",
            config={
                "predictions": [path.name for path in files],
                "conversations": conversations.name,
                "wanted": wanted,
                "resamples": resamples,
            },
            seed=seed,
            inputs={**inputs, f"conversations: {conversations.name}": sha256_file(conversations)},
            now=now,
        )
    return comparison


def reading_of(items: Sequence[Item]) -> Reading:
    """Score joined items, block by block; the one place of a comparison that looks into questions and replies."""
    grouped: dict[Key, list[Item]] = {(split, task): [] for split in Split for task in Task}
    for item in items:
        grouped[item.question.split, item.question.task].append(item)
    blocks = {}
    for (split, task), some in grouped.items():
        if some:
            asked, answers = [item.question for item in some], [item.answer for item in some]
            blocks[split, task] = Block(
                ids=tuple(one.id for one in asked),
                groups=tuple(one.group for one in asked),
                sources=tuple(one.source for one in asked),
                measures=[
                    *tasks.measures_of(task, asked, answers),
                    *tasks.measures_of_replies(task, some, tasks.verdicts(task, some)),
                ],
                is_unread=tasks.unparsed(answers),
            )
    return Reading(tuple(sorted({item.reply.model for item in items})), blocks)


def compare_readings(
    readings: Mapping[str, Reading],
    files: Sequence[str],
    taxonomy: Taxonomy,
    *,
    wanted: float | None,
    resamples: int,
    seed: int,
    progress: Progress | None = None,
) -> Comparison:
    """Everything a comparison says, in memory; the first reading is the reference.

    Args:
        readings: By unique names.
        files: What each reading was read from.

    Raises:
        PredictionError: Two readings are not of the same questions.
    """
    (reference, first), *others = readings.items()
    for name, reading in others:
        _check_same_questions(reference, first, name, reading)
    compared: list[Compared] = []
    steps = [(key, name, reading) for key in first.blocks for name, reading in others]
    for done, (key, name, reading) in enumerate(steps):
        if progress:
            progress("comparing", done, len(steps))
        compared += _block_contrasts(
            key, reference, first.blocks[key], name, reading.blocks[key], wanted, resamples, seed
        )
    if progress:
        progress("comparing", len(steps), len(steps))
    compared, sizes = _adjusted(compared)
    unread = _unread(readings)
    return Comparison(
        reference=reference,
        contenders=tuple(
            Contender(name=name, models=reading.models, file=file)
            for (name, reading), file in zip(readings.items(), files, strict=True)
        ),
        taxonomy=taxonomy.version,
        resamples=resamples,
        seed=seed,
        level=LEVEL,
        alpha=ALPHA,
        power=POWER,
        wanted=wanted,
        family_sizes=sizes,
        unread=tuple(unread),
        compared=tuple(compared),
        conclusions=tuple(_conclusions(compared, unread, sizes, wanted)),
        ranks=tuple(_ranks(compared, list(readings))),
        notes=tuple(_notes(readings)),
    )


def unique_names(models: Sequence[Sequence[str]], files: Sequence[Path]) -> list[str]:
    """A name for each predictions file: that of its replies' one model, else the file's; unique by file and number."""
    names = [one[0] if len(one) == 1 and one[0] else path.stem for one, path in zip(models, files, strict=True)]
    counts = Counter(names)
    names = [f"{name} ({path.stem})" if counts[name] > 1 else name for name, path in zip(names, files, strict=True)]
    taken: set[str] = set()
    for place, name in enumerate(names):
        number = 2
        while names[place] in taken:
            names[place] = f"{name} {number}"
            number += 1
        taken.add(names[place])
    return names


def _check_same_questions(reference: str, first: Reading, name: str, reading: Reading) -> None:
    mine, theirs = ({key: block.ids for key, block in one.blocks.items()} for one in (first, reading))
    if mine == theirs:
        return
    known = {one for ids in mine.values() for one in ids}
    other = {one for ids in theirs.values() for one in ids}
    odd = sorted(known ^ other)
    found = f"{len(odd)} stand in one of the two only, e.g. {odd[0]!r}" if odd else "their order or task differs"
    raise PredictionError(
        f"{reference} answers {len(known)} questions and {name} {len(other)}, which are not the same: {found}. Only "
        "replies to the same questions are compared; let both models answer one conversations file"
    )


def _block_contrasts(
    key: Key,
    reference: str,
    first: Block,
    other: str,
    second: Block,
    wanted: float | None,
    resamples: int,
    seed: int,
) -> list[Compared]:
    """All metrics over all questions; then, where there are several datasets, the headline in each of them."""
    split, task = key
    known = {measure.metric: measure for measure in second.measures}
    metrics = _shared_metrics(first, second)
    pairs = [(measure, known[measure.metric]) for measure in first.measures if measure.metric in metrics]
    sources = np.array(first.sources, dtype=object)
    datasets = sorted(set(first.sources))
    found = []
    for dataset in (ALL, *(datasets if len(datasets) > 1 else ())):
        chosen = [pair for pair in pairs if dataset == ALL or pair[0].metric == tasks.HEADLINE[task]]
        found += contrasts(
            Compared(
                task=task,
                split=split,
                metric="",
                dataset=dataset,
                reference=reference,
                other=other,
                is_headline=False,
                n=0,
                n_groups=0,
                reference_value=None,
                other_value=None,
                difference=None,
            ),
            [pair[0] for pair in chosen],
            [pair[1] for pair in chosen],
            first.groups,
            rows=None if dataset == ALL else sources == dataset,
            headline=tasks.HEADLINE[task],
            wanted=wanted,
            resamples=resamples,
            seed=seed,
        )
    return found


def _shared_metrics(first: Block, second: Block) -> set[str]:
    """Metrics that both models have, about the same questions; e.g. no other model may state its confidence."""
    about = {measure.metric: measure.applies for measure in second.measures}
    return {
        measure.metric
        for measure in first.measures
        if measure.metric in about and np.array_equal(measure.applies, about[measure.metric])
    }


def _adjusted(compared: Sequence[Compared]) -> tuple[list[Compared], dict[Family, int]]:
    """P values adjusted within each family, and how many each holds."""
    found, sizes = list(compared), {}
    for family in Family:
        places = [place for place, one in enumerate(compared) if one.family is family]
        p_values = [compared[place].p for place in places]
        sizes[family] = sum(p is not None for p in p_values)
        for place, p in zip(places, holm(p_values), strict=True):
            found[place] = compared[place].model_copy(update={"p_holm": p})
    return found, sizes


def _unread(readings: Mapping[str, Reading]) -> list[Unread]:
    return [
        Unread(name=name, task=task, split=split, n=len(block.ids), n_unread=int(block.is_unread.sum()))
        for name, reading in readings.items()
        for (split, task), block in reading.blocks.items()
    ]


def _conclusions(
    compared: Sequence[Compared], unread: Sequence[Unread], sizes: Mapping[Family, int], wanted: float | None
) -> list[Conclusion]:
    counts = {(one.name, one.split, one.task): one.n_unread for one in unread}
    has_splits = len({one.split for one in compared}) > 1
    return [
        conclude(
            one,
            comparisons=sizes[Family.HEADLINE],
            unread=(counts[one.reference, one.split, one.task], counts[one.other, one.split, one.task]),
            where=f"{one.task} ({one.split})" if has_splits else str(one.task),
            wanted=wanted,
        )
        for one in compared
        if one.family is Family.HEADLINE
    ]


def _ranks(compared: Sequence[Compared], names: Sequence[str]) -> list[Rank]:
    """Places by headline value over all datasets; among equals the earlier file is named first."""
    values: dict[Key, dict[str, float]] = {}
    for one in compared:
        if one.family is Family.HEADLINE:
            of_block = values.setdefault((one.split, one.task), {})
            for name, value in ((one.reference, one.reference_value), (one.other, one.other_value)):
                if value is not None:
                    of_block[name] = value
    return [
        Rank(
            task=task,
            split=split,
            place=1 + sum(other > of_block[name] for other in of_block.values()),
            name=name,
            value=of_block[name],
        )
        for (split, task), of_block in values.items()
        for name in sorted(of_block, key=lambda name: (-of_block[name], names.index(name)))
    ]


def _notes(readings: Mapping[str, Reading]) -> list[str]:
    """What a reader must know before quoting a verdict."""
    notes = []
    for name, reading in readings.items():
        if len(reading.models) > 1:
            notes.append(f"{name} holds replies of several models: {', '.join(reading.models)}.")
    (reference, first), *others = readings.items()
    for name, reading in others:
        for (split, task), block in reading.blocks.items():
            mine = first.blocks[split, task]
            metrics = {measure.metric for measure in (*mine.measures, *block.measures)}
            if odd := sorted(metrics - _shared_metrics(mine, block)):
                notes.append(
                    f"{task} {split}: {', '.join(odd)}: not compared, for {reference} and {name} do not both have it "
                    "for the same questions."
                )
    return notes
