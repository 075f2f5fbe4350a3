"""What an audit found, as a record that is written to audit.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from gastrovl.core.types import Record, Split

SCHEMA = "gastrovl/audit/1"
BYTE_EQUAL = "byte-equal"

Crossing = Literal["across splits", "across folders", "across sources", "within"]
LEAKS: tuple[Crossing, ...] = ("across splits", "across folders")
CROSSINGS: tuple[Crossing, ...] = ("across splits", "across folders", "across sources", "within")  # the worst first


class AuditedImage(Record):
    """One image as the audit sees it; not written to disk.

    Attributes:
        id: Unique among the images.
        path: Where to read it for a thumbnail.
        sha256: Of the file's bytes.
        folder: The audited folder it lies in; "" when only one is audited.
        source: Dataset it comes from; "" when unknown.
        group: Patient, exam or video, as far as somebody stated it.
        labels: What is said about it; empty when nothing is.
    """

    id: str = Field(min_length=1)
    path: Path
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    folder: str = ""
    source: str = ""
    split: Split | None = None
    group: str | None = None
    labels: tuple[str, ...] = ()


class CopyPair(Record):
    """Two images that show the same.

    Attributes:
        a, b: Their ids.
        likeness: In [0, 1]; 1 for equal files.
        how: "byte-equal", or what `gastrovl.data.copies` says, e.g. "mirrored".
        labels_differ: Both have labels, and not the same ones.
        family: Least id of all images that copies tie to these two.
    """

    a: str
    b: str
    likeness: float = Field(ge=0, le=1)
    how: str
    crossing: Crossing
    labels_differ: bool
    family: str


class Place(Record):
    """A split of a folder, a folder or a source: its images, and how many of them have a copy in it or elsewhere.

    Attributes:
        folder: The audited folder; "" when only one is audited.
        split: The split, or None.
    """

    name: str
    folder: str
    split: Split | None
    images: int
    copies_inside: int
    copies_elsewhere: int


class Overlap(Record):
    """`copies` of the `images` in `of` have a copy in `inside`."""

    of: str
    inside: str
    images: int = Field(gt=0)
    copies: int

    @property
    def share(self) -> float:
        return self.copies / self.images


class LabelConflict(Record):
    """Byte-equal images that are not labelled alike: id -> labels."""

    labels: dict[str, tuple[str, ...]]


class Unread(Record):
    """A file that is not part of the audit, and why."""

    path: str
    reason: str


class AuditReport(Record):
    """What an audit found.

    Attributes:
        verdict: The result in words.
        has_leak: A copy or a stated group stands in two splits, or a copy in two of the audited folders.
        by_folder, by_source, by_split: Images of each; those without a split count under "".
        places: The rows and columns of `crossings`.
        crossings: Between places, and within each; those without a copy are left out.
        overlaps: Between splits, and between folders.
        exact_duplicates: Ids of byte-equal images.
        pairs_by_crossing, pairs_by_how: Numbers of pairs of copies, all of them.
        pairs_labelled_differently: Of them, how many have two different sets of labels.
        pairs: Those spelled out: the worst crossing first, then the most alike first. A long list is cut, see `notes`.
        families: Sets of two or more images tied by copies.
        stated_groups: Groups (patients, videos) that records state.
        unread: Files left out.
        notes: How the folders were read, and what the numbers do not say.
    """

    verdict: str
    has_leak: bool
    images: int
    images_with_copy: int
    by_folder: dict[str, int]
    by_source: dict[str, int]
    by_split: dict[str, int]
    places: tuple[Place, ...]
    crossings: tuple[Overlap, ...]
    overlaps: tuple[Overlap, ...]
    exact_duplicates: tuple[tuple[str, ...], ...]
    label_conflicts: tuple[LabelConflict, ...]
    pairs_by_crossing: dict[Crossing, int]
    pairs_by_how: dict[str, int]
    pairs_labelled_differently: int
    pairs: tuple[CopyPair, ...]
    families: int
    families_across_splits: int
    families_across_folders: int
    largest_family: int
    stated_groups: int
    stated_groups_across_splits: tuple[str, ...]
    unread: tuple[Unread, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def n_pairs(self) -> int:
        return sum(self.pairs_by_crossing.values())


def report_json(report: AuditReport) -> str:
    """The report as JSON text with its schema tag."""
    content: dict[str, Any] = {"schema": SCHEMA, **report.model_dump(mode="json")}
    for row in (*content["crossings"], *content["overlaps"]):
        row["share"] = round(row["copies"] / row["images"], 6)
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"
