"""What somebody wants of one image after another to answers, kept in order so that the whole can be read again."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Literal, Protocol

from PIL import Image
from pydantic import Field

from gastrovl.clinical.taxonomy import Taxonomy
from gastrovl.core import boxtext
from gastrovl.core.config import Config
from gastrovl.core.errors import BoxTextError, ConfigError, GeometryError, ModelInputError
from gastrovl.core.files import write_text
from gastrovl.core.types import Box, Task
from gastrovl.inference import asking
from gastrovl.inference.belief.verdicts import Belief
from gastrovl.inference.drawing import Mark
from gastrovl.inference.question import NOTICE, Question, Reply
from gastrovl.inference.typed import BoxAnswer, LabelAnswer, TextAnswer

SCHEMA: Literal["gastrovl/session/1"] = "gastrovl/session/1"
Answer = LabelAnswer | BoxAnswer | TextAnswer


class Kind(StrEnum):
    """What is wanted of an image."""

    CLASSIFY = "classify"
    LOCATE = "locate"
    NAME = "name"
    DESCRIBE = "describe"
    SAY = "say"


TASK_OF = {Kind.CLASSIFY: Task.CLS, Kind.LOCATE: Task.REC, Kind.NAME: Task.REG, Kind.DESCRIBE: Task.CAP}


@dataclass(frozen=True)
class Wish:
    """One thing wanted of an image: its labels, the place of `words`, the name of `box`, a text, or a free question.

    Attributes:
        task: Of a free question, to have its reply held to that task's form.
    """

    kind: Kind
    words: str = ""
    box: Box | None = None
    task: Task | None = None

    @property
    def is_typed(self) -> bool:
        """Whether the kind says what is wanted, and no words of one's own."""
        return self.kind is not Kind.SAY

    def question(
        self,
        image: Image.Image,
        before: Sequence[tuple[str, str]] = (),
        further: Sequence[tuple[int, Image.Image]] = (),
    ) -> Question:
        """The question that asks for it; `before` are the turns that a free question goes on from.

        Args:
            further: Of a free question, more images, each with the place of the turn that it opens.

        Raises:
            ModelInputError: Nothing is named to locate, no box to name, or no word is said.
        """
        if self.kind is Kind.CLASSIFY:
            return asking.classify(image)
        if self.kind is Kind.LOCATE:
            return asking.locate(image, self.words)
        if self.kind is Kind.DESCRIBE:
            return asking.describe(image)
        if self.kind is Kind.NAME:
            if self.box is None:
                raise ModelInputError("no box to name; expected x0,y0,x1,y1 as fractions of width and height")
            return asking.name_region(image, self.box)
        if not self.words.strip():
            raise ModelInputError("an empty question; expected words")
        if self.task is not None:
            return Question(image, (("user", self.words),), self.task)
        return asking.chat(image, (*before, ("user", self.words)), further)

    def answer(self, reply: Reply) -> Answer:
        """The reply in the type of what was wanted."""
        task = TASK_OF.get(self.kind, self.task)
        if task in (Task.CLS, Task.REG):
            return asking.label_answer(reply, Taxonomy.load())
        if task is Task.REC:
            return asking.box_answer(reply, Taxonomy.load())
        return asking.text_answer(reply)


class Answering(Protocol):
    """Whatever answers a batch of questions: a `Predictor`, or a server's queue before one."""

    def answer(self, questions: Sequence[Question], max_new_tokens: int | None = None) -> list[Reply]:
        """Replies in the order of the questions, each of as many tokens as usual where no limit is given."""
        ...


def answers(model: Answering, image: Image.Image, wishes: Sequence[Wish]) -> list[tuple[Answer, float]]:
    """All that is wanted of one image, asked together, each with its seconds."""
    questions = [wish.question(image) for wish in wishes]
    replies = model.answer(questions)
    return [(wish.answer(reply), reply.seconds) for wish, reply in zip(wishes, replies, strict=True)]


def pixel_digest(image: Image.Image) -> str:
    """SHA-256 of an image's mode and pixels, lower-case hex: the same for any file that holds the same picture."""
    return hashlib.sha256(image.mode.encode() + image.tobytes()).hexdigest()


class ShownImage(Config):
    """An image by its name, without a folder, and what it holds."""

    name: str
    sha256: str
    width_px: int
    height_px: int


