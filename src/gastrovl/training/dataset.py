"""Conversation files to packed rows: one row per image, wording and view drawn anew each epoch from one seed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from gastrovl.core import boxtext, records
from gastrovl.core.errors import RecordError
from gastrovl.core.images import open_image
from gastrovl.core.positions import mentions_position, names_direction
from gastrovl.core.types import Box, Conversation, Kind, Task, Turn
from gastrovl.model.processor import GastroVLProcessor
from gastrovl.training.augment import View, draw_view
from gastrovl.training.config import AugmentConfig, StageConfig
from gastrovl.training.grounding import RowTargets, TermIndex, cut_mix
from gastrovl.training.packing import PackedRow, collate, pack, weigh_digits

_CROP_MARGIN = 1.25  # cached squares are this much larger than the model's when windows are cut from them


@dataclass(frozen=True)
class Row:
    """One training item. `tasks` and `ids` name task and conversation of each packed dialogue, `image` the file."""

    square: NDArray[np.uint8]
    packed: PackedRow
    tasks: tuple[Task, ...]
    caption: list[int]
    grounding: RowTargets | None
    features: Tensor | None = None
    image: str = ""
    ids: tuple[str, ...] = ()


class ImageStore:
    """Images of conversation files as squares in memory, decoded once."""

    def __init__(self, folder: Path, side: int, processor: GastroVLProcessor) -> None:
        self.folder, self.side, self.processor = folder, side, processor
        self._squares: dict[str, NDArray[np.uint8]] = {}

    def load(self, paths: Sequence[str], progress: Callable[[int, int], None] | None = None) -> None:
        """Decode `paths`; `progress` is told (done, all)."""
        for number, path in enumerate(paths, start=1):
            self.square(path)
            if progress:
                progress(number, len(paths))

    def square(self, path: str) -> NDArray[np.uint8]:
        """The image as uint8 (side, side, 3)."""
        if path not in self._squares:
            image = open_image(self.folder / path)
            self._squares[path] = self.processor.square(image, self.side)
        return self._squares[path]


class RowDataset(Dataset[Row]):
    """Rows of one stage; the same (seed, epoch, index) gives the same row whichever process asks."""

    def __init__(
        self,
        conversations: Sequence[Conversation],
        images: ImageStore,
        processor: GastroVLProcessor,
        stage: StageConfig,
        *,
        seed: int,
        max_length: int,
        augment: AugmentConfig | None,
        is_training: bool,
        terms: TermIndex | None = None,
        grid_side: int = 0,
        features: Mapping[str, Tensor] | None = None,
    ) -> None:
        self.features = features or {}
        self.terms, self.grid_side = terms, grid_side
        self.images, self.processor, self.stage = images, processor, stage
        self.seed, self.max_length, self.augment, self.is_training = seed, max_length, augment, is_training
        self._digit_ids = frozenset(processor.tokenizer.convert_tokens_to_ids(list("0123456789")))
        self.epoch = 0
        grouped: dict[str, list[Conversation]] = {}
        known: dict[str, list[Conversation]] = {}  # what grounding learns from, whatever the stage asks
        for conversation in conversations:
            known.setdefault(conversation.image.path, []).append(conversation)
            if conversation.task in stage.tasks:
                grouped.setdefault(conversation.image.path, []).append(conversation)
        if not grouped:
            raise RecordError(
                f"stage {stage.name!r}: no conversation of {', '.join(stage.tasks)} in the data it was given"
            )
        paths = list(grouped)
        if is_training:
            paths += [path for path in paths if has_several_boxes(known[path])] * (stage.repeat_several - 1)
        self.groups = [grouped[path] for path in paths]
        self._known = [known[path] for path in paths]
        self._boxes = [boxes_said(group) for group in self._known] if augment else []

    def set_epoch(self, epoch: int) -> None:
        """Called by the trainer; wording and views of the epoch follow from it."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.groups)

    def __getitem__(self, index: int) -> Row:
        group = self.groups[index]
        rng = np.random.default_rng((self.seed, self.epoch if self.is_training else 0, index))
        square = self.images.square(group[0].image.path)
        if not self.is_training:
            return self._row(group, self._known[index], self._resized(square), View(), rng)
        view = draw_view(rng, self._boxes[index], self.augment) if self.augment else View()
        kept = [conversation for conversation in group if _survives(conversation, view)]
        if not kept:  # only captions with positions: show the image as it is
            view, kept = View(), group
        if self.stage.dialogues_per_image is not None and len(kept) > self.stage.dialogues_per_image:
            chosen = sorted(rng.permutation(len(kept))[: self.stage.dialogues_per_image])
            kept = [kept[number] for number in chosen]
        pixels = view.render(square, self.processor.image_size_px) if self.augment else self._resized(square)
        row = self._row(kept, self._known[index], pixels, view, rng)
        return self._mixed(row, rng) if self.stage.cutmix and rng.random() < self.stage.cutmix else row

    def _mixed(self, row: Row, rng: np.random.Generator) -> Row:
        """The row with a part of another image, drawn at random, in its own view."""
        index = int(rng.integers(len(self.groups)))
        square = self.images.square(self.groups[index][0].image.path)
        view = draw_view(rng, self._boxes[index], self.augment) if self.augment else View()
        pixels = view.render(square, self.processor.image_size_px) if self.augment else self._resized(square)
        assert self.terms is not None, "cutmix needs a grounding weight, and that brings terms"
        assert row.grounding is not None
        other = self.terms.targets(self._known[index], view.move, self.grid_side)
        square, grounding = cut_mix((row.square, row.grounding), (pixels, other), rng)
        return replace(row, square=square, grounding=grounding, features=None)

    def _resized(self, square: NDArray[np.uint8]) -> NDArray[np.uint8]:
        side = self.processor.image_size_px
        return square if square.shape[0] == side else View().render(square, side)

    def _row(
        self,
        group: list[Conversation],
        known: list[Conversation],
        square: NDArray[np.uint8],
        view: View,
        rng: np.random.Generator,
    ) -> Row:
        if not (self.stage.answer_weight or self.stage.contrastive_weight):
            group = group[:1]  # nobody reads the words
        said = [(conversation, self._words(conversation, view, rng)) for conversation in group]
        dialogues = [self.processor.encode_dialogue(turns) for _, turns in said]
        weights = [self.stage.task_weights.get(conversation.task, 1.0) for conversation, _ in said]
        packed = pack(dialogues, weights, self.max_length)
        if set(self.stage.digit_weights) != {1.0}:
            packed = weigh_digits(packed, self._digit_ids, self.stage.digit_weights)
        count = max(packed.segments)
        caption: list[int] = []
        if self.stage.contrastive_weight:
            captions = [turns[-1][1] for conversation, turns in said if conversation.task == Task.CAP]
            caption = self.processor.tokenizer.encode(captions[0], add_special_tokens=False) if captions else []
        grounding = self.terms.targets(known, view.move, self.grid_side) if self.terms else None
        tasks = tuple(conversation.task for conversation, _ in said[:count])
        features = self.features.get(group[0].image.path)
        ids = tuple(conversation.id for conversation, _ in said[:count])
        return Row(square, packed, tasks, caption, grounding, features, group[0].image.path, ids)

    def _words(self, conversation: Conversation, view: View, rng: np.random.Generator) -> list[tuple[str, str]]:
        turns: list[tuple[str, str]] = []
        for turn in conversation.turns:
            text = _draw_wording(turn, rng) if self.is_training else turn.text
            if view.moves_boxes:
                moved = boxtext.map_boxes(text, view.move)
                assert moved is not None, "views keep every box"
                text = moved
            turns.append((turn.role, text))
        return turns


