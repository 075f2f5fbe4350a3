"""A sample to conversations: the questions of CLS, REC, REG and CAP about one image, with their typed answers."""

from __future__ import annotations

import hashlib
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from gastrovl.clinical.answers import format_labels
from gastrovl.clinical.taxonomy import Taxonomy
from gastrovl.core.boxtext import encode_box, encode_boxes
from gastrovl.core.config import Config, load_config
from gastrovl.core.errors import ConfigError
from gastrovl.core.types import Box, Conversation, Sample, Split, Status, Target, Task, Turn
from gastrovl.data.captions import captions_of

SLOTS: dict[Task, tuple[str, ...]] = {Task.CLS: (), Task.REC: ("label",), Task.REG: ("box",), Task.CAP: ()}
_MIN_WORDINGS = 5  # of a task; fewer would teach the wording instead of the task
_PACKAGED = Path(__file__).parent / "phrasing"


class InstructionOptions(Config):
    """Which questions are asked of an image.

    Attributes:
        tasks: Of CLS, REC, REG, CAP and VQA; what is asked as VQA comes from the sources alone, word by word.
        absent_per_image: How many absent terms an image is asked to locate, on average; 0.3 asks three images in ten.
        max_reg_per_image: At most this many boxes of an image are asked about; which ones, the seed decides.
        captions_per_image: Different wordings of a training caption, the first one included.
    """

    tasks: tuple[Literal[Task.CLS, Task.REC, Task.REG, Task.CAP, Task.VQA], ...] = (
        Task.CLS,
        Task.REC,
        Task.REG,
        Task.CAP,
        Task.VQA,
    )
    absent_per_image: float = Field(default=0.3, ge=0, le=2)
    max_reg_per_image: int = Field(default=4, ge=1)
    captions_per_image: int = Field(default=3, ge=1)


class _PhrasingFile(Config):
    wordings: tuple[str, ...]


@dataclass(frozen=True)
class Phrasing:
    """Equally good wordings of each task's question; a slot {label} or {box} is filled for each conversation."""

    wordings: Mapping[Task, tuple[str, ...]]

    @classmethod
    def load(cls, folder: Path | None = None) -> Phrasing:
        """The wordings in `folder`'s cls, rec, reg and cap.yaml; by default those of the package.

        Raises:
            ConfigError: A file is missing, has too few wordings, the same one twice, or a wrong slot.
        """
        return _load_packaged() if folder is None else _read_phrasing(folder)


@cache
def _load_packaged() -> Phrasing:
    return _read_phrasing(_PACKAGED)


def _read_phrasing(folder: Path) -> Phrasing:
    found: dict[Task, tuple[str, ...]] = {}
    for task, slots in SLOTS.items():
        path = Path(folder) / f"{task.value.lower()}.yaml"
        wordings = load_config(path, _PhrasingFile).wordings
        if len(wordings) < _MIN_WORDINGS:
            raise ConfigError(f"{path}: wordings: found {len(wordings)}, expected at least {_MIN_WORDINGS}; add some")
        twice = [wording for wording in wordings if wordings.count(wording) > 1]
        if twice:
            raise ConfigError(f"{path}: wordings: {twice[0]!r} is listed twice; remove one")
        for wording in wordings:
            _check_slots(wording, slots, path)
        found[task] = wordings
    return Phrasing(found)


def _check_slots(wording: str, slots: tuple[str, ...], path: Path) -> None:
    try:
        names = tuple(name for _, name, _, _ in string.Formatter().parse(wording) if name is not None)
    except ValueError as error:
        raise ConfigError(f"{path}: wording {wording!r} has an unpaired brace ({error}); remove it") from error
    if names != slots:
        expected = " ".join(f"{{{name}}}" for name in slots) or "no slot"
        raise ConfigError(f"{path}: wording {wording!r} has slots {list(names)}, expected {expected}, once")


def conversations_of(
    sample: Sample,
    taxonomy: Taxonomy,
    phrasing: Phrasing,
    options: InstructionOptions,
    seed: int,
    labels_in_source: Sequence[str],
) -> list[Conversation]:
    """All conversations about one image; equal arguments give equal conversations, whatever else is in the dataset.

    Args:
        labels_in_source: Term ids that the sample's source boxes wherever they are seen; only of these may the
            absence of a box be read as the absence of the thing, so only these are asked for as absent.

    Raises:
        LabelError: A finding's term is not in the taxonomy.
    """
    writer = _Writer(sample, phrasing, seed)
    found = [item for item in _said_by_source(sample) if item.task in options.tasks]
    said = {dialogue.task for dialogue in sample.dialogues}
    for task in SLOTS:
        if task not in options.tasks or task in said:
            continue
        rng = writer.generator(task.value)
        if task == Task.CLS:
            found += _cls(writer, taxonomy)
        elif task == Task.REC:
            found += _rec(writer, taxonomy, _absent_terms(sample, taxonomy, options, rng, labels_in_source))
        elif task == Task.REG:
            found += _reg(writer, taxonomy, options.max_reg_per_image, rng)
        else:
            found += _cap(writer, taxonomy, options.captions_per_image, rng)
    return found


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
                image=sample.image,
                source=sample.source,
                group=sample.group,
                split=sample.split,
                turns=dialogue.turns,
                target=dialogue.target,
            )
        )
    return found


