"""A checkpoint and some questions to a table: every way of asking gives the same words, or nearly so where stated."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from PIL import Image

from gastrovl.core import boxtext, geometry, records
from gastrovl.core.errors import BoxTextError, MissingExtraError, RecordError
from gastrovl.core.images import open_image
from gastrovl.core.types import Box, Conversation
from gastrovl.inference import asking
from gastrovl.inference.decoding.generated import generated
from gastrovl.inference.decoding.words import shares_prefixes
from gastrovl.inference.precision import Precision
from gastrovl.inference.predictor import Predictor
from gastrovl.inference.question import Question, Reply
from gastrovl.model import adapters
from gastrovl.model.checkpoint import save_checkpoint
from gastrovl.model.config import LoraConfig

Way = Callable[[Sequence[Question], int], list[Reply]]  # as Predictor.answer
MOST_TOKENS = 64  # of a reply: enough to tell two ways apart
_RANK, _SPREAD = 4, 0.02  # of the adapters that are added to be merged


@dataclass(frozen=True)
class Tolerance:
    """What a way that rounds may differ by.

    Attributes:
        least_equal: Share of replies that are alike, at least.
        most_difference: Of any confidence or label probability, at most, among replies that are alike.
        least_overlap: IoU from which boxes of a reply are alike, one by one; at 1 only the same text is.
    """

    least_equal: float = 0.9
    most_difference: float = 0.1
    least_overlap: float = 0.9


EXACT = Tolerance(1.0, 1e-3, 1.0)


@dataclass(frozen=True)
class Row:
    """One way beside the one it is held against.

    Attributes:
        questions, equal: How many were asked, and got the same text, or boxes as alike as the tolerance says.
        difference: The greatest of any confidence or label probability among those.
        left_out: Why the way was not tried; it then neither passes nor fails.
    """

    way: str
    against: str
    questions: int = 0
    equal: int = 0
    difference: float = 0.0
    tolerance: Tolerance = EXACT
    left_out: str | None = None

    @property
    def passes(self) -> bool:
        """Whether it differs by no more than it may."""
        is_equal = self.equal >= self.tolerance.least_equal * self.questions
        return self.left_out is not None or (is_equal and self.difference <= self.tolerance.most_difference)


def check_parity(
    folder: Path,
    questions: Sequence[Question],
    *,
    device: str | None = None,
    most_tokens: int = MOST_TOKENS,
    rounded: Tolerance | None = None,
    more: Mapping[str, Way] | None = None,
) -> list[Row]:
    """Ask a checkpoint's questions in every way.

    Args:
        most_tokens: Of a reply in words.
        rounded: What bfloat16 and int8 may differ by.
        more: Further ways that answer for this checkpoint, by their names, such as a server of it.

    Raises:
        CheckpointError: The checkpoint cannot be loaded.
    """
    predictor = Predictor.load(folder, device, dtype="float32")
    alone = _alone(predictor, questions, most_tokens)
    rows = [
        compare("batched", "one at a time", _batched(predictor, questions, most_tokens), alone),
        compare("asked again", "one at a time", predictor.answer(questions, most_tokens), alone),
        _reloaded(predictor, questions, most_tokens, device, alone),
    ]
    rows += [compare(name, "one at a time", way(questions, most_tokens), alone) for name, way in (more or {}).items()]
    rows += _words(predictor, questions, most_tokens)
    for name in get_args(Precision)[1:]:
        rows.append(_rounded(folder, questions, most_tokens, device, name, alone, rounded or Tolerance()))
    return rows


def compare(
    way: str, against: str, replies: Sequence[Reply], others: Sequence[Reply], tolerance: Tolerance = EXACT
) -> Row:
    """How far replies are from others to the same questions."""
    pairs = list(zip(replies, others, strict=True))
    same = [(one, other) for one, other in pairs if _is_like(one.text, other.text, tolerance.least_overlap)]
    gaps = [abs(one.confidence - other.confidence) for one, other in same]
    for one, other in same:
        chances = other.probabilities or {}
        gaps += [abs(value - chances[term]) for term, value in (one.probabilities or {}).items() if term in chances]
    return Row(way, against, len(replies), len(same), max(gaps, default=0.0), tolerance)


def _is_like(text: str, other: str, least_overlap: float) -> bool:
    if text == other or least_overlap == 1:
        return text == other
    try:
        some, others = boxtext.decode_boxes(text), boxtext.decode_boxes(other)
    except BoxTextError:
        return False
    return len(some) == len(others) and all(
        geometry.iou(one, two) >= least_overlap for one, two in zip(some, others, strict=True)
    )


def probe_questions(conversations: Path | None, most: int) -> list[Question]:
    """Questions of a file, as many of each task as of any other; or of every task about drawn pictures.

    Raises:
        RecordError, ImageError: The file or an image is broken, or it holds nothing.
    """
    if conversations is None:
        random = np.random.default_rng(7)
        drawn = [
            Image.fromarray(np.kron(random.integers(0, 256, (6, 8, 3)), np.ones((16, 16, 1))).astype(np.uint8))
            for _ in range(max(1, most // 4))
        ]
        return [question for image in drawn for question in _of_every_task(image)][:most]
    by_task: dict[str, list[Conversation]] = {}
    for one in records.read_records(conversations, Conversation):
        by_task.setdefault(one.task, []).append(one)
    ranked = sorted((rank, task) for task, some in by_task.items() for rank in range(len(some)))
    if not ranked:
        raise RecordError(f"{conversations}: holds no conversation")
    return [_question(by_task[task][rank], conversations.parent) for rank, task in ranked[:most]]


def _of_every_task(image: Image.Image) -> list[Question]:
    region = Box(x0=0.25, y0=0.25, x1=0.75, y1=0.75)
    return [
        asking.classify(image),
        asking.locate(image, "gastric polyp"),
        asking.name_region(image, region),
        asking.describe(image),
    ]


def _question(one: Conversation, folder: Path) -> Question:
    turns = tuple((turn.role, turn.text) for turn in one.turns[:-1])
    image = open_image(folder / one.image.path)
    return Question(image, turns, one.task, one.image.size_wh, wants_probabilities=True)


def _alone(predictor: Predictor, questions: Sequence[Question], most_tokens: int) -> list[Reply]:
    """One at a time, nothing remembered."""
    found = []
    for question in questions:
        predictor.forget()
        found += predictor.answer([question], most_tokens)
    return found


def _batched(predictor: Predictor, questions: Sequence[Question], most_tokens: int) -> list[Reply]:
    predictor.forget()
    return predictor.answer(questions, most_tokens)


def _reloaded(
    predictor: Predictor, questions: Sequence[Question], most_tokens: int, device: str | None, alone: Sequence[Reply]
) -> Row:
    card = predictor.card
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "again"
        save_checkpoint(
            folder, predictor.model, predictor.processor, card.name, recognised=card.recognised, locates=card.locates
        )
        again = Predictor.load(folder, device, dtype="float32")
        return compare("saved and loaded again", "one at a time", _batched(again, questions, most_tokens), alone)


def _words(predictor: Predictor, questions: Sequence[Question], most_tokens: int) -> list[Row]:
    """Ways that only the language model has; a perception head is left out of them."""
    words = Predictor(predictor.model, predictor.processor, predictor.card, uses_head=False)
    alone = _alone(words, questions, most_tokens)
    plain, anew = (_by_generate(words, questions, most_tokens, caches=caches) for caches in (True, False))
    rows = [
        compare("words: plain generate", "words: shared prefix", plain, alone),
        compare("words: without a cache", "words: shared prefix", anew, alone),
    ]
    if not shares_prefixes(predictor.model, predictor.processor):
        reason = "a model of another's making; adapters are merged when it is trained"
        return [*rows, Row("words: merged", "words: adapters", left_out=reason)]
    return [*rows, _merged(words, questions, most_tokens)]


@torch.inference_mode()
def _by_generate(predictor: Predictor, questions: Sequence[Question], most_tokens: int, *, caches: bool) -> list[Reply]:
    """The model's own loop, one question at a time."""
    model, processor, forms = predictor.model, predictor.processor, predictor.forms
    return [generated(model, processor, forms, [one], most_tokens, caches=caches)[0] for one in questions]


