"""Location tokens: added to a tokenizer, started as neighbours that are alike, taught as a bell over their bins.

One token a bin is short and exact, but to a language model its bins are unrelated words. Embeddings drawn from a few
slow waves, and answers that give neighbours their share, tell it that bin 500 lies beside bin 501.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from tokenizers import AddedToken
from torch import Tensor

from gastrovl.core.boxcoding import BoxCodingConfig, location_word
from gastrovl.core.errors import TokenizerError
from gastrovl.model.packed.answerloss import SoftTargets

_WAVES = 16
_NARROWEST = 0.4  # bins; a bell that is narrower is one bin, wherever its middle lies


@dataclass(frozen=True)
class LocationTokens:
    """Where the location tokens of a vocabulary are: `count` ids from `first` on, taught with a width of `sigma`."""

    first: int
    count: int
    sigma: float

    @classmethod
    def of(cls, tokenizer: Any, coding: BoxCodingConfig) -> LocationTokens | None:
        """Those of a tokenizer; None when boxes are written in other words.

        Raises:
            TokenizerError: The tokenizer lacks some of them, or they do not lie behind each other.
        """
        if coding.kind != "tokens":
            return None
        vocabulary = tokenizer.get_vocab()
        ids = [vocabulary.get(location_word(number)) for number in range(coding.bins)]
        first = ids[0]
        if first is None or ids != list(range(first, first + coding.bins)):
            raise TokenizerError(
                f"box coding `tokens` needs {location_word(0)} to {location_word(coding.bins - 1)} behind each other "
                "in the vocabulary; found some missing or elsewhere. Take the tokenizer that came with the weights"
            )
        return cls(first, coding.bins, coding.sigma)

    def holds(self, ids: Tensor) -> Tensor:
        """Which ids are location tokens, bool of the same shape."""
        return (ids >= self.first) & (ids < self.first + self.count)

    def soft_targets(self, places: Tensor) -> SoftTargets | None:
        """The shares of all bins in the answers that say a place; None where each answer has one right token.

        A bell that a border cuts has its mean too far inside, and replies are read by their mean. So it is at most a
        third as wide as its middle is far from the nearer border.

        Args:
            places: (answers,), bins that are not rounded; NaN where another token is said.
        """
        if not self.sigma:
            return None
        rows = (~places.isnan()).nonzero().squeeze(1)
        middles = places[rows].float().unsqueeze(1)
        inside = torch.minimum(middles, self.count - 1 - middles)
        widths = (inside / 3).clamp(min=min(_NARROWEST, self.sigma), max=self.sigma)
        return SoftTargets(rows, middles, widths, self.first, self.count)


def add_location_tokens(tokenizer: Any, coding: BoxCodingConfig) -> bool:
    """Give a tokenizer the location tokens of a coding; returns whether it lacked any.

    They are not marked as special: whoever decodes a reply without special tokens should keep its boxes.
    """
    if coding.kind != "tokens":
        return False
    known = tokenizer.get_vocab()
    words = [word for number in range(coding.bins) if (word := location_word(number)) not in known]
    tokenizer.add_tokens([AddedToken(word, special=False, normalized=False) for word in words])
    return bool(words)


@torch.no_grad()
def start_smoothly(model: Any, locations: LocationTokens) -> None:
    """Draw the embeddings of location tokens, and their rows of the output layer, from a few slow waves (torch's seed).

    Each is as long, on average, as those of the other words.
    """
    tables = [model.get_input_embeddings().weight]
    output = model.get_output_embeddings().weight
    if output is not tables[0]:
        tables.append(output)
    rows = slice(locations.first, locations.first + locations.count)
    for table in tables:
        others = torch.cat([table[: rows.start], table[rows.stop :]])
        drawn = waves(locations.count) @ torch.randn(_WAVES, table.shape[1])
        table[rows] = (drawn * others.std() / drawn.std()).to(table.dtype)


def waves(count: int) -> Tensor:
    """The slowest cosines over `count` bins, the slower the larger, (bins, waves)."""
    middles = (torch.arange(count) + 0.5) / count
    numbers = torch.arange(_WAVES)
    return torch.cos(math.pi * middles.unsqueeze(1) * numbers) / (1 + numbers).sqrt()
