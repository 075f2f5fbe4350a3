"""Conversation files to packed rows: one row per image, wording and view drawn anew each epoch from one seed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from gastrovl.core import boxtext, records
from gastrovl.core.boxcoding import exact_boxes
from gastrovl.core.errors import RecordError
from gastrovl.core.positions import mentions_position, names_direction
from gastrovl.core.types import Box, Conversation, ImageRef, Kind, Task, Turn
from gastrovl.model.processor import GastroVLProcessor
from gastrovl.training.config import AugmentConfig, StageConfig
from gastrovl.training.rows.asked import Asked, ask
from gastrovl.training.rows.augment import View, draw_view
from gastrovl.training.rows.grounding import RowTargets, TermIndex, cut_mix
from gastrovl.training.rows.images import ImageStore
from gastrovl.training.rows.packing import PackedRow, collate, pack, weigh_digits
from gastrovl.training.rows.paste import Donors, grounded_with, perceived_with
from gastrovl.training.rows.perception import PerceptionRows, RowPerception
from gastrovl.training.rows.sampling import Shares, epoch_order, shares_of
from gastrovl.training.rows.weighting import weigh_lengths

_CROP_MARGIN = 1.25  # cached squares are this much larger than the model's when windows are cut from them


@dataclass(frozen=True)
class Row:
    """One training item.

    Attributes:
        draw: Gives the image as the tower sees it.
        tasks, ids: Task and conversation of each packed dialogue, in order.
        image: The file.
        size_wh: Of the original image, in pixels.
        asked: The questions without their answers, where a stage rewards the model's own.
    """

    draw: Callable[[], NDArray[np.uint8]]
    packed: PackedRow
    tasks: tuple[Task, ...]
    caption: list[int]
    grounding: RowTargets | None
    features: Tensor | None = None
    image: str = ""
    ids: tuple[str, ...] = ()
    perception: RowPerception | None = None
    size_wh: tuple[int, int] | None = None
    asked: tuple[Asked, ...] = ()

    @property
    def square(self) -> NDArray[np.uint8]:
        """The image as the tower sees it, uint8 (side, side, 3); decoded only now when the row has features."""
        return self.draw()


class Features(Protocol):
    """What a frozen tower said before."""

    def get(self, image: ImageRef, view: View) -> Tensor | None:
        """Of an image in a view, (grid cells, tower width); None when nothing sound is kept of it."""


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
        perception: PerceptionRows | None = None,
        features: Features | None = None,
        cached_views: int = 0,
        view_seed: int = 0,
    ) -> None:
        self.features = features
        self.cached_views, self.view_seed = cached_views if is_training and augment else 0, view_seed
        self.terms, self.grid_side, self.perception = terms, grid_side, perception
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
        self.shares: Shares | None = None
        if is_training and stage.sampling:
            self.shares = shares_of(self.groups, stage.sampling, stage.dialogues_per_image)
        self._boxes = [boxes_said(group) for group in self._known] if augment or stage.paste else []
        self.donors = Donors(self._known, terms, images) if terms and stage.paste and is_training else None

    def set_epoch(self, epoch: int) -> None:
        """Called by the trainer; wording and views of the epoch follow from it."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.groups)

    def __iter__(self) -> Iterator[Row]:
        """Every image once. Python's own loop would ask for rows until there are none, and there always are."""
        return (self[index] for index in range(len(self)))

    def epoch_order(self, epoch: int) -> list[int]:
        """The indices of an epoch of a stage that samples, alike in every process (see `sampling.epoch_order`)."""
        assert self.shares is not None, "only a stage that samples has an order of its own"
        return epoch_order(self.shares.images, self.seed, epoch)

    def __getitem__(self, index: int) -> Row:
        """A row; `index` + n * len is the same image once more in an epoch, in another wording and view."""
        rng = np.random.default_rng((self.seed, self.epoch if self.is_training else 0, index))
        index %= len(self.groups)
        group = self.groups[index]
        if not self.is_training:
            return self._row(group, self._known[index], View(), rng)
        if self.cached_views:
            view = self._kept_view(index, int(rng.integers(self.cached_views)))
        else:
            view = draw_view(rng, self._boxes[index], self.augment) if self.augment else View()
        view, kept = _said_in(group, view)
        if self.stage.dialogues_per_image is not None and len(kept) > self.stage.dialogues_per_image:
            kept = self._drawn(index, kept, self.stage.dialogues_per_image, rng)
        row = self._row(kept, self._known[index], view, rng)
        if self.stage.cutmix and rng.random() < self.stage.cutmix:
            return self._mixed(row, rng)
        if self.donors and rng.random() < self.stage.paste:
            return self._pasted(row, index, view, rng)
        return row

    def _drawn(self, index: int, kept: list[Conversation], count: int, rng: np.random.Generator) -> list[Conversation]:
        """Some of an image's dialogues, in their order; rare ones rather where the stage samples."""
        if self.shares is None:
            chosen = sorted(rng.permutation(len(kept))[:count])
        else:
            of = dict(zip([one.id for one in self.groups[index]], self.shares.dialogues[index], strict=True))
            weights = np.array([of[one.id] for one in kept])
            chosen = sorted(rng.choice(len(kept), size=count, replace=False, p=weights / weights.sum()))
        return [kept[number] for number in chosen]

    def sights(self) -> list[tuple[ImageRef, View]]:
        """Every image in every view that rows show of it, once each; none when views are drawn anew each epoch."""
        if self.is_training and self.augment and not self.cached_views:
            return []
        found: dict[tuple[str, View], tuple[ImageRef, View]] = {}
        for index, group in enumerate(self.groups):
            views = [self._kept_view(index, number) for number in range(self.cached_views)] or [View()]
            for drawn in views:
                view = _said_in(group, drawn)[0]
                found.setdefault((group[0].image.path, view), (group[0].image, view))
        return list(found.values())

    def draw(self, image: ImageRef, view: View) -> NDArray[np.uint8]:
        """A view of an image as the tower sees it, uint8 (side, side, 3)."""
        return self.render(self.images.square(image.path), view)

    def render(self, square: NDArray[np.uint8], view: View) -> NDArray[np.uint8]:
        """The same of an image as the store gives it, uint8 (stored side, stored side, 3)."""
        side = self.processor.image_size_px
        is_as_stored = not self.augment and square.shape[0] == side
        return square if is_as_stored else view.render(square, side)

    def _kept_view(self, index: int, number: int) -> View:
        """The `number`-th view of an image, the same in every epoch and stage of a run."""
        assert self.augment is not None
        image = self.groups[index][0].image
        rng = np.random.default_rng((self.view_seed, int(image.sha256[:16], 16), number))
        return draw_view(rng, self._boxes[index], self.augment)

    def _mixed(self, row: Row, rng: np.random.Generator) -> Row:
        """The row with a part of another image, drawn at random, in its own view."""
        index = int(rng.integers(len(self.groups)))
        view = draw_view(rng, self._boxes[index], self.augment) if self.augment else View()
        pixels = self.draw(self.groups[index][0].image, view)
        assert self.terms is not None, "cutmix needs a grounding weight, and that brings terms"
        assert row.grounding is not None
        other = self.terms.targets(self._known[index], view.move, self.grid_side)
        square, grounding = cut_mix((row.square, row.grounding), (pixels, other), rng)
        return replace(row, draw=lambda: square, grounding=grounding, features=None)

    def _pasted(self, row: Row, index: int, view: View, rng: np.random.Generator) -> Row:
        """The row with a lesion of another image, where there is one that fits; only frames with boxes get one."""
        told = row.perception.known if row.perception else row.grounding.image_terms if row.grounding else None
        present = [moved for box in self._boxes[index] if (moved := view.move(box))]
        if self.donors is None or told is None or not present:  # without a box it may say that nothing is to be found
            return row
        pasted = self.donors.into(row.square, view, self.groups[index][0].source, told == 0, present, self.augment, rng)
        if pasted is None:
            return row
        perception = row.perception
        if perception and self.perception:
            perception = perceived_with(perception, pasted, self.perception.side)
        grounding = grounded_with(row.grounding, pasted, self.grid_side) if row.grounding else None
        return replace(row, draw=lambda: pasted.pixels, perception=perception, grounding=grounding, features=None)

    def _row(self, group: list[Conversation], known: list[Conversation], view: View, rng: np.random.Generator) -> Row:
        image = group[0].image
        features = self.features.get(image, view) if self.features else None
        if not (self.stage.answer_weight or self.stage.contrastive_weight):
            group = group[:1]  # nobody reads the words
        said = [(conversation, self._words(conversation, view, rng)) for conversation in group]
        dialogues = [
            self.processor.encode_dialogue(turns, image.size_wh, self._exact(conversation, view))
            for conversation, turns in said
        ]
        weights = [self.stage.task_weights.get(conversation.task, 1.0) for conversation, _ in said]
        packed = weigh_lengths(pack(dialogues, weights, self.max_length), self.stage.length_weighting)
        if set(self.stage.digit_weights) != {1.0}:
            packed = weigh_digits(packed, self._digit_ids, self.stage.digit_weights)
        count = max(packed.segments)
        caption: list[int] = []
        if self.stage.contrastive_weight:
            captions = [turns[-1][1] for conversation, turns in said if conversation.task == Task.CAP]
            caption = self.processor.tokenizer.encode(captions[0], add_special_tokens=False) if captions else []
        grounding = self.terms.targets(known, view.move, self.grid_side) if self.terms and self.grid_side else None
        perception = None
        if self.perception:
            perception = self.perception.targets(known, group, view, rng if self.is_training else None)
        tasks = tuple(conversation.task for conversation, _ in said[:count])
        ids = tuple(conversation.id for conversation, _ in said[:count])
        asked: tuple[Asked, ...] = ()
        if self.stage.reward:
            asked = tuple(ask(self.processor, conversation, turns, view) for conversation, turns in said)
        of_image = (image.path, ids, perception, image.size_wh, asked)
        if features is not None:
            return Row(partial(self.draw, image, view), packed, tasks, caption, grounding, features, *of_image)
        square = self.draw(image, view)
        return Row(lambda: square, packed, tasks, caption, grounding, None, *of_image)

    def _exact(self, conversation: Conversation, view: View) -> dict[str, Box] | None:
        """The boxes behind the words of a view, for codings that would round them anew."""
        return None if self.processor.coding.is_plain else exact_boxes(conversation.target.boxes, view.move)

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
    """Rows to the tensors of one batch; with `has_captions` every batch has captions, if only one that nobody reads."""

    def __init__(
        self,
        processor: GastroVLProcessor,
        terms: TermIndex | None,
        has_captions: bool = False,
        perception: PerceptionRows | None = None,
    ) -> None:
        self.processor, self.terms, self.has_captions, self.perception = processor, terms, has_captions, perception

    def __call__(self, rows: Sequence[Row]) -> dict[str, Any]:
        pad = int(self.processor.tokenizer.pad_token_id)
        batch: dict[str, Any] = collate([row.packed for row in rows], pad, self.processor.locations)
        features = [row.features for row in rows if row.features is not None]
        if len(features) == len(rows):
            batch["tower_features"] = torch.stack(features)
        else:
            batch["pixel_values"] = self.processor.pixels(np.stack([row.square for row in rows]))
        if self.has_captions or any(row.caption for row in rows):
            batch |= _padded_captions([row.caption for row in rows], pad)
        grounding = [row.grounding for row in rows if row.grounding is not None]
        if self.terms and len(grounding) == len(rows):
            batch["grounding"] = self.terms.batch(grounding, self.processor)
        perceived = [row.perception for row in rows if row.perception is not None]
        if self.perception and len(perceived) == len(rows):
            packed, ids = [row.packed for row in rows], [row.ids for row in rows]
            batch["perceived"] = self.perception.batch(perceived, packed, ids, self.processor)
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


def _said_in(group: list[Conversation], view: View) -> tuple[View, list[Conversation]]:
    """The view and what is true in it; when that is nothing (captions with positions), the image as it is."""
    kept = [conversation for conversation in group if _survives(conversation, view)]
    return (view, kept) if kept else (View(), group)


def _survives(conversation: Conversation, view: View) -> bool:
    """Whether the words stay true in the view: no position survives a moved image, no side a mirror."""
    if not view.moves_boxes:
        return True
    if conversation.kind is Kind.COMPARE_LEFT:
        return view.keeps_left
    if conversation.kind is Kind.COMPARE_UP:
        return view.keeps_up
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
    """The captions of the rows that have one, and which rows those are."""
    rows = [number for number, ids in enumerate(captions) if ids]
    said = [captions[number] for number in rows] or [[pad]]
    length = max(map(len, said))
    return {
        "caption_ids": torch.tensor([ids + [pad] * (length - len(ids)) for ids in said]),
        "caption_mask": torch.tensor([[1] * len(ids) + [0] * (length - len(ids)) for ids in said]),
        "caption_rows": torch.tensor(rows, dtype=torch.long),
    }
