"""A sample to conversations: CLS, REC, REG and CAP, questions built from the record, and dialogues of several turns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from gastrovl.clinical.taxonomy import Taxonomy
from gastrovl.core.config import Config
from gastrovl.core.types import Conversation, Kind, Sample, Split, Task
from gastrovl.data.captioning.check import CheckOptions
from gastrovl.data.dialogues import question_with_history, training_dialogue
from gastrovl.data.exchanges import (
    Exchange,
    absent_terms,
    boxes_by_term,
    caption_exchange,
    drawn,
    label_exchange,
    largest_first,
    place_exchange,
    present_terms,
    region_exchange,
    terms_by_box,
)
from gastrovl.data.questions import questions_of
from gastrovl.data.wordings import Phrasing, Writer

RECORD_TASKS = (Task.CLS, Task.REC, Task.REG, Task.CAP)


class InstructionOptions(Config):
    """Which questions are asked of an image.

    Attributes:
        tasks: Of CLS, REC, REG, CAP and VQA. What a source asks itself is asked as VQA word by word, `kinds` besides.
        absent_per_image: How many absent terms an image is asked to locate, on average; 0.3 asks three images in ten.
        hard_absent: Share of these that are the likest to what is there, by their place in the taxonomy: cancer where
            there is dysplasia, and not an ulcer of the stomach. 0 draws them all at random.
        max_reg_per_image: At most this many boxes of an image are asked about; which ones, the seed decides.
        captions_per_image: Different wordings of a training caption, the first one included.
        captions: File that `gastrovl data caption` wrote: a model's captions, checked against the records again, are
            the first wordings of CAP in training. Without it, and in val and test, all captions are the grammar's.
        caption_check: What counts as wrong in such a caption.
        kinds: VQA questions built from the record, each with the most of its kind for an image, e.g. {count: 2}.
        dialogues: At most this many dialogues of several turns for an image. Those of training images stand in
            train.jsonl, those of others in files of their own.
    """

    tasks: tuple[Literal[Task.CLS, Task.REC, Task.REG, Task.CAP, Task.VQA], ...] = (
        Task.CLS,
        Task.REC,
        Task.REG,
        Task.CAP,
        Task.VQA,
    )
    absent_per_image: float = Field(default=0.3, ge=0, le=2)
    hard_absent: float = Field(default=0, ge=0, le=1)
    max_reg_per_image: int = Field(default=4, ge=1)
    captions_per_image: int = Field(default=3, ge=1)
    captions: str | None = None
    caption_check: CheckOptions = CheckOptions()
    kinds: dict[Kind, Annotated[int, Field(ge=1, le=8)]] = Field(default_factory=dict)
    dialogues: int = Field(default=0, ge=0, le=8)


def conversations_of(
    sample: Sample,
    taxonomy: Taxonomy,
    phrasing: Phrasing,
    options: InstructionOptions,
    seed: int,
    labels_in_source: Sequence[str],
    *,
    is_reworded: bool = False,
    caption: str | None = None,
) -> list[Conversation]:
    """The conversations about one image, dialogues of training included; equal arguments give equal conversations.

    What else is in the dataset does not matter, nor does one task's setting for another task.

    Args:
        labels_in_source: Term ids that the sample's source boxes wherever they are seen; only of these may the
            absence of a box be read as the absence of the thing, so only these are asked for as absent.
        is_reworded: Word the questions by the held-out wordings; ids, answers and targets stay. What the source asks
            itself has no other wording.
        caption: A model's caption that was checked against the record. Of a training sample it is the first wording of
            CAP, also inside dialogues; of others it is not used, so that no model is scored against another's words.

    Raises:
        LabelError: A finding's term is not in the taxonomy.
        ValueError: A training sample is to be reworded.
    """
    writer = Writer(sample, phrasing, seed, is_reworded=is_reworded)
    said = caption if sample.split is Split.TRAIN else None
    found = [item for item in _said_by_source(sample) if item.task in options.tasks]
    wanted = _wanted(sample, options)
    for task in wanted:
        rng = writer.generator(task.value)
        for number, exchange in enumerate(_exchanges(task, sample, taxonomy, options, rng, labels_in_source, said)):
            found.append(writer.write(f"{task.value}-{number}", (exchange,)))
    if Task.VQA in options.tasks and Task.VQA not in _tasks_of_source(sample):
        found += questions_of(writer, taxonomy, options.kinds, labels_in_source)
    if sample.split is Split.TRAIN:
        count = options.captions_per_image
        numbers = range(options.dialogues)
        found += _distinct(training_dialogue(writer, taxonomy, wanted, number, count, said) for number in numbers)
    return found


def evaluation_dialogues(
    sample: Sample, taxonomy: Taxonomy, phrasing: Phrasing, options: InstructionOptions, seed: int
) -> list[Conversation]:
    """Questions that follow others about the same image, where nothing said before gives the answer away."""
    wanted = _wanted(sample, options)
    if sample.split is Split.TRAIN or not {Task.CLS, Task.REC} <= set(wanted):
        return []
    writer = Writer(sample, phrasing, seed)
    return _distinct(question_with_history(writer, taxonomy, wanted, number) for number in range(options.dialogues))


def _distinct(dialogues: Iterable[Conversation | None]) -> list[Conversation]:
    """Without those that repeat an earlier one's answers about the same things."""
    first_of: dict[tuple[object, ...], Conversation] = {}
    for one in dialogues:
        if one is not None:
            first_of.setdefault((one.target, *(turn.text for turn in one.turns if turn.role == "assistant")), one)
    return list(first_of.values())


