"""Image files to journals of what they look like, each read once: hash, measures, fingerprint, and a stored copy.

A journal has one line an image, written when all is done that concerns it, so that a build that was killed goes on
without doing an image twice. A line counts only while the file has the size and time of change that it had.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gastrovl.core.errors import ImageError
from gastrovl.core.types import Box
from gastrovl.data.allocator import keep_freed_memory
from gastrovl.data.colours import colour_histogram
from gastrovl.data.config import ImageOptions
from gastrovl.data.fingerprint import fingerprint_of_grey, small_grey_of
from gastrovl.data.imagequality import is_excluded, quality_row
from gastrovl.data.images import DECODING_ERRORS, BrokenImage, ImageFile, as_broken, open_image
from gastrovl.data.lesionmasks import FoundMask, Outcome, WantedMask, mask_name, store_mask
from gastrovl.data.measures import Measures, draft_size, measure, small_copies
from gastrovl.data.quality import QualityOptions
from gastrovl.data.storing import store_image

ORIENTATION = 0x0112  # EXIF tag
NO_PRINT: NDArray[np.uint8] = np.zeros(0, dtype=np.uint8)
Line = dict[str, Any]


@dataclass(frozen=True)
class LookTask:
    """Some images of one source, to be looked at by one worker.

    Attributes:
        source: Its name.
        images: Their order is that of the source.
        quality, storing: Settings of the build.
        stored: Folder of the source's images in the dataset.
        journal: File of the lines; what it holds already is not done again.
        masks: Folder of the source's masks in the dataset; None when none are `wanted`.
        wanted: By the names of the images.
    """

    source: str
    images: tuple[ImageFile, ...]
    quality: QualityOptions
    storing: ImageOptions
    stored: Path
    journal: Path
    masks: Path | None = None
    wanted: Mapping[str, tuple[WantedMask, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Look:
    """What a whole, decodable image looks like.

    Attributes:
        sha256: Of the file's bytes.
        print: `gastrovl.data.fingerprint`, uint8; empty when copies are not looked for.
        colours: `gastrovl.data.colours`, uint8.
        rotated: The file asks viewers to rotate it (EXIF); boxes and models use the pixels as stored.
        measures: Brightness, sharpness, bars, and what is painted on the frame; None when faults are not looked for.
    """

    sha256: str
    print: NDArray[np.uint8]
    colours: NDArray[np.uint8]
    rotated: bool
    measures: Measures | None


@dataclass(frozen=True, slots=True)
class Seen:
    """A line of a journal about an image that can be used, as far as the build needs it in memory.

    Attributes:
        excluded: `quality.faults` leaves it out.
        removed: It lost metadata when it was stored.
        masks: What became of those that were wanted.
    """

    sha256: str
    rotated: bool
    excluded: bool
    removed: bool
    masks: tuple[FoundMask, ...] = ()


def look_at(
    path: Path, content: bytes, options: QualityOptions, *, is_reduced: bool = False
) -> tuple[Look, Image.Image]:
    """Decode an image wholly and describe it; returns its pixels (RGB) too.

    Args:
        is_reduced: A large JPEG may be decoded to a half of its size or less; every byte of it is read all the same.

    Raises:
        ImageError: It is empty, truncated, no image, too large or too small.
        MissingExtraError: Copies are looked for and the hash library is absent.
    """
    with open_image(path, content, max_px=options.max_px) as picture:
        if min(picture.size) < options.min_side_px:
            width, height = picture.size
            raise ImageError(
                f"{path}: is only {width}x{height} px; remove it, or lower `quality.min_side_px` in the config "
                f"(now {options.min_side_px})"
            )
        try:
            rotated = picture.getexif().get(ORIENTATION, 1) != 1
            if is_reduced and (smaller := draft_size(picture.size)):
                picture.draft("RGB", smaller)
            picture.load()
            pixels = picture if picture.mode == "RGB" else picture.convert("RGB")
            pixels.format = picture.format  # a copy that is encoded anew keeps it
        except DECODING_ERRORS as error:
            raise ImageError(
                f"{path}: truncated or damaged ({error}); copy it again from the source, or set "
                "`quality.on_broken_image: skip`"
            ) from error
    small = small_copies(pixels)
    look = Look(
        sha256=hashlib.sha256(content).hexdigest(),
        print=NO_PRINT if options.copies is None else fingerprint_of_grey(small_grey_of(small.channels[0])),
        colours=colour_histogram(small.thumbnail),
        rotated=rotated,
        measures=None if options.faults is None else measure(small),
    )
    return look, pixels


def fill_journal(task: LookTask) -> int:
    """Look at the images of a task that its journal does not hold yet, and store them; returns how many it has now.

    Raises:
        OSError: A file cannot be read or written.
    """
    keep_freed_memory()
    task.journal.parent.mkdir(parents=True, exist_ok=True)
    done = {line["name"] for line in _valid_lines(task)}
    with task.journal.open("a+b") as stream:
        _end_torn_line(stream)
        for image in task.images:
            if image.name not in done:
                stream.write(json.dumps(_look_and_store(image, task), ensure_ascii=False).encode() + b"\n")
                stream.flush()
    return len(task.images)


def read_journal(task: LookTask) -> Iterator[Line]:
    """The lines of a finished task, in the order of its images; of several about one image, the last."""
    with task.journal.open("rb") as stream:
        lines = {line["name"]: line for line in map(_parsed, stream) if line}
    for image in task.images:
        yield lines[image.name]


def seen_of(line: Line) -> Seen:
    """What the build keeps of the line of an image that can be used."""
    row = line["quality"]
    masks = tuple(FoundMask(term, Outcome(outcome), *rest) for term, outcome, *rest in line.get("masks", ()))
    return Seen(row["sha256"], line["rotated"], row["action"] == "exclude", bool(row["metadata_removed"]), masks)


def broken_of(line: Line) -> BrokenImage | None:
    """Why the image of a line cannot be used, or None when it can."""
    return BrokenImage(*line["broken"]) if "broken" in line else None


def bytes_of(line: Line, key: str) -> bytes:
    """The `print` or the `colours` of a line."""
    return base64.b64decode(line[key])


def _look_and_store(image: ImageFile, task: LookTask) -> Line:
    line: Line = {"name": image.name, **_stamp(image.path), **_mask_stamps(image.name, task)}
    try:
        content = image.path.read_bytes()
        faults = task.quality.faults
        is_changed = task.storing.max_side_px is not None or (faults is not None and faults.masks)
        look, pixels = look_at(image.path, content, task.quality, is_reduced=not is_changed)
        removed, stored_masks = None, []
        if not is_excluded(look.measures, faults):
            target = task.stored / image.name
            masked = () if look.measures is None or faults is None else look.measures.to_mask(faults)
            is_inpainted = faults is not None and faults.inpaint
            removed = store_image(image, content, pixels, target, task.storing, masked, inpaint=is_inpainted)
            stored_masks = _store_masks(image, task, masked)
    except ImageError as error:
        broken = as_broken(image.path, error)
        return {**line, "broken": [broken.path, broken.reason, broken.remedy]}
    except FileNotFoundError:
        return {**line, "broken": [str(image.path), "missing", "copy the image there or delete its annotation"]}
    return {
        **line,
        "rotated": look.rotated,
        "quality": quality_row(f"{task.source}/{image.key}", image, look, faults, removed),
        "print": base64.b64encode(look.print.tobytes()).decode(),
        "colours": base64.b64encode(look.colours.tobytes()).decode(),
        **({"masks": stored_masks} if stored_masks else {}),
    }


def _store_masks(image: ImageFile, task: LookTask, painted: Sequence[Box]) -> list[list[str]]:
    """Term, outcome, reason and hash of each mask of an image."""
    wanted = task.wanted.get(image.name, ())
    if task.masks is None or not wanted:
        return []
    return [
        [found.term, found.outcome.value, found.why, found.sha256]
        for found in (
            store_mask(one, image, task.masks / mask_name(image, one.term), task.storing.max_side_px, painted)
            for one in wanted
        )
    ]


def _mask_stamps(name: str, task: LookTask) -> Line:
    """What decides the masks of an image; nothing where none are wanted."""
    wanted = task.wanted.get(name, ())
    return {"mask_files": [one.stamp() for one in wanted]} if wanted else {}


def _stamp(path: Path) -> Line:
    """Size and time of change; of a file that is not there, neither."""
    try:
        status = path.stat()
    except OSError:
        return {"bytes": None, "changed_ns": None}
    return {"bytes": status.st_size, "changed_ns": status.st_mtime_ns}


def _valid_lines(task: LookTask) -> Iterator[Line]:
    """Whole lines about the images of a task, and their masks, as they are now."""
    paths = {image.name: image.path for image in task.images}
    if not task.journal.is_file():
        return
    with task.journal.open("rb") as stream:
        for text in stream:
            line = _parsed(text)
            path = paths.get(line.get("name", ""))
            if path is None or _stamp(path) != {key: line.get(key) for key in ("bytes", "changed_ns")}:
                continue
            if line.get("mask_files", []) == _mask_stamps(line["name"], task).get("mask_files", []):
                yield line


def _parsed(text: bytes) -> Line:
    """A line of a journal; a torn one, which a killed process left, says nothing."""
    try:
        line = json.loads(text)
    except ValueError:
        return {}
    return line if isinstance(line, dict) else {}


def _end_torn_line(stream: IO[bytes]) -> None:
    """Begin on a line of its own behind one that a killed process left half written."""
    if stream.seek(0, io.SEEK_END):
        stream.seek(-1, io.SEEK_END)
        if stream.read(1) != b"\n":
            stream.write(b"\n")
