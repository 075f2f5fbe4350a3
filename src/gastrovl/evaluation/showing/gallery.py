"""Scored items to cards of a page: a small picture with its boxes, the question, the truth, the reply and a verdict."""

from __future__ import annotations

import base64
import io
import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Literal

from PIL import Image

from gastrovl.clinical.answers import BoxAnswer, ParseFailure
from gastrovl.core.images import open_image
from gastrovl.core.types import Box, Task
from gastrovl.evaluation import tasks
from gastrovl.evaluation.items import Item
from gastrovl.evaluation.measures import localisation
from gastrovl.evaluation.measures.language import rouge_l

CARDS = 32  # over all tasks; 24 at the least when there are as many images
SIDE_PX = 360
_QUALITY = 80
Verdict = Literal["right", "wrong", "unreadable", "text"]


@dataclass(frozen=True)
class Outline:
    """A box to draw: in pixels of the small picture, with what it is ("true", "predicted" or "asked")."""

    role: str
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True)
class Card:
    """One example; `score` is a number worth showing beside the verdict, such as an IoU; `number` its place."""

    number: int
    id: str
    task: str
    dataset: str
    image: str
    width: int
    height: int
    outlines: tuple[Outline, ...]
    question: str
    truth: str
    reply: str
    verdict: Verdict
    score: str
    reason: str
    confidence: float | None


def cards(items: Sequence[Item], folder: Path, *, seed: int, count: int = CARDS) -> dict[Task, list[Card]]:
    """Examples of every task, half of them wrong where there are enough, from as many images and datasets as possible.

    Args:
        items: All of one split.
        folder: That image paths are relative to.
        seed: Same seed, same examples.
        count: Over all tasks together, shared out evenly.

    Raises:
        ImageError: An image is missing or broken.
    """
    by_task: dict[Task, list[Item]] = {task: [] for task in Task}
    for item in items:
        by_task[item.question.task].append(item)
    present = {task: some for task, some in by_task.items() if some}
    each = -(-count // max(1, len(present)))
    used: set[str] = set()
    return {
        task: [
            card(item, folder, number)
            for number, item in enumerate(_choose(some, each, random.Random(f"{seed}-{task}"), used))
        ]
        for task, some in present.items()
    }


def _choose(items: Sequence[Item], count: int, generator: random.Random, used: set[str]) -> list[Item]:
    """Right and wrong ones by turns; images already on the page come last."""
    shuffled = _spread_over_datasets(generator.sample(list(items), len(items)))
    shuffled.sort(key=lambda item: item.question.image.sha256 in used)
    right = [item for item in shuffled if tasks.is_right(item.question, item.answer) is not False]
    wrong = [item for item in shuffled if tasks.is_right(item.question, item.answer) is False]
    by_turns = [item for pair in zip_longest(right, wrong) for item in pair if item is not None]
    chosen: list[Item] = []
    for is_second_look in (False, True):
        for item in by_turns:
            image = item.question.image.sha256
            if len(chosen) < count and item not in chosen and (is_second_look or image not in used):
                chosen.append(item)
                used.add(image)
    return chosen


def _spread_over_datasets(items: Sequence[Item]) -> list[Item]:
    """The same items, with the first of every dataset before the second of any."""
    queues: dict[str, list[Item]] = defaultdict(list)
    for item in items:
        queues[item.question.source].append(item)
    return [item for turn in zip_longest(*queues.values()) for item in turn if item is not None]


def card(item: Item, folder: Path, number: int) -> Card:
    """One item as a card; `folder` is what its image's path is relative to.

    Raises:
        ImageError: The image is missing or broken.
    """
    one, answer = item.question, item.answer
    picture = open_image(folder / one.image.path)
    picture.thumbnail((SIDE_PX, SIDE_PX))
    is_right = tasks.is_right(one, answer)
    verdict: Verdict = "text" if is_right is None else "right" if is_right else "wrong"
    return Card(
        number=number,
        id=one.id,
        task=one.task.value,
        dataset=one.source,
        image=data_uri(picture),
        width=picture.width,
        height=picture.height,
        outlines=_outlines(item, picture.size),
        question=one.words,
        truth=one.answer,
        reply=item.reply.text,
        verdict=verdict if item.is_parsed else "unreadable",
        score=_score(item),
        reason=answer.reason if isinstance(answer, ParseFailure) else "",
        confidence=item.reply.confidence,
    )


def data_uri(picture: Image.Image) -> str:
    """A picture as a JPEG inside a `data:` address."""
    stream = io.BytesIO()
    picture.save(stream, format="JPEG", quality=_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode("ascii")


def _outlines(item: Item, size_wh: tuple[int, int]) -> tuple[Outline, ...]:
    one, answer = item.question, item.answer
    if one.task is Task.REG:
        return tuple(_outline("asked", box, size_wh) for box in one.boxes)
    if one.task is not Task.REC:
        return ()
    given = answer.boxes if isinstance(answer, BoxAnswer) else ()
    return (
        *(_outline("true", box, size_wh) for box in one.boxes),
        *(_outline("predicted", box, size_wh) for box in given),
    )


def _outline(role: str, box: Box, size_wh: tuple[int, int]) -> Outline:
    width, height = size_wh
    return Outline(
        role=role,
        x=round(box.x0 * width, 1),
        y=round(box.y0 * height, 1),
        width=round((box.x1 - box.x0) * width, 1),
        height=round((box.y1 - box.y0) * height, 1),
    )


def _score(item: Item) -> str:
    one, answer = item.question, item.answer
    if one.task is Task.REC and one.boxes and isinstance(answer, BoxAnswer):
        found = localisation.overlap(localisation.as_asked(one.boxes), answer.boxes)
        return f"IoU {found.iou:.2f}"
    if one.task in (Task.CLS, Task.REC, Task.REG, Task.VQA) or not item.is_parsed:
        return ""
    return f"ROUGE-L {100 * rouge_l(one.references, item.reply.text):.0f} %"