def _wanted(sample: Sample, options: InstructionOptions) -> tuple[Task, ...]:
    """Tasks that are asked in our words: wanted, and not asked by the source in its own."""
    said = _tasks_of_source(sample)
    return tuple(task for task in RECORD_TASKS if task in options.tasks and task not in said)


def _tasks_of_source(sample: Sample) -> set[Task]:
    return {dialogue.task for dialogue in sample.dialogues}


def _said_by_source(sample: Sample) -> list[Conversation]:
    """The dialogues of the source itself, verbatim, numbered within their task."""
    numbers: dict[Task, int] = {}
    found = []
    for dialogue in sample.dialogues:
        number = numbers[dialogue.task] = numbers.get(dialogue.task, -1) + 1
        found.append(
            Conversation(
                id=f"{sample.id}#{dialogue.task.value}-{number}",
                sample_id=sample.id,
                task=dialogue.task,
                kind=dialogue.kind,
                image=sample.image,
                source=sample.source,
                group=sample.group,
                split=sample.split,
                turns=dialogue.turns,
                target=dialogue.target,
            )
        )
    return found


def _exchanges(
    task: Task,
    sample: Sample,
    taxonomy: Taxonomy,
    options: InstructionOptions,
    rng: np.random.Generator,
    labels_in_source: Sequence[str],
    caption: str | None,
) -> list[Exchange]:
    if task is Task.REC:
        boxes_of = boxes_by_term(sample)
        count = int(options.absent_per_image)
        count += int(rng.random() < options.absent_per_image - count)
        absent = _absent(count, options.hard_absent, sample, taxonomy, rng, labels_in_source)
        asked = [*sorted(boxes_of, key=taxonomy.order), *absent]
        return [place_exchange(term, sample, taxonomy) for term in asked]
    if task is Task.REG:
        terms_of = terms_by_box(sample)
        ordered = largest_first(terms_of)
        chosen = sorted(rng.permutation(len(ordered))[: options.max_reg_per_image])
        return [region_exchange(ordered[index], terms_of[ordered[index]], taxonomy) for index in chosen]
    if task is Task.CLS:
        one = label_exchange(sample, taxonomy)
    else:
        one = caption_exchange(sample, taxonomy, rng, options.captions_per_image, caption)
    return [one] if one else []


def _absent(
    count: int,
    hard: float,
    sample: Sample,
    taxonomy: Taxonomy,
    rng: np.random.Generator,
    labels_in_source: Sequence[str],
) -> list[str]:
    """Up to `count` terms to ask for in vain, the share `hard` of them next to what is there."""
    terms = absent_terms(sample, taxonomy, labels_in_source)
    left = drawn(rng, terms, len(terms))
    there = present_terms(sample)
    if not (hard and there):
        return left[:count]
    found: list[str] = []
    while left and len(found) < count:
        is_hard = rng.random() < hard
        far = [min(taxonomy.distance(term, other) for other in there) if is_hard else 0 for term in left]
        found.append(left.pop(far.index(min(far))))
    return found