class _Writer:
    """Words the questions of one sample: all wordings in training, one seeded wording in evaluation."""

    def __init__(self, sample: Sample, phrasing: Phrasing, seed: int) -> None:
        self.sample = sample
        self._phrasing = phrasing
        self._seed = seed

    def generator(self, purpose: str) -> np.random.Generator:
        """Randomness that depends on seed, sample and purpose only, so that no task disturbs another."""
        digest = hashlib.sha256(f"{self._seed}\n{self.sample.id}\n{purpose}".encode()).digest()
        return np.random.default_rng(int.from_bytes(digest[:8], "big"))

    def write(
        self, task: Task, number: int, answers: Sequence[str], target: Target, slots: Mapping[str, str]
    ) -> Conversation:
        """Conversation `number` of `task`; the first of `answers` is the reference, the others word it differently."""
        sample = self.sample
        wordings = [wording.format(**slots) for wording in self._phrasing.wordings[task]]
        chosen = int(self.generator(f"{task.value}-{number} wording").integers(len(wordings)))
        question = wordings.pop(chosen)
        is_training = sample.split == Split.TRAIN
        return Conversation(
            id=f"{sample.id}#{task.value}-{number}",
            sample_id=sample.id,
            task=task,
            image=sample.image,
            source=sample.source,
            group=sample.group,
            split=sample.split,
            turns=(
                Turn(role="user", text=question, alternatives=tuple(wordings) if is_training else ()),
                Turn(role="assistant", text=answers[0], alternatives=tuple(answers[1:]) if is_training else ()),
            ),
            target=target,
        )


def _present_terms(sample: Sample) -> set[str]:
    return {finding.term for finding in sample.findings if finding.status == Status.PRESENT}


def _boxes_by_term(sample: Sample) -> dict[str, set[Box]]:
    found: dict[str, set[Box]] = {}
    for finding in sample.findings:
        if finding.status == Status.PRESENT and finding.boxes:
            found.setdefault(finding.term, set()).update(finding.boxes)
    return found


def _largest_first(boxes: set[Box]) -> list[Box]:
    return sorted(boxes, key=lambda box: (-box.area, box.xyxy))


def _cls(writer: _Writer, taxonomy: Taxonomy) -> list[Conversation]:
    terms = tuple(sorted(_present_terms(writer.sample), key=taxonomy.order))
    if not terms:
        return []
    return [writer.write(Task.CLS, 0, [format_labels(terms, taxonomy)], Target(terms=terms), {})]


def _rec(writer: _Writer, taxonomy: Taxonomy, absent: Sequence[str]) -> list[Conversation]:
    boxes_of = _boxes_by_term(writer.sample)
    asked = [*sorted(boxes_of, key=taxonomy.order), *absent]
    found = []
    for number, term in enumerate(asked):
        boxes = _largest_first(boxes_of.get(term, set()))
        target = Target(terms=(term,), boxes=tuple(boxes))
        found.append(writer.write(Task.REC, number, [encode_boxes(boxes)], target, {"label": taxonomy[term].name}))
    return found


def _absent_terms(
    sample: Sample,
    taxonomy: Taxonomy,
    options: InstructionOptions,
    rng: np.random.Generator,
    labels_in_source: Sequence[str],
) -> list[str]:
    """Terms to ask for in vain: known to the source, and neither seen, suspected nor implied by what is seen."""
    seen = {finding.term for finding in sample.findings if finding.status != Status.ABSENT}
    implied = seen | {ancestor for term in seen for ancestor in taxonomy.ancestors(term)}
    free = [term for term in sorted(set(labels_in_source), key=taxonomy.order) if term not in implied]
    free = [term for term in free if not seen & set(taxonomy.ancestors(term))]
    whole = int(options.absent_per_image)
    count = whole + int(rng.random() < options.absent_per_image - whole)
    chosen = rng.permutation(len(free))[:count]
    return [free[index] for index in chosen]


def _reg(writer: _Writer, taxonomy: Taxonomy, limit: int, rng: np.random.Generator) -> list[Conversation]:
    terms_of: dict[Box, set[str]] = {}
    for term, boxes in _boxes_by_term(writer.sample).items():
        for box in boxes:
            terms_of.setdefault(box, set()).add(term)
    ordered = _largest_first(set(terms_of))
    chosen = sorted(rng.permutation(len(ordered))[:limit])
    found = []
    for number, index in enumerate(chosen):
        box = ordered[index]
        terms = tuple(sorted(terms_of[box], key=taxonomy.order))
        target = Target(terms=terms, boxes=(box,))
        answer = format_labels(terms, taxonomy)
        found.append(writer.write(Task.REG, number, [answer], target, {"box": encode_box(box)}))
    return found


def _cap(writer: _Writer, taxonomy: Taxonomy, count: int, rng: np.random.Generator) -> list[Conversation]:
    captions = captions_of(writer.sample, taxonomy, rng, count)
    if not captions:
        return []
    sites = {finding.site for finding in writer.sample.findings if finding.status == Status.PRESENT and finding.site}
    terms = tuple(sorted(_present_terms(writer.sample) | sites, key=taxonomy.order))
    return [writer.write(Task.CAP, 0, captions, Target(terms=terms), {})]
