"""Folders of images to their audit: every image is read once, fingerprinted and forgotten."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gastrovl.core.errors import ImageError, SourceError
from gastrovl.core.files import sha256_file
from gastrovl.core.parallel import in_order
from gastrovl.data.audit.compare import Progress, audit_images
from gastrovl.data.audit.folders import FoundImage, check_apart, find_images, printable, short_names
from gastrovl.data.audit.report import AuditedImage, AuditReport, Unread
from gastrovl.data.copies import CopyOptions
from gastrovl.data.fingerprint import fingerprint
from gastrovl.data.images import DECODING_ERRORS, open_image

MAX_PX = 50_000_000
MIN_SIDE_PX = 32  # below it there is too little to tell copies by


def audit_folders(
    folders: Sequence[Path],
    *,
    options: CopyOptions | None = None,
    takes_annotations: bool = False,
    max_px: int = MAX_PX,
    progress: Progress | None = None,
) -> tuple[AuditReport, list[AuditedImage]]:
    """Audit one folder, or several beside each other.

    Args:
        folders: Each one that `gastrovl data build` wrote (its records are read) or any folder of images.
        takes_annotations: Also take folders named masks, annotations and the like.
        max_px: Largest width x height that is decoded.
        progress: Called with (step, done, total).

    Returns:
        The report, and the images it speaks of, for a page.

    Raises:
        SourceError: A folder is missing, holds no image, is given twice or lies inside another.
        RecordError: A records.jsonl is broken.
        ImageError: No image at all can be decoded.
    """
    if not folders:
        raise SourceError("no folder is named; expected one or more to audit")
    check_apart(folders)
    found = [find_images(folder, takes_annotations=takes_annotations) for folder in folders]
    names = short_names(folders)
    images: list[AuditedImage] = []
    prints: list[NDArray[np.uint8]] = []
    unread: list[Unread] = []
    notes: dict[str, list[str]] = {}
    total, done = sum(len(one.images) for one in found), 0
    for name, folder in zip(names, found, strict=True):
        start = f"{name}: " if name else ""
        for note in folder.notes:
            notes.setdefault(note, []).extend([name] if name else [])
        unread += [Unread(path=start + one.path, reason=one.reason) for one in folder.unread]
        for image, look in zip(folder.images, in_order(_look, ((one, max_px) for one in folder.images)), strict=True):
            if isinstance(look, Unread):
                unread.append(Unread(path=start + image.name, reason=look.reason))
            else:
                images.append(_audited(image, name, look.sha256))
                prints.append(look.print)
            done += 1
            if progress:
                progress("reading images", done, total)
    if not images:
        raise ImageError(
            f"none of the {total:,} images can be read, e.g. {unread[0].path}: {unread[0].reason}; expected whole "
            "images. Copy them again from their source"
        )
    report = audit_images(images, np.stack(prints), options or CopyOptions(), progress)
    said = [": ".join(part for part in (", ".join(names), note) if part) for note, names in notes.items()]
    return report.model_copy(update={"unread": tuple(unread), "notes": (*report.notes, *said)}), images


def digests(images: Sequence[AuditedImage]) -> dict[str, str]:
    """Folder -> one SHA-256 over the names and bytes of its images; for a manifest."""
    found = {}
    for folder in Counter(one.folder for one in images):
        lines = sorted(f"{one.id} {one.sha256}\n" for one in images if one.folder == folder)
        found[folder or "images"] = hashlib.sha256("".join(lines).encode()).hexdigest()
    return found


@dataclass(frozen=True)
class _Look:
    sha256: str
    print: NDArray[np.uint8]


def _look(asked: tuple[FoundImage, int]) -> _Look | Unread:
    image, max_px = asked
    try:
        with open_image(image.path, max_px=max_px) as picture:
            if min(picture.size) < MIN_SIDE_PX:
                return Unread(path=image.name, reason=f"only {picture.width} x {picture.height} px")
            pixels = picture.convert("RGB")
        return _Look(image.sha256 or sha256_file(image.path), fingerprint(pixels))
    except ImageError as error:
        reason = str(error).removeprefix(f"{image.path}: ").partition("; ")[0]
    except DECODING_ERRORS as error:
        reason = f"truncated or damaged ({error})"
    return Unread(path=image.name, reason=printable(reason))


def _audited(image: FoundImage, folder: str, sha256: str) -> AuditedImage:
    return AuditedImage(
        id=f"{folder}: {image.name}" if folder else image.name,
        path=image.path,
        sha256=sha256,
        folder=folder,
        source=image.source,
        split=image.split,
        group=image.group,
        labels=image.labels,
    )
