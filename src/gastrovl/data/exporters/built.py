"""A built dataset folder, read for export: samples, conversations, stored images with their true sizes, label names."""

from __future__ import annotations

import csv
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gastrovl.clinical.taxonomy import Taxonomy
from gastrovl.core.errors import RecordError
from gastrovl.core.files import atomic_path
from gastrovl.core.records import read_records
from gastrovl.core.types import Conversation, Finding, Sample, Split, Status
from gastrovl.data.formats.textlines import inside
from gastrovl.data.images import header_size

FOLDER = "images/"


@dataclass(frozen=True)
class BuiltSet:
    """A dataset folder.

    Attributes:
        sizes_wh: Width and height in pixels of each sample's STORED image, which may be smaller than the original.
        conversations: By split, for the splits that have a file.
        licences: Of each source.
    """

    root: Path
    samples: tuple[Sample, ...]
    sizes_wh: dict[str, tuple[int, int]]
    conversations: dict[str, tuple[Conversation, ...]]
    licences: dict[str, str] = field(default_factory=dict)

    def label_rules(self) -> dict[str, str | dict[str, str]]:
        """What each label of an export means, as `labels` of a source description has it."""
        rules: dict[str, str | dict[str, str]] = {}
        for finding in (finding for sample in self.samples for finding in sample.findings):
            stated = {"term": finding.term, "site": finding.site, "grade": finding.grade}
            known = {key: value for key, value in stated.items() if value is not None}
            rules[label_of(finding)] = finding.term if len(known) == 1 else known
        for items in self.conversations.values():
            rules |= {term: term for item in items for term in item.target.terms}
        return dict(sorted(rules.items()))

    def store_image(self, sample: Sample, target: Path) -> None:
        """Put the sample's image at `target`, as a hard link where the file system allows it."""
        target.parent.mkdir(parents=True, exist_ok=True)
        source = (self.root / sample.image.path).resolve()
        try:
            os.link(source, target)
        except OSError:  # another file system, or one without hard links
            shutil.copyfile(source, target)


def stored_samples(root: Path) -> Iterator[tuple[Sample, Path, tuple[int, int]]]:
    """Each sample of a dataset folder with its stored image and that image's true size.

    Raises:
        RecordError: There is no record, one is broken, or two share an image.
        SourceError: A record names an image outside the folder.
        ImageError: An image is missing or broken.
    """
    seen: dict[str, str] = {}
    for sample in read_records(root / "records.jsonl", Sample):
        if sample.image.path in seen:
            raise RecordError(
                f"{root / 'records.jsonl'}: {sample.id} has the image of {seen[sample.image.path]}; expected one each. "
                "Build the dataset again"
            )
        seen[sample.image.path] = sample.id
        path = inside(root, sample.image.path)
        yield sample, path, header_size(path, max_px=sample.image.width_px * sample.image.height_px)
    if not seen:
        raise RecordError(f"{root / 'records.jsonl'}: holds no record; expected a dataset that `data build` wrote")


def read_built(root: Path) -> BuiltSet:
    """Read a dataset folder.

    Raises:
        RecordError: It lacks records.jsonl, a record is broken, or two share an image.
        SourceError: A record names an image outside the folder.
        ImageError: An image is missing or broken.
    """
    found = list(stored_samples(root))
    samples = tuple(sample for sample, _, _ in found)
    sizes = {sample.id: size_wh for sample, _, size_wh in found}
    files = {split.value: root / f"{split.value}.jsonl" for split in Split}
    conversations = {split: tuple(read_records(path, Conversation)) for split, path in files.items() if path.is_file()}
    for split, items in conversations.items():
        unknown = next((item.id for item in items if item.sample_id not in sizes), None)
        if unknown is not None:
            raise RecordError(
                f"{files[split]}: conversation {unknown} is about no sample of records.jsonl; build the dataset again"
            )
    licences = {sample.source: sample.licence for sample in samples}
    return BuiltSet(root, samples, sizes, conversations, dict(sorted(licences.items())))


def image_name(sample: Sample) -> str:
    """Path of the image below the dataset's folder of images."""
    return sample.image.path.removeprefix(FOLDER)


def label_of(finding: Finding) -> str:
    """Name of a finding's kind in an export: the term's id, with grade and site where they are known."""
    grade = f" grade {finding.grade}" if finding.grade else ""
    return f"{finding.term}{grade}{f' at {finding.site}' if finding.site else ''}"


def above_of(finding: Finding) -> str:
    """The levels above a finding's term, e.g. "pathological_findings/gastric_diseases"; "" at the first level."""
    return "/".join(reversed(Taxonomy.load().ancestors(finding.term)))


def present(sample: Sample) -> list[Finding]:
    """The findings that an export states; what is absent or uncertain has no place in these formats."""
    return [finding for finding in sample.findings if finding.status is Status.PRESENT]


def write_csv(path: Path, names: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """A CSV table, UTF-8, one header row."""
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(names)
        writer.writerows(rows)
