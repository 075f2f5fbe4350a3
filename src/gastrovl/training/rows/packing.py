"""All dialogues about one image in one row: the image once, each dialogue seeing only the image and itself.

Gradients equal those of one row per dialogue (a test holds this), because block mask and restarted positions give every
dialogue exactly what it would see alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from gastrovl.core.errors import ModelInputError
from gastrovl.core.types import Box
from gastrovl.model.gastrovl import IGNORED
from gastrovl.model.locations import LocationTokens
from gastrovl.model.packed.rows import PADDING, SHARED
from gastrovl.model.processor import Dialogue, region_boxes


@dataclass(frozen=True)
class PackedRow:
    """One row: ids, positions, segments (0 the shared image prefix, k the k-th dialogue), labels and their weights.

    `regions` are the boxes that the packed questions ask about, in the order of their tokens; `places` are the bins,
    not rounded, of the location tokens in the packed answers.
    """

    ids: list[int]
    positions: list[int]
    segments: list[int]
    labels: list[int]
    weights: list[float]
    regions: tuple[Box, ...] = ()
    places: tuple[float, ...] = ()


def pack(dialogues: Sequence[Dialogue], weights: Sequence[float], max_length: int) -> PackedRow:
    """Put dialogues of one image behind their common prefix; those that no longer fit are left out.

    Raises:
        ModelInputError: The prefixes differ, or not even the first dialogue fits into `max_length`.
    """
    prefix = dialogues[0].ids[: dialogues[0].prefix]
    ids, positions = list(prefix), list(range(len(prefix)))
    segments, labels, label_weights = [SHARED] * len(prefix), [IGNORED] * len(prefix), [0.0] * len(prefix)
    regions: tuple[Box, ...] = ()
    places: tuple[float, ...] = ()
    for number, (dialogue, weight) in enumerate(zip(dialogues, weights, strict=True), start=1):
        if dialogue.ids[: dialogue.prefix] != prefix:
            raise ModelInputError(
                "dialogues of one row start with different tokens; expected the same image and template"
            )
        own, is_answer = dialogue.ids[dialogue.prefix :], dialogue.is_answer[dialogue.prefix :]
        if len(ids) + len(own) > max_length:
            break
        ids += own
        regions += dialogue.regions
        places += dialogue.places
        positions += range(len(prefix), len(prefix) + len(own))
        segments += [number] * len(own)
        labels += [token if flag else IGNORED for token, flag in zip(own, is_answer, strict=True)]
        label_weights += [weight if flag else 0.0 for flag in is_answer]
    if segments[-1] == SHARED:
        raise ModelInputError(
            f"a dialogue of {len(dialogues[0].ids)} tokens does not fit into max_length {max_length}; raise it"
        )
    return PackedRow(ids, positions, segments, labels, label_weights, regions, places)


def weigh_digits(row: PackedRow, digit_ids: frozenset[int], factors: Sequence[float]) -> PackedRow:
    """The row with the weight of each answered digit multiplied by the factor of its place in its number.

    Args:
        digit_ids: Token ids of the ten digits.
        factors: Of the first, second and third digit; digits beyond keep the last one's.
    """
    weights, place = list(row.weights), 0
    for position, (token, label) in enumerate(zip(row.ids, row.labels, strict=True)):
        if label == IGNORED or token not in digit_ids:
            place = 0
            continue
        weights[position] *= factors[min(place, len(factors) - 1)]
        place += 1
    return replace(row, weights=weights)


def collate(rows: Sequence[PackedRow], pad_token_id: int, locations: LocationTokens | None = None) -> dict[str, Tensor]:
    """Rows of different length as one batch, padded on the right.

    Returns:
        input_ids, position_ids, segments, labels, label_weights: (rows, length); region_boxes: (rows, most regions, 4),
        where any question has a box and the model takes them; label_places: (rows, length), where any answer has a
        location token.

    Raises:
        ModelInputError: An answer has location tokens that stand for no box of it.
    """
    length = max(len(row.ids) for row in rows)

    def padded(values: list[list[int]] | list[list[float]], fill: float, dtype: torch.dtype) -> Tensor:
        return torch.tensor([list(value) + [fill] * (length - len(value)) for value in values], dtype=dtype)

    regions = region_boxes([row.regions for row in rows])
    batch = {} if regions is None else {"region_boxes": regions}
    batch |= {
        "input_ids": padded([row.ids for row in rows], pad_token_id, torch.long),
        "position_ids": padded([row.positions for row in rows], 0, torch.long),
        "labels": padded([row.labels for row in rows], IGNORED, torch.long),
        "label_weights": padded([row.weights for row in rows], 0.0, torch.float32),
        "segments": padded([row.segments for row in rows], PADDING, torch.long),
    }
    if locations is not None and any(row.places for row in rows):
        batch["label_places"] = _label_places(rows, locations.holds(batch["labels"]))
    return batch


def _label_places(rows: Sequence[PackedRow], is_location: Tensor) -> Tensor:
    """The bin of each location token that is a label, (rows, length), NaN elsewhere."""
    counts = is_location.sum(dim=1).tolist()
    if counts != [len(row.places) for row in rows]:
        raise ModelInputError(
            "an answer says location tokens that were not made from its boxes; datasets write boxes as `[x0,y0,x1,y1]`"
        )
    places = torch.full(is_location.shape, math.nan)
    places[is_location] = torch.tensor([place for row in rows for place in row.places])
    return places
