"""Conversations about an image to what its cells show: the targets of the grounding head."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from gastrovl.core.errors import RecordError
from gastrovl.core.types import Box, Conversation, Task
from gastrovl.model.grounding import UNKNOWN, GroundingTargets
from gastrovl.model.processor import GastroVLProcessor, name_ids

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class RowTargets:
    """Of one image: `image_terms` (terms,), `cell_terms` (cells, terms), `cell_boxes` (cells, 4)."""

    image_terms: Floats
    cell_terms: Floats
    cell_boxes: Floats


class TermIndex:
    """The terms that a training set speaks of, with their names, in a fixed order."""

    def __init__(self, conversations: Sequence[Conversation]) -> None:
        names: dict[str, str] = {}
        for conversation in conversations:
            if conversation.task in (Task.CLS, Task.REG):
                said = conversation.answer.split("; ")
                if len(said) == len(conversation.target.terms):
                    names.update(zip(conversation.target.terms, said, strict=True))
        if not names:
            raise RecordError(
                "grounding_weight and perception_weight need CLS or REG conversations, from "
                "which the terms' names are read; found none"
            )
        self.terms = tuple(sorted(names))
        self.names = tuple(names[term] for term in self.terms)
        self._place = {term: number for number, term in enumerate(self.terms)}
        self._ids: tuple[torch.Tensor, torch.Tensor] | None = None  # once they have been asked for

    def place(self, term: str) -> int | None:
        """The number of a term, None for one that the training set does not name."""
        return self._place.get(term)

    def names_as_ids(self, processor: GastroVLProcessor) -> tuple[torch.Tensor, torch.Tensor]:
        """Token ids of the terms' names and which of them are no padding, both (terms, longest)."""
        if self._ids is None:
            self._ids = name_ids(processor.tokenizer, self.names)
        return self._ids

    def shown(self, group: Sequence[Conversation]) -> Floats:
        """Whether an image shows each term, (terms,); a CLS answer names everything, without one all is UNKNOWN."""
        found = np.full(len(self.terms), UNKNOWN, dtype=np.float32)
        for conversation in group:
            if conversation.task == Task.CLS:
                found[:] = 0.0
                found[[self._place[term] for term in conversation.target.terms if term in self._place]] = 1.0
        return found

    def targets(self, group: Sequence[Conversation], move: Callable[[Box], Box | None], grid_side: int) -> RowTargets:
        """What is known of one image from its conversations; `move` takes a box into the view that is shown.

        A CLS answer names everything an image shows, so other terms are absent from it. A term that is present but has
        no box in the source stays unknown cell by cell.
        """
        count, cells = len(self.terms), grid_side * grid_side
        image_terms = self.shown(group)
        cell_terms = np.full((cells, count), UNKNOWN, dtype=np.float32)
        cell_boxes = np.full((cells, 4), np.nan, dtype=np.float32)
        for conversation in group:
            if conversation.task == Task.CLS:
                present = [self._place[term] for term in conversation.target.terms if term in self._place]
                absent = [place for place in range(count) if place not in present]
                cell_terms[:, absent] = 0.0
        sizes = np.full(cells, np.inf)
        for conversation in group:
            if conversation.task == Task.REC and conversation.target.terms[0] in self._place:
                place = self._place[conversation.target.terms[0]]
                cell_terms[:, place] = 0.0
                for box in conversation.target.boxes:
                    moved = move(box)
                    if moved is not None:
                        inside = cells_inside(moved, grid_side)
                        cell_terms[inside, place] = 1.0
                        smaller = inside & (sizes > moved.area)
                        cell_boxes[smaller] = moved.xyxy
                        sizes[smaller] = moved.area
        return RowTargets(image_terms, cell_terms, cell_boxes)

    def batch(self, rows: Sequence[RowTargets], processor: GastroVLProcessor) -> GroundingTargets:
        """The targets of several images, with the terms' names as token ids."""
        term_ids, term_mask = self.names_as_ids(processor)
        return GroundingTargets(
            term_ids=term_ids,
            term_mask=term_mask,
            image_terms=torch.from_numpy(np.stack([row.image_terms for row in rows])),
            cell_terms=torch.from_numpy(np.stack([row.cell_terms for row in rows])),
            cell_boxes=torch.from_numpy(np.stack([row.cell_boxes for row in rows])),
        )


def cut_mix(
    ours: tuple[NDArray[np.uint8], RowTargets], other: tuple[NDArray[np.uint8], RowTargets], rng: np.random.Generator
) -> tuple[NDArray[np.uint8], RowTargets]:
    """Two images side by side or one above the other, cut at a border between cells (CutMix, Yun et al., ICCV 2019).

    A cell keeps what its own image says of it; a box that the cut divides is no longer known, and neither is whether
    the image shows a term unless a cell shows it still.

    Args:
        ours, other: Pixels (side, side, 3) and targets of one grid.
    """
    (pixels, mine), (others_pixels, theirs) = ours, other
    grid = math.isqrt(len(mine.cell_boxes))
    cut = int(rng.integers(grid // 4, grid - grid // 4 + 1))
    axis = int(rng.integers(2))  # 0: other below, 1: other on the right
    edge = round(cut / grid * len(pixels))
    behind = np.arange(len(pixels)) >= edge
    mixed = np.where(behind[:, None, None] if axis == 0 else behind[None, :, None], others_pixels, pixels)
    is_other = np.arange(grid) >= cut
    cells = np.broadcast_to(is_other[:, None] if axis == 0 else is_other[None, :], (grid, grid)).reshape(-1, 1)
    cell_terms = np.where(cells, theirs.cell_terms, mine.cell_terms)
    cell_boxes = np.where(cells, theirs.cell_boxes, mine.cell_boxes)
    start, end = cell_boxes[:, 1 - axis], cell_boxes[:, 3 - axis]
    cell_boxes[(start < cut / grid) & (end > cut / grid)] = np.nan
    both_absent = (mine.image_terms == 0) & (theirs.image_terms == 0)
    image_terms = np.where((cell_terms == 1).any(axis=0), 1.0, np.where(both_absent, 0.0, UNKNOWN))
    return mixed, RowTargets(image_terms.astype(np.float32), cell_terms, cell_boxes)


def cells_inside(box: Box, grid_side: int) -> NDArray[np.bool_]:
    """Which cells have their centre in the box, (cells,); at least the one that holds the box's own centre."""
    centres = (np.arange(grid_side) + 0.5) / grid_side
    columns = (centres >= box.x0) & (centres <= box.x1)
    rows = (centres >= box.y0) & (centres <= box.y1)
    inside = rows[:, None] & columns[None, :]
    row = min(int((box.y0 + box.y1) / 2 * grid_side), grid_side - 1)
    column = min(int((box.x0 + box.x1) / 2 * grid_side), grid_side - 1)
    inside[row, column] = True
    return inside.reshape(-1)
