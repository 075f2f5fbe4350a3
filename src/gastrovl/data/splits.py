"""Images to train, val and test so that no patient, video or near-duplicate group stands in two of them."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import Field, model_validator

from gastrovl.core.config import Config
from gastrovl.core.errors import SourceError
from gastrovl.core.types import Split

HELD_OUT = (Split.TEST, Split.VAL, Split.TRAIN)  # the most held-out first
PRESENCE_ORDER = (Split.TRAIN, Split.TEST, Split.VAL)  # who gets a rare label first
MAX_TRIES = 64  # random orders of which the best division is kept
TRIED_GROUPS = 20_000  # groups times tries, at most: large sets balance themselves and need one try


class SplitOptions(Config):
    """How samples are divided.

    Attributes:
        train, val, test: Shares of the samples without an official split; they need not sum to 1.
        official: Keep the split that a source publishes.
        on_parted_group: When an official split parts a group: "stop" with the list, or "drop" the group's members in
            the less held-out splits (train before val before test), which leaves the official test set whole.
    """

    train: float = Field(default=0.8, ge=0)
    val: float = Field(default=0.1, ge=0)
    test: float = Field(default=0.1, ge=0)
    official: bool = True
    on_parted_group: Literal["stop", "drop"] = "stop"

    @model_validator(mode="after")
    def _check(self) -> SplitOptions:
        if self.train + self.val + self.test <= 0:
            raise ValueError("train, val and test are all 0; expected shares such as 0.8, 0.1 and 0.1")
        return self

    def shares(self) -> dict[Split, float]:
        """Share of each split, summing to 1."""
        total = self.train + self.val + self.test
        return {Split.TRAIN: self.train / total, Split.VAL: self.val / total, Split.TEST: self.test / total}


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
    links = [(first_with.setdefault(key, index), index) for index, member in enumerate(members) for key in member.keys]
    for a, b in [*links, *alike]:
        parent[root(a)] = root(b)
    names: dict[int, str] = {}
    for index, member in enumerate(members):
        top = root(index)
        names[top] = min(names.get(top, member.id), member.id)
    return [names[root(index)] for index in range(len(members))]


def parted_groups(members: Sequence[Member], groups: Sequence[str]) -> dict[str, dict[Split, list[int]]]:
    """Groups whose members have several official splits: group -> split -> indices of members."""
    by_group: dict[str, dict[Split, list[int]]] = defaultdict(lambda: defaultdict(list))
    for index, (member, group) in enumerate(zip(members, groups, strict=True)):
        if member.official is not None:
            by_group[group][member.official].append(index)
    return {group: dict(splits) for group, splits in by_group.items() if len(splits) > 1}


def resolve_parted(members: Sequence[Member], groups: Sequence[str], options: SplitOptions) -> set[int]:
    """Indices of members to leave out so that the official split parts no group.

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
            + "\nExpected each group in one split. Set `splits.on_parted_group: drop` to leave out the members outside "
            "the held-out split, or `splits.official: false` to divide anew"
        )
    dropped: set[int] = set()
    for splits in parted.values():
        kept = next(split for split in HELD_OUT if split in splits)
        dropped.update(index for split, indices in splits.items() if split is not kept for index in indices)
    return dropped


def assign_splits(members: Sequence[Member], groups: Sequence[str], options: SplitOptions, seed: int) -> list[Split]:
    """The split of each member; members of one group always share it.

    Official splits are kept. The other groups are first handed out so that every label, the rarest first, appears in
    train, test and val as far as it has groups; the rest goes where it brings labels and sizes nearest to the shares.
    Of several random orders, the division nearest to the shares is kept. Follows the idea of iterative stratification
    (Sechidis et al., ECML PKDD 2011), on groups.

    Raises:
        SourceError: A group has several official splits (see `resolve_parted`).
    """
    if parted_groups(members, groups):
        raise SourceError("a group has several official splits; call resolve_parted first and leave its indices out")
    fixed = {group: member.official for member, group in zip(members, groups, strict=True) if member.official}
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for member, group in zip(members, groups, strict=True):
        counts[group].update((*dict.fromkeys(member.labels), ""))  # "" counts the samples themselves
    free = {group: counts[group] for group in counts if group not in fixed}
    tries = max(1, min(MAX_TRIES, TRIED_GROUPS // max(1, len(free))))
    rng = random.Random(seed)
    best = min(
        (_Division(free, options.shares(), rng).run() for _ in range(tries)), key=lambda division: division.misfit()
    )
    chosen: dict[str, Split] = dict(best.chosen)
    chosen |= fixed
    return [chosen[group] for group in groups]


class _Division:
    """A greedy division of groups in one random order; an object, so that its tallies need not be passed around."""

    def __init__(self, counts: dict[str, Counter[str]], shares: dict[Split, float], rng: random.Random) -> None:
        order = sorted(counts)
        rng.shuffle(order)
        order.sort(key=lambda group: -counts[group][""])  # large first; equal ones in random order
        self.open = dict.fromkeys(order)
        self.counts = counts
        self.shares = shares
        self.totals = sum(counts.values(), Counter[str]())
        self.have: dict[Split, Counter[str]] = {split: Counter() for split in shares}
        self.chosen: dict[str, Split] = {}

    def run(self) -> _Division:
        groups_with = Counter(label for tally in self.counts.values() for label in tally)
        for label in sorted(groups_with, key=lambda label: (groups_with[label], label)):
            self._make_present(label)
        for group in list(self.open):
            self._give(group, min(self.shares, key=lambda split: (self._harm(group, split), -self.shares[split])))
        return self

    def misfit(self) -> tuple[int, float]:
        """How far the division is from the wanted one: labels missing somewhere, then squared deviations."""
        missing = sum(not self.have[split][label] for split in self._wanted() for label in self.totals)
        deviation = sum(
            (self.have[split][label] / total - share) ** 2
            for split, share in self.shares.items()
            for label, total in self.totals.items()
        )
        return missing, deviation

    def _wanted(self) -> list[Split]:
        return [split for split in PRESENCE_ORDER if self.shares[split]]

    def _make_present(self, label: str) -> None:
        for split in self._wanted():
            candidates = [group for group in self.open if self.counts[group][label]]
            if candidates and not self.have[split][label]:
                self._give(min(candidates, key=lambda group: self._harm(group, split)), split)

    def _give(self, group: str, split: Split) -> None:
        del self.open[group]
        self.chosen[group] = split
        self.have[split].update(self.counts[group])

    def _harm(self, group: str, split: Split) -> float:
        """How much further from the wanted shares `split` gets by taking `group`; negative when nearer."""
        if not self.shares[split]:
            return float("inf")
        harm = 0.0
        for label, count in self.counts[group].items():
            missing = self.shares[split] * self.totals[label] - self.have[split][label]
            harm += ((missing - count) ** 2 - missing**2) / self.totals[label] ** 2
        return harm
