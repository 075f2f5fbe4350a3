"""Folds of a cross-validation, each with answers of the model trained without it, to what may be calibrated together.

What is fitted on them is how far the recipe is from the truth. Each answer comes from a model that never saw its
picture, and any model of the recipe may use it, also one that was trained on all folds at last.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gastrovl.core import records
from gastrovl.core.errors import ConfigError, PredictionError, RecordError
from gastrovl.core.files import sha256_file
from gastrovl.core.types import Conversation
from gastrovl.inference.predictor import Predictor

_NAMED = 3  # groups or ids shown in an error message
_FACTS, _RUN = "training.json", "run.json"  # of a checkpoint folder


@dataclass(frozen=True)
class Fold:
    """Questions, raw answers to them, and the checkpoint folder that gave these; None: the one to be calibrated."""

    predictions: Path
    conversations: Path
    answered_by: Path | None = None


def paired(predictions: Sequence[Path], conversations: Sequence[Path], answered_by: Sequence[Path]) -> list[Fold]:
    """One fold for each file of predictions.

    Raises:
        ConfigError: There are not as many of one as of the other; of one fold alone `answered_by` may be left out.
    """
    models: list[Path | None] = [*answered_by] or ([None] if len(predictions) == 1 else [])
    if not len(predictions) == len(conversations) == len(models):
        raise ConfigError(
            f"found {len(predictions)} files of predictions, {len(conversations)} --conversations and {len(models)} "
            "--answered-by; expected as many of each, in the same order: a fold, and the checkpoint trained without it"
        )
    return [Fold(*three) for three in zip(predictions, conversations, models, strict=True)]


def check_apart(folds: Sequence[Fold]) -> None:
    """Refuse folds that share a question.

    Raises:
        PredictionError: They do.
        RecordError: A file is missing or broken.
    """
    seen: set[str] = set()
    for fold in folds:
        names = {one.id for one in records.read_records(fold.conversations, Conversation)}
        if double := sorted(seen & names):
            raise PredictionError(
                f"{fold.conversations}: {len(double)} of its questions stand in an earlier fold, too, e.g. "
                f"{', '.join(map(repr, double[:_NAMED]))}; expected folds that divide the questions"
            )
        seen |= names


def is_held_out(fold: Fold) -> bool | None:
    """True where no group of the fold was trained on; None where that cannot be known.

    It is known where the training split still lies where the checkpoint says, or beside the questions, unchanged.

    Raises:
        ConfigError: The checkpoint was trained on groups of the fold.
        RecordError: A file of conversations is broken.
    """
    if fold.answered_by is None:
        return None
    train = _training_split(fold.answered_by, fold.conversations)
    if train is None:
        return None
    known = {one.group for one in records.read_records(train, Conversation)}
    asked = {one.group for one in records.read_records(fold.conversations, Conversation)}
    if shared := sorted(known & asked):
        raise ConfigError(
            f"{fold.answered_by}: was trained on {len(shared)} of the {len(asked)} groups of {fold.conversations}, "
            f"e.g. {', '.join(map(repr, shared[:_NAMED]))}; expected a fold that it never saw, for it is right more "
            "often on what it learnt than on new patients. Check the order of --conversations and --answered-by"
        )
    return True


def check_recipe(wanted: Predictor, other: Predictor, folder: Path) -> None:
    """Refuse answers of another kind of model.

    Raises:
        ConfigError: Labels, image size or the ways of answering differ.
    """
    unlike = [
        name
        for name in ("image_size_px", "recognised", "locates", "family")
        if getattr(wanted.card, name) != getattr(other.card, name)
    ]
    if (wanted.words is None) != (other.words is None):
        unlike.append("perception head")
    if unlike:
        raise ConfigError(
            f"{folder}: differs from the checkpoint to calibrate in {', '.join(unlike)}; expected models of one "
            "recipe, trained on different folds: how sure another kind of model is says nothing of this one"
        )


def hash_of(paths: Sequence[Path]) -> str:
    """SHA-256 of a file; of several, of their hashes in their order."""
    found = [sha256_file(path) for path in paths]
    return found[0] if len(found) == 1 else hashlib.sha256("\n".join(found).encode()).hexdigest()


def _training_split(checkpoint: Path, conversations: Path) -> Path | None:
    """The unchanged file that a checkpoint was trained on, if it can be found."""
    said = _read(checkpoint / _RUN).get("train")
    if not isinstance(said, str):
        return None
    name = Path(said).name
    facts = _read(checkpoint / _FACTS).get("data", [])
    hashes = {one.get("sha256") for one in facts if isinstance(one, dict) and one.get("file") == name}
    for path in (conversations.with_name(name), Path(said)):
        if path.is_file() and sha256_file(path) in hashes:
            return path
    return None


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise RecordError(f"{path}: cannot be read ({error}); expected what training wrote there") from error