class Collator:
    """Rows to the tensors of one batch."""

    def __init__(self, processor: GastroVLProcessor, terms: TermIndex | None) -> None:
        self.processor, self.terms = processor, terms

    def __call__(self, rows: Sequence[Row]) -> dict[str, Any]:
        pad = int(self.processor.tokenizer.pad_token_id)
        batch: dict[str, Any] = collate([row.packed for row in rows], pad)
        features = [row.features for row in rows if row.features is not None]
        if len(features) == len(rows):
            batch["tower_features"] = torch.stack(features)
        else:
            batch["pixel_values"] = self.processor.pixels(np.stack([row.square for row in rows]))
        if all(row.caption for row in rows):
            batch |= _padded_captions([row.caption for row in rows], pad)
        grounding = [row.grounding for row in rows if row.grounding is not None]
        if self.terms and len(grounding) == len(rows):
            batch["grounding"] = self.terms.batch(grounding, self.processor)
        return batch


def load_conversations(path: Path) -> list[Conversation]:
    """All conversations of a JSONL file.

    Raises:
        RecordError: The file is broken or empty.
    """
    conversations = list(records.read_records(path, Conversation))
    if not conversations:
        raise RecordError(f"{path}: holds no conversation")
    return conversations


def cached_side(processor: GastroVLProcessor, augment: AugmentConfig | None) -> int:
    """Side of the squares kept in memory, in pixels."""
    side = processor.image_size_px
    return round(side * _CROP_MARGIN) if augment and augment.smallest_crop < 1 else side


def boxes_said(group: Sequence[Conversation]) -> list[Box]:
    """Every box that is a target of an image, or stands in any wording of a question or answer about it."""
    boxes = [box for conversation in group for box in conversation.target.boxes]
    texts = [text for conversation in group for turn in conversation.turns for text in (turn.text, *turn.alternatives)]
    said = {found.group(0) for text in texts for found in boxtext.BOX_PATTERN.finditer(text)}
    return boxes + [boxtext.decode_box(text) for text in sorted(said)]


def has_several_boxes(group: Sequence[Conversation]) -> bool:
    """Whether the conversations about an image locate more than one thing in it."""
    located = [
        conversation.target for conversation in group if conversation.task == Task.REC
    ]  # a dialogue may repeat one
    return len({(target.terms, box) for target in located for box in target.boxes}) > 1


def _survives(conversation: Conversation, view: View) -> bool:
    """Whether the words stay true in the view: no position survives a moved image, no side a mirror."""
    if not view.moves_boxes:
        return True
    if conversation.kind is Kind.COMPARE_LEFT:
        return not view.is_mirrored_x
    if conversation.kind is Kind.COMPARE_UP:
        return not view.is_mirrored_y
    if conversation.task is Task.VQA and conversation.kind is None and _says(conversation, names_direction):
        return False
    return not _says(conversation, mentions_position, ("assistant",))


def _says(
    conversation: Conversation, is_so: Callable[[str], bool], roles: Sequence[str] = ("user", "assistant")
) -> bool:
    """Whether `is_so` holds for any wording of a turn of these roles."""
    return any(
        is_so(text) for turn in conversation.turns if turn.role in roles for text in (turn.text, *turn.alternatives)
    )


def _draw_wording(turn: Turn, rng: np.random.Generator) -> str:
    choice = int(rng.integers(len(turn.alternatives) + 1))
    return turn.text if choice == 0 else turn.alternatives[choice - 1]


def _padded_captions(captions: list[list[int]], pad: int) -> dict[str, Tensor]:
    length = max(len(ids) for ids in captions)
    return {
        "caption_ids": torch.tensor([ids + [pad] * (length - len(ids)) for ids in captions]),
        "caption_mask": torch.tensor([[1] * len(ids) + [0] * (length - len(ids)) for ids in captions]),
    }