def _merged(predictor: Predictor, questions: Sequence[Question], most_tokens: int) -> Row:
    """Adapters that change what the checkpoint says, before and after they are merged."""
    before, merge = _with_adapters(predictor)
    unmerged = _batched(before, questions, most_tokens)
    return compare("words: merged", "words: adapters", _batched(merge(), questions, most_tokens), unmerged)


def _with_adapters(predictor: Predictor) -> tuple[Predictor, Callable[[], Predictor]]:
    """The checkpoint with adapters drawn at random, and how to merge them, after which the first is no more."""
    generator = torch.Generator().manual_seed(7)
    adapted = adapters.add_lora(copy.deepcopy(predictor.model), LoraConfig(rank=_RANK, alpha=2 * _RANK, dropout=0.0))
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if "lora_B" in name:
                weight.copy_(_SPREAD * torch.randn(weight.shape, generator=generator))

    def of(model: Any) -> Predictor:
        return Predictor(model.eval(), predictor.processor, predictor.card, uses_head=False)

    return of(adapters.inner(adapted)), lambda: of(adapters.merge(adapted))


def _rounded(
    folder: Path,
    questions: Sequence[Question],
    most_tokens: int,
    device: str | None,
    name: Precision,
    alone: Sequence[Reply],
    tolerance: Tolerance,
) -> Row:
    try:
        predictor = Predictor.load(folder, device, dtype=name)
    except MissingExtraError as error:
        return Row(name, "one at a time", tolerance=tolerance, left_out=str(error))
    return compare(name, "one at a time", _batched(predictor, questions, most_tokens), alone, tolerance)