class Exchange(Config):
    """One question and its answer; boxes are fractions x0, y0, x1, y1 of the image.

    Attributes:
        confidence: In [0, 1]; None where the answer came piece by piece.
        belief: What one may believe of it, and the scope of the picture; None where nobody asked.
        further: More images of the dialogue that the answer is part of, in order.
        rating: What a person made of the answer; None where nobody rated it.
        correction: What a person says would have been right.
    """

    number: int
    image: ShownImage
    kind: Kind
    asked: str
    words: str = ""
    region: Box | None = None
    text: str
    terms: tuple[str, ...] = ()
    probabilities: Mapping[str, float] = Field(default_factory=dict)
    boxes: tuple[Box, ...] = ()
    expected_iou: tuple[float, ...] | None = None
    presence: float | None = None
    confidence: float | None = None
    calibrated: bool = False
    belief: Belief | None = None
    stop_reason: str = "end"
    seconds: float
    further: tuple[ShownImage, ...] | None = None
    rating: Literal["right", "partly", "wrong"] | None = None
    correction: str | None = None

    @property
    def wish(self) -> Wish:
        """What was wanted."""
        return Wish(self.kind, self.words, self.region)

    @property
    def answer(self) -> Answer:
        """The answer in its type."""
        sure = float("nan") if self.confidence is None else self.confidence
        trust = sure, self.calibrated, self.belief
        if self.kind in (Kind.CLASSIFY, Kind.NAME):
            return LabelAnswer(self.text, self.terms, self.probabilities, *trust)
        if self.kind is Kind.LOCATE:
            return BoxAnswer(self.text, self.boxes, self.expected_iou, self.presence, *trust)
        return TextAnswer(self.text, sure, self.stop_reason, self.calibrated, self.belief)


def marks_of(said: Iterable[tuple[Wish, Answer]]) -> list[Mark]:
    """Every box of the answers, and every box that was asked about, with its name; a colour for each answer."""
    marks: list[Mark] = []
    for colour, (wish, answer) in enumerate(said):
        if wish.box is not None:
            is_unsure = answer.belief is not None and answer.belief.is_withheld
            marks.append(Mark(wish.box, f"{answer.text} (withheld)" if is_unsure else answer.text, colour))
        elif isinstance(answer, BoxAnswer):
            is_withheld = answer.belief is not None and answer.belief.is_withheld
            name = wish.words if wish.is_typed else ""
            marks += [Mark(box, f"{name} (withheld)".strip() if is_withheld else name, colour) for box in answer.boxes]
        else:
            found = [match.group(0) for match in boxtext.BOX_PATTERN.finditer(answer.text)]
            marks += [Mark(boxtext.decode_box(one), "", colour) for one in found if _is_box(one)]
    return marks


def _is_box(text: str) -> bool:
    """Whether what looks like a box is one; free words may hold any numbers."""
    try:
        boxtext.decode_box(text)
    except BoxTextError:
        return False
    return True


class SessionRecord(Config):
    """A whole session, as it is saved."""

    schema_name: Literal["gastrovl/session/1"] = Field(default=SCHEMA, alias="schema", serialization_alias="schema")
    model: str
    notice: str = NOTICE
    exchanges: tuple[Exchange, ...]


