"""A file of conversations to parts, each answered by a process of its own on any machine, and the parts to one file.

Processes meet through files only. A part is a file of partial replies beside the output. Whoever ends looks whether all
parts are whole and then joins them; of several who see it at once each writes the same, so that no lock is needed.
"""

from __future__ import annotations

import heapq
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gastrovl.core import processes, records
from gastrovl.core.errors import ConfigError, OutputError, PredictionError
from gastrovl.core.files import sha256_file
from gastrovl.core.types import Conversation, Prediction
from gastrovl.inference.batch import Answerer, Progress, answer_left, asked_in
from gastrovl.inference.partial import Begun, Head, PartialFile, read_partial
from gastrovl.inference.runrecord import read_run, summarise, write_run

_PART = re.compile(r"\.(\d+)-of-(\d+)\.partial")


@dataclass(frozen=True)
class Shard:
    """One of `of` parts, numbered from 1."""

    number: int
    of: int

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.of:
            raise ConfigError(f"shard {self}: expected K/N with K from 1 to N, such as 2/8")

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    @classmethod
    def parse(cls, text: str) -> Shard:
        """`2/8` to the second of eight.

        Raises:
            ConfigError: It is written otherwise, or there is no such part.
        """
        found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text.strip(), re.ASCII)
        if not found:
            raise ConfigError(f"shard {text!r}: expected K/N with K from 1 to N, such as 2/8")
        return cls(int(found[1]), int(found[2]))

    @classmethod
    def of_launcher(cls) -> Shard | None:
        """What falls to this process of those that `torchrun` started; None for one that was started alone."""
        return cls(processes.rank() + 1, processes.size()) if processes.size() > 1 else None


@dataclass(frozen=True)
class Shared:
    """What came of a part: how many questions it has, how many were answered now, and whether it joined all parts."""

    asked: int
    answered: int
    is_joined: bool


def part_path(output: Path, shard: Shard) -> Path:
    """Where the replies of a part stand until all are joined: OUTPUT.2-of-8.partial."""
    return output.with_name(f"{output.name}.{shard.number}-of-{shard.of}.partial")


def divided(conversations: Sequence[Conversation], of: int) -> list[list[Conversation]]:
    """Conversations to `of` parts: those about one image in one part, as many questions in each as that allows.

    The same for any order of the conversations: images with most questions come first (then by path), each to the part
    that has fewest questions, of these fewest images, of these the first. A part keeps the order of the conversations.
    """
    counts: dict[str, int] = {}
    for one in conversations:
        counts[one.image.path] = counts.get(one.image.path, 0) + 1
    loads = [(0, 0, place) for place in range(of)]  # a heap: questions, images, part
    place_of: dict[str, int] = {}
    for path in sorted(counts, key=lambda path: (-counts[path], path)):
        questions, images, place = loads[0]
        heapq.heapreplace(loads, (questions + counts[path], images + 1, place))
        place_of[path] = place
    parts: list[list[Conversation]] = [[] for _ in range(of)]
    for one in conversations:
        parts[place_of[one.image.path]].append(one)
    return parts


def predict_shard(
    answerer: Answerer,
    conversations: Path,
    output: Path,
    shard: Shard,
    *,
    batch_size: int = 32,
    is_replaced: bool = False,
    retries_failed: bool = False,
    progress: Progress | None = None,
) -> Shared:
    """Answer one part of a JSONL file, as `predict_file`; the last to end makes `output` of all parts.

    Replies are lines of `part_path` as soon as they are there; the same call goes on behind the last whole line. Where
    the others have joined all parts already, there is nothing to do.

    Raises:
        OutputError: `output` exists and is not to be replaced, or another process answers this part.
        PredictionError: A part is of another model or answers other conversations.
        EndpointError, RecordError, ImageError: As `predict_file`.
    """
    conversations, output, started = Path(conversations), Path(output), time.monotonic()
    everything = asked_in(conversations)
    asked = {one.id: one for one in divided(list(everything.values()), shard.of)[shard.number - 1]}
    if not asked:  # more parts than images; the others may have ended long ago
        return Shared(0, 0, is_joined=False)
    begun = Begun(model=answerer.name, fingerprint=answerer.fingerprint, conversations=sha256_file(conversations))
    if not is_replaced and _is_of(output, begun):
        return Shared(len(asked), 0, is_joined=True)
    _check_free(output, is_replaced=is_replaced)
    told = {"description": answerer.settings, "currency": answerer.currency}
    with PartialFile(part_path(output, shard), begun, told) as partial:
        done = partial.read(asked)
        count = answer_left(
            answerer,
            asked,
            conversations.parent,
            partial,
            done,
            batch_size=batch_size,
            retries_failed=retries_failed,
            progress=progress,
        )
    is_joined = not _join(everything, begun.conversations, output, shard.of, count, started)
    return Shared(len(asked), count, is_joined)


