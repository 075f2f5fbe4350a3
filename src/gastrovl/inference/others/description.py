"""A YAML that describes any model, to what is asked of it: where it is, what is added to a question, how it replies."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

from PIL import Image
from pydantic import Field, model_validator

from gastrovl.clinical import foreign
from gastrovl.clinical.taxonomy import Taxonomy
from gastrovl.core import records
from gastrovl.core.boxtext import BOX_PATTERN, decode_box
from gastrovl.core.config import Config, expand_variables
from gastrovl.core.endpoint import key_of
from gastrovl.core.errors import ConfigError
from gastrovl.core.images import open_image
from gastrovl.core.replyform import BoxForm, ReplyForm, Scale
from gastrovl.core.types import Conversation, Task, Usage
from gastrovl.inference.question import LABEL_TASKS, MAX_NEW_TOKENS

Turns = tuple[tuple[str, str], ...]  # (role, text)
_LABELS = "Answer with the exact name of one label of this list, or with several joined by '; ', and nothing else: "
PLAIN_PROMPTS = {
    Task.CLS: _LABELS + "{labels}",
    Task.REG: _LABELS + "{labels}",
    Task.REC: "Answer with [x0,y0,x1,y1] for each place, whole numbers 0-999 from the top left corner of the image, "
    "and nothing else; answer absent if it is not in the image.",
    Task.VQA: "Answer as briefly as possible.",
}


class Server(Config):
    """A server with the chat interface of OpenAI.

    Attributes:
        url: Its base, e.g. http://127.0.0.1:8000/v1.
        model: Name by which it knows the model.
        key_env: Environment variable that holds its key; the key itself never stands in a file.
        allow_remote: Images may leave this machine, over https.
        timeout_s: Of one connection. attempts: Connections for one reply.
        requests_per_minute: At most so many; None: as fast as they come.
        workers: Requests under way at once.
    """

    url: str
    model: str
    key_env: str | None = None
    allow_remote: bool = False
    timeout_s: float = Field(default=120.0, gt=0)
    attempts: int = Field(default=5, ge=1, le=20)
    requests_per_minute: float | None = Field(default=None, gt=0)
    workers: int = Field(default=4, ge=1, le=256)

    def key(self) -> str | None:
        """The key from the environment.

        Raises:
            ConfigError: The variable is not set.
        """
        return key_of(self.key_env, "server.key_env")


class Prices(Config):
    """What a million tokens cost, read in and written."""

    currency: str = Field(min_length=1)
    input_per_million: float = Field(ge=0)
    output_per_million: float = Field(ge=0)

    def of(self, prompt_tokens: int | None, completion_tokens: int | None) -> float | None:
        """What a reply cost, or None where the server does not count."""
        if prompt_tokens is None or completion_tokens is None:
            return None
        return (prompt_tokens * self.input_per_million + completion_tokens * self.output_per_million) / 1e6


class Shown(Config):
    """How an image is prepared before a model sees it.

    Attributes:
        most_side_px: Scaled down to this longer side; never up.
        multiple_px: Both sides become multiples of this, so that a model that cuts patches of this size sees the very
            pixels that its boxes count (28 for Qwen2-VL and Qwen2.5-VL).
        square_px: Squashed to a square of this side instead, for a processor that would cut the sides off. Fractions of
            a side stay what they are.
    """

    most_side_px: int = Field(default=1024, ge=32)
    multiple_px: int = Field(default=1, ge=1, le=256)
    square_px: int | None = Field(default=None, ge=32)

    def size_of(self, size_wh: tuple[int, int]) -> tuple[int, int]:
        """Width and height in pixels of an image as it is shown."""
        if self.square_px is not None:
            return self.square_px, self.square_px
        scale = min(1.0, self.most_side_px / max(size_wh))
        width, height = (max(round(side * scale / self.multiple_px), 1) * self.multiple_px for side in size_wh)
        return width, height

    def prepare(self, image: Image.Image) -> Image.Image:
        """An RGB image as it is shown."""
        size = self.size_of(image.size)
        return image if size == image.size else image.resize(size, Image.Resampling.LANCZOS)


class ModelDescription(Config):
    """Any model that is to answer the benchmark's questions.

    Attributes:
        kind: `checkpoint` of this package, `huggingface` snapshot folder, or `openai`: a server with its interface.
        name: Stands in every prediction.
        path: Of a checkpoint or snapshot; ${NAME} is replaced by that environment variable.
        system: System message, if any.
        prompts: What is added behind the last question, by task. Filled in are {labels}, the names that may be
            answered, and {width} and {height}, the size in pixels of the image as it is shown. A prompt that holds
            {question} or {asked} (of REC: the name of the thing) stands in the place of the question.
        labels: Names for {labels}: all terms of the taxonomy, those that train.jsonl beside the conversations asks
            for, or a list.
        form: How it replies. Boxes in questions are written in this form, too.
        most_tokens: Of a reply, by task, where the default is not right.
        batch_size: Questions answered together by a local model.
        dtype: Of a local snapshot: float32, bfloat16, float16 or what the folder says.
    """

    kind: Literal["checkpoint", "huggingface", "openai"]
    name: str = Field(min_length=1)
    path: str | None = None
    server: Server | None = None
    system: str | None = None
    prompts: dict[Task, str] = Field(default_factory=dict)
    labels: Literal["taxonomy", "dataset"] | tuple[str, ...] = "taxonomy"
    form: ReplyForm | None = None
    image: Shown = Shown()
    most_tokens: dict[Task, int] = Field(default_factory=dict)
    prices: Prices | None = None
    batch_size: int = Field(default=1, ge=1)
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    seed: int = 0

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.kind == "openai":
            if self.server is None or self.path is not None:
                raise ValueError("kind openai needs `server` (url, model) and no `path`")
        elif self.path is None or self.server is not None or self.prices is not None:
            raise ValueError(f"kind {self.kind} needs `path`, and neither `server` nor `prices`")
        if self.kind == "checkpoint" and (more := self.model_fields_set - {"kind", "name", "path"}):
            raise ValueError(
                f"a checkpoint of ours is asked and read as it was taught; remove {', '.join(sorted(more))}"
            )
        for task, prompt in self.prompts.items():
            try:
                prompt.format(labels="", width=0, height=0, question="", asked="")
            except (KeyError, IndexError, ValueError) as error:
                raise ValueError(
                    f"prompt of {task}: {error!r}; filled in are {{labels}}, {{width}}, {{height}}, {{question}} and "
                    "{asked}, and a brace of JSON is written twice: {{ and }}"
                ) from error
        return self

    @property
    def boxes(self) -> BoxForm | None:
        return self.form.boxes if self.form else None

    def folder(self) -> Path:
        """Where a local model lies.

        Raises:
            ConfigError: A variable in `path` is not set.
        """
        return Path(expand_variables(self.path or "", "path"))

    def room(self, task: Task) -> int:
        """Most tokens of a reply."""
        return self.most_tokens.get(task, MAX_NEW_TOKENS[task])

    def fingerprint(self, labels: Sequence[str], weights: str = "") -> str:
        """A hash of everything that decides a reply, and of nothing that decides only how fast it comes.

        Args:
            labels: Names for {labels}.
            weights: Hash of the weights of a local model.
        """
        fast = {"timeout_s", "attempts", "requests_per_minute", "workers", "key_env", "allow_remote"}
        left_out: Any = {"prices": True, "batch_size": True, "path": True, "server": fast}
        said = {"description": self.model_dump(mode="json", exclude=left_out), "labels": list(labels)}
        return hashlib.sha256(json.dumps([said, weights], sort_keys=True).encode()).hexdigest()

    def usage(self, attempts: int, prompt_tokens: int | None, completion_tokens: int | None) -> Usage:
        """What a reply took, with its cost where prices are stated."""
        return Usage(
            attempts=attempts,
            prompt_tokens=prompt_tokens,
            completion_tokens=completion_tokens,
            cost=self.prices.of(prompt_tokens, completion_tokens) if self.prices else None,
        )


class Asked(Config):
    """A conversation as a foreign model is asked it: its turns, and the size that its pixels count in."""

    turns: Turns
    image_wh: tuple[int, int]


def ask_in_form(
    conversation: Conversation, shown_wh: tuple[int, int], description: ModelDescription, labels: Sequence[str]
) -> Asked:
    """The turns before the last answer, boxes in the model's form, and its prompt behind the last question.

    Args:
        shown_wh: Size in pixels of the image as it is shown.
        labels: Names for {labels}.
    """
    form = description.boxes
    size = conversation.image.size_wh if form and form.pixels_of == "original" else shown_wh
    turns = [(turn.role, boxes_in_form(turn.text, form, size)) for turn in conversation.turns[:-1]]
    prompt = description.prompts.get(conversation.task)
    if prompt is not None:
        role, question = turns[-1]
        said = prompt.format(
            labels="; ".join(labels),
            width=shown_wh[0],
            height=shown_wh[1],
            question=question,
            asked=_asked_for(conversation),
        )
        is_whole = "{question}" in prompt or "{asked}" in prompt
        turns[-1] = role, said if is_whole else f"{question}\n{said}"
    return Asked(turns=tuple(turns), image_wh=size)


def _asked_for(conversation: Conversation) -> str:
    """What a REC question asks for, by name; nothing for other tasks, whose terms are the answer."""
    if conversation.task is not Task.REC:
        return ""
    taxonomy = Taxonomy.load()
    return "; ".join(taxonomy[term].name if term in taxonomy else term for term in conversation.target.terms)


def boxes_in_form(text: str, form: BoxForm | None, image_wh: tuple[int, int]) -> str:
    """`text` with each `[x0,y0,x1,y1]` of ours in a foreign form; all else stays as it is."""
    if form is None:
        return text
    return BOX_PATTERN.sub(lambda match: foreign.write_box(decode_box(match.group()), form, image_wh), text)


def label_names(description: ModelDescription, conversations: Path) -> list[str]:
    """Names for {labels} of a prompt, in the taxonomy's order.

    Raises:
        ConfigError: `labels: dataset`, and train.jsonl beside `conversations` asks for no label.
    """
    taxonomy = Taxonomy.load()
    if isinstance(description.labels, tuple):
        return list(description.labels)
    if description.labels == "taxonomy":
        return [term.name for term in taxonomy.terms]
    path = Path(conversations).parent / "train.jsonl"
    found: set[str] = set()
    if path.is_file():
        for one in records.read_records(path, Conversation):
            if one.task in LABEL_TASKS:
                found |= set(one.target.terms)
    if not found:
        raise ConfigError(
            f"labels: dataset: {path} holds no question for a label; the names come from the training split, so that "
            "a test does not give its own answers away. Write `labels: taxonomy`, or list the names"
        )
    return [taxonomy[term].name for term in sorted(found, key=taxonomy.order)]


def open_shown(path: Path, description: ModelDescription) -> Image.Image:
    """An image file as the model is shown it.

    Raises:
        ImageError: The file cannot be read.
    """
    return description.image.prepare(open_image(path))


def counts_pixels(form: ReplyForm | None) -> bool:
    """Whether boxes are in pixels, so that a prediction must say of what size."""
    return form is not None and form.boxes.scale is Scale.PIXELS


def plain_description(kind: Literal["huggingface"], path: Path) -> ModelDescription:
    """Of a snapshot folder without a description: our own answer texts are asked for."""
    prompts: Mapping[Task, str] = PLAIN_PROMPTS
    return ModelDescription(kind=kind, name=path.resolve().name, path=str(path), prompts=dict(prompts))
