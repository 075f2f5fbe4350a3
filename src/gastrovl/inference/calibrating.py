"""A checkpoint folder and its validation predictions to the calibration that is written there."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
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
from gastrovl.inference import scope
from gastrovl.inference.calibration import (
    FILE,
    Calibration,
    TaskCalibration,
    Ways,
    subject_of,
    weights_hash,
    write_calibration,
)
from gastrovl.inference.checks import check_replies
from gastrovl.inference.fitting import FITTED_TASKS, Case, fit_task
from gastrovl.inference.predictor import Predictor
from gastrovl.inference.question import Question, Reply
from gastrovl.inference.runrecord import read_run
from gastrovl.inference.verdicts import Check

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
    predictions: Path,
    conversations: Path,
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
        judge: Tells of each conversation whether its reply is right and how well its boxes fit; the evaluation's.

    Raises:
        OutputError: There is a calibration already, and not `is_replaced`.
        PredictionError: The predictions are not this checkpoint's raw ones for these conversations.
        CheckpointError, RecordError, ImageError: An input is broken.
        ConfigError: There is nothing to fit on, or a folder of pictures is empty.
    """
    folder, predictions, conversations = Path(folder), Path(predictions), Path(conversations)
    if (folder / FILE).exists() and not is_replaced:
        raise OutputError(f"{folder / FILE} exists already; pass --overwrite to replace it")
    predictor = Predictor.load(folder, device, uses_head=uses_head)
    _check_origin(predictor, predictions, conversations)
    verdicts = judge(predictions, conversations)
    asked = _asked(predictions, conversations)
    taxonomy = Taxonomy.load()
    checks = checks_of_file(predictor, asked, conversations.parent, taxonomy, progress) if wishes.makes_checks else {}
    cases = cases_of(asked, verdicts, checks)
    if not cases:
        raise ConfigError(f"{predictions}: no reply of CLS, REC or REG with a confidence; expected some to fit on")
    tasks = {task: fit_task(task, some, level=wishes.level, risk=wishes.risk) for task, some in cases.items()}
    found_scope = _scope(predictor, [one for one, _ in asked], conversations.parent, wishes, progress)
    if found_scope is not None:
        scope.save_scope(folder, found_scope)
    calibration = Calibration(
        model=predictor.card.name,
        weights=weights_hash(folder),
        answered_as=predictor.fingerprint,
        conversations=sha256_file(conversations),
        predictions=sha256_file(predictions),
        level=wishes.level,
        risk=wishes.risk,
        tasks=tasks,
        scope=found_scope.limits if found_scope is not None else None,
        version=__version__,
    )
    path = write_calibration(folder, calibration)
    return [*(line for task, one in tasks.items() for line in _words(task, one)), *_scope_words(calibration), f"{path}"]


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
    return Question(image, turns, conversation.task, conversation.image.size_wh)


def _reply(said: Prediction) -> Reply:
    return Reply(said.text, said.confidence or 0.0, said.seconds, "end", said.probabilities)


def _words(task: Task, one: TaskCalibration) -> list[str]:
    """What was fitted, for a terminal."""
    lines = [line for name, some in one.of_subject.items() for line in _way_words(f"{task} of {name}", some)]
    lines += _way_words(f"{task} of {'all else' if one.of_subject else 'all'}", one.rest)
    if one.sets is not None and not one.sets.is_informative:
        lines.append(f"{task}: too few groups for label sets at {one.sets.level:g}; they hold every label")
    return lines


def _way_words(what_of: str, ways: Ways) -> list[str]:
    lines = []
    for name, way in (("", ways.plain), (", checked", ways.checked)):
        if way is None:
            continue
        fitted, given = way.scaling, way.abstention
        line = f"{what_of}{name}: {fitted.kind}, slope {fitted.scaling.slope:.2f}, shift {fitted.scaling.shift:+.2f}"
        line += "".join(f", {check} -{drop:.2f}" for check, drop in fitted.drops.items())
        line += f" on {fitted.n} answers in {fitted.groups} groups"
        what = "is shown" if given.is_assured else "is hoped for, not shown: too few groups or too many errors"
        lines.append(f"{line}; answers from {given.threshold:.2f} on are given, risk {given.risk:g} {what}")
    return lines


def _scope_words(calibration: Calibration) -> list[str]:
    limits = calibration.scope
    if limits is None:
        return ["scope: not fitted; it takes --train with some frames, and a vision tower of ours"]
    told = f"scope: from {limits.train_frames} training and {limits.border_frames} validation frames"
    return [told + (f", {limits.outside_frames} outside" if limits.outside_frames else "")]
