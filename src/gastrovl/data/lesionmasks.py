"""Mask files of a source to one mask a term beside the stored image: united, checked against boxes, changed alike."""

from __future__ import annotations

import hashlib
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gastrovl.core.errors import SourceError
from gastrovl.core.geometry import to_whole_pixels
from gastrovl.core.types import Box, Finding, Status
from gastrovl.data.formats.masks import white_pixels
from gastrovl.data.formats.textlines import inside
from gastrovl.data.harmonise import LabelledImage
from gastrovl.data.images import ImageFile
from gastrovl.data.masking import covered
from gastrovl.data.source import MaskRule
from gastrovl.data.statistics import markdown_table

MASKS = "masks"
HEADING = "## Masks"
LEAST_INSIDE = 0.5  # of a mask's white pixels that lie in its boxes; every box must hold some, too
_SHOWN = 20


class Outcome(StrEnum):
    """What became of a mask. APART: it and the boxes of its term speak of different places."""

    STORED = "stored"
    ABSENT = "absent"
    EMPTY = "empty"
    APART = "apart"
    BROKEN = "broken"


@dataclass(frozen=True, slots=True)
class WantedMask:
    """A mask that a dataset may hold: everything of one term in one image.

    Attributes:
        files: What it is united of, one for each source label of the term's boxes; any of them may be absent.
        threshold: A pixel brighter than this is white.
    """

    term: str
    files: tuple[Path, ...]
    boxes: tuple[Box, ...]
    threshold: int = 127

    def stamp(self) -> list[Any]:
        """All that decides what becomes of it, as JSON holds it."""
        files: list[list[Any]] = []
        for path in self.files:
            status = path.stat() if path.is_file() else None
            files.append([str(path), status.st_size, status.st_mtime_ns] if status else [str(path)])
        return [self.term, self.threshold, [list(box.xyxy) for box in self.boxes], files]


@dataclass(frozen=True, slots=True)
class FoundMask:
    """What became of a wanted mask; `sha256` is that of the stored file."""

    term: str
    outcome: Outcome
    why: str = ""
    sha256: str = ""


def mask_name(image: ImageFile, term: str) -> str:
    """Name of a stored mask below the folder of its source's masks."""
    return f"{image.key}.{term}.png"


def wanted_masks(
    labelled: Iterable[LabelledImage], rule: MaskRule | None, root: Path
) -> dict[str, tuple[WantedMask, ...]]:
    """The masks to look for, by the names of the images: of each present term with boxes that `rule` speaks of.

    Raises:
        SourceError: A mask would lie outside `root`, or belong to two images.
    """
    if rule is None:
        return {}
    found: dict[str, tuple[WantedMask, ...]] = {}
    owner: dict[Path, str] = {}
    for one in labelled:
        wanted = tuple(_wanted(one, rule, root))
        for path in (path for mask in wanted for path in mask.files):
            if owner.setdefault(path, one.image.name) != one.image.name:
                raise SourceError(
                    f"{path}: is the mask of {owner[path]} and of {one.image.name}; expected one image a mask. Use "
                    "{name}, which has the folders, in `masks.files` of the source description"
                )
        if wanted:
            found[one.image.name] = wanted
    return found


def _wanted(labelled: LabelledImage, rule: MaskRule, root: Path) -> Iterable[WantedMask]:
    boxes: dict[str, list[Box]] = {}
    for finding in labelled.findings:
        if finding.status is Status.PRESENT and finding.boxes:
            boxes.setdefault(finding.term, []).extend(finding.boxes)
    for term, places in boxes.items():
        labels = labelled.boxed[term]
        if not rule.labels or any(label in rule.labels for label in labels):
            names = dict.fromkeys(rule.file_of(labelled.image, label) for label in labels)
            yield WantedMask(term, tuple(inside(root, name) for name in names), tuple(places), rule.threshold)


