"""Samples and conversations, one image at a time, to counters, and those to what statistics.json holds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from gastrovl.clinical.taxonomy import Taxonomy
from gastrovl.core.errors import RecordError
from gastrovl.core.types import Conversation, Kind, Sample, Split, Status, Task
from gastrovl.data.balance import class_balance, taxonomy_places
from gastrovl.data.source import SourceDescription

SCHEMA = "gastrovl/tally/1"
TABLE_TASKS = (Task.CAP, Task.CLS, Task.REC, Task.REG)  # in the order of the paper's Table 1
AREA_STEPS = 10_000  # box areas are counted to 0.01 % of the image
_SPLITS = frozenset(split.value for split in Split)

Key = tuple[str | int, ...]


class Tally:
    """Counts of a dataset, taken image by image; two tallies of parts add up to the tally of the whole.

    `counts` is keyed by what is counted: ("set", split, source, terms joined by spaces) images, ("boxes", split),
    ("term boxes", term, source), ("area", steps of 1 / AREA_STEPS), ("task", split, source, task),
    ("kind", split, kind), ("dialogue", split), ("absent",), ("further", file). `groups` holds every (split, group):
    the one thing here that grows with the dataset, because a group may come again at any time.
    """

    def __init__(self) -> None:
        self.counts: Counter[Key] = Counter()
        self.groups: set[tuple[str, str]] = set()

    def add(self, sample: Sample, conversations: Mapping[str, Sequence[Conversation]]) -> None:
        """Count one image.

        Args:
            sample: A finding that is stated to be absent counts for nothing.
            conversations: About it, by the name of their file without its ending. Those of train, val and test are
                counted in the tables, all others by file only.
        """
        split = sample.split.value
        self.groups.add((split, sample.group))
        self._add_findings(sample, split)
        for name, items in conversations.items():
            if name in _SPLITS:
                for item in items:
                    self._add_conversation(item)
            else:
                self.counts["further", name] += len(items)

    def merge(self, other: Tally) -> None:
        """Add another tally to this one; the order of merging does not matter."""
        self.counts.update(other.counts)
        self.groups |= other.groups

    def to_json(self) -> dict[str, Any]:
        """Plain JSON, the same for the same counts in whatever order they came."""
        return {
            "schema": SCHEMA,
            "counts": sorted(([*key, number] for key, number in self.counts.items()), key=_as_texts),
            "groups": sorted([split, group] for split, group in self.groups),
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Tally:
        """The tally that `to_json` wrote.

        Raises:
            RecordError: It is no tally of this version.
        """
        if content.get("schema") != SCHEMA:
            raise RecordError(
                f"tally: found schema {content.get('schema')!r}, expected {SCHEMA!r}; it was written by another "
                "version of gastrovl, so build again"
            )
        tally = cls()
        tally.counts.update({tuple(row[:-1]): row[-1] for row in content["counts"]})
        tally.groups.update((split, group) for split, group in content["groups"])
        return tally

    def result(
        self, descriptions: Sequence[SourceDescription], taxonomy: Taxonomy, files: Iterable[str] = ()
    ) -> dict[str, Any]:
        """Everything `statistics.json` holds.

        Args:
            files: Names of files beside the splits, so that one without a conversation is listed too.
        """
        sets = self.label_sets()
        boxes: Counter[str] = Counter()
        for (term, _), number in self._of("term boxes").items():
            boxes[str(term)] += number
        images: Counter[str] = Counter()
        for (split, _, _), number in sets.items():
            images[split] += number
        further = self._of("further")
        names = sorted({*files, *(str(name) for (name,) in further)})
        return {
            "schema": "gastrovl/statistics/1",
            "table_1": {split.value: self._tasks(split=split.value) for split in Split},
            "table_2": [self._source_row(description, taxonomy) for description in descriptions],
            "table_3": taxonomy_places(sets, boxes, taxonomy),
            "kinds": self._kinds(),
            "dialogues": {split.value: self.counts["dialogue", split.value] for split in Split},
            "further_files": {name: further[name,] for name in names},
            "splits": {
                split.value: {
                    "images": images[split.value],
                    "groups": sum(own == split.value for own, _ in self.groups),
                    "boxes": self.counts["boxes", split.value],
                }
                for split in Split
            },
            "labels": self._label_rows(taxonomy),
            "balance": class_balance(sets, taxonomy),
            "absent_questions": self.counts["absent",],
            "box_share_of_image": self._box_quartiles(),
        }

    def label_sets(self) -> dict[tuple[str, str, tuple[str, ...]], int]:
        """Images by (split, source, terms in alphabetical order)."""
        return {
            (str(split), str(source), tuple(str(terms).split())): number
            for (split, source, terms), number in self._of("set").items()
        }

    def _add_findings(self, sample: Sample, split: str) -> None:
        counts, source = self.counts, sample.source
        terms = {finding.term for finding in sample.findings if finding.status is not Status.ABSENT}
        counts["set", split, source, " ".join(sorted(terms))] += 1
        for finding in sample.findings:
            if finding.boxes and finding.status is not Status.ABSENT:
                counts["boxes", split] += len(finding.boxes)
                counts["term boxes", finding.term, source] += len(finding.boxes)
                for box in finding.boxes:
                    counts["area", round(box.area * AREA_STEPS)] += 1

    def _add_conversation(self, item: Conversation) -> None:
        counts, split = self.counts, item.split.value
        counts["task", split, item.source, item.task.value] += 1
        if item.kind is not None:
            counts["kind", split, item.kind.value] += 1
        if len(item.turns) > 2:
            counts["dialogue", split] += 1
        if item.task is Task.REC and not item.target.boxes:
            counts["absent",] += 1

    def _of(self, what: str) -> Counter[Key]:
        """The counters of one thing, without its name in their keys."""
        return Counter({key[1:]: number for key, number in self.counts.items() if key[0] == what})

    def _tasks(self, *, split: str | None = None, source: str | None = None) -> dict[str, int]:
        """Conversations by task; a task beyond the paper's four is listed where the dataset has it at all."""
        found: Counter[str] = Counter()
        everywhere = self._of("task")
        for (own_split, own_source, task), number in everywhere.items():
            if split in (None, own_split) and source in (None, own_source):
                found[str(task)] += number
        present = {task for *_, task in everywhere}
        others = [task for task in Task if task not in TABLE_TASKS and task.value in present]
        return {task.value: found[task.value] for task in (*TABLE_TASKS, *others)}

    def _kinds(self) -> dict[str, dict[str, int]]:
        """Of the VQA questions that are built from records, those that occur in any split."""
        counts = self._of("kind")
        kinds = [kind.value for kind in Kind if any(counts[split.value, kind.value] for split in Split)]
        return {split.value: {kind: counts[split.value, kind] for kind in kinds} for split in Split}

    def _source_row(self, description: SourceDescription, taxonomy: Taxonomy) -> dict[str, Any]:
        own = [
            (terms, number) for (_, source, terms), number in self.label_sets().items() if source == description.name
        ]
        tasks = self._tasks(source=description.name)
        terms = sorted({term for terms, _ in own for term in terms}, key=taxonomy.order)
        return {
            "source": description.name,
            "images": sum(number for _, number in own),
            "tasks": tasks,
            "total": sum(tasks.values()),
            "types": list(dict.fromkeys(type_code(term, taxonomy) for term in terms)),
            "access": description.access,
            "licence": description.licence,
        }

    def _label_rows(self, taxonomy: Taxonomy) -> list[dict[str, Any]]:
        images: Counter[tuple[str, str, str]] = Counter()
        for (split, source, terms), number in self.label_sets().items():
            for term in terms:
                images[term, source, split] += number
        pairs = {(term, source) for term, source, _ in images}
        return [
            {
                "term": term,
                "name": taxonomy[term].name,
                "source": source,
                "images": {split.value: images[term, source, split.value] for split in Split},
                "boxes": self.counts["term boxes", term, source],
            }
            for term, source in sorted(pairs, key=lambda pair: (taxonomy.order(pair[0]), pair[1]))
        ]

    def _box_quartiles(self) -> list[float] | None:
        """Smallest, lower quartile, median, upper quartile and largest share of the image that a box covers, to 0.0001.

        A quartile is the box at that place of the boxes in order of their size, not a value between two.
        """
        areas = sorted((int(step), number) for (step,), number in self._of("area").items())
        total = sum(number for _, number in areas)
        if not total:
            return None
        return [
            round(_at_place(areas, round(share * (total - 1))) / AREA_STEPS, 4) for share in (0, 0.25, 0.5, 0.75, 1)
        ]


def type_code(term: str, taxonomy: Taxonomy) -> str:
    """A term's place in the upper two levels as initials, e.g. "PF-ED": pathological findings, esophageal diseases."""
    upper = taxonomy.at_level(term, 1)
    if taxonomy[term].level == 1:
        return _initials(upper.name)
    return f"{_initials(upper.name)}-{_initials(taxonomy.at_level(term, 2).name)}"


def _at_place(areas: Sequence[tuple[int, int]], place: int) -> int:
    """The size that stands at `place`, counted from 0, of all sizes in order."""
    for step, number in areas:
        if place < number:
            return step
        place -= number
    raise ValueError(f"place {place} lies behind the last box")


def _as_texts(row: Sequence[object]) -> list[str]:
    return [str(part) for part in row]


def _initials(name: str) -> str:
    return "".join(word[0].upper() for word in name.split())
