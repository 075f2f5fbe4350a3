"""Replies of REC held to boxes: one or several whole ones with their corners in order, inside the image, or "absent".

What may follow is decided letter by letter, so that any tokenizer will do: a token is allowed when the reply with it
can still become readable. A reply that the length limit cuts keeps its whole boxes, and the limit leaves room for one.
So no reply to REC is lost to its form, whatever the weights. The choice among the allowed tokens stays the model's.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from gastrovl.core.boxcoding import BoxCoding, SizeWH
from gastrovl.core.boxtext import ABSENT
from gastrovl.model.processor import GastroVLProcessor

_REMEMBERED = 65_536  # states of a reply
_LETTERS = frozenset(" []{}<>,0123456789loc" + ABSENT)
_SPACE_SIGNS = str.maketrans({"\u0120": " ", "\u2581": " "})  # how tokenizers write a space in their vocabularies


@dataclass(frozen=True)
class BoxForm:
    """How one box is written.

    Attributes:
        opens, parts, closes: Before the first number, between two, behind the last.
        digits: Of every number; None where numbers have as many as they need.
        is_ordered: Whether the second corner is held behind the first here; location tokens are held elsewhere.
    """

    opens: str
    parts: str
    closes: str
    digits: int | None
    is_ordered: bool = True


FORMS = {
    "digits": BoxForm("[", ",", "]", 3),
    "pixels": BoxForm("{<", "><", ">}", None),
    "tokens": BoxForm("<loc", "><loc", ">", 3, is_ordered=False),
}


@dataclass(frozen=True)
class State:
    """Where a reply stands: whether a box is whole already, and what stands behind the last whole one."""

    has_box: bool = False
    rest: str = ""


class BoxGrammar:
    """What may be said next in a list of boxes, and what was said.

    Args:
        far: Of `advance` and `is_whole`: the number of the far edge for each of a box's four numbers.
    """

    def __init__(self, processor: GastroVLProcessor) -> None:
        self.coding: BoxCoding = processor.coding
        self.form = FORMS[self.coding.config.kind]
        self.end = int(processor.tokenizer.eos_token_id)
        self._pieces = pieces_of(processor.tokenizer)
        self.allowed = lru_cache(maxsize=_REMEMBERED)(self._allowed)

    def far(self, size_wh: SizeWH) -> tuple[int, int, int, int]:
        """The number of the far edge for each of a box's four numbers, as they are written."""
        across, down = self.coding.steps(size_wh)
        return (across, down) * 2 if self.coding.config.order == "xyxy" else (down, across) * 2

    def room(self, size_wh: SizeWH) -> int:
        """Tokens that one box and the end of a reply take at most."""
        if self.coding.config.kind == "tokens":
            return 6  # the box, a space and the end
        form, digits = self.form, [self.form.digits or len(str(one)) for one in self.far(size_wh)]
        return len(form.opens + form.closes) + 3 * len(form.parts) + sum(digits) + 2

    def said(self, ids: Sequence[int]) -> str:
        """The letters of a reply's tokens; what ends it says nothing."""
        return "".join(self._pieces.get(token, "") for token in ids)

    def state(self, text: str, far: tuple[int, ...]) -> State | None:
        """Where a reply with these letters stands; None where it cannot become readable any more."""
        return self.advance(State(), text, far)

    def advance(self, state: State, letters: str, far: tuple[int, ...]) -> State | None:
        """The state after more letters."""
        has_box, rest = state.has_box, state.rest + letters
        while True:
            begun = rest[1:] if rest.startswith(" ") else rest
            if not begun or (not has_box and ABSENT.startswith(begun)):
                return State(has_box, rest)
            length = read_box(begun, self.form, far)
            if length is None:
                return None
            if length == 0:
                return State(has_box, rest)
            has_box, rest = True, begun[length:]

    def whole(self, text: str, far: tuple[int, ...]) -> str:
        """The readable part of a reply: its whole boxes, or "absent"; nothing where a limit left neither."""
        state = self.state(text, far)
        if state is None or (not state.has_box and state.rest.strip() == ABSENT):
            return text.strip()
        return text[: len(text) - len(state.rest)].strip()

    def _allowed(self, state: State, far: tuple[int, ...]) -> list[int]:
        """Tokens that may follow; the end where a box is whole, "absent" was said, or nothing else can follow."""
        found = [token for token, piece in self._pieces.items() if self.advance(state, piece, far) is not None]
        is_whole = not state.rest if state.has_box else state.rest.strip() == ABSENT
        return [self.end, *found] if is_whole or not found else found


