"""What form a chat reply is asked in: free words, the JSON of one of our typed answers, or JSON of any schema.

A typed answer fits its schema by what it is; another schema steers the decoding of free words (`Question.schema`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from gastrovl.clinical.taxonomy import Taxonomy
from gastrovl.core.errors import GastroVLError
from gastrovl.core.types import Task
from gastrovl.inference import asking
from gastrovl.inference.question import HELD_TASKS, Question, Reply
from gastrovl.serving import shapes
from gastrovl.serving.beliefs import scope_given
from gastrovl.serving.refusals import RefusedError
from gastrovl.serving.schemas import (
    BoxesAnswer,
    ChatRequest,
    ImageSize,
    JsonObjectFormat,
    JsonSchemaFormat,
    LabelsAnswer,
    RegionAnswer,
    TypedAnswer,
    WordsAnswer,
)
from gastrovl.serving.typed_api import boxes_answer, labels_answer, placed

LONGEST_SCHEMA, DEEPEST_SCHEMA = 20_000, 64  # of a schema that steers decoding
Fill = Callable[[str, Question, Reply], TypedAnswer]


@dataclass(frozen=True)
class Form:
    """How a reply is to be written.

    Attributes:
        task: What holds the reply to its form; None: free words.
        fill: The typed answer of a model's name, a question and its reply; None: the reply's own words.
        schema: What the client asked for, to which a typed answer is cut.
        held_to: The schema that free words are held to while they are decoded.
    """

    task: Task | None = None
    fill: Fill | None = None
    schema: Mapping[str, Any] = field(default_factory=dict)
    held_to: Mapping[str, Any] | None = None

    @property
    def is_typed(self) -> bool:
        return self.fill is not None

    @property
    def wants_probabilities(self) -> bool:
        return self.is_typed and self.task in (Task.CLS, Task.REG)

    def check(self, question: Question) -> None:
        """Raises:
        RefusedError: The task is REG, and the last message names no region, several, or a broken one.
        """
        if self.task is not Task.REG:
            return
        try:
            count = len(question.regions)
        except GastroVLError as error:
            raise RefusedError(400, "invalid_box", str(error)[:500], param="messages") from None
        if count != 1:
            raise RefusedError(
                400,
                "invalid_box",
                f"found {count} boxes [x0,y0,x1,y1] (0-999) in the last message; expected one to name",
                param="messages",
            )

    def content(self, model: str, question: Question, reply: Reply) -> str:
        """The text of the message."""
        if self.fill is None:
            return reply.text
        whole = self.fill(model, question, reply).model_dump(mode="json")
        return json.dumps(shapes.cut(whole, self.schema), ensure_ascii=False)


def form_of(asked: ChatRequest) -> Form:
    """The form that a request asks for.

    Raises:
        RefusedError: It is none that can be kept to.
    """
    wanted = asked.response_format
    if isinstance(wanted, JsonObjectFormat):
        return _held(asked, {"type": "object"})
    if not isinstance(wanted, JsonSchemaFormat):
        return Form(asked.task)
    name, schema = wanted.json_schema.name, wanted.json_schema.schema_
    if name not in _TYPED and asked.task not in HELD_TASKS:
        return _held(asked, schema)
    name = name if name in _TYPED or asked.task is None else _OF_TASK[asked.task]
    task, kind, fill = _TYPED[name]
    if asked.task not in (None, task):
        raise RefusedError(400, "invalid_value", f"task: {name} answers {task.value}", param="task")
    try:
        shapes.check_fit(schema, kind.model_json_schema(mode="serialization"))
    except shapes.MisfitError as error:
        raise RefusedError(
            400,
            "unsupported_response_format",
            f"not the form of our answer {name}: {error}"[:500],
            param="response_format.json_schema.schema",
        ) from None
    return Form(task, fill, schema)


def _held(asked: ChatRequest, schema: Mapping[str, Any]) -> Form:
    """Free words held to a schema.

    Raises:
        RefusedError: The task has a form of its own.
    """
    if asked.task in HELD_TASKS:
        raise RefusedError(
            400,
            "unsupported_response_format",
            f"a reply of {asked.task} has a form of its own; ask for a json_schema of it",
            param="response_format",
        )
    try:
        text = json.dumps(schema, ensure_ascii=False, allow_nan=False)
        text.encode("utf-8")
    except (ValueError, RecursionError):  # NaN, half a letter, or nested without end
        text = ""
    if not 0 < len(text) <= LONGEST_SCHEMA or _depth(text) > DEEPEST_SCHEMA:
        raise RefusedError(
            400,
            "unsupported_response_format",
            f"expected a schema of plain JSON with {LONGEST_SCHEMA:,} characters and {DEEPEST_SCHEMA} levels at most",
            param="response_format.json_schema.schema",
        )
    return Form(asked.task, held_to=schema)


def _depth(text: str) -> int:
    """How deeply brackets are nested in JSON, those within its strings counted too."""
    depth = deepest = 0
    for sign in text:
        depth += (sign in "{[") - (sign in "}]")
        deepest = max(deepest, depth)
    return deepest


def _labels(model: str, question: Question, reply: Reply) -> LabelsAnswer:
    return labels_answer(model, question.image, asking.label_answer(reply, Taxonomy.load()))


def _boxes(model: str, question: Question, reply: Reply) -> BoxesAnswer:
    return boxes_answer(model, question.image, question.turns[-1][1], asking.box_answer(reply, Taxonomy.load()))


def _region(model: str, question: Question, reply: Reply) -> RegionAnswer:
    box = placed(question.regions[0], question.original_wh)
    return RegionAnswer(**dict(_labels(model, question, reply)), box=box)


def _words(model: str, question: Question, reply: Reply) -> WordsAnswer:
    said = asking.text_answer(reply)
    width, height = question.original_wh
    return WordsAnswer(
        model=model,
        text=said.text,
        confidence=said.confidence,
        calibrated=said.calibrated,
        scope=scope_given(said.belief),
        image=ImageSize(width_px=width, height_px=height),
        stop_reason=reply.stop_reason,
    )


_TYPED: dict[str, tuple[Task, type[TypedAnswer], Fill]] = {
    "classify": (Task.CLS, LabelsAnswer, _labels),
    "locate": (Task.REC, BoxesAnswer, _boxes),
    "name_region": (Task.REG, RegionAnswer, _region),
    "describe": (Task.CAP, WordsAnswer, _words),
}
_OF_TASK = {task: name for name, (task, _, _) in _TYPED.items()}
