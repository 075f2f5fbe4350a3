"""A model's raw reply to a task, as a typed answer or as a failure that says why it cannot be read."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from gastrovl.clinical import foreign
from gastrovl.clinical.taxonomy import Taxonomy
from gastrovl.core.boxtext import decode_boxes
from gastrovl.core.errors import BoxTextError, LabelError
from gastrovl.core.replyform import ReplyForm
from gastrovl.core.types import Box, Task

SEPARATOR = "; "


@dataclass(frozen=True)
class LabelAnswer:
    """Term ids in the order the reply names them, each once."""

    terms: tuple[str, ...]


@dataclass(frozen=True)
class BoxAnswer:
    """Boxes in the order the reply gives them; empty when it says that the named thing is absent."""

    boxes: tuple[Box, ...]


@dataclass(frozen=True)
class TextAnswer:
    """Free text without surrounding white space, never empty."""

    text: str


@dataclass(frozen=True)
class ParseFailure:
    """A reply that is no answer to its task: `reason` for the reader, `text` the reply unchanged."""

    reason: str
    text: str


Answer = LabelAnswer | BoxAnswer | TextAnswer


def parse_answer(
    task: Task,
    text: str,
    taxonomy: Taxonomy,
    form: ReplyForm | None = None,
    image_wh: tuple[int, int] | None = None,
) -> Answer | ParseFailure:
    """Read a reply; never raises, whatever the text.

    CLS and REG: names or synonyms of terms, separated by ";". REC: boxes as `core.boxtext` writes them, or "absent".
    CAP, VQA and REPORT: any text. One answer is read, strictly: there is no search for a label or a box in prose.

    Args:
        task: What was asked.
        text: The reply, as the model wrote it.
        taxonomy: Where labels are looked up.
        form: How a model that does not write our answer texts writes its own; nothing else is accepted of it then.
        image_wh: Size in pixels of the image that boxes in pixels are about (`Prediction.image_wh`).
    """
    if not text.strip():
        return ParseFailure("the reply is empty", text)
    if form is not None:
        return _parse_foreign(task, text, taxonomy, form, image_wh)
    if task in (Task.CLS, Task.REG):
        return _parse_labels(text, taxonomy)
    if task == Task.REC:
        return _parse_boxes(text)
    return TextAnswer(text.strip())


def format_labels(term_ids: Iterable[str], taxonomy: Taxonomy) -> str:
    """The answer text of some terms: their names in taxonomy order, each once, joined by "; ".

    Raises:
        LabelError: An id is unknown, or there is none at all.
    """
    ordered = sorted(set(term_ids), key=taxonomy.order)
    if not ordered:
        raise LabelError(
            "no term to format; expected at least one (a normal view has a term too, e.g. 'normal_stomach')"
        )
    return SEPARATOR.join(taxonomy[term_id].name for term_id in ordered)


def _parse_foreign(
    task: Task, text: str, taxonomy: Taxonomy, form: ReplyForm, image_wh: tuple[int, int] | None
) -> Answer | ParseFailure:
    try:
        said = foreign.answer_part(text, form)
        if task in (Task.CLS, Task.REG):
            return _look_up(foreign.read_labels(said, form.labels), text, taxonomy)
        if task == Task.REC:
            return BoxAnswer(foreign.read_boxes(said, form.boxes, image_wh))
        words = foreign.read_text(said, form.texts)
    except (BoxTextError, LabelError) as error:
        return ParseFailure(str(error), text)
    return TextAnswer(words) if words else ParseFailure("the answer is empty", text)


def _parse_labels(text: str, taxonomy: Taxonomy) -> LabelAnswer | ParseFailure:
    return _look_up(text.split(SEPARATOR.strip()), text, taxonomy)


def _look_up(names: Iterable[str], text: str, taxonomy: Taxonomy) -> LabelAnswer | ParseFailure:
    terms: list[str] = []
    for part in names:
        if not part.strip(" .\t\r\n"):
            return ParseFailure("there is an empty label between or after separators ';'", text)
        term = taxonomy.find(part)
        if term is None:
            return ParseFailure(f"{_short(part.strip())!r} is no label of the taxonomy", text)
        if term.id in terms:
            return ParseFailure(f"the label {term.name!r} is given twice", text)
        terms.append(term.id)
    return LabelAnswer(tuple(terms))


def _parse_boxes(text: str) -> BoxAnswer | ParseFailure:
    try:
        return BoxAnswer(decode_boxes(text))
    except BoxTextError as error:
        return ParseFailure(str(error), text)


def _short(text: str, limit: int = 80) -> str:
    return text if len(text) <= limit else text[: limit - 3] + "..."
