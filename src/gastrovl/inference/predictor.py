"""A loaded checkpoint that answers questions about images, several at a time."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from gastrovl.clinical.taxonomy import Taxonomy
from gastrovl.core.errors import ConfigError
from gastrovl.core.images import open_image
from gastrovl.core.types import Box, Task
from gastrovl.inference import asking
from gastrovl.inference.boxdigits import BoxDigits
from gastrovl.inference.boxlocations import BoxLocations
from gastrovl.inference.confidence import Chooser, ReplyConfidence
from gastrovl.inference.description import LABEL_TASKS, MAX_NEW_TOKENS
from gastrovl.inference.headanswers import HeadAnswers
from gastrovl.inference.labelnames import HeldToNames, LabelNames
from gastrovl.inference.question import Question, Reply
from gastrovl.inference.typed import BoxAnswer, LabelAnswer, TextAnswer
from gastrovl.model.checkpoint import CheckpointCard, load_checkpoint
from gastrovl.model.gastrovl import GastroVLForConditionalGeneration
from gastrovl.model.processor import GastroVLProcessor, region_boxes


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
    def _head(self) -> HeadAnswers | None:
        is_there = self.uses_head and self.model.perception is not None
        return HeadAnswers(self.model, self.processor, self.card) if is_there else None

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

    def classify(self, image: Image.Image) -> LabelAnswer:
        """The labels that fit an image, with the probability of every label."""
        return asking.label_answer(self._one(asking.classify(image)), Taxonomy.load())

    def locate(self, image: Image.Image, what: str) -> BoxAnswer:
        """Where something is in an image: a term's id, name or synonym, or any words.

        Raises:
            ModelInputError: `what` is empty.
        """
        return asking.box_answer(self._one(asking.locate(image, what)), Taxonomy.load())

    def name_region(self, image: Image.Image, box: Box) -> LabelAnswer:
        """What lies in a box of an image, with the probability of every name."""
        return asking.label_answer(self._one(asking.name_region(image, box)), Taxonomy.load())

    def describe(self, image: Image.Image) -> TextAnswer:
        """What an image shows, in a sentence or two."""
        return asking.text_answer(self._one(asking.describe(image)))

    def chat(self, image: Image.Image, turns: Sequence[tuple[str, str]]) -> TextAnswer:
        """The next turn of a dialogue about an image; `turns` are (role, text), beginning and ending with a user's.

        Raises:
            ModelInputError: They do not alternate so.
            BoxTextError: A box in a question is reversed or leaves the image.
        """
        return asking.text_answer(self._one(asking.chat(image, turns)))

    def _one(self, question: Question) -> Reply:
        return self.answer([question], MAX_NEW_TOKENS[question.task or Task.VQA])[0]

    @torch.inference_mode()
    def answer(self, questions: Sequence[Question], max_new_tokens: int) -> list[Reply]:
        """Replies to a batch of questions, in their order."""
        head = self._head
        ways = {place: one.task if head and head.answers(one) else None for place, one in enumerate(questions)}
        replies: dict[int, Reply] = {}
        for way in dict.fromkeys(ways.values()):
            places = [place for place, taken in ways.items() if taken is way]
            batch = [questions[place] for place in places]
            if head is None or way is None:
                found = self._written(batch, max_new_tokens)
            else:
                found = head.replies(batch, way, self._inputs(batch))
            replies.update(zip(places, found, strict=True))
        return [replies[place] for place in range(len(questions))]

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