def join_shards(conversations: Path, output: Path, *, is_replaced: bool = False) -> int:
    """Make `output` of all its parts, wherever they were answered; returns how many replies it has.

    The file is that of an undivided run but for the times in it. Nothing is written unless all is there.

    Raises:
        OutputError: `output` exists and is not to be replaced.
        PredictionError: Parts are missing or not whole, of another model, or to other conversations.
        RecordError: The conversations or a part are broken.
    """
    conversations, output, started = Path(conversations), Path(output), time.monotonic()
    everything = asked_in(conversations)
    _check_free(output, is_replaced=is_replaced)
    beside = output.parent.iterdir() if output.parent.is_dir() else ()
    names = [one.name.removeprefix(output.name) for one in beside if one.name.startswith(output.name)]
    found = sorted({int(match[2]) for match in map(_PART.fullmatch, names) if match})
    if len(found) != 1:
        what = f"parts of {len(found)} divisions ({found} parts)" if found else "no parts of it"
        raise PredictionError(
            f"{output}: found {what} beside it, expected those of one run, such as {part_path(output, Shard(1, 2))}; "
            "answer them with --shard 1/N ... N/N"
        )
    missing = _join(everything, sha256_file(conversations), output, found[0], 0, started)
    if missing:
        raise PredictionError(
            f"{output}: {'; '.join(missing)}. Run what is missing with the same command and --shard, then join again"
        )
    return len(everything)


def _is_of(output: Path, begun: Begun) -> bool:
    """Whether a finished file is there, of this model and these conversations."""
    if not output.exists():
        return False
    try:
        run = read_run(output)
    except PredictionError:
        return False
    return Begun(model=run.model, fingerprint=run.fingerprint, conversations=run.conversations) == begun


def _check_free(output: Path, *, is_replaced: bool) -> None:
    if output.exists() and not is_replaced:
        raise OutputError(f"{output} exists already; choose another -o, or pass --overwrite")


def _join(
    everything: Mapping[str, Conversation], digest: str, output: Path, of: int, count: int, started: float
) -> list[str]:
    """Join the parts, or say which are not whole; `count` questions were answered by this process."""
    done: dict[str, Prediction] = {}
    missing: list[str] = []
    first: tuple[Path, Head] | None = None
    for number, part in enumerate(divided(list(everything.values()), of), start=1):
        path = part_path(output, Shard(number, of))
        found = read_partial(path, {one.id for one in part}) if part else None
        if found is not None:
            first = first or (path, found[0])
            _check_alike(path, found[0], first, digest)
            done |= found[1]
        if left := sum(one.id not in done for one in part):
            missing.append(f"shard {number}/{of} has {left} of {len(part)} questions open")
    if missing or first is None:
        return missing
    predictions = [done[name] for name in everything]
    begun, told = first[1].begun, first[1].told
    write_run(  # before the file, so that what is there can be told from another run's by whoever comes late
        output,
        summarise(
            predictions,
            **begun.model_dump(),
            asked_now=count,
            seconds_now=time.monotonic() - started,
            description=told.get("description"),
            currency=told.get("currency"),
        ),
    )
    records.write_records(output, predictions)
    for number in range(1, of + 1):
        part_path(output, Shard(number, of)).unlink(missing_ok=True)
    return []


def _check_alike(path: Path, head: Head, first: tuple[Path, Head], digest: str) -> None:
    """Refuse a part of another run."""
    if head.begun.conversations != digest:
        raise PredictionError(f"{path}:1: was begun for another state of the file of conversations; delete it")
    mine, theirs = head.begun, first[1].begun
    if (mine.model, mine.fingerprint) != (theirs.model, theirs.fingerprint):
        raise PredictionError(
            f"{path}:1: was answered by {mine.model!r} ({mine.fingerprint[:8]}), and {first[0].name} by "
            f"{theirs.model!r} ({theirs.fingerprint[:8]}); parts of one file are of one model, so delete what is of "
            "another and answer it again"
        )
