"""Digits of a box decoded as parts of a number: the median instead of the likeliest, and corners in their order.

A coordinate is said digit by digit. Where the model is unsure of a digit its ten probabilities are nearly flat, and
the likeliest is arbitrary; the median minimises the expected absolute error of that digit. The second corner is kept
behind the first, so that no reply is lost to a reversed box. Only digits inside square brackets are touched; everything
else stays greedy.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

_OPEN_BOX = re.compile(r"\[(\d{3},)*\d{0,2}$")
_DIGITS_PER_NUMBER = 3


class BoxDigits:
    """Changes the scores of the next token where that token is a digit of a box."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.digit_ids = torch.tensor(tokenizer.convert_tokens_to_ids(list("0123456789")))
        vocabulary = tokenizer.get_vocab()
        self._brackets = {number for token, number in vocabulary.items() if "[" in token}

    def __call__(self, input_ids: Tensor, scores: Tensor, rows: Sequence[int] | None = None) -> Tensor:
        """New scores, (replies, vocabulary); only one digit is left where a digit of a box comes next."""
        del rows  # every reply is treated alike
        digit_ids = self.digit_ids.to(scores.device)
        is_digit = torch.isin(scores.argmax(dim=-1), digit_ids)
        if not bool(is_digit.any()):
            return scores
        changed = scores.clone()
        probabilities = scores[:, digit_ids].float().softmax(dim=-1).cpu()
        for row in is_digit.nonzero().flatten().tolist():
            box = self._open_box(input_ids[row].tolist())
            if box is not None:
                digit = median_digit(probabilities[row], lowest_digit(box))
                changed[row] = float("-inf")
                changed[row, digit_ids[digit]] = 0.0
        return changed

    def _open_box(self, ids: list[int]) -> str | None:
        """The text of the box that is being written, e.g. "[045,12", or None outside of one."""
        for place in range(len(ids) - 1, max(-1, len(ids) - 18), -1):
            if ids[place] in self._brackets:
                text = str(self.tokenizer.decode(ids[place:], clean_up_tokenization_spaces=False))
                found = _OPEN_BOX.search(text)
                return found.group(0) if found else None
        return None


def lowest_digit(box: str) -> int:
    """The lowest digit that may come next in an open box, so that the second corner can still lie behind the first.

    Args:
        box: Such as "[045,120,0": the number that is being written is the one behind the last comma.
    """
    *numbers, begun = box.removeprefix("[").split(",")
    if len(numbers) not in (2, 3):
        return 0
    bound, left = int(numbers[len(numbers) - 2]), _DIGITS_PER_NUMBER - len(begun) - 1
    for digit in range(10):
        if int(f"{begun}{digit}" + "9" * left) > bound:
            return digit
    return 9


def median_digit(probabilities: Tensor, lowest: int) -> int:
    """The median of ten digit probabilities, (10,), among the digits from `lowest` on."""
    kept = probabilities[lowest:].double()
    total = kept.cumsum(dim=0)
    return lowest + min(int((total < total[-1] / 2).sum()), len(kept) - 1)
