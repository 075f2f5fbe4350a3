"""Replies of CLS and REG held to the taxonomy's names: at each step only tokens that lead to a name or end the reply.

Free decoding can leave the vocabulary ("z esophagus"), and such a reply counts as wrong. The names are
tokenised as answers are in training, so what is allowed here is what the model was taught to say. The choice among the
allowed tokens stays greedy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import torch
from torch import Tensor

from gastrovl.clinical.answers import SEPARATOR
from gastrovl.core.errors import ModelInputError
from gastrovl.model.processor import GastroVLProcessor

_REMEMBERED = 65_536  # beginnings of replies
_ASKED = ("user", "?")


@dataclass
class Node:
    """One place in a prefix tree of token ids; `name` is the name that ends here, or None."""

    following: dict[int, Node] = field(default_factory=dict)
    name: str | None = None

    def add(self, ids: Sequence[int], name: str) -> None:
        node = self
        for token in ids:
            node = node.following.setdefault(token, Node())
        node.name = name


class LabelNames:
    """What may be said next in a list of labels, and what was said.

    Attributes:
        first, later: The names as trees of tokens: of the first label, and of later ones with the separator.
    """

    def __init__(self, processor: GastroVLProcessor, names: Sequence[str]) -> None:
        """Tokenise `names`, the first label of a reply and the later ones behind a separator apart.

        Raises:
            ModelInputError: The tokenizer fuses a label with the separator behind it, so that labels are no units.
        """
        self.allowed = lru_cache(maxsize=_REMEMBERED)(self._allowed)  # many replies begin alike
        self.end = int(processor.tokenizer.eos_token_id)
        self.first, self.later = Node(), Node()
        self._encode = processor.encode_dialogue
        self._anchor = names[0]
        anchor = self._answer(names[0])
        for name in names:
            self.first.add(self._answer(name), name)
            pair = self._answer(names[0] + SEPARATOR + name)
            if pair[: len(anchor)] != anchor:
                raise ModelInputError(
                    f"the tokenizer writes {names[0]!r} differently before {SEPARATOR!r}, so replies cannot be held to "
                    "the taxonomy's names; ask without a task, or train with another tokenizer"
                )
            self.later.add(pair[len(anchor) :], name)

    def ids(self, name: str, place: int) -> list[int]:
        """The tokens of a name as the label at a place of a reply, counted from 0, with the separator before it."""
        if place == 0:
            return self._answer(name)
        return self._answer(self._anchor + SEPARATOR + name)[len(self._answer(self._anchor)) :]

    def _answer(self, text: str) -> list[int]:
        """The tokens of an answer as training teaches them, without what ends it."""
        dialogue = self._encode([_ASKED, ("assistant", text)])
        ids = [token for token, flag in zip(dialogue.ids, dialogue.is_answer, strict=True) if flag]
        return ids[: ids.index(self.end)] if self.end in ids else ids

    def _allowed(self, begun: tuple[int, ...]) -> list[int]:
        """Tokens that may follow the reply `begun`; only the end token when nothing else can."""
        node = self.first
        for token in begun:
            if token not in node.following and node.name is not None:  # one label is whole, another begins
                node = self.later
            if token not in node.following:
                return [self.end]  # the reply has ended, or was begun by somebody else
            node = node.following[token]
        if node.name is None:
            return list(node.following)
        return [self.end, *node.following, *self.later.following]

    def text(self, ids: Sequence[int]) -> str:
        """A held reply as text: each label once, and none that the length limit cut.

        Two lesions of one kind make a model say their name twice; forbidding that while decoding would force it into a
        name it does not mean.
        """
        node, said = self.first, list[str]()
        for token in ids:
            if token not in node.following:
                if node.name is not None:
                    said.append(node.name)
                if token == self.end:
                    break
                node = self.later
            node = node.following[token]
        else:
            said += [node.name] if node.name is not None else []
        return SEPARATOR.join(dict.fromkeys(said))


class HeldToNames:
    """Changes the scores of a batch's replies so that each of them stays a list of names."""

    def __init__(self, names: LabelNames, prompt_length: int, is_held: Sequence[bool]) -> None:
        self.names, self.prompt_length, self.is_held = names, prompt_length, is_held

    def __call__(self, input_ids: Tensor, scores: Tensor, rows: Sequence[int] | None = None) -> Tensor:
        """New scores, (replies, vocabulary), minus infinity where a token may not follow.

        Args:
            rows: Numbers of the replies; all of them when left out.
        """
        changed = scores.clone()
        for row, number in enumerate(range(len(scores)) if rows is None else rows):
            if self.is_held[number]:
                allowed = torch.tensor(self.names.allowed(tuple(input_ids[row, self.prompt_length :].tolist())))
                kept = scores[row, allowed]
                changed[row] = float("-inf")
                changed[row, allowed] = kept
        return changed
