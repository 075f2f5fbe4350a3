"""A built dataset folder, image by image, each with its conversations: what exports of any size are written from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from gastrovl.core.errors import RecordError
from gastrovl.core.records import read_records
from gastrovl.core.types import Conversation, Finding, Sample, Split, Target
from gastrovl.data.exporters.built import image_name, stored_samples

Named = TypeVar("Named", Finding, Target)


@dataclass(frozen=True)
class BuiltImage:
    """One image of a dataset folder.

    Attributes:
        path: Of the stored image, on this machine.
        size_wh: Width and height in pixels of the STORED image, which may be smaller than the original.
        conversations: By the name of their file without its ending, in the file's order.

    Neither they nor the sample name masks, which stay in the dataset folder.
    """

    sample: Sample
    path: Path
    size_wh: tuple[int, int]
    conversations: dict[str, tuple[Conversation, ...]]

    @property
    def name(self) -> str:
        """Path of the image below the dataset's folder of images."""
        return image_name(self.sample)


def conversation_files(root: Path) -> list[str]:
    """Names, without their ending, of the files of conversations: train, val, test, then those beside them."""
    names = {path.stem for path in Path(root).glob("*.jsonl")}
    beside = sorted(name for name in names if name.startswith(tuple(f"{split}_" for split in Split)))
    return [*(split.value for split in Split if split.value in names), *beside]


def stream_built(root: Path) -> Iterator[BuiltImage]:
    """The images of a dataset folder in the order of records.jsonl; only one at a time is in memory.

    Raises:
        RecordError: records.jsonl is missing or empty, a record is broken, two share an image, or a file's
            conversations do not follow the order of records.jsonl.
        SourceError: A record names an image outside the folder.
        ImageError: An image is missing or broken.
    """
    root = Path(root)
    queues = {name: _Queue(root / f"{name}.jsonl") for name in conversation_files(root)}
    for sample, path, size_wh in stored_samples(root):
        conversations = {name: items for name, queue in queues.items() if (items := queue.take(sample.id))}
        findings = tuple(_maskless(finding) for finding in sample.findings)
        yield BuiltImage(sample.model_copy(update={"findings": findings}), path, size_wh, conversations)
    for queue in queues.values():
        queue.check_empty()


def _maskless(one: Named) -> Named:
    return one.model_copy(update={"mask": None}) if one.mask else one


class _Queue:
    """A file of conversations, taken from its front."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._items = read_records(path, Conversation)
        self._head = next(self._items, None)

    def take(self, sample_id: str) -> tuple[Conversation, ...]:
        found = []
        while self._head is not None and self._head.sample_id == sample_id:
            found.append(self._head.model_copy(update={"target": _maskless(self._head.target)}))
            self._head = next(self._items, None)
        return tuple(found)

    def check_empty(self) -> None:
        if self._head is not None:
            raise RecordError(
                f"{self._path}: conversation {self._head.id} is about no sample of records.jsonl, or stands out of its "
                "order; expected conversations in the order of records.jsonl, as `data build` writes them. Build the "
                "dataset again"
            )
