"""LLaVA and ColonINST JSON to annotations: labels and boxes read from the dialogues, free text kept word by word.

A file is a JSON list (or JSON lines) of {id, image, conversations: [{from: human, value}, {from: gpt, value}, ...]};
ColonINST names the image in `id`, in `image` or in both, and writes boxes as raw pixels `{<x0><y0><x1><y1>}`. What
`gastrovl data export` writes has the keys task, labels, group and split besides (and kind and boxes for VQA questions
of our own), so that nothing is guessed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from gastrovl.core.boxtext import ABSENT, BOX_PATTERN, decode_boxes, from_coloninst
from gastrovl.core.config import Config
from gastrovl.core.errors import BoxTextError, GeometryError, SourceError
from gastrovl.core.types import Box, Kind, Task
from gastrovl.data.annotation import Annotation, SourceDialogue
from gastrovl.data.formats.textlines import Files, numbered_rows, parse_json, read_json, split_files
from gastrovl.data.images import ImageFile, ImageFolder

IMAGE_MARK = "<image>"
TYPED = (Task.CLS, Task.REC, Task.REG)  # the tasks whose answers are facts; others are free text


class Options(Config):
    """Where the dialogues are and how to read them.

    Attributes:
        files: JSON or JSONL files relative to the source's root, as a list or as a mapping from the split's word to
            its file; a record's own key `split` goes first.
        image_key: The key with the image's path; "either" takes `image`, and `id` where `image` names no image.
        boxes: Boxes in the text are raw "pixels" of the original image, or "bins" 0-999 as this package writes them.
        task: The task of every record; without it the record's key `task` says so, or the boxes and labels in it do.
        labels: All labels of the set: an answer among them is CLS, and one of them in a question about a place is what
            is asked for. Not needed where records have the keys `task` and `labels`.
        label_separator: Between several labels in one answer, if that happens.
        wording: Questions about labels and boxes are asked in our words ("ours"), or word by word as in the file
            ("source"). Free text (captions, other questions) is always kept word by word.
    """

    files: Files
    image_key: Literal["either", "image", "id"] = "either"
    boxes: Literal["pixels", "bins"] = "pixels"
    task: Task | None = None
    labels: tuple[str, ...] = ()
    label_separator: str | None = None
    wording: Literal["ours", "source"] = "ours"


@dataclass(frozen=True)
class _Exchange:
    """Dialogue of a record with boxes as the package writes them, and the boxes of each text in turn."""

    turns: tuple[tuple[str, str], ...]
    boxes: tuple[tuple[Box, ...], ...]

    @property
    def asked(self) -> tuple[Box, ...]:
        """The boxes of the last question."""
        return self.boxes[-2]

    @property
    def answered(self) -> tuple[Box, ...]:
        """The boxes of the last answer."""
        return self.boxes[-1]

    @property
    def said(self) -> tuple[Box, ...]:
        """All boxes, each once: with them an export writes the very pixels that were read."""
        return tuple(dict.fromkeys(box for found in self.boxes for box in found))

    @property
    def question(self) -> str:
        return self.turns[-1][0]

    @property
    def answer(self) -> str:
        return self.turns[-1][1]


def read(root: Path, options: Options, images: ImageFolder) -> Iterator[Annotation]:
    """One annotation a label and box that an answer states, and one a dialogue that is kept.

    Raises:
        SourceError: A file is missing or not of this form, a box is wrong, or the task or label of a record cannot be
            told; the message names the record.
    """
    for path, word in split_files(root, options.files):
        for where, record in _records(path):
            image = _image(record, options, images, where)
            if image is None or image.size_wh is None:
                continue
            split = _optional_text(record, "split", where) or word
            group = _optional_text(record, "group", where)
            exchange = _exchange(record, options, image.size_wh, where)
            task = _task(record, exchange, options, where)
            labels = _labels(record, task, exchange, options, where)
            for label, box in _facts(task, labels, exchange):
                yield Annotation(image, label, where, box=box, group=group, split=split)
            if options.wording == "source" or task not in TYPED:
                kind, own_boxes = _own_question(record, where) if task == Task.VQA else (None, ())
                boxes = own_boxes if kind else _target_boxes(task, exchange)
                dialogue = SourceDialogue(task, exchange.turns, labels, boxes, kind)
                yield Annotation(image, None, where, group=group, split=split, dialogue=dialogue)


def _records(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    if path.suffix.lower() == ".jsonl":
        rows = ((where, parse_json(row, where)) for where, row in numbered_rows(path))
    else:
        content = read_json(path)
        if not isinstance(content, list):
            raise SourceError(f"{path}: found a {type(content).__name__}, expected a list of records; check `format`")
        rows = ((f"{path} ([{index}])", record) for index, record in enumerate(content))
    for where, record in rows:
        if not isinstance(record, dict):
            raise SourceError(f"{where}: found {str(record)[:80]}, expected an object; correct that record")
        yield where, record


def _optional_text(record: dict[str, Any], key: str, where: str) -> str | None:
    value = record.get(key)
    if value is not None and not (isinstance(value, str) and value.strip()):
        raise SourceError(
            f"{where}: {key} is {str(value)[:80]!r}; expected a text, or no such key. Correct that record"
        )
    return value


def _image(record: dict[str, Any], options: Options, images: ImageFolder, where: str) -> ImageFile | None:
    keys = ("image", "id") if options.image_key == "either" else (options.image_key,)
    names = [record[key] for key in keys if isinstance(record.get(key), str) and record[key].strip()]
    if not names:
        raise SourceError(
            f"{where}: names no image in {' or '.join(keys)} (found {str(record)[:80]}); expected one path. Delete "
            "records without an image, or correct `image_key` in the source description"
        )
    return images.find(next((name for name in names if images.knows(name)), names[0]), where)


def _exchange(record: dict[str, Any], options: Options, size_wh: tuple[int, int], where: str) -> _Exchange:
    said = record.get("conversations")
    if not isinstance(said, list) or not said or len(said) % 2:
        raise SourceError(
            f"{where}: found conversations {str(said)[:80]}, expected an even number of turns, human and gpt in turn. "
            "Correct that record"
        )
    texts: list[str] = []
    boxes: list[tuple[Box, ...]] = []
    for index, turn in enumerate(said):
        speaker = ("human", "gpt")[index % 2]
        if not isinstance(turn, dict) or turn.get("from") != speaker or not isinstance(turn.get("value"), str):
            raise SourceError(f"{where}: turn {index} is {str(turn)[:80]}, expected {{from: {speaker}, value: text}}")
        text = _without_mark(turn["value"], index, where)
        try:
            text, found = from_coloninst(text, size_wh) if options.boxes == "pixels" else (text, _bins(text))
        except (BoxTextError, GeometryError) as error:
            raise SourceError(f"{where}: turn {index}: {error}") from error
        texts.append(text)
        boxes.append(found)
    return _Exchange(tuple(zip(texts[::2], texts[1::2], strict=True)), tuple(boxes))


def _without_mark(text: str, index: int, where: str) -> str:
    """The text without the image marker and the line break that parts the two."""
    if index == 0:
        text = text.removeprefix(f"{IMAGE_MARK}\n").removesuffix(f"\n{IMAGE_MARK}").removeprefix(IMAGE_MARK)
    if IMAGE_MARK in text or not text.strip():
        raise SourceError(
            f"{where}: turn {index} is {text[:80]!r}; expected a text, with one {IMAGE_MARK} at the start or end "
            "of the first turn and none elsewhere. Correct that record"
        )
    return text


def _bins(text: str) -> tuple[Box, ...]:
    return tuple(box for match in BOX_PATTERN.finditer(text) for box in decode_boxes(match.group()))


def _task(record: dict[str, Any], exchange: _Exchange, options: Options, where: str) -> Task:
    stated = options.task or record.get("task")
    if stated is not None:
        try:
            return Task(stated)
        except ValueError as error:
            raise SourceError(
                f"{where}: found task {str(stated)[:80]!r}, expected one of {', '.join(Task)}; correct that record"
            ) from error
    if len(exchange.turns) > 1:
        return Task.VQA
    if exchange.answered and not BOX_PATTERN.sub("", exchange.answer).strip(" ,;.\n"):
        return Task.REC
    if len(exchange.asked) == 1 and not exchange.answered:
        return Task.REG
    known = {label.lower() for label in options.labels}
    if not known:
        raise SourceError(
            f"{where}: nothing tells whether {exchange.answer[:60]!r} is a label or free text; set `task` or list all "
            "`labels` in the source description"
        )
    is_label = all(part.lower() in known for part in _parts(exchange.answer, options))
    return Task.CLS if is_label else Task.VQA


def _target_boxes(task: Task, exchange: _Exchange) -> tuple[Box, ...]:
    """The boxes that the answer is about: none of a CLS question, all that are mentioned in free text."""
    if task == Task.CLS:
        return ()
    return exchange.answered if task == Task.REC else exchange.asked if task == Task.REG else exchange.said


def _own_question(record: dict[str, Any], where: str) -> tuple[Kind | None, tuple[Box, ...]]:
    """The kind of an exported VQA question and the boxes that it rests on; none for a question of somebody else."""
    if record.get("kind") is None:
        return None, ()
    try:
        boxes = tuple(Box(x0=x0, y0=y0, x1=x1, y1=y1) for x0, y0, x1, y1 in record.get("boxes", ()))
        return Kind(record["kind"]), boxes
    except (GeometryError, ValueError, TypeError) as error:
        raise SourceError(
            f"{where}: found kind {str(record['kind'])[:80]!r} with boxes {str(record.get('boxes'))[:80]}, expected "
            f"one of {', '.join(Kind)} and a list of [x0, y0, x1, y1] in fractions; correct that record"
        ) from error


def _labels(record: dict[str, Any], task: Task, exchange: _Exchange, options: Options, where: str) -> tuple[str, ...]:
    """The labels that the last answer is about, as the record's key `labels` or else its text says."""
    stated = record.get("labels")
    if stated is not None:
        if not isinstance(stated, list) or not all(isinstance(label, str) and label for label in stated):
            raise SourceError(
                f"{where}: found labels {str(stated)[:80]}, expected a list of texts; correct that record"
            )
        return tuple(stated)
    if task in (Task.CLS, Task.REG):
        parts = _parts(exchange.answer, options)
        if not all(parts):
            raise SourceError(f"{where}: the answer {exchange.answer[:80]!r} holds an empty label; correct that record")
        return parts
    return (_asked_label(exchange.question, options.labels, where),) if task == Task.REC else ()


