"""A loaded checkpoint that answers questions about images, several at a time."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image

from gastrovl.clinical.answers import SEPARATOR
from gastrovl.clinical.taxonomy import Taxonomy
from gastrovl.core import boxtext
from gastrovl.core.errors import ConfigError
from gastrovl.core.images import open_image
from gastrovl.core.types import Box, Task
from gastrovl.inference.boxdigits import BoxDigits
from gastrovl.inference.boxlocations import BoxLocations
from gastrovl.inference.confidence import Chooser, ReplyConfidence
from gastrovl.inference.description import LABEL_TASKS
from gastrovl.inference.labelnames import HeldToNames, LabelNames
from gastrovl.inference.perceiving import PRESENT, names_of, presence_of, sightings
from gastrovl.model.checkpoint import CheckpointCard, load_checkpoint
from gastrovl.model.gastrovl import GastroVLForConditionalGeneration, masked_mean
from gastrovl.model.processor import GastroVLProcessor, name_ids, region_boxes


@dataclass(frozen=True)
class Question:
    """An image and a dialogue about it that ends with a user turn; `turns` are (role, text).

    `task` holds a reply of CLS or REG to the taxonomy's names, and lets a perception head answer CLS, REC and REG;
    without one, and for the others, decoding is free.
    `size_wh` is that of the original in pixels, where `image` is a smaller copy. Boxes in `turns` are written as in
    datasets, and so are those of the reply, however the model writes them.
    """

    image: Image.Image
    turns: tuple[tuple[str, str], ...]
    task: Task | None = None
    size_wh: tuple[int, int] | None = None

    @property
    def original_wh(self) -> tuple[int, int]:
        return self.size_wh or self.image.size


@dataclass(frozen=True)
class Reply:
    """What the model said.

    Attributes:
        confidence: In [0, 1], not calibrated. Of words: the geometric mean of the tokens' probabilities. Of the
            perception head: presence times expected IoU (REC), the probability of exactly these labels if they were
            independent (CLS), the probability of the name (REG).
        probabilities: Of terms, by their ids, where the perception head gives them.
        seconds: The batch's wall-clock time divided by its size.
        stop_reason: `end` when the model finished, `length` when it was cut at the token limit.
    """

    text: str
    confidence: float
    seconds: float
    stop_reason: Literal["end", "length"]
    probabilities: dict[str, float] | None = None


class Predictor:
    """Answers greedily, digits of boxes by their median, location tokens by their mean; load once, ask often.

    The words choose the task. A question that names its task also has its reply held to that task's form, and is
    answered by the perception head where the checkpoint has one that has learnt it. Without `uses_head` the language
    model writes every answer.
    """

    def __init__(
        self,
        model: GastroVLForConditionalGeneration,
        processor: GastroVLProcessor,
        card: CheckpointCard,
        *,
        uses_head: bool = True,
    ) -> None:
        self.model, self.processor, self.card, self.uses_head = model, processor, card, uses_head

    @cached_property
    def _label_names(self) -> LabelNames:
        return LabelNames(self.processor, [term.name for term in Taxonomy.load().terms])

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the weights and the card: a model that was trained on has another one, whatever its name.

        Reads every weight once: about a second a gigabyte.
        """
        digest = hashlib.sha256(self.card.model_dump_json().encode())
        digest.update(b"" if self.uses_head or not self.card.recognised else b"words only")
        for name, tensor in sorted(self.model.state_dict().items()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
        return digest.hexdigest()

    @classmethod
    def load(cls, folder: Path, device: str | None = None, *, uses_head: bool = True) -> Predictor:
        """Read a checkpoint folder; `device` defaults to a GPU when there is one.

        Raises:
            CheckpointError: The folder is incomplete or of another version.
            ConfigError: There is no such device here.
        """
        chosen = pick_device(device)
        model, processor, card = load_checkpoint(Path(folder))
        return cls(model.to(chosen), processor, card, uses_head=uses_head)

    def ask(self, image: Path, text: str, max_new_tokens: int = 160, task: Task | None = None) -> Reply:
        """One question about one image file.

        Raises:
            ImageError: The image cannot be read.
            BoxTextError: A box in the question is reversed or leaves the image.
        """
        return self.answer([Question(open_image(image), (("user", text),), task)], max_new_tokens)[0]

    @torch.inference_mode()
    def answer(self, questions: Sequence[Question], max_new_tokens: int) -> list[Reply]:
        """Replies to a batch of questions, in their order."""
        ways = {place: one.task if self._is_perceived(one) else None for place, one in enumerate(questions)}
        replies: dict[int, Reply] = {}
        for way in dict.fromkeys(ways.values()):
            places = [place for place, taken in ways.items() if taken is way]
            batch = [questions[place] for place in places]
            found = self._written(batch, max_new_tokens) if way is None else self._perceived(batch, way)
            replies.update(zip(places, found, strict=True))
        return [replies[place] for place in range(len(questions))]

    def _is_perceived(self, question: Question) -> bool:
        """Whether the perception head answers: it has learnt the task, and REG asks about one region."""
        if not self.uses_head or self.model.perception is None:
            return False
        if question.task is Task.REC:
            return self.card.locates
        if question.task is Task.REG:
            return bool(self.card.recognised) and len(_regions(question)) == 1
        return question.task is Task.CLS and bool(self.card.recognised)

    def _perceived(self, questions: Sequence[Question], task: Task) -> list[Reply]:
        """Replies of the perception head to questions of one task: one forward pass, no decoding."""
        started = time.perf_counter()
        head = self.model.perception
        assert head is not None
        inputs = self._inputs(questions)
        if task is Task.REC:
            seen, states = self.model.perceive(**inputs)
            found = [
                Reply(boxtext.encode_boxes([one.box for one in said.found]), said.confidence, 0.0, "end")
                for said in sightings(head, seen, states)
            ]
        else:
            seen = head.look(self.model.model.tower_features(inputs["pixel_values"]))
            names = self._names.to(seen.cells.dtype)
            if task is Task.CLS:
                found = [self._labelled(row) for row in presence_of(head, seen, names).tolist()]
            else:
                regions = [_regions(question)[0] for question in questions]
                found = [self._named(row) for row in names_of(head, seen, regions, names).tolist()]
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
    def _names(self) -> torch.Tensor:
        """Mean word embedding of each recognised term's name, (terms, text width)."""
        ids, mask = name_ids(self.processor.tokenizer, list(self.card.recognised.values()))
        device = self.model.device
        return masked_mean(self.model.get_input_embeddings()(ids.to(device)), mask.to(device))

    def _written(self, questions: Sequence[Question], max_new_tokens: int) -> list[Reply]:
        """Greedy replies in the language model's words."""
        started = time.perf_counter()
        inputs = self._inputs(questions)
        known, reading = self.processor.locations, self.processor.coding.config.reading
        locations = BoxLocations(known, reading) if known else None
        confidence = ReplyConfidence(self._choosers(questions, inputs["input_ids"].shape[1], locations))
        generated = self.model.generate(
            **inputs,
            max_new_tokens=max_new_tokens,
            do_sample=False,
            num_beams=1,
            logits_processor=[confidence],
            pad_token_id=self.processor.tokenizer.pad_token_id,
            eos_token_id=self.processor.tokenizer.eos_token_id,
        )
        rows = generated[:, inputs["input_ids"].shape[1] :].tolist()
        end = self.processor.tokenizer.eos_token_id
        lengths = [row.index(end) + 1 if end in row else len(row) for row in rows]
        seconds = (time.perf_counter() - started) / len(questions)
        return [
            Reply(
                text=self._text(question, row[:length], locations.of_reply(number, length) if locations else None),
                confidence=sure,
                seconds=seconds,
                stop_reason="end" if end in row else "length",
            )
            for number, (question, row, length, sure) in enumerate(
                zip(questions, rows, lengths, confidence.of_replies(lengths), strict=True)
            )
        ]

    def _text(self, question: Question, ids: list[int], places: list[float] | None) -> str:
        if question.task in LABEL_TASKS:
            return self._label_names.text(ids)
        return self.processor.decode(ids, question.original_wh, places)

    def _choosers(
        self, questions: Sequence[Question], prompt_length: int, locations: BoxLocations | None
    ) -> list[Chooser]:
        has_digits = self.processor.coding.config.kind == "digits"
        choosers: list[Chooser] = [BoxDigits(self.processor.tokenizer)] if has_digits else []
        is_held = [question.task in LABEL_TASKS for question in questions]
        if any(is_held):
            choosers.append(HeldToNames(self._label_names, prompt_length, is_held))
        if locations:
            choosers.append(locations)  # behind what holds replies to names, so that it leaves those alone
        return choosers

    def _inputs(self, questions: Sequence[Question]) -> dict[str, torch.Tensor]:
        prompts = [self.processor.encode_prompt(question.turns, question.original_wh) for question in questions]
        length = max(len(prompt) for prompt in prompts)
        pad = int(self.processor.tokenizer.pad_token_id)
        squares = np.stack([self.processor.square(question.image) for question in questions])
        tensors = {
            "input_ids": torch.tensor([[pad] * (length - len(prompt)) + prompt for prompt in prompts]),
            "attention_mask": torch.tensor([[0] * (length - len(prompt)) + [1] * len(prompt) for prompt in prompts]),
            "pixel_values": self.processor.pixels(squares),
        }
        regions = region_boxes([self.processor.regions(question.turns) for question in questions])
        if regions is not None:
            tensors["region_boxes"] = regions
        tensors |= self.processor.beside(tensors["input_ids"])
        return {name: tensor.to(self.model.device) for name, tensor in tensors.items()}


def _regions(question: Question) -> list[Box]:
    """The boxes that the last user turn names."""
    return [boxtext.decode_box(found.group(0)) for found in boxtext.BOX_PATTERN.finditer(question.turns[-1][1])]


def pick_device(name: str | None) -> torch.device:
    """The device of that name; the best there is for None."""
    has_gpu = torch.cuda.is_available()
    if name is None:
        return torch.device("cuda" if has_gpu else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"device {name!r} does not exist; take cpu or cuda, or leave it out") from error
    if device.type == "cuda" and not has_gpu:
        raise ConfigError(f"device {name!r}: PyTorch finds no GPU here; take cpu, or leave it out")
    return device
