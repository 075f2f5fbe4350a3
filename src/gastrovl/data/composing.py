"""Divided rows to the lines of a dataset's files: records and the conversations of every split, a chunk by one worker.

A chunk's files appear together, so that a build that was killed finds each chunk whole or not at all. The files of all
chunks, one behind the other, are the dataset's files.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from itertools import pairwise
from pathlib import Path
from typing import IO, Any

from gastrovl.clinical.taxonomy import Taxonomy
from gastrovl.core.files import atomic_path
from gastrovl.core.records import to_line
from gastrovl.core.types import Caption, Conversation, ImageRef, Sample, Split, Task
from gastrovl.data.captioning.file import caption_for
from gastrovl.data.collect import CollectedSource
from gastrovl.data.config import BuildConfig
from gastrovl.data.dividing import Division
from gastrovl.data.instructions import InstructionOptions, conversations_of, evaluation_dialogues
from gastrovl.data.rows import Row
from gastrovl.data.tally import Tally
from gastrovl.data.wordings import Phrasing

EVALUATED = (Split.VAL, Split.TEST)
RECORDS = "records"
ENDING = ".jsonl"
TALLY = "tally.json"
SAMPLES_A_TASK = 256


@dataclass(frozen=True)
class ComposeTask:
    """Some samples of one source, to be written by one worker.

    Attributes:
        tasks: What may be asked of each sample.
        captions: What a model wrote about each, or None.
        exhaustive: Term ids that the source boxes wherever they are seen.
        seed: Of the build.
        folder: Where the chunk's files appear.
    """

    samples: tuple[Sample, ...]
    tasks: tuple[frozenset[Task], ...]
    captions: tuple[Caption | None, ...]
    exhaustive: tuple[str, ...]
    options: InstructionOptions
    seed: int
    folder: Path


class ComposeTasks(Sequence[ComposeTask]):
    """The rows in chunks of one source each; samples are made when a task is asked for, so that few exist at a time.

    A chunk's folder is named after all that decides what stands in it: another config finds no chunk of an older one.
    """

    def __init__(
        self,
        division: Division,
        config: BuildConfig,
        taxonomy: Taxonomy,
        captions: Mapping[str, Caption],
        folder: Path,
    ) -> None:
        self.division, self.captions, self.folder = division, captions, folder
        rows = division.rows
        self.options, self.seed = config.conversations, config.seed
        said = [metadata.version("gastrovl"), taxonomy.version, self.seed, self.options.model_dump_json()]
        self.said = json.dumps(said)
        sources = {id(row.source): row.source for row in rows}
        self.exhaustive = {key: _exhaustive_terms(source, taxonomy) for key, source in sources.items()}
        starts = [index for index, row in enumerate(rows) if index == 0 or rows[index - 1].source is not row.source]
        self.ranges = [
            (begin, min(begin + SAMPLES_A_TASK, end))
            for start, end in pairwise([*starts, len(rows)])
            for begin in range(start, end, SAMPLES_A_TASK)
        ]
        self._folders: dict[int, Path] = {}

    def __len__(self) -> int:
        return len(self.ranges)

    def __getitem__(self, index: Any) -> Any:
        begin, end = self.ranges[index]
        rows = self.division.rows[begin:end]
        places = zip(rows, self.division.groups[begin:end], self.division.splits[begin:end], strict=True)
        samples = tuple(sample_of(row, group, split) for row, group, split in places)
        tasks = tuple(row.labelled.tasks for row in rows)
        captions = tuple(self.captions.get(row.id) for row in rows)
        exhaustive = tuple(self.exhaustive[id(rows[0].source)])
        digest = hashlib.sha256(json.dumps([self.said, exhaustive, [sorted(one) for one in tasks]]).encode())
        for said in (*samples, *captions):
            digest.update(said.model_dump_json().encode() if said else b"-")
        self._folders[index] = self.folder / f"{index:06d}-{digest.hexdigest()[:16]}"
        return ComposeTask(samples, tasks, captions, exhaustive, self.options, self.seed, self._folders[index])

    def folders(self) -> list[Path]:
        """Where the chunks lie, in order, of all tasks that were asked for."""
        return [self._folders[index] for index in sorted(self._folders)]


def compose_chunk(task: ComposeTask) -> int:
    """Write the files of a chunk unless they are there; returns its number of samples."""
    if task.folder.is_dir():
        return len(task.samples)
    begun = task.folder.with_name(f"{task.folder.name}.begun")
    shutil.rmtree(begun, ignore_errors=True)
    begun.mkdir(parents=True)
    lines: dict[str, list[str]] = defaultdict(list)
    tally, digest = Tally(), hashlib.sha256()
    uses: Counter[str] = Counter()
    for sample, allowed, caption in zip(task.samples, task.tasks, task.captions, strict=True):
        known = {sample.id: caption} if caption else {}
        text, use = caption_for(sample, known, Taxonomy.load(), task.options.caption_check)
        uses[use.value] += 1
        found = _conversations(sample, allowed, text, task)
        lines[RECORDS].append(to_line(sample))
        for name, items in found.items():
            lines[name] += [to_line(item) for item in items]
        tally.add(sample, found)
        digest.update(sample.model_dump_json(exclude={"split", "group"}).encode())
    for name, texts in lines.items():
        (begun / f"{name}{ENDING}").write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
    made = {"tally": tally.to_json(), "uses": uses, "source": task.samples[0].source, "sha256": digest.hexdigest()}
    (begun / TALLY).write_text(json.dumps(made), encoding="utf-8")
    begun.rename(task.folder)
    return len(task.samples)


def file_names(options: InstructionOptions) -> list[str]:
    """Names of all files of conversations that a build writes, without their ending, also when they are empty."""
    names = [split.value for split in Split]
    for split in EVALUATED:
        names += [reworded(split)] + ([dialogues(split)] if options.dialogues else [])
    return names


@dataclass(frozen=True)
class Joined:
    """What all chunks together say.

    Attributes:
        digests: SHA-256 of the records of each source, but for group and split.
        caption_uses: Samples by what became of the caption that a model wrote of them (`Use`).
    """

    tally: Tally
    digests: dict[str, str]
    caption_uses: dict[str, int]


def join_chunks(chunks: Sequence[Path], names: Sequence[str], output: Path) -> Joined:
    """Write the dataset's files `names` and the records from those of the chunks."""
    tally, uses = Tally(), Counter[str]()
    digests: dict[str, hashlib._Hash] = {}
    for chunk in chunks:
        made = json.loads((chunk / TALLY).read_text(encoding="utf-8"))
        tally.merge(Tally.from_json(made["tally"]))
        uses.update(made["uses"])
        digests.setdefault(made["source"], hashlib.sha256()).update(made["sha256"].encode())
    for name in (RECORDS, *names):
        with atomic_path(output / f"{name}{ENDING}") as temporary, temporary.open("wb") as stream:
            for chunk in chunks:
                _append(chunk / f"{name}{ENDING}", stream)
    return Joined(tally, {source: digest.hexdigest() for source, digest in digests.items()}, dict(uses))


