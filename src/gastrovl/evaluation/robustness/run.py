"""A model that answers files of questions, and questions, to a folder that says how robust its answers are.

The work goes cell by cell: corrupted images and questions are written, the model is asked, the images are removed. A
measurement that was killed goes on behind its last cell, and within it where the asking itself can go on.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from gastrovl.clinical.taxonomy import Taxonomy
from gastrovl.core.figures import save_figure
from gastrovl.core.files import LOCK, resumed_folder, sha256_file, write_text
from gastrovl.core.manifest import write_manifest
from gastrovl.core.types import Task
from gastrovl.evaluation.items import Item, read_items
from gastrovl.evaluation.questions import Question, read_questions
from gastrovl.evaluation.robustness.cells import (
    CLEAN,
    IMAGES,
    Cell,
    Chosen,
    cells_of,
    choose,
    led_questions,
    remove_images,
    write_cell,
)
from gastrovl.evaluation.robustness.corruptions import CORRUPTIONS, LEVELS, check_levels, check_names
from gastrovl.evaluation.robustness.drops import Draws, Scorer
from gastrovl.evaluation.robustness.leading import Trap
from gastrovl.evaluation.robustness.plot import draw_robustness
from gastrovl.evaluation.robustness.record import Family, Robustness, write_robustness
from gastrovl.evaluation.robustness.tables import to_csv, to_markdown

CELLS = "cells"
PLAN = "plan.json"
Predict = Callable[[Path, Path], object]  # a file of conversations, and the file of predictions to write
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Plan:
    """What is measured.

    Attributes:
        corruptions, levels, traps: The cells; empty corruptions or traps leave that part out.
        tasks: Questions of other tasks are not asked.
        limit: At most this many images, drawn by the seed; None takes all.
        resamples: Of the bootstrap; 0 leaves the intervals out.
        seed: Of corruptions, traps, the choice of images and the bootstrap.
    """

    corruptions: tuple[str, ...] = tuple(CORRUPTIONS)
    levels: tuple[int, ...] = LEVELS
    traps: tuple[Trap, ...] = tuple(Trap)
    tasks: tuple[Task, ...] = tuple(Task)
    limit: int | None = None
    resamples: int = 1000
    seed: int = 7


def measure(
    conversations: Path,
    output: Path,
    predict: Predict,
    plan: Plan,
    *,
    model: str,
    train: Path | None = None,
    keeps_images: bool = False,
    is_replaced: bool = False,
    progress: Progress | None = None,
    now: datetime | None = None,
) -> Robustness:
    """Ask every cell, score it, and write robustness.json, .md, .csv and .png, manifest.json and `cells/`.

    Until then everything lies in `.NAME.partial` beside `output`; the same call goes on there. Other corruptions and
    levels may be asked for in between; other questions, another seed or another model begin anew.

    Args:
        conversations: JSONL of Conversation, in the folder of its dataset.
        predict: Answers a file of conversations; called once a cell. It should itself go on where it was killed.
        model: What makes the model itself, e.g. a hash of its files; replies of another one are not reused.
        train: The training split that trivial baselines know; train.jsonl beside `conversations` when it is there.
        keeps_images: Leave the changed images in `output`.
        is_replaced: Replace `output` when it holds an earlier measurement.

    Raises:
        ConfigError: A corruption or level does not exist.
        RecordError: A file is missing or broken, or holds nothing to ask.
        PredictionError: `predict` left questions without a reply.
        ImageError: An image is missing or broken.
        MissingExtraError: A library of the extra "evaluate" is not installed.
        OutputError: `output` cannot be written or holds something else.
    """
    check_names(plan.corruptions)
    check_levels(plan.levels)
    conversations = Path(conversations)
    chosen = choose(conversations, tasks=plan.tasks, limit=plan.limit, seed=plan.seed)
    known = _training_questions(train, conversations)
    cells = cells_of(chosen, plan.corruptions, plan.levels, plan.traps)
    with resumed_folder(Path(output), is_replaced=is_replaced) as folder:
        _keep_or_clear(folder, _identity(conversations, plan, model))
        for number, cell in enumerate(cells, start=1):
            _ask(cell, f"{number}/{len(cells)} {cell.label}", chosen, folder / CELLS, predict, keeps_images, progress)
        found = _scored(cells, chosen, known, folder / CELLS, plan, progress)
        _clean_up(folder, cells, keeps_images=keeps_images)
        _write(folder, found)
        write_manifest(
            folder,
            stage="robustness",
            config={**_settings(plan), "conversations": conversations.name, "model": model},
            seed=plan.seed,
            inputs={f"conversations: {conversations.name}": sha256_file(conversations)},
            now=now,
        )
    return found


def _ask(
    cell: Cell,
    title: str,
    chosen: Chosen,
    folder: Path,
    predict: Predict,
    keeps_images: bool,
    progress: Progress | None,
) -> None:
    """Get the replies to a cell, and its images where they are kept, unless they are there."""
    replies = folder / f"{cell.label}.replies.jsonl"
    if not replies.is_file() or (keeps_images and not (folder / IMAGES).is_dir()):
        show = (lambda done, total: progress(f"images {title}", done, total)) if progress else None
        questions = write_cell(cell, chosen, folder, show)
        if not replies.is_file():
            predict(questions, replies)
    if not keeps_images:
        remove_images(cell, folder)


def _scored(
    cells: Sequence[Cell],
    chosen: Chosen,
    known: Sequence[Question],
    folder: Path,
    plan: Plan,
    progress: Progress | None,
) -> Robustness:
    clean = _items(CLEAN, folder)
    led = {Trap(cell.name): led_questions(chosen, Trap(cell.name)) for cell in cells if cell.family is Family.LEADING}
    scorer = Scorer(clean, known, led, Draws(plan.resamples, plan.seed))
    scores = []
    for done, cell in enumerate(cells, start=1):
        scores += scorer.score(cell, clean if cell == CLEAN else _items(cell, folder))
        if progress:
            progress("scoring", done, len(cells))
    return Robustness(
        models=tuple(sorted({item.reply.model for item in clean})),
        images=len({one.image.path for one in chosen.conversations}),
        questions=len(chosen.conversations),
        corruptions=tuple(plan.corruptions),
        levels=tuple(sorted(set(plan.levels))),
        resamples=plan.resamples,
        seed=plan.seed,
        scores=tuple(scores),
        summaries=tuple(scorer.summaries()),
        notes=tuple(_notes(chosen, known, plan, {str(one.reason) for one in scores if one.reason})),
    )


def _items(cell: Cell, folder: Path) -> list[Item]:
    replies, questions = folder / f"{cell.label}.replies.jsonl", folder / f"{cell.label}.questions.jsonl"
    return read_items(replies, questions, Taxonomy.load())


def _notes(chosen: Chosen, known: Sequence[Question], plan: Plan, reasons: set[str]) -> list[str]:
    notes = [f"Some scores: {reason}." for reason in sorted(reasons)]
    if not known:
        notes.append("No training file was given, so scores stand without trivial baselines.")
    if plan.limit is not None:
        notes.append(f"At most {plan.limit} images were drawn; small numbers make wide intervals.")
    shared = {one.group for one in chosen.conversations} & {one.group for one in known}
    if shared:
        notes.append(f"{len(shared)} groups stand in the training file as well: what was memorised is robust, too.")
    return notes


def _write(folder: Path, found: Robustness) -> None:
    write_robustness(folder / "robustness.json", found)
    write_text(folder / "robustness.md", to_markdown(found))
    write_text(folder / "robustness.csv", to_csv(found))
    figure = draw_robustness(found)
    if figure is not None:
        save_figure(figure, folder / "robustness")


def _clean_up(folder: Path, cells: Sequence[Cell], *, keeps_images: bool) -> None:
    """Remove what no cell of this measurement left, and images that are not to be kept."""
    labels = {cell.label for cell in cells}
    for path in (folder / CELLS).iterdir():
        if path.is_file() and path.name.partition(".")[0] not in labels:
            path.unlink()
    images = folder / CELLS / IMAGES
    for path in images.iterdir() if images.is_dir() else ():
        if not keeps_images or path.name not in labels:
            shutil.rmtree(path)
    if not keeps_images:
        shutil.rmtree(images, ignore_errors=True)
    (folder / PLAN).unlink()


def _identity(conversations: Path, plan: Plan, model: str) -> dict[str, Any]:
    """All that decides what is asked in a cell and who answers."""
    reworded = conversations.with_name(f"{conversations.stem}_reworded{conversations.suffix}")
    return {
        "version": metadata.version("gastrovl"),
        "taxonomy": Taxonomy.load().version,
        "conversations": sha256_file(conversations),
        "reworded": sha256_file(reworded) if reworded.is_file() else None,
        "model": model,
        **{key: value for key, value in _settings(plan).items() if key in ("tasks", "limit", "seed")},
    }


def _settings(plan: Plan) -> dict[str, Any]:
    return {
        "corruptions": list(plan.corruptions),
        "levels": list(plan.levels),
        "traps": [trap.value for trap in plan.traps],
        "tasks": [task.value for task in plan.tasks],
        "limit": plan.limit,
        "resamples": plan.resamples,
        "seed": plan.seed,
    }


def _keep_or_clear(folder: Path, identity: dict[str, Any]) -> None:
    """Leave what an earlier call of the same measurement did; remove all else."""
    try:
        found = json.loads((folder / PLAN).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        found = None
    if found != identity:
        for old in folder.iterdir():
            if old.name != LOCK:
                shutil.rmtree(old) if old.is_dir() else old.unlink()
        write_text(folder / PLAN, json.dumps(identity, indent=1) + "\n")
    (folder / CELLS).mkdir(exist_ok=True)


def _training_questions(train: Path | None, conversations: Path) -> list[Question]:
    path = Path(train) if train else conversations.parent / "train.jsonl"
    return read_questions(path) if train or path.is_file() else []
