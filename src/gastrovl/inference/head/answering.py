"""Questions of CLS, REC and REG to replies that the perception head gives, mostly in one forward pass."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from gastrovl.clinical.answers import SEPARATOR
from gastrovl.core import boxtext
from gastrovl.core.types import Task
from gastrovl.inference.head.looking import Looking
from gastrovl.inference.head.mirrors import joined, mean_located, mean_probabilities, mirrored, mirrored_regions
from gastrovl.inference.head.perceiving import PRESENT, Sighting, names_of, presence_of, sightings
from gastrovl.inference.head.zoom import crops_of, refined, squares_of
from gastrovl.inference.question import Question, Reply
from gastrovl.model.checkpoint import CheckpointCard
from gastrovl.model.gastrovl import GastroVLForConditionalGeneration, masked_mean
from gastrovl.model.perception import SeenMap
from gastrovl.model.processor import GastroVLProcessor, name_ids


class HeadAnswers:
    """The perception head of a loaded checkpoint; texts are rendered from what it says."""

    def __init__(
        self,
        model: GastroVLForConditionalGeneration,
        processor: GastroVLProcessor,
        card: CheckpointCard,
        looking: Looking | None = None,
    ) -> None:
        assert model.perception is not None
        self.model, self.processor, self.card, self.head = model, processor, card, model.perception
        self.looking = looking or Looking()

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
        """Replies to questions of one task, untimed and without decoding; the tower looks again as `looking` says.

        Args:
            features: What the tower says of each question's image, (questions, cells, tower width).
            states: Of REC, the state in which each answer would begin, (questions, text width).
        """
        images = [question.image for question in questions]
        seen = self._with_mirrors(self.head.look(features), images)
        if task is Task.REC:
            assert states is not None
            return [located(said) for said in self._located(images, seen, self.head.of_state(states))]
        if task is Task.CLS:
            presences = presence_of(self.head, seen, self._names.to(seen.cells.dtype))
            return [self._labelled(row) for row in self._mean(presences)]
        regions = mirrored_regions([question.regions[0] for question in questions], self.looking.views)
        named = names_of(self.head, seen, regions, self._names.to(seen.cells.dtype))
        return [self._named(row) for row in self._mean(named)]

    def _with_mirrors(self, seen: SeenMap, images: Sequence[Image.Image]) -> SeenMap:
        """What is kept of images, and of their mirror images behind it, view by view."""
        if self.looking.views == 1:
            return seen
        pixels = self.processor.pixels(np.stack([self.processor.square(image) for image in images]))
        return joined(seen, self._looked(mirrored(pixels, self.looking.views)[len(images) :]))

    def _located(self, images: Sequence[Image.Image], seen: SeenMap, queries: Tensor) -> list[Sighting]:
        """What is seen where, at first or, with zoom, at second sight; the words are read once."""
        said = self._sightings(seen, queries)
        crops = crops_of(said, images) if self.looking.zoom else []
        if not crops:
            return said
        pixels = self.processor.pixels(squares_of(crops, images, self.processor))
        closer = self._looked(mirrored(pixels, self.looking.views))
        return refined(said, crops, self._sightings(closer, queries[[crop.image for crop in crops]]))

    def _sightings(self, seen: SeenMap, queries: Tensor) -> list[Sighting]:
        """Of one query about each image, whose views `seen` holds."""
        views = self.looking.views
        images = torch.arange(views * len(queries), device=queries.device)
        return sightings(mean_located(self.head.locate(seen, images, queries.repeat(views, 1)), views))

    def _looked(self, pixels: Tensor) -> SeenMap:
        features = self.model.model.tower_features(pixels.to(self.model.device, self.model.dtype))
        return self.head.look(features.to(self.head.mask_bias.dtype))

    def _mean(self, probabilities: Tensor) -> list[list[float]]:
        means: list[list[float]] = mean_probabilities(probabilities, self.looking.views).tolist()
        return means

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