def reworded(split: Split) -> str:
    """Name of the file that words a split's conversations by the held-out wordings, without its ending."""
    return f"{split.value}_reworded"


def dialogues(split: Split) -> str:
    """Name of the file of questions that follow others, without its ending."""
    return f"{split.value}_dialogues"


def _append(part: Path, stream: IO[bytes]) -> None:
    if part.is_file():
        with part.open("rb") as source:
            shutil.copyfileobj(source, stream)


@cache
def _phrasing() -> Phrasing:
    """Read once a process."""
    return Phrasing.load()


def _conversations(
    sample: Sample, allowed: frozenset[Task], caption: str | None, task: ComposeTask
) -> Mapping[str, list[Conversation]]:
    """The conversations of a sample by the names of their files."""
    taxonomy, phrasing = Taxonomy.load(), _phrasing()
    options, split = _options(task.options, allowed), sample.split

    def ask(*, is_reworded: bool) -> list[Conversation]:
        return conversations_of(
            sample,
            taxonomy,
            phrasing,
            options,
            task.seed,
            task.exhaustive,
            is_reworded=is_reworded,
            caption=caption,
        )

    found = {split.value: ask(is_reworded=False)}
    if split in EVALUATED:
        found[reworded(split)] = ask(is_reworded=True)
        if options.dialogues:
            found[dialogues(split)] = evaluation_dialogues(sample, taxonomy, phrasing, options, task.seed)
    return found


def _options(options: InstructionOptions, allowed: frozenset[Task]) -> InstructionOptions:
    """The settings with those tasks only that a sample's labels allow."""
    if allowed.issuperset(options.tasks):
        return options
    return options.model_copy(update={"tasks": tuple(task for task in options.tasks if task in allowed)})


def sample_of(row: Row, group: str, split: Split) -> Sample:
    """The record of a row."""
    width, height = row.labelled.image.size_wh or (0, 0)
    return Sample(
        id=row.id,
        image=ImageRef(path=row.stored, width_px=width, height_px=height, sha256=row.seen.sha256),
        source=row.source.description.name,
        group=group,
        split=split,
        findings=row.findings,
        licence=row.source.description.licence,
        dialogues=row.labelled.dialogues,
    )


def _exhaustive_terms(source: CollectedSource, taxonomy: Taxonomy) -> list[str]:
    """Terms that the source boxes wherever they are seen, as far as it does box them."""
    boxed = {finding.term for labelled in source.usable for finding in labelled.findings if finding.boxes}
    rules = source.description.labels
    terms = [rules[label].term for label in source.description.exhaustive_labels()]
    return sorted({term for term in terms if term in boxed}, key=taxonomy.order)
