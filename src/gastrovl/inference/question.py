"""A question about an image, and the reply to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from PIL import Image

from gastrovl.core import boxtext
from gastrovl.core.errors import ModelInputError
from gastrovl.core.types import Box, Task
from gastrovl.inference.belief.verdicts import Belief

NOTICE = "Research software: this is a draft by a model, not a diagnosis. A physician decides."
# Room for the longest honest answer of a task; a reply that runs on is cut and says so in `stop_reason`.
MAX_NEW_TOKENS = {Task.CLS: 64, Task.REC: 192, Task.REG: 48, Task.CAP: 192, Task.VQA: 192, Task.REPORT: 768}
LABEL_TASKS = (Task.CLS, Task.REG)
HELD_TASKS = (Task.CLS, Task.REC, Task.REG)  # replies to these have a form of their own


@dataclass(frozen=True)
class Question:
    """An image and a dialogue about it that ends with a user turn; `turns` are (role, text).

    `task` holds a reply of CLS or REG to the taxonomy's names and one of REC to boxes, and lets a perception head
    answer the three; without one, and for the others, decoding is free.
    `size_wh` is that of the original in pixels, where `image` is a smaller copy. Boxes in `turns` are written as in
    datasets, and so are those of the reply, however the model writes them.
    `wants_probabilities` asks for those of all names beside a reply of CLS or REG in words, which costs one more pass
    of the language model; a perception head always gives them.
    `source` is the name of the set it is from, if that is known: a calibration may have learnt its own ways for it.
    `schema`, of a free question, is a JSON schema that the reply is held to (extra `structured`).
    `further`, of a free question, are images shown after the first one, each with the place in `turns` of the user turn
    that it opens; `image` itself opens the first turn.
    `top_logprobs` asks for the tokens of a reply in words, with so many of the likeliest ones at each place.
    """

    image: Image.Image
    turns: tuple[tuple[str, str], ...]
    task: Task | None = None
    size_wh: tuple[int, int] | None = None
    wants_probabilities: bool = False
    schema: Mapping[str, Any] | None = None
    top_logprobs: int | None = None
    further: tuple[tuple[int, Image.Image], ...] = ()
    source: str | None = None

    def __post_init__(self) -> None:
        self._check_further()
        if self.schema is not None and self.task in HELD_TASKS:
            raise ModelInputError(
                f"a question of {self.task} has a form of its own; expected no task, CAP, VQA or REPORT with a schema"
            )

    def _check_further(self) -> None:
        places = [place for place, _ in self.further]
        if places and self.task in HELD_TASKS:
            raise ModelInputError(f"{1 + len(places)} images: a question of {self.task} is about one image")
        if places != sorted(places) or any(not 0 <= one < len(self.turns) for one in places):
            raise ModelInputError(
                f"further images are shown in turns {places}; expected turns of the dialogue, in order"
            )
        if any(self.turns[place][0] != "user" for place in places):
            raise ModelInputError(f"further images are shown in turns {places}; expected turns of the user")

    @property
    def images(self) -> list[Image.Image]:
        """All that are shown, in order."""
        return [self.image, *(image for _, image in self.further)]

    @property
    def original_wh(self) -> tuple[int, int]:
        return self.size_wh or self.image.size

    @property
    def usual_tokens(self) -> int:
        """Room for the longest honest answer."""
        return MAX_NEW_TOKENS[self.task or Task.VQA]

    @property
    def regions(self) -> list[Box]:
        """The boxes that the last user turn names."""
        return [boxtext.decode_box(found.group(0)) for found in boxtext.BOX_PATTERN.finditer(self.turns[-1][1])]


@dataclass(frozen=True)
class SaidToken:
    """A token of a reply in words: the bytes of UTF-8 that it stands for, and the log-probability the model gave it.

    That is the model's own probability, before a form forbade tokens or a box's digits were chosen by their median.

    Attributes:
        likeliest: The likeliest tokens at this place, in the same way, the first one first.
    """

    said: bytes
    log: float
    likeliest: tuple[tuple[bytes, float], ...] = ()


class Piece(str):
    """A piece of a streamed reply that knows the tokens said since the piece before it."""

    tokens: tuple[SaidToken, ...] = ()


@dataclass(frozen=True)
class Reply:
    """What the model said.

    Attributes:
        confidence: In [0, 1], calibrated only where `belief` says so. Raw, of words: the geometric mean of the tokens'
            probabilities. Of the perception head: presence times expected IoU (REC), the probability of exactly these
            labels if they were independent (CLS), the probability of the name (REG).
        probabilities: Of terms, by their ids, where the perception head gives them or the question asked for them.
        seconds: The batch's wall-clock time divided by its size.
        stop_reason: `end` when the model finished, `length` when it was cut at the token limit.
        presence, expected_iou: Of REC by the perception head: that it is there at all, and the IoU expected of each
            box in the order of the text.
        belief: What one may believe of it; None where nobody asked.
        tokens: As they were said, without the one that ends the reply; None where nobody asked.
    """

    text: str
    confidence: float
    seconds: float
    stop_reason: Literal["end", "length"]
    probabilities: dict[str, float] | None = None
    presence: float | None = None
    expected_iou: tuple[float, ...] | None = None
    belief: Belief | None = None
    tokens: tuple[SaidToken, ...] | None = None
