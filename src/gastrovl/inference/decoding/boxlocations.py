"""Location tokens of a box decoded as numbers: the mean over all bins instead of the likeliest, corners in their order.

A model that was taught a bell over neighbouring bins says where an edge lies between them, and how unsure it is, in the
shares of all. Their mean is finer than a bin and minimises the expected squared error, their median the absolute one.
Where two lesions are likely, a mean can lie between them. What goes on in the text is the nearest token. A box that was
begun is ended, and its second corner lies behind its first, so that no reply is lost to half a box or a reversed one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from gastrovl.core.boxcoding import Reading
from gastrovl.model.locations import LocationTokens

_PER_BOX = 4


class BoxLocations:
    """Changes the scores of the next token where that token is a location; remembers the places of one batch."""

    def __init__(self, locations: LocationTokens, reading: Reading = "mean") -> None:
        self.locations, self.reading = locations, reading
        self._places: list[dict[int, float]] = []  # of each step, by reply

    def __call__(self, input_ids: Tensor, scores: Tensor, numbers: Sequence[int] | None = None) -> Tensor:
        """New scores, (replies, vocabulary); only one token is left where a location comes next.

        Args:
            numbers: Of the replies; all of them when left out.
        """
        self._places.append({})
        begun = self._begun(input_ids)
        is_next = self.locations.holds(scores.argmax(dim=-1)) | (begun > 0)
        if not bool(is_next.any()):
            return scores
        changed = scores.clone()
        first, count = self.locations.first, self.locations.count
        rows = is_next.nonzero().flatten()
        bins = torch.arange(count, device=scores.device)
        # A first corner leaves a bin behind it, a second one begins behind the first, two tokens before.
        is_second = begun[rows] >= _PER_BOX // 2
        lowest = torch.where(is_second, input_ids[rows, -2] - first + 1, 0).unsqueeze(1)
        highest = torch.where(is_second, count - 1, count - 2).unsqueeze(1)
        held = scores[rows, first : first + count].float()
        held = held.masked_fill((bins < lowest) | (bins > highest), float("-inf"))
        places = _READINGS[self.reading](held.double().softmax(dim=-1)).unsqueeze(1)
        places = places.clamp(lowest, highest).squeeze(1)
        changed[rows] = float("-inf")
        changed[rows, first + (places + 0.5).floor().long()] = 0.0
        named = [row if numbers is None else numbers[row] for row in rows.tolist()]
        self._places[-1] = dict(zip(named, places.tolist(), strict=True))
        return changed

    def of_reply(self, row: int, length: int) -> list[float]:
        """The place, in bins, of each location token among the first `length` tokens of a reply."""
        return [places[row] for places in self._places[:length] if row in places]

    def _begun(self, input_ids: Tensor) -> Tensor:
        """How many tokens of an open box stand at the end of each reply, (replies,), 0 to 3."""
        is_location = self.locations.holds(input_ids).flip(1)
        return is_location.cumprod(dim=1).sum(dim=1) % _PER_BOX


def mean_place(shares: Tensor) -> Tensor:
    """The mean bin, (rows, bins) to (rows,)."""
    return (shares * torch.arange(shares.shape[1], device=shares.device)).sum(dim=1)


def median_place(shares: Tensor) -> Tensor:
    """Where half of the shares lie before, each spread evenly over its bin, (rows, bins) to (rows,)."""
    total = shares.cumsum(dim=1)
    number = (total < total[:, -1:] / 2).sum(dim=1, keepdim=True)
    share = shares.gather(1, number)
    before = total.gather(1, number) - share
    return (number - 0.5 + (total[:, -1:] / 2 - before) / share).squeeze(1)


def likeliest_place(shares: Tensor) -> Tensor:
    """The bin with the largest share, (rows, bins) to (rows,)."""
    return shares.argmax(dim=1).to(shares.dtype)


_READINGS: dict[Reading, Callable[[Tensor], Tensor]] = {
    "mean": mean_place,
    "median": median_place,
    "likeliest": likeliest_place,
}
