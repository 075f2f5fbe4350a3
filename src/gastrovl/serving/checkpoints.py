"""A loaded checkpoint to what an engine runs: replies, their pieces, and how long prompts and replies are."""

from __future__ import annotations

import copy
import threading
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from gastrovl.core.errors import ModelInputError
from gastrovl.inference.head.looking import Manner
from gastrovl.inference.loading import load_predictor
from gastrovl.inference.question import Question, Reply
from gastrovl.serving.engine import Say

if TYPE_CHECKING:
    from gastrovl.inference.predictor import Predictor


class ServedCheckpoint:
    """A predictor under the name that requests choose it by; an `engine.Model`.

    Prompts are counted by a copy of the tokenizer: the worker thread uses the other one meanwhile.
    """

    def __init__(self, predictor: Predictor, name: str | None = None) -> None:
        self.name = name or predictor.card.name
        self._predictor, self._processor = predictor, copy.deepcopy(predictor.processor)
        self._lock = threading.Lock()
        self._is_gated = bool(len(predictor.model.model.gated_blocks))
        added = self._processor.tokenizer.added_tokens_decoder.values()
        self._marks = [token.content for token in added if token.special and token.content]
        self._context = int(predictor.model.config.get_text_config().max_position_embeddings)

    @classmethod
    def load(
        cls, folder: Path, name: str | None = None, device: str | None = None, manner: Manner | None = None
    ) -> ServedCheckpoint:
        """Read a checkpoint folder; replies are calibrated as far as it and `manner` have it.

        Raises:
            CheckpointError, ConfigError: As `Predictor.load`.
        """
        return cls(load_predictor(folder, device, manner), name)

    def answer(self, questions: Sequence[Question], max_new_tokens: int) -> Sequence[Reply]:
        return self._predictor.answer(questions, max_new_tokens)

    def stream(self, question: Question, max_new_tokens: int, say: Say) -> Reply | None:
        """The reply after its pieces; None when nobody listens any more."""
        pieces = self._predictor.stream(question, max_new_tokens)
        with closing(pieces):
            while True:
                try:
                    piece = next(pieces)
                except StopIteration as end:
                    reply: Reply = end.value
                    return reply
                if not say(piece):
                    return None

    def prompt_length(self, question: Question) -> int:
        """Tokens of the question with its image.

        Raises:
            ModelInputError: A turn holds a mark of the chat template, which would forge a turn or an image.
            BoxTextError: A box in a question is reversed or leaves the image.
        """
        for _, text in question.turns:
            if mark := next((mark for mark in self._marks if mark in text), None):
                raise ModelInputError(
                    f"a message holds {mark!r}, which has a meaning of its own to the model; remove it"
                )
        from gastrovl.inference.decoding.prompts import prompt_ids

        with self._lock:
            self._processor.regions(question.turns)
            return len(prompt_ids(self._processor, question, is_gated=self._is_gated))

    def reply_length(self, reply: Reply, limit: int) -> int:
        """Tokens of a reply: all it might have where it was cut, else those of its text and its end, told again."""
        if reply.stop_reason == "length":
            return limit
        with self._lock:
            written = len(self._processor.tokenizer.encode(reply.text, add_special_tokens=False))
        return min(written + 1, limit)

    def why_no_tokens(self, question: Question) -> str | None:
        return self._predictor.why_no_tokens(question)

    def room(self, prompt_length: int) -> int:
        return self._context - prompt_length
