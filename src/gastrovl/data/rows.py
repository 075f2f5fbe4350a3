"""Journals of looks to the usable images of a build in memory: small rows, and arrays that lie on disk."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gastrovl.core.errors import SourceError
from gastrovl.core.types import Finding
from gastrovl.data.collect import NO_IMAGE, CollectedSource, leave_out_broken
from gastrovl.data.config import BuildConfig
from gastrovl.data.harmonise import LabelledImage
from gastrovl.data.images import BrokenImage
from gastrovl.data.lesionmasks import MASKS, stop_at_broken_masks, with_masks
from gastrovl.data.looks import Line, LookTask, Seen, broken_of, bytes_of, read_journal, seen_of


@dataclass(frozen=True, slots=True)
class Row:
    """One usable image on its way to a sample.

    Attributes:
        place: Row of its fingerprint and colours.
    """

    source: CollectedSource
    labelled: LabelledImage
    seen: Seen
    place: int

    @property
    def id(self) -> str:
        return f"{self.source.description.name}/{self.labelled.image.key}"

    @property
    def stored(self) -> str:
        return f"images/{self.source.description.name}/{self.labelled.image.name}"

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What its source says, with the stored masks."""
        folder = f"{MASKS}/{self.source.description.name}"
        return tuple(with_masks(self.labelled.findings, self.seen.masks, self.labelled.image, folder))


@dataclass(frozen=True)
class Looked:
    """What all journals say, as far as it is needed at once.

    Attributes:
        rows: Images that go on, in the order of sources and names.
        prints, colours: Of all images that could be used, (images, bytes), uint8, on disk.
        faults: Images with each fault.
        excluded: Images that `quality.faults` leaves out.
    """

    rows: list[Row]
    prints: NDArray[np.uint8]
    colours: NDArray[np.uint8]
    faults: Counter[str]
    excluded: list[Row]


def read_looks(
    sources: Sequence[CollectedSource], tasks: Sequence[LookTask], config: BuildConfig, work: Path
) -> Looked:
    """Read the journals of finished tasks; broken images are taken out of the sources.

    Args:
        work: Folder for the arrays.

    Raises:
        ImageError: Images are broken, and the config says to stop.
        SourceError: No image is left; or masks are broken, and the config says to stop.
    """
    broken: dict[str, BrokenImage] = {}
    seen: list[Seen] = []
    faults: Counter[str] = Counter()
    with (work / "prints").open("wb") as prints, (work / "colours").open("wb") as colours:
        for line in journal_lines(tasks):
            why = broken_of(line)
            if why is not None:
                broken[why.path] = why
                continue
            seen.append(seen_of(line))
            faults.update(line["quality"].get("faults", ()))
            prints.write(bytes_of(line, "print"))
            colours.write(bytes_of(line, "colours"))
    leave_out_broken(sources, broken, config)
    labelled = [(source, one) for source in sources for one in source.usable]
    rows = [
        Row(source, one, found, place) for place, ((source, one), found) in enumerate(zip(labelled, seen, strict=True))
    ]
    kept = [row for row in rows if not row.seen.excluded]
    if not kept:
        raise SourceError(NO_IMAGE)
    if config.quality.on_broken_image == "stop":
        stop_at_broken_masks(mask for row in kept for mask in row.seen.masks)
    excluded = [row for row in rows if row.seen.excluded]
    return Looked(kept, _array(work / "prints", len(seen)), _array(work / "colours", len(seen)), faults, excluded)


def journal_lines(tasks: Sequence[LookTask]) -> Iterator[Line]:
    """The lines of all journals, in the order of the images."""
    return (line for task in tasks for line in read_journal(task))


def _array(path: Path, rows: int) -> NDArray[np.uint8]:
    """The bytes of a file as equal rows; they stay on disk."""
    if not path.stat().st_size:
        return np.zeros((rows, 0), dtype=np.uint8)
    return np.memmap(path, dtype=np.uint8, mode="r").reshape(rows, -1)
