"""Conversations about an image, and its masks, to what the perception head is to say of a view of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from gastrovl.core import geometry
from gastrovl.core.types import Box, Conversation, Task
from gastrovl.model.perception_loss import NOT_ASKED, PerceptionTargets
from gastrovl.model.processor import GastroVLProcessor
from gastrovl.training.rows.augment import IDENTITY_GAINS, View
from gastrovl.training.rows.grounding import TermIndex
from gastrovl.training.rows.images import ImageStore
from gastrovl.training.rows.packing import PackedRow

MOST_PAIRS, MOST_REGIONS = 4, 4  # of an image in one row: a frame with twelve boxes is no better a teacher than others
SHAKEN = 0.1  # of a region's width or height: how far its sides move in training

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class RowPerception:
    """Of one image: pairs (term, mask, boxes, conversation id), known terms (terms,), regions (term, box)."""

    pairs: tuple[tuple[int, Floats, tuple[Box, ...], str], ...]
    known: Floats
    regions: tuple[tuple[int, Box], ...]


class PerceptionRows:
    """What is known of images, with `side` fine cells a side, for the terms of a `TermIndex`."""

    def __init__(self, terms: TermIndex, images: ImageStore, side: int) -> None:
        self.terms, self.images, self.side = terms, images, side

    def targets(
        self, known: Sequence[Conversation], asked: Sequence[Conversation], view: View, rng: np.random.Generator | None
    ) -> RowPerception:
        """Of an image in a view, from all its conversations.

        Where the source has no mask of a term, its boxes are filled. A term whose boxes a view cuts away altogether
        says nothing; views as they are drawn keep every box.

        Args:
            known: All conversations about the image.
            asked: Those in the row: they are taken before others.
            rng: Draws among more pairs and regions than MOST_PAIRS and MOST_REGIONS; None takes the first ones.
        """
        shown = self.terms.shown(known)
        here = {conversation.id for conversation in asked}
        located = {
            conversation.target.terms[0]: conversation
            for conversation in sorted(known, key=lambda one: one.id in here)  # the last of a term stays
            if conversation.task == Task.REC and self.terms.place(conversation.target.terms[0]) is not None
        }
        for term, conversation in located.items():
            shown[self.terms.place(term)] = float(bool(conversation.target.boxes))
        first = [one for one in located.values() if one.id in here]
        others = [one for one in located.values() if one.id not in here]
        chosen = (first + _drawn(others, rng, len(others)))[:MOST_PAIRS]
        regions = [one for one in known if one.task == Task.REG and self.terms.place(one.target.terms[0]) is not None]
        named = [
            (self.terms.place(one.target.terms[0]), moved)
            for one in _drawn(regions, rng, MOST_REGIONS)
            for box in one.target.boxes
            if (moved := view.move(box if rng is None else _shaken(box, rng)))
        ]
        return RowPerception(
            tuple(pair for one in chosen if (pair := self._pair(one, view)) is not None),
            shown,
            tuple((place, box) for place, box in named if place is not None),
        )

    def _pair(self, conversation: Conversation, view: View) -> tuple[int, Floats, tuple[Box, ...], str] | None:
        place, target = self.terms.place(conversation.target.terms[0]), conversation.target
        assert place is not None
        boxes = tuple(moved for box in target.boxes if (moved := view.move(box)))
        if target.boxes and not boxes:
            return None
        mask: Floats = np.zeros((self.side, self.side), dtype=np.float32)
        if target.mask is not None:
            shape = replace(
                view,
                gains=IDENTITY_GAINS,
                contrast=1.0,
                operations=tuple(one for one in view.operations if one.moves_boxes),
            )
            pixels = shape.render(self.images.square(target.mask), self.side)
            mask = np.asarray(pixels[..., 0] / 255, dtype=np.float32)
        if not mask.any():
            for box in boxes:
                x0, y0, x1, y1 = geometry.to_whole_pixels(box, (self.side, self.side))
                mask[y0:y1, x0:x1] = 1.0
        return place, mask, boxes, conversation.id

    def batch(
        self,
        rows: Sequence[RowPerception],
        packed: Sequence[PackedRow],
        ids: Sequence[tuple[str, ...]],
        processor: GastroVLProcessor,
    ) -> PerceptionTargets:
        """The targets of several images, with the terms' names as token ids."""
        first, begun = [], 0
        for row, spoken in zip(packed, ids, strict=True):
            answers, count = first_answers(row)
            first.append({name: begun + answers[number] for number, name in enumerate(spoken, start=1)})
            begun += count
        pairs = [(image, *pair) for image, row in enumerate(rows) for pair in row.pairs]
        regions = [(image, *region) for image, row in enumerate(rows) for region in row.regions]
        most = max([1, *(len(boxes) for _, _, _, boxes, _ in pairs)])
        empty = (float("nan"),) * 4
        term_ids, term_mask = self.terms.names_as_ids(processor)
        masks = [mask for _, _, mask, _, _ in pairs]
        return PerceptionTargets(
            term_ids=term_ids,
            term_mask=term_mask,
            images=torch.tensor([image for image, *_ in pairs], dtype=torch.long),
            terms=torch.tensor([term for _, term, *_ in pairs], dtype=torch.long),
            masks=torch.from_numpy(np.array(masks, dtype=np.float32).reshape(-1, self.side, self.side)),
            boxes=torch.tensor(
                [[*(box.xyxy for box in boxes), *[empty] * (most - len(boxes))] for _, _, _, boxes, _ in pairs],
                dtype=torch.float32,
            ).reshape(-1, most, 4),
            asked=torch.tensor([first[image].get(name, NOT_ASKED) for image, _, _, _, name in pairs], dtype=torch.long),
            known=torch.from_numpy(np.stack([row.known for row in rows])),
            region_images=torch.tensor([image for image, *_ in regions], dtype=torch.long),
            region_terms=torch.tensor([term for _, term, _ in regions], dtype=torch.long),
            region_boxes=torch.tensor([box.xyxy for *_, box in regions], dtype=torch.float32).reshape(-1, 4),
        )


def first_answers(row: PackedRow) -> tuple[Mapping[int, int], int]:
    """Of each dialogue by its number the place of its first answer token among the row's, and how many those are.

    Of a dialogue of several turns, its last answer's first token.
    """
    found: dict[int, int] = {}
    count, was_answer = 0, False
    for segment, label in zip(row.segments, row.labels, strict=True):
        is_answer = label >= 0
        if is_answer and not was_answer:
            found[segment] = count
        count += is_answer
        was_answer = is_answer
    return found, count


def _shaken(box: Box, rng: np.random.Generator) -> Box:
    """A box with each side moved a little, as another person would draw it."""
    reach_x, reach_y = SHAKEN * (box.x1 - box.x0), SHAKEN * (box.y1 - box.y0)
    moves = rng.uniform(-1, 1, size=4) * (reach_x, reach_y, reach_x, reach_y)
    return geometry.clip(*(float(side + move) for side, move in zip(box.xyxy, moves, strict=True)))


def _drawn(conversations: Sequence[Conversation], rng: np.random.Generator | None, most: int) -> list[Conversation]:
    if rng is None or len(conversations) < 2:
        return list(conversations[:most])
    return [conversations[number] for number in rng.permutation(len(conversations))[:most]]