def store_mask(
    wanted: WantedMask, image: ImageFile, target: Path, max_side_px: int | None, painted: Sequence[Box]
) -> FoundMask:
    """Write the mask of a term as an 8-bit grey PNG (0 or 255) of the size of the stored image, if it can be used.

    Args:
        target: Replaced when it is there, and removed when the mask cannot be used.
        max_side_px: The longer side to which the stored image is scaled down; a pixel stays white when half of it is.
        painted: Places that are painted over in the stored image: nothing is seen there, so the mask is black.
    """
    target.unlink(missing_ok=True)
    if not all(path.is_file() for path in wanted.files):
        return FoundMask(wanted.term, Outcome.ABSENT)
    try:
        mask = np.logical_or.reduce([white_pixels(path, image, wanted.threshold) for path in wanted.files])
    except SourceError as error:
        return FoundMask(wanted.term, Outcome.BROKEN, str(error))
    where = ", ".join(str(path) for path in wanted.files)
    if not mask.any():
        return FoundMask(wanted.term, Outcome.EMPTY, f"{where}: no pixel above {wanted.threshold}")
    if difference := _difference(mask, wanted.boxes):
        return FoundMask(wanted.term, Outcome.APART, f"{where}: {difference}")
    mask &= ~covered(painted, (mask.shape[1], mask.shape[0]))
    picture = Image.fromarray(mask.astype(np.uint8) * 255)
    if max_side_px is not None:
        picture.thumbnail((max_side_px, max_side_px), Image.Resampling.BOX, reducing_gap=None)
        picture = picture.point([0] * 128 + [255] * 128)
    if picture.getbbox() is None:
        return FoundMask(wanted.term, Outcome.EMPTY, f"{where}: nothing is left in the smaller or painted copy")
    target.parent.mkdir(parents=True, exist_ok=True)
    picture.save(target, format="PNG", compress_level=1, compress_type=zlib.Z_RLE)  # small and fast for two values
    return FoundMask(wanted.term, Outcome.STORED, sha256=hashlib.sha256(target.read_bytes()).hexdigest())


def _difference(mask: NDArray[np.bool_], boxes: Sequence[Box]) -> str:
    """Why mask and boxes are of different places, or "" when they agree."""
    in_boxes = np.zeros_like(mask)
    for number, box in enumerate(boxes, start=1):
        x0, y0, x1, y1 = to_whole_pixels(box, (mask.shape[1], mask.shape[0]))
        if not mask[y0:y1, x0:x1].any():
            return f"box {number} of {len(boxes)}, {x0} {y0} {x1} {y1} px, holds no white pixel"
        in_boxes[y0:y1, x0:x1] = True
    share = np.count_nonzero(mask & in_boxes) / np.count_nonzero(mask)
    return "" if share >= LEAST_INSIDE else f"only {share:.0%} of the white pixels lie in its boxes"


def with_masks(
    findings: Sequence[Finding], found: Sequence[FoundMask], image: ImageFile, folder: str
) -> Sequence[Finding]:
    """Findings that name the stored masks of their terms, which lie in `folder` of the dataset."""
    stored = {mask.term for mask in found if mask.outcome is Outcome.STORED}
    return [
        finding.model_copy(update={"mask": f"{folder}/{mask_name(image, finding.term)}"})
        if finding.term in stored and finding.status is Status.PRESENT and finding.boxes
        else finding
        for finding in findings
    ]


def stop_at_broken_masks(found: Iterable[FoundMask]) -> None:
    """Refuse masks that cannot be read or have another size than their images.

    Raises:
        SourceError: With the first of them.
    """
    broken = [mask.why for mask in found if mask.outcome is Outcome.BROKEN]
    if broken:
        more = f"\n  ... and {len(broken) - _SHOWN} more" if len(broken) > _SHOWN else ""
        raise SourceError(
            f"{len(broken)} masks cannot be used:\n  " + "\n  ".join(broken[:_SHOWN]) + f"{more}\nMend them, or set "
            "`quality.on_broken_image: skip` in the config to go on without them"
        )


def count_masks(found: Mapping[str, Sequence[FoundMask]]) -> dict[str, dict[str, int]]:
    """How many masks of each source came to each outcome."""
    return {
        source: {outcome.value: Counter(mask.outcome for mask in masks)[outcome] for outcome in Outcome}
        for source, masks in found.items()
    }


def list_masks(found: Mapping[str, Sequence[FoundMask]]) -> dict[str, dict[str, Any]]:
    """What `quality.json` says of the masks of each source: counts, and why masks were left out."""
    return {
        source: {**counts, "left_out": [mask.why for mask in found[source] if mask.why]}
        for source, counts in count_masks(found).items()
    }


def digest_masks(masks: Iterable[FoundMask]) -> str:
    """SHA-256 over those of the stored masks, in their order."""
    digest = hashlib.sha256()
    for mask in masks:
        digest.update(mask.sha256.encode())
    return digest.hexdigest()


def mask_section(counts: Mapping[str, Mapping[str, int]]) -> str:
    """The card's section about masks."""
    rows = [[f"`{source}`", *(one[outcome.value] for outcome in Outcome)] for source, one in counts.items()]
    table = markdown_table(["source", "stored", "no file", "empty", "apart from its boxes", "broken"], rows)
    return (
        f"{HEADING}\n\n`masks/` shows where a term with boxes is, as far as the sources have masks; findings in "
        "`records.jsonl` and REC targets name them under `mask`. White is everything of the term in the image. A mask "
        "that shows nothing, leaves a box of its term empty, or has less than "
        f"{LEAST_INSIDE:.0%} of its white in the boxes is left out. One for each term of an image:\n\n{table}"
    )
