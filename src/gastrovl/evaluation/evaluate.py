"""A predictions file and the conversations it answers, to a folder of scores, tables and plots."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np

from gastrovl.clinical.taxonomy import Taxonomy
from gastrovl.core.errors import ConfigError
from gastrovl.core.files import sha256_file, whole_folder
from gastrovl.core.manifest import write_manifest
from gastrovl.core.parallel import in_order
from gastrovl.core.types import Split, Task
from gastrovl.evaluation import tasks
from gastrovl.evaluation.baselines.thumbnails import Progress, Thumbnails, read_thumbnails
from gastrovl.evaluation.baselines.trivial import ALWAYS_ABSENT, Baseline
from gastrovl.evaluation.folds import Fold, read_folds, rivals
from gastrovl.evaluation.items import Answer, Item, parse_failures
from gastrovl.evaluation.measures import classification, localisation
from gastrovl.evaluation.measures.bertscore import open_scorer
from gastrovl.evaluation.measures.factcounts import processes
from gastrovl.evaluation.measures.language import bleu_signature
from gastrovl.evaluation.measures.texts import WORDS_AND_FACTS, TextScoring
from gastrovl.evaluation.questions import Question
from gastrovl.evaluation.results import (
    ALL,
    ClassScore,
    ConfusionMatrix,
    IouCurve,
    Replies,
    Results,
    write_results,
)
from gastrovl.evaluation.scoring import Scored, score_task
from gastrovl.evaluation.showing.confidenceplots import save_confidence_plots
from gastrovl.evaluation.showing.plots import save_plots
from gastrovl.evaluation.showing.report import write_report
from gastrovl.evaluation.showing.tables import write_tables
from gastrovl.evaluation.statistics.intervals import LEVEL

_CURVE_AT = np.linspace(0.05, 1.0, 39)  # IoU thresholds of the curve; at 0 any box would do
_REASONS = 10  # commonest reasons for unread replies that are kept


def evaluate(
    predictions: Path | Sequence[Path],
    conversations: Path | Sequence[Path],
    output: Path,
    *,
    train: Path | Sequence[Path] | None = None,
    resamples: int = 1000,
    seed: int = 7,
    uses_images: bool = True,
    is_replaced: bool = False,
    by_facts: bool = True,
    bertscore: Path | None = None,
    bertscore_layer: int | None = None,
    workers: int = 1,
    progress: Progress | None = None,
    now: datetime | None = None,
) -> Results:
    """Score replies and write report.html, results.json, tables.*, paper.*, plots/*.png and manifest.json.

    Args:
        predictions: JSONL of Prediction, exactly one for each conversation. Several are the folds of a
            cross-validation: their questions are scored together, beside baselines that learn from each fold's own
            training split.
        conversations: JSONL of Conversation, in the folder of the dataset; as many as predictions.
        output: Folder to make.
        train: The training split the baselines learn from; train.jsonl beside `conversations` when not given.
        resamples: Draws of the bootstrap; 0 leaves the intervals out.
        seed: Of the bootstrap and of the captions sampled for a baseline.
        uses_images: False leaves out the nearest-neighbour baseline, the one thing that opens images.
        is_replaced: Replace `output` when it holds an earlier evaluation.
        by_facts: False leaves the facts that captions and reports state out.
        bertscore: Folder of the model by whose BERTScore captions and reports are scored, too.
        bertscore_layer: As in `bertscore.open_scorer`.
        workers: Processes that read facts where there are thousands of captions. A script that asks for more than one
            needs the guard `if __name__ == "__main__":`, for each of them imports it.
        progress: Called with what is being done, steps done and steps in all.

    Raises:
        RecordError: A file is missing or broken.
        CheckpointError, ConfigError: The model of BERTScore cannot be opened, or has no such layer.
        ConfigError: There are more files of one kind than of another.
        PredictionError: A reply is missing, double, or answers no known conversation; or folds share a question.
        ImageError: An image is missing or broken.
        MissingExtraError: A library of the extra "evaluate" is not installed.
        OutputError: `output` cannot be written or holds something else.
    """
    files = {"predictions": _paths(predictions), "conversations": _paths(conversations), "train": _paths(train)}
    output, taxonomy = Path(output), Taxonomy.load()
    with (
        whole_folder(output, is_replaced=is_replaced) as folder,
        _no_garbage_search(),
        _text_scoring(by_facts, bertscore, bertscore_layer, workers) as how,
    ):
        files["train"] = files["train"] or [path.parent / "train.jsonl" for path in files["conversations"]]
        folds = read_folds(files["predictions"], files["conversations"], files["train"], taxonomy)
        thumbnails = None
        if uses_images:
            asked = [([item.question for item in fold.items], fold.folder) for fold in folds]
            known = [(fold.train, path.parent) for fold, path in zip(folds, files["train"], strict=True)]
            thumbnails = read_thumbnails([*asked, *known], progress)
        results = score_folds(folds, thumbnails, taxonomy, resamples=resamples, seed=seed, how=how, progress=progress)
        items = [item for fold in folds for item in fold.items]
        write_results(folder / "results.json", results)
        write_tables(folder, results)
        save_plots(folder / "plots", results, taxonomy)
        save_confidence_plots(folder / "plots", items)
        write_manifest(
            folder,
            stage="evaluate",
            config={
                **{role: [path.name for path in paths] for role, paths in files.items()},
                "resamples": resamples,
                "images": uses_images,
                "facts": by_facts,
                "bertscore": None if bertscore is None else Path(bertscore).resolve().name,
                "bertscore_layer": bertscore_layer,
            },
            seed=seed,
            inputs={
                f"{role}{f' {number}' if len(paths) > 1 else ''}: {path.name}": sha256_file(path)
                for role, paths in files.items()
                for number, path in enumerate(paths, start=1)
            },
            now=now,
        )
        write_report(folder, results, items, _folders(folds) if uses_images else None, seed=seed)
    return results


def score_items(
    items: Sequence[Item],
    train: Sequence[Question],
    thumbnails: Thumbnails | None,
    taxonomy: Taxonomy,
    *,
    resamples: int,
    seed: int,
    how: TextScoring = WORDS_AND_FACTS,
    progress: Progress | None = None,
) -> Results:
    """Everything an evaluation says about joined items, in memory; arguments are those of `score_folds`."""
    fold = Fold(items, train)
    return score_folds([fold], thumbnails, taxonomy, resamples=resamples, seed=seed, how=how, progress=progress)


def score_folds(
    folds: Sequence[Fold],
    thumbnails: Thumbnails | None,
    taxonomy: Taxonomy,
    *,
    resamples: int,
    seed: int,
    how: TextScoring = WORDS_AND_FACTS,
    progress: Progress | None = None,
) -> Results:
    """Everything an evaluation says about the questions of all folds together, in memory.

    Args:
        how: By what captions and reports are scored.
        thumbnails: Of the images of questions and training splits, or None to leave the nearest neighbour out.
    """
    items = [item for fold in folds for item in fold.items]
    blocks = _blocks(items)

    def scored(block: tuple[Split, Task]) -> _Part:
        split, task = block
        beside = rivals(folds, split, task, thumbnails, seed=seed)
        return _part(task, split, blocks[block], beside, taxonomy, how, resamples=resamples, seed=seed)

    longest_first = sorted(blocks, key=lambda block: (block[1] not in tasks.TEXT_TASKS, -len(blocks[block])))
    found: dict[tuple[Split, Task], _Part] = {}
    for block, part in zip(longest_first, in_order(scored, longest_first), strict=True):
        found[block] = part
        if progress:
            progress("scoring", len(found), len(blocks))
    parts = [found[block] for block in blocks]
    has_text = any(score.metric == "bleu4" for part in parts for score in part.scored.scores)
    return Results(
        models=tuple(sorted({item.reply.model for item in items})),
        taxonomy=taxonomy.version,
        resamples=resamples,
        seed=seed,
        level=LEVEL,
        bleu=bleu_signature() if has_text else None,
        bertscore=how.scorer.signature if how.scorer and has_text else None,
        scores=tuple(score for part in parts for score in part.scored.scores),
        baselines=tuple(score for part in parts for score in part.scored.baselines),
        replies=tuple(part.replies for part in parts),
        per_class=tuple(one for part in parts for one in part.per_class),
        confusion=tuple(part.confusion for part in parts if part.confusion),
        iou_curves=tuple(curve for part in parts for curve in part.curves),
        notes=tuple(_notes(folds, parts, has_neighbour=thumbnails is not None)),
    )


@dataclass(frozen=True)
class _Part:
    """What was found for one task and split."""

    scored: Scored
    replies: Replies
    per_class: list[ClassScore]
    confusion: ConfusionMatrix | None
    curves: list[IouCurve]


def _part(
    task: Task,
    split: Split,
    items: Sequence[Item],
    rivals: Sequence[Baseline],
    taxonomy: Taxonomy,
    how: TextScoring,
    *,
    resamples: int,
    seed: int,
) -> _Part:
    asked, answers = [item.question for item in items], [item.answer for item in items]
    is_labels = task in tasks.LABEL_TASKS
    return _Part(
        scored=score_task(task, split, items, rivals, resamples=resamples, seed=seed, how=how),
        replies=_replies(task, split, items),
        per_class=_per_class(task, split, asked, answers) if is_labels else [],
        confusion=_confusion(task, split, asked, answers, taxonomy) if is_labels else None,
        curves=_curves(split, asked, answers, rivals) if task is Task.REC else [],
    )


def _per_class(task: Task, split: Split, asked: Sequence[Question], answers: Sequence[Answer]) -> list[ClassScore]:
    """Every label over all conversations and, where there are several datasets, in each."""
    sources = sorted({one.source for one in asked})
    found = []
    for dataset in (ALL, *(sources if len(sources) > 1 else ())):
        chosen = [(one, answer) for one, answer in zip(asked, answers, strict=True) if dataset in (ALL, one.source)]
        counts = classification.per_class(
            tasks.true_labels([one for one, _ in chosen]), tasks.given_labels([answer for _, answer in chosen])
        )
        found += [
            ClassScore(
                task=task,
                dataset=dataset,
                split=split,
                label=one.label,
                n_true=one.n_true,
                n_predicted=one.n_predicted,
                precision=one.precision,
                recall=one.recall,
                f1=one.f1,
            )
            for one in counts
        ]
    return found


def _confusion(
    task: Task, split: Split, asked: Sequence[Question], answers: Sequence[Answer], taxonomy: Taxonomy
) -> ConfusionMatrix | None:
    true, given = tasks.true_labels(asked), tasks.given_labels(answers)
    listed = [term.id for term in taxonomy.terms]
    unlisted = sorted(frozenset[str]().union(*true, *(labels for labels in given if labels)).difference(listed))
    found = classification.confusion(true, given, [*listed, *unlisted])
    if found is None:
        return None
    return ConfusionMatrix(task=task, split=split, rows=found.rows, columns=found.columns, counts=found.counts)


def _curves(
    split: Split, asked: Sequence[Question], answers: Sequence[Answer], rivals: Sequence[Baseline]
) -> list[IouCurve]:
    found = []
    for name, given in (("model", answers), *((rival.name, rival.answers) for rival in rivals)):
        shares = localisation.curve(tasks.true_boxes(asked), tasks.given_boxes(given), _CURVE_AT)
        if shares is not None and name != ALWAYS_ABSENT:
            found.append(
                IouCurve(split=split, name=name, thresholds=tuple(_CURVE_AT.tolist()), shares=tuple(shares.tolist()))
            )
    return found


def _replies(task: Task, split: Split, items: Sequence[Item]) -> Replies:
    reasons = parse_failures(items)
    return Replies(
        task=task,
        split=split,
        n=len(items),
        n_unparsed=sum(reasons.values()),
        n_cut=sum(item.reply.stop_reason == "length" for item in items),
        seconds=sum(item.reply.seconds for item in items),
        reasons=dict(reasons.most_common(_REASONS)),
    )


def _notes(folds: Sequence[Fold], parts: Sequence[_Part], *, has_neighbour: bool) -> list[str]:
    """What a reader must know before quoting a number."""
    notes = [
        f"{part.replies.task} {part.replies.split}: no baseline, for the training file holds no such conversation."
        for part in parts
        if not part.scored.baselines
    ]
    if not has_neighbour:
        notes.append("The nearest-neighbour baseline was left out on request, so scores lack their strongest rival.")
    if len(folds) > 1:
        notes.append(
            f"{len(folds)} folds of a cross-validation: as many models, each asked what it was not trained on."
        )
    shared = frozenset[str]().union(
        *({item.question.group for item in fold.items} & {one.group for one in fold.train} for fold in folds)
    )
    if shared:
        notes.append(
            f"{len(shared)} groups (patients, exams or videos) stand in the training file as well, e.g. "
            f"{min(shared)!r}: these scores say what was memorised, not what was learnt."
        )
    return notes


def _blocks(items: Sequence[Item]) -> dict[tuple[Split, Task], list[Item]]:
    """Items by split and task, both in the order of their enumerations."""
    found: dict[tuple[Split, Task], list[Item]] = {(split, task): [] for split in Split for task in Task}
    for item in items:
        found[item.question.split, item.question.task].append(item)
    return {key: some for key, some in found.items() if some}


@contextmanager
def _text_scoring(
    by_facts: bool, bertscore: Path | None, bertscore_layer: int | None, workers: int
) -> Iterator[TextScoring]:
    """By what texts are scored, for as long as an evaluation takes."""
    if bertscore is None and bertscore_layer is not None:
        raise ConfigError(f"a layer of BERTScore is named ({bertscore_layer}), but no model; name its folder, too")
    scorer = None if bertscore is None else open_scorer(Path(bertscore), bertscore_layer)
    helpers = processes(workers) if by_facts else None
    try:
        yield TextScoring(by_facts=by_facts, scorer=scorer, helpers=helpers)
    finally:
        if helpers is not None:
            helpers.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _no_garbage_search() -> Iterator[None]:
    """Millions of objects that all live on: searching them for cycles again and again takes a sixth of the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _paths(given: Path | Sequence[Path] | None) -> list[Path]:
    if given is None:
        return []
    return [Path(given)] if isinstance(given, (str, Path)) else [Path(one) for one in given]


def _folders(folds: Sequence[Fold]) -> Callable[[Item], Path]:
    """Where the image of an item lies: the folder of its fold."""
    return lambda item: next(one.folder for one in folds if len(folds) == 1 or item.question.id in one.ids)
