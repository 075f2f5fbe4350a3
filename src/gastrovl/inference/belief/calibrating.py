"""A checkpoint folder and predictions for what it, or its like, never saw, to the calibration that is written there."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from gastrovl import __version__
from gastrovl.clinical.taxonomy import Taxonomy
from gastrovl.core import records
from gastrovl.core.errors import ConfigError, OutputError, PredictionError
from gastrovl.core.files import sha256_file
from gastrovl.core.images import open_image
from gastrovl.core.types import Conversation, Prediction, Task
from gastrovl.inference.belief import scope
from gastrovl.inference.belief.calibration import (
    FILE,
    Calibration,
    subject_of,
    weights_hash,
    write_calibration,
)
from gastrovl.inference.belief.checks import check_replies
from gastrovl.inference.belief.fitting import FITTED_TASKS, Case, fit_task
from gastrovl.inference.belief.pooling import Fold, check_apart, check_recipe, hash_of, is_held_out
from gastrovl.inference.belief.telling import words_of
from gastrovl.inference.belief.verdicts import Check
from gastrovl.inference.predictor import Predictor
from gastrovl.inference.question import Question, Reply
from gastrovl.inference.runrecord import read_run

Judge = Callable[[Path, Path], Mapping[str, tuple[bool, list[float]]]]
Progress = Callable[[str, int, int], None]
Asked = tuple[Conversation, Prediction]
PICTURES = {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"}
_BATCH = 32


@dataclass(frozen=True)
class Wishes:
    """What is to be fitted.

    Attributes:
        level: Of label sets and of the scope's borders.
        risk: Of the answers that are given.
        makes_checks: Ask the model follow-up questions, too.
        train: Training split for the scope, or None to leave the scope out.
        outside: Folders of pictures that the model is not for.
    """

    level: float = 0.9
    risk: float = 0.1
    makes_checks: bool = True
    train: Path | None = None
    outside: tuple[Path, ...] = ()


def calibrate_checkpoint(
    folder: Path,
    folds: Sequence[Fold],
    *,
    judge: Judge,
    wishes: Wishes,
    device: str | None = None,
    uses_head: bool = True,
    is_replaced: bool = False,
    progress: Progress | None = None,
) -> list[str]:
    """Write calibration.json (and scope.safetensors) into a checkpoint folder; returns what was found, in words.

    Args:
        folds: Its own validation answers, or the folds of a cross-validation of its recipe (`pooling.paired`), which
            are fitted on together.
        judge: Tells of each conversation whether its reply is right and how well its boxes fit; the evaluation's.

    Raises:
        OutputError: There is a calibration already, and not `is_replaced`.
        PredictionError: Predictions are not a checkpoint's raw ones for these conversations, or folds share a question.
        CheckpointError, RecordError, ImageError: An input is broken.
        ConfigError: There is nothing to fit on, a folder of pictures is empty, a fold's checkpoint was trained on its
            groups, or is of another recipe.
    """
    folder = Path(folder)
    if (folder / FILE).exists() and not is_replaced:
        raise OutputError(f"{folder / FILE} exists already; pass --overwrite to replace it")
    predictor = Predictor.load(folder, device, uses_head=uses_head)
    check_apart(folds)
    pool = _Pool()
    for fold in folds:
        _add(pool, fold, predictor, judge, wishes, device, uses_head=uses_head, progress=progress)
    if not pool.cases:
        named = ", ".join(str(fold.predictions) for fold in folds)
        raise ConfigError(f"{named}: no reply of CLS, REC or REG with a confidence; expected some to fit on")
    tasks = {task: fit_task(task, some, level=wishes.level, risk=wishes.risk) for task, some in pool.cases.items()}
    found_scope = _scope(predictor, pool.own, pool.folder, wishes, progress)
    if found_scope is not None:
        scope.save_scope(folder, found_scope)
    calibration = Calibration(
        model=predictor.card.name,
        weights=weights_hash(folder),
        answered_as=predictor.fingerprint,
        conversations=hash_of([fold.conversations for fold in folds]),
        predictions=hash_of([fold.predictions for fold in folds]),
        answered_by=() if pool.answered_by == [predictor.fingerprint] else tuple(pool.answered_by),
        level=wishes.level,
        risk=wishes.risk,
        tasks=tasks,
        scope=found_scope.limits if found_scope is not None else None,
        version=__version__,
    )
    path = write_calibration(folder, calibration)
    said = [line for task, one in tasks.items() for line in words_of(task, one)]
    return [*said, *_scope_words(calibration), *pool.notes, f"{path}"]


@dataclass
class _Pool:
    """What the folds gave so far; `own` and `folder` are of the answers that the checkpoint itself gave."""

    cases: dict[Task, list[Case]] = field(default_factory=dict)
    own: list[Conversation] = field(default_factory=list)
    folder: Path = Path()
    answered_by: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def _add(
    pool: _Pool,
    fold: Fold,
    predictor: Predictor,
    judge: Judge,
    wishes: Wishes,
    device: str | None,
    *,
    uses_head: bool,
    progress: Progress | None,
) -> None:
    """Put the answers of a fold to the others, with the checks that its own model makes."""
    answerer = predictor
    if fold.answered_by is not None:
        answerer = Predictor.load(fold.answered_by, device, uses_head=uses_head)
        check_recipe(predictor, answerer, fold.answered_by)
    _check_origin(answerer, fold.predictions, fold.conversations)
    if fold.answered_by is not None and is_held_out(fold) is None:
        pool.notes.append(
            f"{fold.answered_by}: its training split is not here unchanged, so whether it saw {fold.conversations} "
            "could not be checked"
        )
    asked, pictures = _asked(fold.predictions, fold.conversations), fold.conversations.parent
    verdicts = judge(fold.predictions, fold.conversations)
    checks = checks_of_file(answerer, asked, pictures, Taxonomy.load(), progress) if wishes.makes_checks else {}
    for task, some in cases_of(asked, verdicts, checks).items():
        pool.cases.setdefault(task, []).extend(some)
    pool.answered_by.append(answerer.fingerprint)
    if answerer.fingerprint == predictor.fingerprint and not pool.own:
        pool.own, pool.folder = [one for one, _ in asked], pictures


def checks_of_file(
    predictor: Predictor,
    asked: Sequence[Asked],
    folder: Path,
    taxonomy: Taxonomy,
    progress: Progress | None = None,
) -> dict[str, tuple[Check, ...]]:
    """The checks of each reply of CLS, REC and REG, by conversation; images are named relative to `folder`."""
    wanted = sorted(
        (pair for pair in asked if pair[0].task in FITTED_TASKS), key=lambda pair: (pair[0].image.path, pair[0].id)
    )
    found: dict[str, tuple[Check, ...]] = {}
    for start in range(0, len(wanted), _BATCH):
        part = wanted[start : start + _BATCH]
        pictures = {path: open_image(folder / path) for path in {one.image.path for one, _ in part}}
        questions = [_question(one, pictures[one.image.path]) for one, _ in part]
        replies = [_reply(said) for _, said in part]
        made = check_replies(predictor.answer, questions, replies, taxonomy)
        found |= {one.id: checks for (one, _), checks in zip(part, made, strict=True)}
        if progress:
            progress("checking", len(found), len(wanted))
    return found


def cases_of(
    asked: Sequence[Asked],
    verdicts: Mapping[str, tuple[bool, list[float]]],
    checks: Mapping[str, Sequence[Check]],
) -> dict[Task, list[Case]]:
    """Replies that carry a confidence, beside the truth, by task."""
    found: dict[Task, list[Case]] = {}
    taxonomy = Taxonomy.load()
    for conversation, said in asked:
        if conversation.task not in FITTED_TASKS or said.confidence is None:
            continue
        is_right, ious = verdicts[conversation.id]
        made = checks.get(conversation.id, ())
        found.setdefault(conversation.task, []).append(
            Case(
                group=conversation.group,
                confidence=said.confidence,
                is_right=is_right,
                true_terms=frozenset(conversation.target.terms),
                probabilities=said.probabilities,
                is_present=bool(conversation.target.boxes) if conversation.task is Task.REC else None,
                presence=said.presence,
                expected_iou=said.expected_iou or (),
                ious=tuple(ious),
                source=conversation.source,
                subject=subject_of(conversation.task, conversation.turns[-2].text, said.text, taxonomy),
                checks=frozenset(one.name for one in made),
                failed=frozenset(one.name for one in made if not one.passed),
            )
        )
    return {task: found[task] for task in FITTED_TASKS if task in found}


def summaries(predictor: Predictor, paths: Sequence[Path], what: str, progress: Progress | None = None) -> scope.Floats:
    """`scope.tower_summary` of image files, (images, features)."""
    rows = []
    for start in range(0, len(paths), _BATCH):
        images = [open_image(path) for path in paths[start : start + _BATCH]]
        rows.append(scope.tower_summary(predictor.model, predictor.processor, images))
        if progress:
            progress(what, min(start + _BATCH, len(paths)), len(paths))
    found: scope.Floats = np.concatenate(rows)
    return found


def _asked(predictions: Path, conversations: Path) -> list[Asked]:
    said = {one.conversation_id: one for one in records.read_records(predictions, Prediction)}
    return [(one, said[one.id]) for one in records.read_records(conversations, Conversation)]


def _check_origin(predictor: Predictor, predictions: Path, conversations: Path) -> None:
    run = read_run(predictions)
    if run.fingerprint != predictor.fingerprint:
        raise PredictionError(
            f"{predictions}: was answered by {run.model!r} with other weights, in another way (--no-head?), or with an "
            "earlier calibration; answer the validation questions again with `gastrovl predict --raw`"
        )
    if run.conversations != sha256_file(conversations):
        raise PredictionError(f"{predictions}: answers another state of {conversations}; answer it again")


def _scope(
    predictor: Predictor, validation: Sequence[Conversation], folder: Path, wishes: Wishes, progress: Progress | None
) -> scope.Scope | None:
    """None without a training split of enough frames, and for a model whose tower is not ours."""
    if wishes.train is None or predictor.card.family is not None:
        return None
    given = [path for one in wishes.outside for path in _pictures(one)]
    barred = {sha256_file(path) for path in given}
    train = _frames(list(records.read_records(wishes.train, Conversation)), barred)
    border = _frames(validation, barred)
    if len(train) < scope.LEAST_FRAMES or not border:
        return None
    return scope.fit_scope(
        summaries(predictor, [wishes.train.parent / path for path in train], "looking at training frames", progress),
        summaries(predictor, [folder / path for path in border], "looking at validation frames", progress),
        list(border.values()),
        summaries(predictor, given, "looking at what is outside", progress) if given else None,
        wishes.level,
    )


def _frames(conversations: Sequence[Conversation], barred: set[str]) -> dict[str, str]:
    """Paths of the images that are not among the barred ones, each with its group."""
    return {one.image.path: one.group for one in conversations if one.image.sha256 not in barred}


def _pictures(folder: Path) -> list[Path]:
    found = sorted(path for path in Path(folder).rglob("*") if path.suffix.lower() in PICTURES)
    if not found:
        raise ConfigError(f"{folder}: holds no picture ({', '.join(sorted(PICTURES))}); name another --outside")
    return found


def _question(conversation: Conversation, image: Image.Image) -> Question:
    turns = tuple((turn.role, turn.text) for turn in conversation.turns[:-1])
    return Question(image, turns, conversation.task, conversation.image.size_wh, source=conversation.source)


def _reply(said: Prediction) -> Reply:
    return Reply(said.text, said.confidence or 0.0, said.seconds, "end", said.probabilities)


def _scope_words(calibration: Calibration) -> list[str]:
    limits = calibration.scope
    if limits is None:
        return ["scope: not fitted; it takes --train with some frames, and a vision tower of ours"]
    told = f"scope: from {limits.train_frames} training and {limits.border_frames} validation frames"
    return [told + (f", {limits.outside_frames} outside" if limits.outside_frames else "")]
