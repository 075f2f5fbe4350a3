"""Prediction files and the questions they answer to plain cases, and to a seeded choice of them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from gastrovl.clinical.taxonomy import Taxonomy
from gastrovl.core.errors import PredictionError, RecordError
from gastrovl.core.positions import position_phrase, share_word
from gastrovl.core.records import read_records
from gastrovl.core.types import Box, Conversation, Task
from gastrovl.evaluation import tasks
from gastrovl.evaluation.items import Item, read_items
from gastrovl.evaluation.measures import facts
from gastrovl.evaluation.questions import read_questions

FREE_TEXT = (Task.CAP, Task.VQA, Task.REPORT)  # judged unless told otherwise; rules decide the others
Rule = Callable[[Item], float | None]


@dataclass(frozen=True)
class Case:
    """One question, its truth in words, and the reply of each model.

    Attributes:
        image: Path of the image, relative to the folder of the conversations, and `image_sha256` of its original.
        replies: Model name to reply.
        rules: Model name to what the rules say of its reply, in [0, 1], or None where they say nothing.
    """

    id: str
    task: Task
    source: str
    group: str
    image: str
    image_sha256: str
    question: str
    reference: str
    replies: Mapping[str, str]
    rules: Mapping[str, float | None]


def by_rules(item: Item) -> float | None:
    """1 or 0 as the reply counts in the headline score of its task; of a caption or report, its fact F1.

    None where the true text states no fact.
    """
    if item.question.task in tasks.TEXT_TASKS:
        return facts.f1_of_reply(item.question.references, tasks.given_texts([item.answer])[0], Taxonomy.load())
    is_right = tasks.is_right(item.question, item.answer)
    return None if is_right is None else float(is_right)


def read_cases(predictions: Sequence[Path], conversations: Path, *, rule: Rule = by_rules) -> list[Case]:
    """The questions of a file with the replies of one or more models, in the order of the conversations.

    Args:
        rule: What the rules say of a reply, in [0, 1]; the judge is compared with it.

    Raises:
        RecordError: A file is missing or a line is broken.
        PredictionError: A reply is missing, double, or answers no known conversation; or a file is given twice.
    """
    taxonomy = Taxonomy.load()
    if len({path.resolve() for path in map(Path, predictions)}) != len(predictions):
        raise PredictionError(
            f"{predictions[0]}: a predictions file is named twice; name the files of different models"
        )
    items = [read_items(path, conversations, taxonomy) for path in predictions]
    names = _names(predictions, items)
    return [
        Case(
            id=(question := some[0].question).id,
            task=question.task,
            source=question.source,
            group=question.group,
            image=question.image.path,
            image_sha256=question.image.sha256,
            question=question.words,
            reference=reference_text(question.task, question.references, question.terms, question.boxes, taxonomy),
            replies={name: item.reply.text for name, item in zip(names, some, strict=True)},
            rules={name: rule(item) for name, item in zip(names, some, strict=True)},
        )
        for some in zip(*items, strict=True)
    ]


def read_places(conversations: Path) -> tuple[dict[str, str], dict[str, Task]]:
    """The group and the task of every conversation of a file.

    Raises:
        RecordError: As in `read_questions`.
    """
    asked = read_questions(conversations)
    return {one.id: one.group for one in asked}, {one.id: one.task for one in asked}


def reference_text(
    task: Task, references: Sequence[str], terms: Sequence[str], boxes: Sequence[Box], taxonomy: Taxonomy
) -> str:
    """The truth as lines: the true text, its other wordings, the terms on record, the places.

    Of VQA, terms and places are only what the question is about: of a thing that is absent, they name it all the same.
    """
    lines = [f"True answer: {references[0]}"]
    lines += [f"Equally true: {text}" for text in references[1:]]
    known, place = ("Asked about", "Place asked about") if task is Task.VQA else ("On record", "Place")
    if terms:
        lines.append(f"{known}: {', '.join(taxonomy[one].name if one in taxonomy else one for one in terms)}")
    lines += [f"{place}: {position_phrase(box)} ({share_word(box)} in view)" for box in boxes]
    return "\n".join(lines)


def choose(
    cases: Sequence[Case], *, tasks: Collection[Task] | None, most: int, seed: int, per_task: bool = True
) -> list[Case]:
    """A seeded sample, of each dataset as many as is its share, one at least, in the order of the cases.

    A case is drawn by a hash of seed and id, so that neither the order of the file nor other cases decide about it, and
    a larger sample mostly holds the smaller one.

    Args:
        tasks: Only these; None for those with free text.
        most: Of each task; or in all, when `per_task` is False.

    Raises:
        RecordError: There is no question of these tasks.
    """
    wanted = FREE_TEXT if tasks is None else tuple(tasks)
    left = [one for one in cases if one.task in wanted]
    if not left:
        there = ", ".join(sorted({one.task.value for one in cases}))
        raise RecordError(
            f"no question of the tasks {', '.join(one.value for one in wanted)} among the conversations, which ask "
            f"{there}; name what is to be judged by --task"
        )
    strata: dict[tuple[str, ...], list[Case]] = {}
    for one in left:
        strata.setdefault((one.task.value, one.source), []).append(one)
    shares: dict[tuple[str, ...], int] = {}
    for task in {key[0] for key in strata} if per_task else {None}:
        sizes = {key: len(some) for key, some in strata.items() if task in (None, key[0])}
        shares |= _shares(sizes, most)
    chosen = {
        one.id
        for key, some in strata.items()
        for one in sorted(some, key=lambda case: _lot(seed, case.id))[: shares[key]]
    }
    return [one for one in left if one.id in chosen]


def with_dialogue(cases: Sequence[Case], conversations: Path) -> list[Case]:
    """The cases with the turns that went before the last question put in front of it."""
    wanted = {one.id for one in cases}
    said = {
        one.id: "\n".join(f"{turn.role}: {turn.text}" for turn in one.turns[:-1])
        for one in read_records(conversations, Conversation)
        if one.id in wanted and len(one.turns) > 2
    }
    return [replace(one, question=said.get(one.id, one.question)) for one in cases]


def _shares(sizes: Mapping[tuple[str, ...], int], most: int) -> dict[tuple[str, ...], int]:
    """Parts of `most` in proportion to sizes, by largest remainder; one at least for each while there is room."""
    total = sum(sizes.values())
    if most >= total:
        return dict(sizes)
    order = sorted(sizes, key=lambda key: (-sizes[key], key))
    shares = dict.fromkeys(order, 0) | dict.fromkeys(order[:most], 1)
    while sum(shares.values()) < most:
        neediest = max(order, key=lambda key: (most * sizes[key] / total - shares[key], sizes[key]))
        shares[neediest] += 1
    return shares


def _lot(seed: int, name: str) -> str:
    return hashlib.sha256(f"{seed}:{name}".encode()).hexdigest()


def _names(paths: Sequence[Path], items: Sequence[Sequence[Item]]) -> list[str]:
    """One name for each file: that of its model; with the file's name behind it where that is shared."""
    models = ["+".join(sorted({item.reply.model for item in some})) for some in items]
    names = [
        model if models.count(model) == 1 else f"{model} ({Path(path).stem})"
        for model, path in zip(models, paths, strict=True)
    ]
    if len(set(names)) != len(names):
        raise PredictionError(f"predictions of {_listed(names)} cannot be told apart; give the files different names")
    return names


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(set(names)))
