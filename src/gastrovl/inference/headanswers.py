"""Questions of CLS, REC and REG to replies that the perception head gives in one forward pass."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property

from torch import Tensor

from gastrovl.clinical.answers import SEPARATOR
from gastrovl.core import boxtext
from gastrovl.core.types import Task
from gastrovl.inference.perceiving import PRESENT, Sighting, names_of, presence_of, sightings
from gastrovl.inference.question import Question, Reply
from gastrovl.model.checkpoint import CheckpointCard
from gastrovl.model.gastrovl import GastroVLForConditionalGeneration, masked_mean
from gastrovl.model.processor import GastroVLProcessor, name_ids


class HeadAnswers:
    """The perception head of a loaded checkpoint; texts are rendered from what it says."""

    def __init__(
        self, model: GastroVLForConditionalGeneration, processor: GastroVLProcessor, card: CheckpointCard
    ) -> None:
        assert model.perception is not None
        self.model, self.processor, self.card, self.head = model, processor, card, model.perception

    def answers(self, question: Question) -> bool:
        """Whether the head answers: it has learnt the task, and REG asks about one region."""
        if question.task is Task.REC:
            return self.card.locates
        if question.task is Task.REG:
            return bool(self.card.recognised) and len(question.regions) == 1
        return question.task is Task.CLS and bool(self.card.recognised)

    def replies(
        self, questions: Sequence[Question], task: Task, features: Tensor, states: Tensor | None = None
    ) -> list[Reply]:
        """Replies to questions of one task, without decoding.

        Args:
            features: What the tower says of each question's image, (questions, cells, tower width).
            states: Of REC, the state in which each answer would begin, (questions, text width).
        """
        started = time.perf_counter()
        seen = self.head.look(features)
        if task is Task.REC:
            assert states is not None
            found = [located(said) for said in sightings(self.head, seen, states)]
        else:
            names = self._names.to(seen.cells.dtype)
            if task is Task.CLS:
                found = [self._labelled(row) for row in presence_of(self.head, seen, names).tolist()]
            else:
                regions = [question.regions[0] for question in questions]
                found = [self._named(row) for row in names_of(self.head, seen, regions, names).tolist()]
        seconds = (time.perf_counter() - started) / len(questions)
        return [replace(reply, seconds=seconds) for reply in found]

    def _labelled(self, presences: Sequence[float]) -> Reply:
        """All labels that are rather there than not, or the likeliest one."""
        given = [place for place, there in enumerate(presences) if there >= PRESENT]
        given = given or [max(range(len(presences)), key=presences.__getitem__)]
        sure = math.prod(there if place in given else 1 - there for place, there in enumerate(presences))
        given.sort(key=lambda place: -presences[place])
        return self._of_terms(given, sure, presences)

    def _named(self, probabilities: Sequence[float]) -> Reply:
        best = max(range(len(probabilities)), key=probabilities.__getitem__)
        return self._of_terms([best], probabilities[best], probabilities)

    def _of_terms(self, given: Sequence[int], confidence: float, probabilities: Sequence[float]) -> Reply:
        names = list(self.card.recognised.values())
        text = SEPARATOR.join(names[place] for place in given)
        return Reply(text, confidence, 0.0, "end", dict(zip(self.card.recognised, probabilities, strict=True)))

    @cached_property
    def _names(self) -> Tensor:
        """Mean word embedding of each recognised term's name, (terms, text width)."""
        ids, mask = name_ids(self.processor.tokenizer, list(self.card.recognised.values()))
        device = self.model.device
        return masked_mean(self.model.get_input_embeddings()(ids.to(device)), mask.to(device))


def located(said: Sighting) -> Reply:
    """The reply of REC that a sighting is."""
    by_text = {boxtext.encode_box(one.box): one.expected_iou for one in reversed(said.found)}
    text = boxtext.encode_boxes([one.box for one in said.found])
    expected = tuple(by_text[box.group(0)] for box in boxtext.BOX_PATTERN.finditer(text))
    return Reply(text, said.confidence, 0.0, "end", presence=said.presence, expected_iou=expected)
