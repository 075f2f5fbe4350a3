"""Folders of images, ours or anybody's, to images with split, group and labels as far as the folder says.

A folder with records.jsonl is one of ours and is read by its records. Of any other folder the names are read: a folder
called train, val or test is a split, the folder next to the image is its class. What was inferred is said in notes.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from gastrovl.core.errors import RecordError, SourceError
from gastrovl.core.records import read_records
from gastrovl.core.types import Finding, Sample, Split, Status
from gastrovl.data.audit.report import Unread
from gastrovl.data.images import SUFFIXES

RECORDS = "records.jsonl"
_SPLIT_NAMES = {
    "train": Split.TRAIN,
    "training": Split.TRAIN,
    "val": Split.VAL,
    "valid": Split.VAL,
    "validation": Split.VAL,
    "dev": Split.VAL,
    "test": Split.TEST,
    "testing": Split.TEST,
}
_FILLING = {"image", "images", "img", "imgs", "frame", "frames", "data", "dataset", "set", "split", "jpegimages"}
_NO_LABEL = {"unlabelled", "unlabeled", "unknown", "none"}
_ANNOTATION = {"mask", "masks", "annotation", "annotations", "segmentation", "segmentations", "groundtruth", "gt"}


@dataclass(frozen=True)
class FoundImage:
    """An image to read, and what is known of it before it is read.

    Attributes:
        name: Unique in its folder: the record's id, or the path below the folder.
        sha256: Of the original file where a record states it; None: of the file that lies there.
    """

    path: Path
    name: str
    source: str = ""
    split: Split | None = None
    group: str | None = None
    labels: tuple[str, ...] = ()
    sha256: str | None = None


@dataclass
class FoundFolder:
    """The images of one folder, sorted by name, what was left out, and how the folder was read."""

    root: Path
    images: list[FoundImage] = field(default_factory=list)
    unread: list[Unread] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def find_images(root: Path, *, takes_annotations: bool = False) -> FoundFolder:
    """The images of a folder.

    Args:
        takes_annotations: Also take folders named masks, annotations and the like, whose pictures mostly are no frames.

    Raises:
        SourceError: It is no folder, or holds no image.
        RecordError: Its records.jsonl is broken.
    """
    root = Path(root)
    if not root.is_dir():
        raise SourceError(
            f"{root}: no such folder; expected a folder of images, or one that `gastrovl data build` wrote"
        )
    found = _read_records(root) if (root / RECORDS).is_file() else _walk(root, takes_annotations=takes_annotations)
    if not found.images:
        left_out = f"; {len(found.unread):,} files were left out, e.g. {found.unread[0].path}" if found.unread else ""
        raise SourceError(
            f"{root}: holds no image that can be audited{left_out}; expected files ending in {', '.join(SUFFIXES)}. "
            "Name the folder that holds the images"
            + ("" if takes_annotations else ", or pass --masks if it holds masks only")
        )
    return found


def check_apart(folders: Sequence[Path]) -> None:
    """Refuse a folder that is given twice or lies inside another.

    Raises:
        SourceError: Says which two.
    """
    real = [Path(folder).resolve() for folder in folders]
    for place, one in enumerate(real):
        for before, other in enumerate(real[:place]):
            if one == other:
                raise SourceError(f"{folders[place]} and {folders[before]} are the same folder; name each folder once")
            if one.is_relative_to(other) or other.is_relative_to(one):
                raise SourceError(
                    f"{folders[before]} and {folders[place]} lie one inside the other, so images would be compared "
                    "with themselves; name folders that lie apart, or the outer one alone"
                )


def short_names(folders: Sequence[Path]) -> list[str]:
    """The last parts of each path, as many as tell all of them apart; with one folder only: ""."""
    if len(folders) == 1:
        return [""]
    parts = [printable(Path(folder).resolve().as_posix()).split("/") for folder in folders]
    for count in range(1, max(map(len, parts)) + 1):
        names = ["/".join(one[-count:]) for one in parts]
        if len(set(names)) == len(names) and not any(name.lower() in _FILLING for name in names):
            break
    return names


def title_of(folders: Sequence[Path]) -> str:
    """What is audited, for a heading: the last part of each path, two of them where the last alone says little."""
    names = []
    for folder in folders:
        parts = printable(Path(folder).resolve().as_posix()).strip("/").split("/")
        says_little = parts[-1].lower() in _FILLING or split_named(parts[-1]) is not None
        names.append("/".join(parts[-2 if says_little else -1 :]))
    return " and ".join(names)


def printable(name: str) -> str:
    """A file name as text that can be written as UTF-8; bytes that are no text become \\xNN."""
    return os.fsencode(name).decode("utf-8", errors="backslashreplace")


def split_named(name: str) -> Split | None:
    """The split that a folder's name means, if any: "train", "Test_images", "val2017"; not "train_test", "testis"."""
    words = [word for word in re.split(r"[^a-z]+", name.lower()) if word]
    splits = {_SPLIT_NAMES[word] for word in words if word in _SPLIT_NAMES}
    others = [word for word in words if word not in _SPLIT_NAMES and word not in _FILLING]
    return splits.pop() if len(splits) == 1 and not others else None


