"""Rows to the group and split of each: what shares a key or is a copy of another is one group, and no group parts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gastrovl.core.types import Split
from gastrovl.data.collect import Progress
from gastrovl.data.colours import overlap
from gastrovl.data.config import BuildConfig
from gastrovl.data.copies import Copy, find_copies
from gastrovl.data.embeddings import copies_by_embedding
from gastrovl.data.official import official_splits
from gastrovl.data.rows import Looked, Row
from gastrovl.data.series import group_keys
from gastrovl.data.splits import Member, assign_splits, describe_parted, join_groups, resolve_parted


@dataclass(frozen=True)
class Division:
    """The rows that stay, with what was decided about them.

    Attributes:
        groups, splits: Of each row.
        copies: Among the rows, by their indices.
        dropped: Images that left because an official split parted their group.
        parted: The groups that it parted, as `describe_parted` says it.
    """

    rows: list[Row]
    groups: list[str]
    splits: list[Split]
    copies: list[Copy]
    dropped: list[Row]
    parted: list[dict[str, Any]]


def divide(looked: Looked, config: BuildConfig, report: Progress) -> Division:
    """Find copies, join groups, and give each group a split.

    Raises:
        SourceError: The official split parts groups, and the config says to stop; or a key cannot be read.
    """
    rows, copies = looked.rows, _copies(looked, config, report)
    members = _members(looked, config)
    groups = join_groups(members, [(copy.i, copy.j) for copy in copies])
    dropped = resolve_parted(members, groups, config.splits)
    parted = describe_parted(members, groups, config.splits)
    kept = [index for index in range(len(rows)) if index not in dropped]
    place = {index: new for new, index in enumerate(kept)}
    members, groups = [members[index] for index in kept], [groups[index] for index in kept]
    return Division(
        rows=[rows[index] for index in kept],
        groups=groups,
        splits=assign_splits(members, groups, config.splits, config.seed),
        copies=_renumbered(copies, place),
        dropped=[rows[index] for index in sorted(dropped)],
        parted=parted,
    )


def _copies(looked: Looked, config: BuildConfig, report: Progress) -> list[Copy]:
    """Copies among the rows, by their indices; of a pair that is found in two ways, what the pixels say counts."""
    found: dict[tuple[int, int], Copy] = {}
    if config.quality.embeddings is not None:
        for copy in copies_by_embedding([row.id for row in looked.rows], config.quality.embeddings):
            found[copy.i, copy.j] = copy
    if config.quality.copies is not None:

        def show(done: int, total: int) -> None:
            report("looking for copies", done, total)

        by_pixels = find_copies(looked.prints, config.quality.copies, show)
        place = {row.place: index for index, row in enumerate(looked.rows)}
        found |= {(copy.i, copy.j): copy for copy in _renumbered(by_pixels, place)}
    return [found[pair] for pair in sorted(found)]


def _renumbered(copies: Sequence[Copy], place: dict[int, int]) -> list[Copy]:
    """Copies of which both images have a new place."""
    return [copy._replace(i=place[copy.i], j=place[copy.j]) for copy in copies if copy.i in place and copy.j in place]


def _members(looked: Looked, config: BuildConfig) -> list[Member]:
    keys: dict[str, list[str]] = defaultdict(list)
    official: dict[str, Split] = {}
    of_source: dict[str, list[Row]] = defaultdict(list)
    for row in looked.rows:
        of_source[row.source.description.name].append(row)
    for name, own in of_source.items():
        description, root = own[0].source.description, own[0].source.root
        images = [row.labelled.image for row in own]
        if description.group is not None:
            likeness = _likeness(looked.colours, [row.place for row in own])
            for row, key in zip(own, group_keys(images, description.group, likeness), strict=True):
                keys[row.id].append(f"{name}:{key}")
        if config.splits.official:
            said = [row.labelled.split for row in own]
            found = official_splits(images, said, description.official_split, root)
            official.update({row.id: split for row, split in zip(own, found, strict=True) if split})
    return [
        Member(
            id=row.id,
            keys=(
                *keys[row.id],
                *(f"{row.source.description.name}:{group}" for group in row.labelled.groups),
                f"sha256:{row.seen.sha256}",
            ),
            labels=(
                f"{row.source.description.name}:",
                *(f"{row.source.description.name}:{finding.term}" for finding in row.labelled.findings),
            ),
            official=official.get(row.id),
        )
        for row in looked.rows
    ]


def _likeness(colours: NDArray[np.uint8], places: list[int]) -> Callable[[int, int], float]:
    return lambda a, b: overlap(colours[places[a]], colours[places[b]])
