"""A training-time head that makes image tokens say what they show and where its box lies; no checkpoint keeps it.

A language model that starts from random weights gives the tower almost no gradient: it first learns to talk without
looking. This head asks the same image tokens the language model reads, with linear readouts only: which term each image
and each cell shows (similarity to the term's own word embeddings, sigmoid loss as in SigLIP, Zhai et al. 2023) and the
box around each cell (L1 + generalised IoU as in DETR, Carion et al. 2020). What it learns is then linearly readable for
the language model's attention.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

UNKNOWN = -1.0
_READ_DIGITS = 2  # of the three of a bin; the last is below what a cell can tell


@dataclass
class GroundingTargets:
    """What is known about a batch of images.

    Attributes:
        term_ids, term_mask: Token ids of every term's name, (terms, longest), padded where the mask is 0.
        image_terms: (images, terms) in {0, 1} or UNKNOWN.
        cell_terms: (images, cells, terms) in {0, 1} or UNKNOWN; cells row by row from the top left.
        cell_boxes: (images, cells, 4) as fractions x0, y0, x1, y1; NaN where a cell lies in no box.
    """

    term_ids: Tensor
    term_mask: Tensor
    image_terms: Tensor
    cell_terms: Tensor
    cell_boxes: Tensor

    def to(self, device: torch.device | str, non_blocking: bool = False) -> GroundingTargets:
        """The same targets on a device; accelerate calls it for what a batch holds besides tensors."""
        tensors = (self.term_ids, self.term_mask, self.image_terms, self.cell_terms, self.cell_boxes)
        return GroundingTargets(*(tensor.to(device, non_blocking=non_blocking) for tensor in tensors))


class GroundingHead(nn.Module):
    """Linear readouts of image tokens, (images, tokens, width); only the first `cells` tokens form the grid."""

    def __init__(self, width: int, cells: int) -> None:
        super().__init__()
        self.cells = cells
        self.word = nn.Linear(width, width)
        self.summary = nn.Linear(width, width)
        self.attention = nn.Linear(width, 1)
        self.box = nn.Linear(width, 4)
        self.digits = nn.Linear(width, 4 * _READ_DIGITS * 10)
        self.scale = nn.Parameter(torch.tensor([2.3, 2.3]))
        self.bias = nn.Parameter(torch.tensor([-3.0, -3.0]))

    def forward(self, tokens: Tensor, words: Tensor, targets: GroundingTargets) -> Tensor:
        """The summed loss.

        Args:
            words: Mean word embedding of each term, (terms, width).
        """
        cells = tokens[:, : self.cells].float()
        words = nn.functional.normalize(words.float(), dim=-1)
        weights = self.attention(cells).softmax(dim=1)
        image = nn.functional.normalize(self.summary((weights * cells).sum(dim=1)), dim=-1)
        image_logits = image @ words.T * self.scale[0].exp() + self.bias[0]
        cell_logits = nn.functional.normalize(self.word(cells), dim=-1) @ words.T * self.scale[1].exp() + self.bias[1]
        boxes = self.box(cells).sigmoid()
        return (
            balanced_bce(image_logits, targets.image_terms)
            + balanced_bce(cell_logits, targets.cell_terms)
            + choice_loss(cell_logits, targets.cell_terms)
            + box_loss(boxes, targets.cell_boxes)
            + digit_loss(self.digits(cells).unflatten(-1, (4, _READ_DIGITS, 10)), targets.cell_boxes)
        )


def box_loss(boxes: Tensor, truth: Tensor) -> Tensor:
    """Five times L1 plus one minus generalised IoU, averaged over cells that lie in a box; zero when none does.

    Args:
        boxes, truth: (images, cells, 4) as fractions; NaN in `truth` where there is no box.
    """
    is_known = ~truth.isnan().any(dim=-1)
    if not is_known.any():
        return boxes.sum() * 0.0
    guess, true = boxes[is_known], truth[is_known]
    low, high = torch.minimum(guess[:, :2], guess[:, 2:]), torch.maximum(guess[:, :2], guess[:, 2:])
    _, generalised = overlaps(torch.cat([low, high], dim=-1), true)
    return 5.0 * (guess - true).abs().mean() + (1.0 - generalised).mean()


def overlaps(boxes: Tensor, true: Tensor) -> tuple[Tensor, Tensor]:
    """IoU and generalised IoU (Rezatofighi et al., CVPR 2019) of boxes, (boxes, 4) as x0, y0, x1, y1."""
    shared = (torch.minimum(boxes[:, 2:], true[:, 2:]) - torch.maximum(boxes[:, :2], true[:, :2])).clamp(min=0).prod(-1)
    union = (boxes[:, 2:] - boxes[:, :2]).prod(-1) + (true[:, 2:] - true[:, :2]).prod(-1) - shared
    cover = (torch.maximum(boxes[:, 2:], true[:, 2:]) - torch.minimum(boxes[:, :2], true[:, :2])).prod(-1)
    iou = shared / union.clamp(min=1e-6)
    return iou, iou - (cover - union) / cover.clamp(min=1e-6)


def digit_loss(logits: Tensor, truth: Tensor) -> Tensor:
    """Cross-entropy of the leading digits of every coordinate's bin, averaged over cells in a box; zero without any.

    A coordinate is linear in nothing the language model must say: it says digits. Read out linearly here, attention
    alone can copy them into an answer.

    Args:
        logits: (images, cells, 4, digits, 10). truth: (images, cells, 4) as fractions; NaN where there is no box.
    """
    is_known = ~truth.isnan().any(dim=-1)
    if not is_known.any():
        return logits.sum() * 0.0
    bins = (truth[is_known] * 999 + 0.5).long()
    digits = torch.stack([bins // 10 ** (2 - place) % 10 for place in range(logits.shape[-2])], dim=-1)
    return nn.functional.cross_entropy(logits[is_known].reshape(-1, 10), digits.reshape(-1))


def choice_loss(logits: Tensor, truth: Tensor) -> Tensor:
    """Cross-entropy of a cell's true terms among all terms known of it, averaged over cells that show any.

    `balanced_bce` averages what a lesion's cell does not show with all the empty cells, so that it hardly tells one
    lesion from another that looks like it.

    Args:
        logits, truth: (images, cells, terms); truth in {0, 1} or UNKNOWN.
    """
    shows = (truth == 1).any(dim=-1)
    if not shows.any():
        return logits.sum() * 0.0
    scores, true = logits[shows], truth[shows]
    among = scores.masked_fill(true == UNKNOWN, -torch.inf).logsumexp(dim=-1)
    return (among - scores.masked_fill(true != 1, -torch.inf).logsumexp(dim=-1)).mean()


def balanced_bce(logits: Tensor, truth: Tensor) -> Tensor:
    """Binary cross-entropy, the mean over what is there plus the mean over what is not; unknown entries do not count.

    One cell in twenty lies in a lesion, and of one term only: a plain mean would learn to say no.

    Args:
        logits, truth: Of one shape; truth in {0, 1} or UNKNOWN.
    """
    losses = nn.functional.binary_cross_entropy_with_logits(logits, truth.clamp(min=0.0), reduction="none")
    halves = [losses[truth == value].mean() for value in (0.0, 1.0) if (truth == value).any()]
    return torch.stack(halves).sum() if halves else logits.sum() * 0.0
