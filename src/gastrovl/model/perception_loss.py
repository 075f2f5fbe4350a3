"""What is known of images, and what the perception head says of them, to its loss."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn

from gastrovl.model.grounding import UNKNOWN, overlaps
from gastrovl.model.perception import Located, PerceptionHead, SeenMap

_MIDDLE = 0.7  # boxes are learnt in the cells of this middle part of each side: those at the rim know too little
_SMOOTHING = 0.05
# Weights of the parts: mask, box, expected IoU, presence, names of regions.
_BOX, _QUALITY, _NAME = 0.5, 0.2, 0.3
NOT_ASKED = -1


@dataclass
class PerceptionTargets:
    """What is known of a batch.

    Attributes:
        term_ids, term_mask: Token ids of every term's name, (terms, longest), padded where the mask is 0.
        images, terms: Of each pair of an image and a term that is there or not, their numbers, (pairs,).
        masks: Share of each fine cell that shows the term, (pairs, fine side, fine side); all 0 where it is absent.
        boxes: (pairs, most boxes, 4) as fractions, NaN where a pair has fewer; none where the term is absent.
        asked: Of each pair, the number of its first answer token among those of the batch, or NOT_ASKED, (pairs,).
        known: Whether each image shows each term, (images, terms) in {0, 1} or UNKNOWN.
        region_images, region_terms, region_boxes: Of each region with a name, (regions,), (regions,), (regions, 4).
    """

    term_ids: Tensor
    term_mask: Tensor
    images: Tensor
    terms: Tensor
    masks: Tensor
    boxes: Tensor
    asked: Tensor
    known: Tensor
    region_images: Tensor
    region_terms: Tensor
    region_boxes: Tensor

    def to(self, device: torch.device | str, non_blocking: bool = False) -> PerceptionTargets:
        """The same targets on a device; accelerate calls it for what a batch holds besides tensors."""
        own = (getattr(self, field.name) for field in fields(self))
        return PerceptionTargets(*(tensor.to(device, non_blocking=non_blocking) for tensor in own))


def perception_loss(
    head: PerceptionHead, features: Tensor, names: Tensor, targets: PerceptionTargets, states: Tensor | None
) -> Tensor:
    """The summed loss of what the head says of tower features.

    Terms are asked for by their names; where the language model ran, by the state in which it begins its answer too, so
    that a question in any words leads to the same query.

    Args:
        features: (images, cells, vision width).
        names: Mean word embedding of each term, (terms, text width).
        states: Of all answer tokens of the batch, the state each is said from, (answers, text width), or None.
    """
    seen = head.look(features)
    words = head.of_name(names)
    loss = _located_loss(head.locate(seen, targets.images, words[targets.terms]), targets.masks, targets.boxes)
    is_asked = targets.asked != NOT_ASKED
    if states is not None and bool(is_asked.any()):
        queries = head.of_state(states[targets.asked[is_asked]])
        found = head.locate(seen, targets.images[is_asked], queries)
        is_there = ~targets.boxes[is_asked, :1].isnan().any(dim=-1)[:, 0]
        loss = loss + _located_loss(found, targets.masks[is_asked], targets.boxes[is_asked])
        loss = loss + nn.functional.binary_cross_entropy_with_logits(found.presence, is_there.to(found.presence.dtype))
    loss = loss + _presence_loss(head, seen, words, targets.known)
    if len(targets.region_images):
        fits = head.name(seen, targets.region_images, targets.region_boxes, words)
        loss = loss + _NAME * nn.functional.cross_entropy(fits, targets.region_terms, label_smoothing=_SMOOTHING)
    return loss


def _presence_loss(head: PerceptionHead, seen: SeenMap, words: Tensor, known: Tensor) -> Tensor:
    """Binary cross-entropy of what is known of each image, the mean over all of it."""
    images, terms = (known != UNKNOWN).nonzero(as_tuple=True)
    if not len(images):
        return words.sum() * 0.0
    said = head.presence(seen, images, words[terms])
    return nn.functional.binary_cross_entropy_with_logits(said, known[images, terms].to(said.dtype))


def _located_loss(found: Located, masks: Tensor, boxes: Tensor) -> Tensor:
    """Masks by cross-entropy and Dice, boxes by L1 and generalised IoU, and the IoU that was expected of them."""
    loss = 2.0 * nn.functional.binary_cross_entropy_with_logits(found.masks, masks)
    is_there = masks.flatten(1).any(dim=-1)
    if not bool(is_there.any()):
        return loss + 0.0 * (found.boxes.sum() + found.qualities.sum())
    loss = loss + dice_loss(found.masks[is_there], masks[is_there])
    wanted = cell_boxes(boxes[is_there], found.boxes.shape[1])
    is_known = ~wanted.isnan().any(dim=-1)
    guess, true = found.boxes[is_there][is_known], wanted[is_known]
    iou, generalised = overlaps(guess, true)
    loss = loss + _BOX * (5.0 * (guess - true).abs().mean() + 2.0 * (1.0 - generalised).mean())
    expected = found.qualities[is_there][is_known]
    return loss + _QUALITY * nn.functional.binary_cross_entropy_with_logits(expected, iou.detach().clamp(0, 1))


def dice_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """One minus twice the overlap over the sum of both (Milletari et al., 3DV 2016), the mean over (masks, h, w)."""
    said = logits.sigmoid()
    shared, both = (said * masks).sum(dim=(1, 2)), said.sum(dim=(1, 2)) + masks.sum(dim=(1, 2))
    return (1.0 - (2.0 * shared + 1.0) / (both + 1.0)).mean()


def cell_boxes(boxes: Tensor, side: int) -> Tensor:
    """The smallest box in whose middle part each cell lies, NaN where there is none.

    Args:
        boxes: (pairs, most boxes, 4) as fractions, NaN where a pair has fewer.

    Returns:
        (pairs, side, side, 4).
    """
    middles = (torch.arange(side, device=boxes.device, dtype=boxes.dtype) + 0.5) / side
    inside = []
    for low, high in ((1, 3), (0, 2)):  # rows, columns
        centre, half = (boxes[..., low] + boxes[..., high]) / 2, (boxes[..., high] - boxes[..., low]) / 2
        reach = torch.maximum(half * _MIDDLE, half.new_tensor(0.5 / side) + 1e-6)  # the centre's own cell at least
        inside.append((middles - centre[..., None]).abs() <= reach[..., None])  # (pairs, boxes, side)
    is_inside = inside[0][..., :, None] & inside[1][..., None, :]
    areas = ((boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1]))[..., None, None]
    areas = areas.where(is_inside, areas.new_tensor(torch.inf))
    smallest, number = areas.min(dim=1)  # (pairs, side, side)
    chosen = boxes.gather(1, number.flatten(1)[..., None].expand(-1, -1, 4)).reshape(*number.shape, 4)
    return chosen.where(smallest.isfinite()[..., None], chosen.new_tensor(torch.nan))
