"""Images to train, val and test so that no patient, video or near-duplicate group stands in two of them."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Container, Hashable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Generic, Literal, TypeVar

from pydantic import Field, model_validator

from gastrovl.core.config import Config
from gastrovl.core.errors import SourceError
from gastrovl.core.types import Split

HELD_OUT = (Split.TEST, Split.VAL, Split.TRAIN)  # the most held-out first
PRESENCE_ORDER = (Split.TRAIN, Split.TEST, Split.VAL)  # who gets a rare label first
MAX_TRIES = 64  # random orders of which the best division is kept
Part = TypeVar("Part", bound=Hashable)  # of a division: a split, or the number of a fold

TRIED_GROUPS = 20_000  # groups times tries, at most: large sets balance themselves and need one try


class SplitOptions(Config):
    """How samples are divided.

    Attributes:
        train, val, test: Shares of the samples without an official split; they need not sum to 1.
        official: Keep the split that a source publishes.
        on_parted_group: When an official split parts a group: "stop" with the list; "drop" the group's members in the
            less held-out splits (train before val before test), which leaves the official test set whole; or "move"
            them to the most held-out split that the group has, which loses no image and lets val and test grow.
        folds: For cross-validation: into how many folds of like size and labels the groups are divided. One is the
            test split, the others become train and val in the proportion of their shares; `test` is not looked at.
        fold: Which of them is the test split, from 1. The same seed gives the same folds whichever is taken.
    """

    train: float = Field(default=0.8, ge=0)
    val: float = Field(default=0.1, ge=0)
    test: float = Field(default=0.1, ge=0)
    official: bool = True
    on_parted_group: Literal["stop", "drop", "move"] = "stop"
    folds: int | None = Field(default=None, ge=2)
    fold: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _check(self) -> SplitOptions:
        if self.train + self.val + self.test <= 0:
            raise ValueError("train, val and test are all 0; expected shares such as 0.8, 0.1 and 0.1")
        if (self.folds is None) != (self.fold is None):
            raise ValueError("expected `folds` and `fold` together, such as folds: 4 and fold: 1, or neither")
        if self.folds is not None and self.fold is not None and self.fold > self.folds:
            raise ValueError(f"fold {self.fold} of {self.folds}; expected 1 to {self.folds}")
        if self.folds is not None and self.train <= 0:
            raise ValueError("train is 0; with `folds`, what is not tested is divided by the shares of train and val")
        return self

    def shares(self) -> dict[Split, float]:
        """Share of each split, summing to 1, of what no fold has taken."""
        test = self.test if self.folds is None else 0.0
        total = self.train + self.val + test
        return {Split.TRAIN: self.train / total, Split.VAL: self.val / total, Split.TEST: test / total}


@dataclass(frozen=True)
class Member:
    """One sample as the split sees it.

    Attributes:
        keys: Everything that ties it to others: patient or video key, hash of the file.
        labels: What should be spread evenly over the splits.
        official: The split its source gives it, if any.
    """

    id: str
    keys: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    official: Split | None = None


def join_groups(members: Sequence[Member], alike: Iterable[tuple[int, int]] = ()) -> list[str]:
    """The group of each member: members that share a key or are `alike` (pairs of indices) belong together.

    A group is named after the least of its members' ids, so that names do not depend on the order of the input.
    """
    parent = list(range(len(members)))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    first_with: dict[str, int] = {}
    links = ((first_with.setdefault(key, index), index) for index, member in enumerate(members) for key in member.keys)
    for a, b in chain(links, alike):
        parent[root(a)] = root(b)
    names: dict[int, str] = {}
    for index, member in enumerate(members):
        top = root(index)
        names[top] = min(names.get(top, member.id), member.id)
    return [names[root(index)] for index in range(len(members))]


def parted_groups(members: Sequence[Member], groups: Sequence[str]) -> dict[str, dict[Split, list[int]]]:
    """Groups whose members have several official splits: group -> split -> indices of members."""
    first: dict[str, Split] = {}
    parted: set[str] = set()
    for member, group in zip(members, groups, strict=True):
        if member.official is not None and first.setdefault(group, member.official) is not member.official:
            parted.add(group)
    by_group: dict[str, dict[Split, list[int]]] = defaultdict(lambda: defaultdict(list))
    for index, (member, group) in enumerate(zip(members, groups, strict=True)):
        if group in parted and member.official is not None:
            by_group[group][member.official].append(index)
    return {group: dict(splits) for group, splits in by_group.items()}


def describe_parted(members: Sequence[Member], groups: Sequence[str], options: SplitOptions) -> list[dict[str, Any]]:
    """Every group that the official split parts, and what `options` do about it: the form of quality.json and the card.

    Returns:
        By group name: `group`; `splits`, split -> ids in it as published, the most held-out split last; `kept`, the
        split that the group has in the end, or None when the build stops; `repair` ("stop", "drop" or "move"); and
        `changed`, the ids that leave ("drop") or change their split ("move"). Ids are sorted. Hand in all members,
        before those that `resolve_parted` names are left out.
    """
    found = []
    for group, splits in sorted(parted_groups(members, groups).items()):
        kept = _most_held_out(splits)
        ids = {
            split.value: sorted(members[index].id for index in splits[split])
            for split in reversed(HELD_OUT)
            if split in splits
        }
        is_repaired = options.on_parted_group != "stop"
        changed = sorted(name for split, names in ids.items() if split != kept.value for name in names)
        found.append(
            {
                "group": group,
                "splits": ids,
                "kept": kept.value if is_repaired else None,
                "repair": options.on_parted_group,
                "changed": changed if is_repaired else [],
            }
        )
    return found


def resolve_parted(members: Sequence[Member], groups: Sequence[str], options: SplitOptions) -> set[int]:
    """Indices of members to leave out so that the official split parts no group; none when `options` move them.

    Raises:
        SourceError: It parts one, and `on_parted_group` is "stop"; the message lists all of them.
    """
    parted = parted_groups(members, groups)
    if parted and options.on_parted_group == "stop":
        rows = [
            "  "
            + "; ".join(
                f"{split.value}: {', '.join(members[i].id for i in indices[:3])}" for split, indices in splits.items()
            )
            for splits in parted.values()
        ]
        raise SourceError(
            f"the official split parts {len(parted)} groups of the same patient, video or near-duplicate images:\n"
            + "\n".join(rows)
            + "\nExpected each group in one split. Set `splits.on_parted_group: move` to move a group to its most "
            "held-out split, `splits.on_parted_group: drop` to leave out the members outside it, or "
            "`splits.official: false` to divide anew"
        )
    dropped: set[int] = set()
    if options.on_parted_group == "drop":
        for splits in parted.values():
            kept = _most_held_out(splits)
            dropped.update(index for split, indices in splits.items() if split is not kept for index in indices)
    return dropped


def _most_held_out(splits: Iterable[Split]) -> Split:
    found = set(splits)
    return next(split for split in HELD_OUT if split in found)


def assign_splits(members: Sequence[Member], groups: Sequence[str], options: SplitOptions, seed: int) -> list[Split]:
    """The split of each member; members of one group always share it.

    Official splits are kept, with folds too; a group that they part goes to its most held-out one where `options` say
    "move". The other groups are first handed out so that every label, the rarest first, appears in train, test and val
    as far as it has groups; the rest goes where it brings labels and sizes nearest to the shares. Of several random
    orders, the division nearest to the shares is kept. Follows the idea of iterative stratification (Sechidis et al.,
    ECML PKDD 2011), on groups. The order of the members makes no difference.

    Raises:
        SourceError: A group has several official splits, and is not to be moved (see `resolve_parted`).
    """
    parted = parted_groups(members, groups)
    if parted and options.on_parted_group != "move":
        raise SourceError("a group has several official splits; call resolve_parted first and leave its indices out")
    fixed = {group: member.official for member, group in zip(members, groups, strict=True) if member.official}
    fixed |= {group: _most_held_out(splits) for group, splits in parted.items()}
    if options.folds is not None:
        shares = dict.fromkeys(range(options.folds), 1 / options.folds)
        folds = _divided(_Tallies(members, groups, fixed), shares, tuple(shares), seed)
        fixed |= {group: Split.TEST for group, number in folds.items() if number + 1 == options.fold}
    chosen = _divided(_Tallies(members, groups, fixed), options.shares(), PRESENCE_ORDER, seed) | fixed
    return [chosen[group] for group in groups]


def _divided(tallies: _Tallies, shares: dict[Part, float], first: Sequence[Part], seed: int) -> dict[str, Part]:
    """Of several random divisions of groups, the one nearest to the shares; rare labels go to the `first` parts."""
    tries = max(1, min(MAX_TRIES, TRIED_GROUPS // max(1, len(tallies.of))))
    rng = random.Random(seed)
    return min(
        (_Division(tallies, shares, first, rng).run() for _ in range(tries)), key=lambda one: one.misfit()
    ).chosen


class _Tallies:
    """How often each label occurs in each group that has no split yet.

    Attributes:
        of: Group -> (label, count) pairs; labels are numbers, and ALL counts the samples themselves.
        names, totals: Name and count of each label.
    """

    ALL = ""

    def __init__(self, members: Sequence[Member], groups: Sequence[str], fixed: Container[str]) -> None:
        counts: dict[str, dict[str, int]] = {}
        # By id, because sums of fractions depend on their order in the last digit, and ties on that.
        for index in sorted(range(len(members)), key=lambda index: members[index].id):
            if groups[index] not in fixed:
                tally = counts.setdefault(groups[index], {})
                for label in (*dict.fromkeys(members[index].labels), self.ALL):
                    tally[label] = tally.get(label, 0) + 1
        numbers: dict[str, int] = {}
        self.of: dict[str, tuple[tuple[int, int], ...]] = {}
        self.totals: list[int] = []
        for group, tally in counts.items():
            self.of[group] = tuple((numbers.setdefault(label, len(numbers)), count) for label, count in tally.items())
            self.totals += [0] * (len(numbers) - len(self.totals))
            for number, count in self.of[group]:
                self.totals[number] += count
        self.names = list(numbers)
        self.sizes = {group: tally[self.ALL] for group, tally in counts.items()}


class _Division(Generic[Part]):
    """A greedy division of groups in one random order; an object, so that its tallies need not be passed around."""

    def __init__(self, tallies: _Tallies, shares: dict[Part, float], first: Sequence[Part], rng: random.Random) -> None:
        order = sorted(tallies.of)
        rng.shuffle(order)
        order.sort(key=lambda group: -tallies.sizes[group])  # large first; equal ones in random order
        self.open = dict.fromkeys(order)
        self.tallies = tallies
        self.shares = shares
        self.first = [part for part in first if shares[part]]  # who gets a rare label first
        self.wanted = {split: [share * total for total in tallies.totals] for split, share in shares.items()}
        self.weights = [total**2 for total in tallies.totals]
        self.have = {split: [0] * len(tallies.totals) for split in shares}
        self.chosen: dict[str, Part] = {}

    def run(self) -> _Division[Part]:
        groups_with: list[list[str]] = [[] for _ in self.tallies.names]
        for group in self.open:
            for label, _ in self.tallies.of[group]:
                groups_with[label].append(group)
        for label in sorted(range(len(groups_with)), key=lambda n: (len(groups_with[n]), self.tallies.names[n])):
            self._make_present(label, groups_with[label])
        splits = sorted((split for split in self.shares if self.shares[split]), key=lambda split: -self.shares[split])
        for group in list(self.open):
            self._give(group, min(splits, key=lambda split: self._harm(group, split)))
        return self

    def misfit(self) -> tuple[int, float]:
        """How far the division is from the wanted one: labels missing somewhere, then squared deviations."""
        missing = sum(not count for split in self.first for count in self.have[split])
        deviation = sum(
            (count / total - share) ** 2
            for split, share in self.shares.items()
            for count, total in zip(self.have[split], self.tallies.totals, strict=True)
        )
        return missing, deviation

    def _make_present(self, label: int, groups: list[str]) -> None:
        for split in self.first:
            if self.have[split][label]:
                continue
            candidates = [group for group in groups if group in self.open]
            if candidates:
                self._give(min(candidates, key=lambda group: self._harm(group, split)), split)

    def _give(self, group: str, split: Part) -> None:
        del self.open[group]
        self.chosen[group] = split
        have = self.have[split]
        for label, count in self.tallies.of[group]:
            have[label] += count

    def _harm(self, group: str, split: Part) -> float:
        """How much further from the wanted shares `split` gets by taking `group`; negative when nearer."""
        wanted, have, weights = self.wanted[split], self.have[split], self.weights
        harm = 0.0
        for label, count in self.tallies.of[group]:
            missing = wanted[label] - have[label]
            harm += ((missing - count) ** 2 - missing**2) / weights[label]
        return harm
