"""Looks of images to the lines of quality.jsonl, and to the decision which images stay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gastrovl.data.images import ImageFile
from gastrovl.data.measures import Fault, FaultOptions, Measures

if TYPE_CHECKING:
    from gastrovl.data.looks import Look


def is_excluded(measures: Measures | None, options: FaultOptions | None) -> bool:
    """Whether a fault of the image is one that the build leaves out; never, where faults are not looked for."""
    if measures is None or options is None:
        return False
    return any(options.action(fault) == "exclude" for fault in measures.faults(options))


def quality_row(
    id: str, image: ImageFile, look: Look, options: FaultOptions | None, removed: Sequence[str] | None
) -> dict[str, Any]:
    """One line of quality.jsonl; without `options` or measures it says nothing of faults.

    Args:
        removed: Kinds of metadata that the stored copy lost; None when the image is not stored.
    """
    width, height = image.size_wh or (0, 0)
    row = {"id": id, "sha256": look.sha256, "width_px": width, "height_px": height}
    action = "unused" if removed is None else "keep"
    measures: Measures | None = look.measures
    if measures is not None and options is not None:
        row |= measures.row() | {"faults": [fault.value for fault in measures.faults(options)]}
        if is_excluded(measures, options):
            action = "exclude"
        elif action == "keep" and measures.to_mask(options):
            action = "mask"
    return row | {"action": action, "metadata_removed": list(removed or ())}


def count_faults(found: Mapping[str, int], options: FaultOptions | None) -> dict[str, dict[str, Any]]:
    """How many images have each fault, and what was done about it; empty where faults are not looked for."""
    if options is None:
        return {}
    return {fault.value: {"images": found.get(fault.value, 0), "action": options.action(fault)} for fault in Fault}