def _parts(answer: str, options: Options) -> tuple[str, ...]:
    parts = answer.split(options.label_separator) if options.label_separator else [answer]
    return tuple(part.strip() for part in parts)


def _asked_label(question: str, labels: tuple[str, ...], where: str) -> str:
    """The one label that stands in a question as whole words; of labels within labels the longest."""
    rest, found = question, []
    for label in sorted(labels, key=lambda label: (-len(label), label)):
        rest, count = re.subn(rf"(?<!\w){re.escape(label)}(?!\w)", "\0", rest, flags=re.IGNORECASE)
        found += [label] if count else []
    if len(found) != 1:
        raise SourceError(
            f"{where}: the question {question[:120]!r} names {', '.join(found) or 'no label'}; expected one of the "
            f"{len(labels)} labels of the set. List all of them under `labels` in the source description"
        )
    return found[0]


def _facts(task: Task, labels: tuple[str, ...], exchange: _Exchange) -> Iterator[tuple[str, Box | None]]:
    """(label, box) of everything that the answer states to be in the image."""
    if task == Task.CLS:
        yield from ((label, None) for label in labels)
    elif task == Task.REG:
        yield from ((label, box) for label in labels for box in exchange.asked)
    elif task == Task.REC and exchange.answer.strip().lower() != ABSENT:
        yield from ((label, box) for label in labels for box in exchange.answered)
