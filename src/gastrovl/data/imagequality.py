"""Looks of images to the lines of quality.jsonl, and to the decision which images stay."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from gastrovl.data.images import ImageFile
from gastrovl.data.measures import FaultOptions, Measures

if TYPE_CHECKING:
    from gastrovl.data.looks import Look


def is_excluded(measures: Measures, options: FaultOptions) -> bool:
    """Whether a fault of the image is one that the build leaves out."""
    return any(options.action(fault) == "exclude" for fault in measures.faults(options))


def quality_row(
    id: str, image: ImageFile, look: Look, options: FaultOptions, removed: Sequence[str] | None
) -> dict[str, Any]:
    """One line of quality.jsonl.

    Args:
        removed: Kinds of metadata that the stored copy lost; None when the image is not stored.
    """
    width, height = image.size_wh or (0, 0)
    excluded = is_excluded(look.measures, options)
    masked = look.measures.to_mask(options)
    return {
        "id": id,
        "sha256": look.sha256,
        "width_px": width,
        "height_px": height,
        **look.measures.row(),
        "faults": [fault.value for fault in look.measures.faults(options)],
        "action": "exclude" if excluded else "unused" if removed is None else "mask" if masked else "keep",
        "metadata_removed": list(removed or ()),
    }
