"""Images and the copies among them to an audit report: what crosses splits and folders, how much, and which pairs.

A copy is an image that shows the same picture as another: the same bytes, or the same look after a crop, a new
encoding, a mirror or the like. Byte-equal files are one class here: a thousand of them cost no million comparisons.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, islice, product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gastrovl.core.errors import RecordError
from gastrovl.core.types import Split
from gastrovl.data.audit.report import (
    BYTE_EQUAL,
    CROSSINGS,
    AuditedImage,
    AuditReport,
    CopyPair,
    Crossing,
    LabelConflict,
    Overlap,
    Place,
)
from gastrovl.data.audit.verdict import verdict
from gastrovl.data.copies import Copy, CopyOptions, find_copies
from gastrovl.data.splits import Member, join_groups

LISTED = 10_000  # pairs spelled out in a report; all are counted
LISTED_LEAST = 500  # of them, the ones that look least alike, when the list is cut

Progress = Callable[[str, int, int], None]  # (step, done, total)
_ASKED = ((Split.TEST, Split.TRAIN), (Split.VAL, Split.TRAIN), (Split.TEST, Split.VAL))  # what a reviewer asks first


def audit_images(
    images: Sequence[AuditedImage],
    prints: NDArray[np.uint8],
    options: CopyOptions,
    progress: Progress | None = None,
) -> AuditReport:
    """Find the copies among images and report them.

    Args:
        prints: Their fingerprints, (images, FINGERPRINT_BYTES).
        progress: Called with (step, done, total).

    Raises:
        RecordError: Two images share an id.
    """
    first: dict[str, int] = {}
    for index, image in enumerate(images):
        first.setdefault(image.sha256, index)
    kept = list(first.values())  # byte-equal files have equal fingerprints: one of them is compared

    def show(done: int, total: int) -> None:
        if progress:
            progress("comparing images", done, total)

    copies = find_copies(prints[kept], options, show)
    report = audit_copies(images, [Copy(kept[one.i], kept[one.j], one.likeness, one.how) for one in copies])
    said = f"copies: byte-equal files, and images whose likeness is at least {options.likeness:g}"
    return report.model_copy(update={"notes": (said, *report.notes)})


def audit_copies(images: Sequence[AuditedImage], copies: Iterable[Copy]) -> AuditReport:
    """Report copies that are known already.

    Byte-equal images are copies of each other and share all other copies, whether `copies` says so or not.

    Args:
        copies: Pairs of indices into `images`.

    Raises:
        RecordError: Two images share an id.
    """
    _check_ids(images)
    classes = _Classes(images, copies)
    families = join_groups([Member(one.id, keys=(one.sha256,)) for one in images], classes.links())
    bundles = list(classes.bundles())
    by_crossing = dict.fromkeys(CROSSINGS, 0)
    by_how: Counter[str] = Counter()
    n_differing = 0
    for bundle in bundles:
        by_crossing[bundle.crossing] += bundle.n_pairs
        by_how[bundle.how] += bundle.n_pairs
        n_differing += bundle.n_pairs * bundle.labels_differ
    places, crossings = _places(images, classes)
    stated = _stated_groups(images)
    parted = tuple(sorted(name for name, splits in stated.items() if len(splits) > 1))
    exact, conflicts = _exact_duplicates(images, classes)
    report = AuditReport(
        verdict="",
        has_leak=bool(by_crossing["across splits"] or by_crossing["across folders"] or parted),
        images=len(images),
        by_folder=_tally(one.folder for one in images),
        by_source=_tally(one.source for one in images),
        by_split=_tally(one.split or "" for one in images),
        places=places,
        crossings=crossings,
        overlaps=(*_split_overlaps(images, classes), *_folder_overlaps(images, classes)),
        exact_duplicates=exact,
        label_conflicts=conflicts,
        pairs_by_crossing=by_crossing,
        pairs_by_how=dict(by_how.most_common()),
        pairs_labelled_differently=n_differing,
        pairs=tuple(_listed(bundles, images, families)),
        **_family_counts(images, families),
        stated_groups=len(stated),
        stated_groups_across_splits=parted,
        notes=_cut_note(sum(by_crossing.values())),
    )
    return report.model_copy(update={"verdict": verdict(report)})


@dataclass(frozen=True)
class _Bundle:
    """Pairs of images that have likeness, crossing and labels in common: `first` x `second`, or pairs of `first`."""

    likeness: float
    how: str
    crossing: Crossing
    labels_differ: bool
    first: tuple[int, ...]
    second: tuple[int, ...] | None

    @property
    def n_pairs(self) -> int:
        n = len(self.first)
        return n * (n - 1) // 2 if self.second is None else n * len(self.second)

    def pairs(self) -> Iterator[tuple[int, int]]:
        return combinations(self.first, 2) if self.second is None else product(self.first, self.second)


class _Classes:
    """Images in classes of equal bytes, and which classes are copies of each other."""

    def __init__(self, images: Sequence[AuditedImage], copies: Iterable[Copy]) -> None:
        self.images = images
        members: dict[str, list[int]] = defaultdict(list)
        for index, image in enumerate(images):
            members[image.sha256].append(index)
        self.members = list(members.values())
        number = {sha256: place for place, sha256 in enumerate(members)}
        self.of = [number[image.sha256] for image in images]
        self.pairs: dict[tuple[int, int], Copy] = {}
        for copy in copies:
            low, high = sorted((self.of[copy.i], self.of[copy.j]))
            known = self.pairs.get((low, high))
            if low != high and (known is None or copy.likeness > known.likeness):
                self.pairs[low, high] = copy

    def links(self) -> Iterator[tuple[int, int]]:
        """One pair of images for each pair of classes."""
        return ((self.members[a][0], self.members[b][0]) for a, b in self.pairs)

    def bundles(self) -> Iterator[_Bundle]:
        for number, members in enumerate(self.members):
            if len(members) > 1:
                yield from self._within(number)
        for (a, b), copy in self.pairs.items():
            for one, other in product(self._cells(a), self._cells(b)):
                yield self._bundle(copy.likeness, copy.how, one, other)

    def copies(self, key_of: Callable[[AuditedImage], str]) -> Counter[tuple[str, str]]:
        """(key, other key) -> images with the first that have a copy with the second; the keys may be the same."""
        inside = [Counter(key_of(self.images[index]) for index in members) for members in self.members]
        near: dict[int, set[str]] = defaultdict(set)
        for a, b in self.pairs:
            near[a].update(inside[b])
            near[b].update(inside[a])
        found: Counter[tuple[str, str]] = Counter()
        for number, own in enumerate(inside):
            for key, count in own.items():
                others = {other for other, n in own.items() if n - (other == key) > 0}
                found.update({(key, other): count for other in near[number] | others})
        return found

    def _cells(self, number: int) -> list[tuple[int, ...]]:
        """Members of a class, those that cross nothing and have the same labels together."""
        cells: dict[tuple[object, ...], list[int]] = defaultdict(list)
        for index in self.members[number]:
            one = self.images[index]
            cells[one.split, one.folder, one.source, frozenset(one.labels)].append(index)
        return [tuple(cell) for cell in cells.values()]

    def _within(self, number: int) -> Iterator[_Bundle]:
        cells = self._cells(number)
        for place, cell in enumerate(cells):
            if len(cell) > 1:
                yield _Bundle(1.0, BYTE_EQUAL, "within", labels_differ=False, first=cell, second=None)
            for other in cells[place + 1 :]:
                yield self._bundle(1.0, BYTE_EQUAL, cell, other)

    def _bundle(self, likeness: float, how: str, first: tuple[int, ...], second: tuple[int, ...]) -> _Bundle:
        a, b = self.images[first[0]], self.images[second[0]]
        differ = bool(a.labels and b.labels) and set(a.labels) != set(b.labels)
        return _Bundle(likeness, how, _crossing(a, b), differ, first, second)


def _crossing(a: AuditedImage, b: AuditedImage) -> Crossing:
    if a.split is not None and b.split is not None and a.split is not b.split:
        return "across splits"
    if a.folder != b.folder:
        return "across folders"
    return "across sources" if a.source != b.source else "within"


def _check_ids(images: Sequence[AuditedImage]) -> None:
    twice = [name for name, count in Counter(image.id for image in images).items() if count > 1]
    if twice:
        raise RecordError(
            f"{len(twice)} ids stand for several images, e.g. {twice[0]!r}; expected one image an id. "
            "Rename one of the files"
        )


def _listed(bundles: Sequence[_Bundle], images: Sequence[AuditedImage], families: Sequence[str]) -> Iterator[CopyPair]:
    """The worst crossings first, the most alike first; of a list too long, its beginning and the least alike."""

    def order(bundle: _Bundle) -> tuple[int, float, bool, str, str]:
        ids = images[bundle.first[0]].id, images[(bundle.second or bundle.first[1:])[0]].id
        return CROSSINGS.index(bundle.crossing), -bundle.likeness, not bundle.labels_differ, *ids

    ranked = sorted(bundles, key=order)
    count = sum(bundle.n_pairs for bundle in ranked)
    head = _unfold(ranked, LISTED if count <= LISTED else LISTED - LISTED_LEAST)
    if count > LISTED:
        known = {(a, b) for _, a, b in head}
        least = _unfold(sorted(ranked, key=lambda bundle: (bundle.likeness, order(bundle))), LISTED_LEAST)
        head += [row for row in reversed(least) if row[1:] not in known]
    for bundle, a, b in head:
        first, second = (a, b) if a < b else (b, a)
        yield CopyPair(
            a=images[first].id,
            b=images[second].id,
            likeness=round(bundle.likeness, 4),
            how=bundle.how,
            crossing=bundle.crossing,
            labels_differ=bundle.labels_differ,
            family=families[a],
        )


def _unfold(bundles: Iterable[_Bundle], count: int) -> list[tuple[_Bundle, int, int]]:
    return list(islice(((bundle, a, b) for bundle in bundles for a, b in bundle.pairs()), count))


def _cut_note(count: int) -> tuple[str, ...]:
    if count <= LISTED:
        return ()
    return (
        f"{count:,} pairs are counted and {LISTED:,} listed: the worst, and the {LISTED_LEAST} that look least alike",
    )


def _places(images: Sequence[AuditedImage], classes: _Classes) -> tuple[tuple[Place, ...], tuple[Overlap, ...]]:
    """Rows by whatever of folder and split varies, or else by source."""
    has_folders = len({one.folder for one in images}) > 1
    has_splits = any(one.split for one in images)

    def name(one: AuditedImage) -> str:
        if not has_folders and not has_splits:
            return one.source or "all images"
        split = (one.split or "no split") if has_splits else ""
        return ": ".join(part for part in (one.folder if has_folders else "", split) if part)

    order = list(Split)
    example = {name(one): one for one in images}
    names = sorted(
        example,
        key=lambda key: (example[key].folder, order.index(split) if (split := example[key].split) else len(order), key),
    )
    sizes, copies, elsewhere = _tally(map(name, images)), classes.copies(name), _elsewhere(images, classes, name)
    places = tuple(
        Place(
            name=key,
            folder=example[key].folder,
            split=example[key].split,
            images=sizes[key],
            copies_inside=copies[key, key],
            copies_elsewhere=elsewhere[key],
        )
        for key in names
    )
    crossings = tuple(
        Overlap(of=a, inside=b, images=sizes[a], copies=copies[a, b]) for a in names for b in names if copies[a, b]
    )
    return places, crossings


def _elsewhere(
    images: Sequence[AuditedImage], classes: _Classes, key_of: Callable[[AuditedImage], str]
) -> Counter[str]:
    """Key -> images with it that have a copy under any other key."""
    keys = [{key_of(images[index]) for index in members} for members in classes.members]
    reach = [set(own) for own in keys]
    for a, b in classes.pairs:
        reach[a] |= keys[b]
        reach[b] |= keys[a]
    return Counter(key_of(one) for one, number in zip(images, classes.of, strict=True) if len(reach[number]) > 1)


def _split_overlaps(images: Sequence[AuditedImage], classes: _Classes) -> Iterator[Overlap]:
    sizes = _tally(one.split or "" for one in images)
    copies = classes.copies(lambda one: one.split or "")
    for of, inside in _ASKED:
        if of in sizes and inside in sizes:
            yield Overlap(of=of, inside=inside, images=sizes[of], copies=copies[of, inside])


def _folder_overlaps(images: Sequence[AuditedImage], classes: _Classes) -> Iterator[Overlap]:
    sizes = _tally(one.folder for one in images)
    copies = classes.copies(lambda one: one.folder)
    for of in sizes:
        for inside in sizes:
            if of != inside:
                yield Overlap(of=of, inside=inside, images=sizes[of], copies=copies[of, inside])


def _family_counts(images: Sequence[AuditedImage], families: Sequence[str]) -> dict[str, Any]:
    members: dict[str, list[AuditedImage]] = defaultdict(list)
    for image, family in zip(images, families, strict=True):
        members[family].append(image)
    several = [some for some in members.values() if len(some) > 1]
    return {
        "images_with_copy": sum(map(len, several)),
        "families": len(several),
        "families_across_splits": sum(len({one.split for one in some if one.split}) > 1 for some in several),
        "families_across_folders": sum(len({one.folder for one in some}) > 1 for some in several),
        "largest_family": max(map(len, several), default=0),
    }


def _stated_groups(images: Sequence[AuditedImage]) -> dict[str, set[Split]]:
    """Group of a folder and source -> the splits it stands in."""
    found: dict[tuple[str, str], set[Split]] = defaultdict(set)
    for one in images:
        if one.group is not None:
            found[one.folder, one.group].update({one.split} if one.split else ())
    return {": ".join(part for part in key if part): splits for key, splits in found.items()}


def _exact_duplicates(
    images: Sequence[AuditedImage], classes: _Classes
) -> tuple[tuple[tuple[str, ...], ...], tuple[LabelConflict, ...]]:
    """Ids of byte-equal images, and those of them that are labelled in more than one way."""
    several = [[images[index] for index in members] for members in classes.members if len(members) > 1]
    exact = sorted(tuple(sorted(one.id for one in some)) for some in several)
    conflicts = [
        LabelConflict(labels={one.id: one.labels for one in sorted(some, key=lambda one: one.id)})
        for some in several
        if len({frozenset(one.labels) for one in some if one.labels}) > 1
    ]
    return tuple(exact), tuple(sorted(conflicts, key=lambda one: next(iter(one.labels))))


def _tally(values: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(str(value) for value in values).items()))
