"""Conversations to how long a stage's rows are, measured on a seeded sample; assumed where the file is not here yet."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gastrovl.core.types import Conversation, Task
from gastrovl.model.packed.rows import SHARED
from gastrovl.model.packed.shared_prefix import shared_prefix
from gastrovl.model.processor import GastroVLProcessor
from gastrovl.training.config import StageConfig, TrainConfig
from gastrovl.training.rows.dataset import RowDataset, cached_side
from gastrovl.training.rows.images import ImageStore
from gastrovl.training.rows.packing import PackedRow, collate

SAMPLE = 256  # rows: the mean of a sample of this size lies within a few per cent of that of all
ASSUMED_IMAGES = 10_000
# (tokens, of which answered) of one dialogue; what a stage without data is planned with
ASSUMED_TOKENS = {Task.CAP: (60, 40), Task.CLS: (30, 8), Task.REG: (45, 8), Task.REC: (40, 20), Task.VQA: (40, 10)}
_ASSUMED_TEMPLATE = 8  # tokens before the image


@dataclass(frozen=True)
class RowShape:
    """One row: all its tokens, those up to the image's last one, answers, dialogues, and a caption to contrast."""

    length: int
    prefix: int
    answers: int
    dialogues: int
    caption: int = 0

    @property
    def segments(self) -> list[int]:
        """Which token belongs to the image (0) and which to the k-th of dialogues of equal length."""
        own = self.length - self.prefix
        return [0] * self.prefix + [1 + place * self.dialogues // own for place in range(own)]


@dataclass(frozen=True)
class RowLengths:
    """How many rows a stage has, and how long they are.

    Attributes:
        rows: In one epoch.
        mean: The mean row.
        padded: The mean row when each is as long as the longest of its batch, as under a mask over whole rows.
        laid_out: The mean row when the dialogues of a batch stand in groups of like length, as on a CPU.
        longest: Tokens of the longest row that was looked at.
        sampled: How many rows were looked at; 0 when the lengths are assumed.
    """

    rows: int
    mean: RowShape
    padded: RowShape
    laid_out: RowShape
    longest: int
    sampled: int


class _Blank(ImageStore):
    """Grey squares in the place of images: lengths do not depend on pixels."""

    def square(self, path: str) -> NDArray[np.uint8]:
        del path
        return np.zeros((self.side, self.side, 3), dtype=np.uint8)


def measured_lengths(
    conversations: Sequence[Conversation],
    stage: StageConfig,
    config: TrainConfig,
    processor: GastroVLProcessor,
    sample: int = SAMPLE,
) -> RowLengths:
    """Lengths of up to `sample` rows, drawn by the run's seed and tokenised as training does it.

    Raises:
        RecordError: No conversation is of the stage's tasks.
        ModelInputError: Not even one dialogue fits into `max_length`.
    """
    images = _Blank(Path(), cached_side(processor, config.augment), processor)
    dataset = RowDataset(
        conversations,
        images,
        processor,
        stage.model_copy(update={"cutmix": 0.0, "paste": 0.0}),
        seed=config.seed,
        max_length=config.max_length,
        augment=config.augment,
        is_training=True,
    )
    chosen = random.Random(config.seed).sample(range(len(dataset)), min(sample, len(dataset)))
    rows = [dataset[index] for index in chosen]
    caption = round(_mean([len(row.caption) for row in rows]))
    times = stage.reward.group if stage.reward else 1
    packed = [row.packed if times == 1 else replied(row.packed, times) for row in rows]
    return lengths_of(packed, len(dataset), stage.images_per_step, caption)


def replied(row: PackedRow, times: int) -> PackedRow:
    """The row with every dialogue so many times: sampled replies are taken to be as long as the true answer."""
    prefix, count = row.segments.count(SHARED), max(row.segments)
    own = row.segments[prefix:]
    return PackedRow(
        ids=row.ids[:prefix] + row.ids[prefix:] * times,
        positions=row.positions[:prefix] + row.positions[prefix:] * times,
        segments=row.segments[:prefix] + [number + count * turn for turn in range(times) for number in own],
        labels=row.labels[:prefix] + row.labels[prefix:] * times,
        weights=row.weights[:prefix] + row.weights[prefix:] * times,
        regions=row.regions * times,
        places=row.places * times,
    )


def lengths_of(rows: Sequence[PackedRow], count: int, batch: int, caption: int = 0) -> RowLengths:
    """Lengths of packed rows that stand for `count`; batches are taken in their order."""
    lengths = [len(row.ids) for row in rows]
    batches = [lengths[start : start + batch] for start in range(0, len(lengths), batch)]
    whole = [part for part in batches if len(part) == batch] or batches
    mean = RowShape(
        length=round(_mean(lengths)),
        prefix=rows[0].segments.count(0),
        answers=max(1, round(_mean([sum(weight > 0 for weight in row.weights) for row in rows]))),
        dialogues=max(1, round(_mean([max(row.segments) for row in rows]))),
        caption=caption,
    )
    padded = round(_mean([max(part) for part in whole]))
    groups = [rows[start : start + batch] for start in range(0, len(rows), batch)]
    laid_out = round(_mean([_laid_out(part) for part in groups if len(part) == len(whole[0])]))
    shapes = (mean, replace(mean, length=padded), replace(mean, length=laid_out))
    return RowLengths(count, *shapes, max(lengths), len(rows))


def assumed_lengths(stage: StageConfig, image_tokens: int) -> RowLengths:
    """One dialogue of each of the stage's tasks about each of ASSUMED_IMAGES images, without padding."""
    tasks = list(stage.tasks)[: stage.dialogues_per_image] * (stage.reward.group if stage.reward else 1)
    tokens = sum(ASSUMED_TOKENS[task][0] for task in tasks)
    answers = sum(ASSUMED_TOKENS[task][1] for task in tasks)
    prefix = _ASSUMED_TEMPLATE + image_tokens
    caption = ASSUMED_TOKENS[Task.CAP][1] if stage.contrastive_weight else 0
    row = RowShape(prefix + tokens, prefix, answers, len(tasks), caption)
    return RowLengths(ASSUMED_IMAGES, row, row, row, row.length, 0)


def _laid_out(rows: Sequence[PackedRow]) -> int:
    """Tokens per row of a batch."""
    segments = collate(rows, pad_token_id=0)["segments"]
    layout = shared_prefix(segments)
    return segments.shape[1] if layout is None else round(len(layout.order) / len(rows))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