class Session:
    """One model asked about one image after another; a dialogue goes on until another image is shown."""

    def __init__(self, model: Answering, name: str) -> None:
        self.model, self.name = model, name
        self.exchanges: list[Exchange] = []
        self._image: Image.Image | None = None
        self._shown: ShownImage | None = None
        self._turns: list[tuple[str, str]] = []
        self._further: list[tuple[int, Image.Image]] = []
        self._shown_further: list[ShownImage] = []

    @property
    def image(self) -> Image.Image:
        """The image that is asked about.

        Raises:
            ModelInputError: None was shown yet.
        """
        if self._image is None:
            raise ModelInputError("no image is shown yet; show one first")
        return self._image

    def show(self, image: Image.Image, name: str) -> None:
        """Ask about this image from now on; what was said about another one is no part of the dialogue any more."""
        self._image, self._shown = image, _shown(image, name)
        self.forget()

    def add(self, image: Image.Image, name: str) -> None:
        """Show one more image in the dialogue, with the next words; typed wishes go on being about the first one.

        Raises:
            ModelInputError: No image is shown yet.
        """
        assert self.image
        self._further.append((len(self._turns), image))
        self._shown_further.append(_shown(image, name))

    def forget(self) -> None:
        """Begin a new dialogue about the same image."""
        self._turns, self._further, self._shown_further = [], [], []

    def ask(self, wish: Wish) -> Exchange:
        """One answer, which joins the session and, if words were said, the dialogue.

        Raises:
            ModelInputError: No image is shown, or the wish is incomplete.
            BoxTextError: A box in the words is reversed or leaves the image.
        """
        question = wish.question(self.image, self._turns, self._further)
        [reply] = self.model.answer([question])
        return self._kept(wish, question, reply)

    def say(self, words: str, stream: Callable[[Question, int], Iterator[str]]) -> Iterator[str]:
        """A free question whose answer comes piece by piece; it joins the session when it is whole.

        Args:
            stream: Gives the pieces of the answer to a question, such as `Predictor.stream`; one that then returns the
                reply says what to believe of it.
        """
        wish = Wish(Kind.SAY, words)
        question = wish.question(self.image, self._turns, self._further)
        started, pieces = time.monotonic(), list[str]()
        said = stream(question, question.usual_tokens)
        while True:
            try:
                pieces.append(next(said))
            except StopIteration as end:
                belief = end.value.belief if isinstance(end.value, Reply) else None
                break
            yield pieces[-1]
        whole = Reply("".join(pieces), float("nan"), time.monotonic() - started, "end", belief=belief)
        self._kept(wish, question, whole)

    def _kept(self, wish: Wish, question: Question, reply: Reply) -> Exchange:
        assert self._shown is not None
        answer = wish.answer(reply)
        asked = question.turns[-1][1]
        found = Exchange(
            number=len(self.exchanges) + 1,
            image=self._shown,
            kind=wish.kind,
            asked=asked,
            words=wish.words,
            region=wish.box,
            text=answer.text,
            terms=answer.terms if isinstance(answer, LabelAnswer) else (),
            probabilities=answer.probabilities if isinstance(answer, LabelAnswer) else {},
            boxes=answer.boxes if isinstance(answer, BoxAnswer) else (),
            expected_iou=answer.expected_iou if isinstance(answer, BoxAnswer) else None,
            presence=answer.presence if isinstance(answer, BoxAnswer) else None,
            confidence=None if math.isnan(answer.confidence) else answer.confidence,
            calibrated=answer.calibrated,
            belief=answer.belief,
            stop_reason=reply.stop_reason,
            seconds=reply.seconds,
            further=tuple(self._shown_further) if question.further else None,
        )
        self.exchanges.append(found)
        if wish.kind is Kind.SAY:
            self._turns += [("user", asked), ("assistant", answer.text)]
        return found

    def marks(self) -> list[Mark]:
        """What to draw on the image that is shown: the boxes of all that was asked about it, and about no other."""
        here = [one for one in self.exchanges if one.image == self._shown and not one.further]
        return marks_of((one.wish, one.answer) for one in here)

    def rate(self, number: int, rating: Literal["right", "partly", "wrong"], correction: str | None = None) -> Exchange:
        """Keep what a person makes of an answer, by its number from 1.

        Raises:
            ConfigError: There is no such answer.
        """
        if not 1 <= number <= len(self.exchanges):
            raise ConfigError(f"answer {number}: expected 1 to {len(self.exchanges)}, the answers of this session")
        found = self.exchanges[number - 1].model_copy(update={"rating": rating, "correction": correction})
        self.exchanges[number - 1] = found
        return found

    def record(self) -> SessionRecord:
        """Everything asked and answered so far."""
        return SessionRecord(model=self.name, exchanges=tuple(self.exchanges))

    def save(self, path: Path) -> None:
        """Write the session as JSON.

        Raises:
            OutputError: The file cannot be written.
        """
        write_text(Path(path), self.record().model_dump_json(by_alias=True, indent=2, exclude_none=True) + "\n")


def _shown(image: Image.Image, name: str) -> ShownImage:
    return ShownImage(name=Path(name).name, sha256=pixel_digest(image), width_px=image.width, height_px=image.height)


def parse_box(text: str) -> Box:
    """`0.1,0.2,0.5,0.6`, fractions of width and height, to a box.

    Raises:
        ModelInputError: It is no such box.
    """
    parts = text.replace(",", " ").split()
    try:
        x0, y0, x1, y1 = (float(part) for part in parts)
        return Box(x0=x0, y0=y0, x1=x1, y1=y1)
    except (ValueError, GeometryError) as error:
        raise ModelInputError(
            f"{text!r} is no box; expected x0,y0,x1,y1 as fractions of width and height with x0 < x1 and y0 < y1, "
            "such as 0.1,0.2,0.5,0.6"
        ) from error
