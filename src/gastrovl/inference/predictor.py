"""A loaded checkpoint that answers questions about images, several at a time."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Generator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import torch
from PIL import Image

from gastrovl.clinical.taxonomy import Taxonomy
from gastrovl.core import processes
from gastrovl.core.errors import ConfigError, ModelInputError
from gastrovl.core.images import open_image
from gastrovl.core.types import Box, Task
from gastrovl.inference import asking
from gastrovl.inference.belief.believing import Trust, load_trust
from gastrovl.inference.belief.scope import Floats, summary_of, tower_summary
from gastrovl.inference.belief.verdicts import ScopeAnswer
from gastrovl.inference.decoding.generated import generated, inputs_of
from gastrovl.inference.decoding.holding import Forms
from gastrovl.inference.decoding.prefix import SharedImages
from gastrovl.inference.decoding.words import Words, shares_prefixes
from gastrovl.inference.head.answering import HeadAnswers
from gastrovl.inference.head.looking import Looking
from gastrovl.inference.precision import Precision, load_in
from gastrovl.inference.question import Question, Reply
from gastrovl.inference.starter import checkpoint_folder
from gastrovl.inference.typed import BoxAnswer, LabelAnswer, TextAnswer
from gastrovl.model.checkpoint import CheckpointCard
from gastrovl.model.gastrovl import GastroVLForConditionalGeneration
from gastrovl.model.processor import GastroVLProcessor

_GREY = (124, 116, 104)  # the mean colour of ImageNet, which most towers see as nothing


class Predictor:
    """Answers greedily, digits of boxes by their median, location tokens by their mean; load once, ask often.

    The words choose the task. A question that names its task also has its reply held to that task's form, and is
    answered by the perception head where the checkpoint has one that has learnt it. Without `uses_head` the language
    model writes every answer. With `trust` replies are calibrated and carry their `belief`; else they are raw.
    """

    def __init__(
        self,
        model: GastroVLForConditionalGeneration,
        processor: GastroVLProcessor,
        card: CheckpointCard,
        *,
        uses_head: bool = True,
        looking: Looking | None = None,
        trust: Trust | None = None,
    ) -> None:
        self.model, self.processor, self.card, self.uses_head = model, processor, card, uses_head
        self.trust = trust
        self.looking = looking or Looking()
        if self.looking.settings:
            self.looking.need_head(card.name, has_head=uses_head and model.perception is not None)

    @cached_property
    def forms(self) -> Forms:
        """What replies can be held to."""
        return Forms(self.processor)

    @cached_property
    def words(self) -> Words | None:
        """None where `generate` has to answer."""
        if not shares_prefixes(self.model, self.processor):
            return None
        return Words(SharedImages(self.model, self.processor), self.forms)

    @cached_property
    def _head(self) -> HeadAnswers | None:
        is_there = self.uses_head and self.model.perception is not None
        return HeadAnswers(self.model, self.processor, self.card, self.looking) if is_there else None

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the weights and the card: a model that was trained on has another one, whatever its name.

        Reads every weight once: about a second a gigabyte.
        """
        digest = hashlib.sha256(self.card.model_dump_json().encode())
        digest.update(b"" if self.uses_head or not self.card.recognised else b"words only")
        digest.update(json.dumps(self.looking.settings).encode() if self.looking.settings else b"")
        for name, tensor in sorted(self.model.state_dict().items()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
        return digest.hexdigest()

    @classmethod
    def load(
        cls,
        folder: Path,
        device: str | None = None,
        *,
        uses_head: bool = True,
        looking: Looking | None = None,
        dtype: Precision | None = None,
        believes: bool = False,
        makes_checks: bool = False,
    ) -> Predictor:
        """Read a checkpoint folder or `starter`; `device` defaults to a GPU if there is one, `dtype` to what suits it.

        Args:
            believes: Calibrate replies and judge pictures, as far as the folder has what `gastrovl calibrate` fitted.
            makes_checks: Ask the other way round, too: one to three questions more for each of CLS, REC and REG.

        Raises:
            CheckpointError: The folder is incomplete or of another version, or its calibration is of other weights.
            ConfigError: There is no such device or dtype here, no perception head that could look again, or no
                calibration that could use checks.
            MissingExtraError: `int8`, and bitsandbytes is not installed.
        """
        folder = checkpoint_folder(folder)
        model, processor, card = load_in(folder, pick_device(device), dtype)
        found = cls(model, processor, card, uses_head=uses_head, looking=looking)
        if believes or makes_checks:
            found.trust = load_trust(folder, lambda: found.fingerprint, makes_checks=makes_checks)
        return found

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

    def chat(
        self,
        image: Image.Image,
        turns: Sequence[tuple[str, str]],
        further: Sequence[tuple[int, Image.Image]] = (),
    ) -> TextAnswer:
        """The next turn of a dialogue about an image; `turns` are (role, text), beginning and ending with a user's.

        Args:
            further: More images, each with the place in `turns` of the user turn that it opens. A model that learnt
                from dialogues about one image has not learnt to compare several.

        Raises:
            ModelInputError: Turns do not alternate so, or the model cannot look at several images in one dialogue.
            BoxTextError: A box in a question is reversed or leaves the image.
        """
        return asking.text_answer(self._one(asking.chat(image, turns, further)))

    def prior(self, task: Task, box: Box | None = None) -> dict[str, float]:
        """The probability of every term where nothing can be seen: of a grey image, asked as CLS or REG is.

        `chances.without_prior` takes it out of an answer's probabilities.

        Args:
            box: Of REG; the whole image when left out.
        """
        blank = Image.new("RGB", (64, 64), _GREY)
        if task is Task.CLS:
            return dict(self.classify(blank).probabilities)
        return dict(self.name_region(blank, box or Box(x0=0, y0=0, x1=1, y1=1)).probabilities)

    def _one(self, question: Question) -> Reply:
        return self.answer([question])[0]

    @torch.inference_mode()
    def answer(self, questions: Sequence[Question], max_new_tokens: int | None = None) -> list[Reply]:
        """Replies to a batch of questions, in their order; what is known of an image serves all questions about it.

        Args:
            max_new_tokens: Of each reply in words; what its task needs when left out.

        Raises:
            ModelInputError: A question asks for tokens and is answered without any.
        """
        for question in questions:
            if question.top_logprobs is not None and (why := self.why_no_tokens(question)):
                raise ModelInputError(f"log-probabilities of tokens: {why}")
        started = time.perf_counter()
        replies = self._answered(questions, max_new_tokens)
        if self.trust:
            replies = self.trust(self._answered, self._summaries, questions, replies)
        seconds = (time.perf_counter() - started) / max(len(questions), 1)
        return [replace(reply, seconds=seconds) for reply in replies]

    def why_no_tokens(self, question: Question) -> str | None:
        """Why there can be no log-probabilities of a reply's tokens; None where there can."""
        if self._head and self._head.answers(question):
            return (
                f"the perception head answers {question.task}, so that no tokens are decoded; its probabilities and "
                "confidence say how sure it is"
            )
        return None

    def judge(self, image: Image.Image) -> ScopeAnswer | None:
        """Whether a picture is one the model is for; None where nothing speaks against it and nothing is fitted."""
        return self.trust.judge([image], self._summaries)[0] if self.trust else None

    @torch.inference_mode()
    def _summaries(self, images: Sequence[Image.Image]) -> Floats:
        """As `scope.tower_summary`; what the tower has said already is not asked again."""
        if self.words is None:
            return tower_summary(self.model, self.processor, images)
        shared = self.words.shared
        found = summary_of(shared.features(shared.keys(images)))
        shared.forget()
        return found

    def _answered(self, questions: Sequence[Question], max_new_tokens: int | None) -> list[Reply]:
        """Raw replies."""
        head = self._head
        ways = {place: one.task if head and head.answers(one) else None for place, one in enumerate(questions)}
        replies: dict[int, Reply] = {}
        try:
            for way in dict.fromkeys(ways.values()):
                places = [place for place, taken in ways.items() if taken is way]
                batch = [questions[place] for place in places]
                if head is None or way is None:
                    found = self._written(batch, max_new_tokens)
                else:
                    found = self._headed(head, way, batch)
                replies.update(zip(places, found, strict=True))
        finally:
            if self.words:
                self.words.shared.forget()
        return [replies[place] for place in range(len(questions))]

    @torch.inference_mode()
    def stream(self, question: Question, max_new_tokens: int | None = None) -> Generator[str, None, Reply]:
        """The pieces of a reply as they are said, which joined are the text that `answer` gives.

        A list of labels and boxes come in one piece, and so does what a perception head or a model of another's making
        says.
        """
        words = self.words
        if words is None or (self._head and self._head.answers(question)):
            reply = self.answer([question], max_new_tokens)[0]
            yield reply.text
            return reply
        try:
            reply = yield from words.stream(question, max_new_tokens or question.usual_tokens)
        finally:  # also where nobody listens any more
            words.shared.forget()
        return self.trust(self._answered, self._summaries, [question], [reply])[0] if self.trust else reply

    def forget(self) -> None:
        """Know nothing of any image any more; to be called when weights have changed."""
        if self.words:
            self.words.shared.clear()

    def _headed(self, head: HeadAnswers, task: Task, questions: Sequence[Question]) -> list[Reply]:
        """What the perception head says."""
        dtype = next(head.head.parameters()).dtype  # may be wider than the rest
        states = None
        if self.words:
            shared = self.words.shared
            features = shared.features(shared.keys([question.image for question in questions]))
            if task is Task.REC:
                states = self.words.states(questions).to(dtype)
        else:
            inputs = self._inputs(questions)
            if task is Task.REC:
                features, began = self.model.perceive(**inputs)
                states = began.to(dtype)
            else:
                features = self.model.model.tower_features(inputs["pixel_values"])
        return head.replies(questions, task, features.to(dtype), states)

    def _written(self, questions: Sequence[Question], max_new_tokens: int | None) -> list[Reply]:
        """Greedy replies in the language model's words."""
        limits = [max_new_tokens or question.usual_tokens for question in questions]
        if self.words:
            return self.words.replies(questions, limits)
        return generated(self.model, self.processor, self.forms, questions, max(limits))

    def _inputs(self, questions: Sequence[Question]) -> dict[str, torch.Tensor]:
        return inputs_of(self.processor, questions, self.model.device, self.model.dtype)


def pick_device(name: str | None) -> torch.device:
    """The device of that name; the best there is for None.

    Where a launcher started several processes, each takes the GPU of its number on its machine, unless one is named.
    """
    has_gpu = torch.cuda.is_available()
    try:
        device = torch.device(name or ("cuda" if has_gpu else "cpu"))
    except RuntimeError as error:
        raise ConfigError(f"device {name!r} does not exist; take cpu or cuda, or leave it out") from error
    if device.type == "cuda" and not has_gpu:
        raise ConfigError(f"device {name!r}: PyTorch finds no GPU here; take cpu, or leave it out")
    if device.type == "cuda" and device.index is None and processes.size() > 1:
        device = torch.device("cuda", processes.local_rank() % torch.cuda.device_count())
        torch.cuda.set_device(device)  # kernels that are compiled here run on the current one
    return device