class HeldToBoxes:
    """Changes the scores of a batch's replies so that each of those held stays a list of boxes."""

    def __init__(self, grammar: BoxGrammar, prompt_length: int, sizes: Sequence[SizeWH | None]) -> None:
        """`sizes` are those of the original images, None for a reply that is not held."""
        self.grammar, self.prompt_length = grammar, prompt_length
        self._far = [None if size is None else grammar.far(size) for size in sizes]

    def __call__(self, input_ids: Tensor, scores: Tensor, rows: Sequence[int] | None = None) -> Tensor:
        """New scores, (replies, vocabulary), minus infinity where a token may not follow."""
        changed = scores.clone()
        for row, number in enumerate(range(len(scores)) if rows is None else rows):
            far = self._far[number]
            if far is not None:
                allowed = torch.tensor(self._next(input_ids[row, self.prompt_length :].tolist(), far))
                kept = scores[row, allowed]
                changed[row] = float("-inf")
                changed[row, allowed] = kept
        return changed

    def _next(self, ids: Sequence[int], far: tuple[int, ...]) -> list[int]:
        grammar = self.grammar
        state = None if grammar.end in ids else grammar.state(grammar.said(ids), far)
        if state is None:
            return [grammar.end]  # the reply has ended, or was begun by somebody else
        if not grammar.form.is_ordered:  # whichever the numbers, the same may follow
            state = State(state.has_box, re.sub(r"\d", "0", state.rest))
        return grammar.allowed(state, far)


def read_box(text: str, form: BoxForm, far: Sequence[int]) -> int | None:
    """How many letters the box has that a text begins with; 0 where it is not whole yet, None where it is no box."""
    place, numbers = 0, list[int]()
    for number, last in enumerate(far):
        opening = form.parts if numbers else form.opens
        if not text.startswith(opening, place):
            return 0 if opening.startswith(text[place:]) else None
        place += len(opening)
        behind = number >= len(far) // 2
        lowest = (numbers[number - len(far) // 2] + 1) if behind and form.is_ordered else 0
        highest = last - 1 if form.is_ordered and not behind else last
        found = re.compile(r"\d*", re.ASCII).match(text, place)
        digits = found.group() if found else ""
        place += len(digits)
        if place == len(text):
            return 0 if _can_become(digits, form.digits, lowest, highest) else None
        if not digits or not _is_number(digits, form.digits) or not lowest <= int(digits) <= highest:
            return None
        numbers.append(int(digits))
    if text.startswith(form.closes, place):
        return place + len(form.closes)
    return 0 if form.closes.startswith(text[place:]) else None


def _is_number(digits: str, width: int | None) -> bool:
    return len(digits) == width if width else digits == "0" or not digits.startswith("0")


def _can_become(digits: str, width: int | None, lowest: int, highest: int) -> bool:
    """Whether a number that begins with these digits can lie in a range."""
    most = width or len(str(highest))
    if len(digits) > most or lowest > highest:
        return False
    if not digits:
        return True
    if not width and digits.startswith("0"):
        return digits == "0" and lowest == 0
    for more in range(most - len(digits), -1, -1) if not width else (most - len(digits),):
        if int(digits + "0" * more) <= highest and int(digits + "9" * more) >= lowest:
            return True
    return False


def pieces_of(tokenizer: Any) -> dict[int, str]:
    """The letters of each token that can stand in a list of boxes, as they follow other tokens."""
    likely = [
        number
        for word, number in tokenizer.get_vocab().items()
        if word and set(word.translate(_SPACE_SIGNS)) <= _LETTERS
    ]
    before = tokenizer.convert_tokens_to_ids("0")

    def said(ids: list[int]) -> str:
        return str(tokenizer.decode(ids, clean_up_tokenization_spaces=False))

    begin = said([before])
    pieces = {number: said([before, number])[len(begin) :] for number in likely}
    return {number: piece for number, piece in sorted(pieces.items()) if piece and set(piece) <= _LETTERS}