def _read_records(root: Path) -> FoundFolder:
    found = FoundFolder(root)
    real = root.resolve()
    if not (root / RECORDS).resolve().is_relative_to(real):
        raise RecordError(f"{root / RECORDS}: leads out of {root}; copy the file into the folder")
    for sample in read_records(root / RECORDS, Sample):
        path = root / sample.image.path
        if not path.resolve().is_relative_to(real):
            found.unread.append(Unread(path=sample.image.path, reason="leads out of the folder"))
            continue
        labels = tuple(sorted({_label(finding) for finding in sample.findings}))
        found.images.append(
            FoundImage(path, sample.id, sample.source, sample.split, sample.group, labels, sample.image.sha256)
        )
    found.images.sort(key=lambda one: one.name)
    found.notes.append(f"splits, groups and labels are those of {RECORDS}")
    return found


def _label(finding: Finding) -> str:
    said = {Status.PRESENT: "", Status.ABSENT: "no ", Status.UNCERTAIN: "perhaps "}[finding.status]
    return said + finding.term


def _walk(root: Path, *, takes_annotations: bool) -> FoundFolder:
    found = FoundFolder(root)
    real = root.resolve()
    left_out: Counter[str] = Counter()
    by_split: Counter[str] = Counter()
    for path in _image_paths(root, found):
        name = PurePosixPath(path.relative_to(root).as_posix())
        folders = name.parts[:-1]
        annotation = next((part for part in folders if _is_annotation(part)), None)
        if annotation is not None and not takes_annotations:
            left_out[annotation] += 1
            continue
        shown = printable(str(name))
        if not path.resolve().is_relative_to(real):
            found.unread.append(Unread(path=shown, reason="leads out of the folder"))
            continue
        split, said_by = _split_of(root, folders)
        if split is not None:
            by_split[f'"{printable(said_by)}" is {split.value}'] += 1
        found.images.append(FoundImage(path, shown, split=split, labels=_class_of(folders)))
    found.images.sort(key=lambda one: one.name)
    found.notes += _walk_notes(found.images, by_split, left_out)
    return found


def _image_paths(root: Path, found: FoundFolder) -> Iterator[Path]:
    """Files with an image's suffix; hidden folders are passed over, folders behind links are noted and not entered."""

    def note(error: OSError) -> None:
        found.unread.append(Unread(path=printable(str(error.filename)), reason=f"cannot be listed ({error.strerror})"))

    for folder, inner, files in os.walk(root, onerror=note):
        here = Path(folder)
        for name in sorted(inner):
            if (here / name).is_symlink():
                shown = printable((here / name).relative_to(root).as_posix())
                found.unread.append(Unread(path=shown, reason="a link to a folder; not entered"))
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        for name in sorted(files):
            if name.lower().endswith(SUFFIXES) and not name.startswith("."):
                yield here / name


def _is_annotation(name: str) -> bool:
    return re.sub(r"[^a-z]", "", name.lower()) in _ANNOTATION


def _split_of(root: Path, folders: Sequence[str]) -> tuple[Split | None, str]:
    """The split, and the folder that says so: the outermost below the root, or the root itself."""
    for name in (*folders, root.resolve().name):
        split = split_named(name)
        if split is not None:
            return split, name
    return None, ""


def _class_of(folders: Sequence[str]) -> tuple[str, ...]:
    """The innermost folder that is neither a split nor called images, frames or the like."""
    for name in reversed(folders):
        words = {word for word in re.split(r"[^a-z]+", name.lower()) if word}
        if words and words <= _NO_LABEL:
            return ()
        if split_named(name) is None and not words <= _FILLING:
            return (printable(name),)
    return ()


def _walk_notes(images: Sequence[FoundImage], by_split: Counter[str], left_out: Counter[str]) -> list[str]:
    notes = []
    if by_split:
        notes.append("split by folder name: " + ", ".join(f"{said} ({n:,})" for said, n in sorted(by_split.items())))
    else:
        notes.append("no folder is called train, val or test, so no split is known")
    if without := sum(one.split is None for one in images) if by_split else 0:
        notes.append(f"{without:,} images lie in no such folder and have no split")
    if classes := {label for one in images for label in one.labels}:
        notes.append(f"label by folder name: {len(classes):,} classes")
    notes.append("patients and videos are not known: their frames in two splits are found only if they look alike")
    notes += [
        f'left out: {count:,} file(s) in folders called "{printable(name)}" (--masks takes them)'
        for name, count in sorted(left_out.items())
    ]
    return notes
