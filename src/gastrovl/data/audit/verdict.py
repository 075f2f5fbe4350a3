"""An audit report to its result in a few sentences, the share that a reviewer asks for first."""

from __future__ import annotations

import math
from collections.abc import Iterable

from gastrovl.data.audit.report import LEAKS, AuditReport, Overlap

SURE = 0.9  # below it, frames of EDD2020 and HyperKvasir that are alike by chance begin to appear


def verdict(report: AuditReport) -> str:
    """The result in words."""
    found = [*_across_splits(report), *_across_folders(report), *_stated(report)]
    most_alike = max((pair.likeness for pair in report.pairs if pair.crossing in LEAKS), default=1.0)
    if found and most_alike < SURE and not report.stated_groups_across_splits:
        return (
            f"POSSIBLE LEAK: {' '.join(found)} None of these pairs has a likeness above {_cut(most_alike)}: "
            "look at them before you believe it."
        )
    if found:
        return "LEAK: " + " ".join(found)
    if not report.n_pairs:
        return f"No copies found among {report.images:,} images."
    families = f"{report.families:,} famil{'y' if report.families == 1 else 'ies'}"
    copies = f"{report.images_with_copy:,} of {report.images:,} images have a copy, in {families}"
    if len([name for name in report.by_split if name]) > 1:
        return f"No copy crosses the splits. Inside them, {copies}."
    if len(report.by_folder) > 1:
        return f"No copy crosses the folders. Inside them, {copies}."
    return f"No splits to compare. {copies}; a family belongs in one split."


def percent(overlap: Overlap) -> str:
    """Its share as "4.0 %", and never "0.0 %" when there is a copy or "100.0 %" when an image has none."""
    if 0 < overlap.share < 0.0005:
        return "< 0.1 %"
    if 0.9995 <= overlap.share < 1:
        return "> 99.9 %"
    return f"{100 * overlap.share:.1f} %"


def _across_splits(report: AuditReport) -> Iterable[str]:
    if not report.pairs_by_crossing["across splits"]:
        return
    yield f"{_overlaps(one for one in report.overlaps if one.of in report.by_split)}."
    count = report.families_across_splits
    yield f"{count:,} famil{'y' if count == 1 else 'ies'} of copies stand{'s' if count == 1 else ''} in several splits."


def _across_folders(report: AuditReport) -> Iterable[str]:
    if report.pairs_by_crossing["across folders"]:
        yield f"{_overlaps(one for one in report.overlaps if one.of in report.by_folder)}."


def _overlaps(overlaps: Iterable[Overlap]) -> str:
    return "; ".join(
        f"{one.copies:,} of {one.images:,} images of {one.of} ({percent(one)}) {verb} a copy in {one.inside}"
        for one in overlaps
        if one.copies and (verb := _have(one.copies))
    )


def _cut(likeness: float) -> str:
    """In percent, rounded up."""
    return f"{math.ceil(1000 * likeness - 1e-9) / 10:.1f} %"


def _have(count: int) -> str:
    return "has" if count == 1 else "have"


def _stated(report: AuditReport) -> Iterable[str]:
    parted = report.stated_groups_across_splits
    if parted:
        yield (
            f"{len(parted):,} of {report.stated_groups:,} stated groups (patients, videos) "
            f"stand{'s' if len(parted) == 1 else ''} in several splits, e.g. {parted[0]}."
        )
