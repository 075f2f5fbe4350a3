"""Samples and conversations to counts: the layout of Tables 1 and 2 of He et al. 2025, and what lies beneath them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from gastrovl.clinical.taxonomy import Taxonomy
from gastrovl.core.types import Conversation, Kind, Sample, Split, Task
from gastrovl.data.source import SourceDescription

TABLE_TASKS = (Task.CAP, Task.CLS, Task.REC, Task.REG)  # in the order of the paper's Table 1


def count_dataset(
    samples: Sequence[Sample],
    conversations: Sequence[Conversation],
    descriptions: Sequence[SourceDescription],
    taxonomy: Taxonomy,
    further: Mapping[str, Sequence[Conversation]] | None = None,
) -> dict[str, Any]:
    """Everything `statistics.json` holds.

    Args:
        conversations: Of train.jsonl, val.jsonl and test.jsonl.
        further: Of the files beside them, by name; they are no part of the tables.
    """
    return {
        "schema": "gastrovl/statistics/1",
        "table_1": {split.value: _per_task(conversations, split=split) for split in Split},
        "table_2": [_source_row(description, samples, conversations, taxonomy) for description in descriptions],
        "kinds": {split.value: _per_kind(conversations, split) for split in Split},
        "dialogues": {
            split.value: sum(item.split is split and len(item.turns) > 2 for item in conversations) for split in Split
        },
        "further_files": {name: len(items) for name, items in (further or {}).items()},
        "splits": {split.value: _split_row(samples, split) for split in Split},
        "labels": _label_rows(samples, taxonomy),
        "absent_questions": sum(item.task is Task.REC and not item.target.boxes for item in conversations),
        "box_share_of_image": _box_quartiles(samples),
    }


def type_code(term: str, taxonomy: Taxonomy) -> str:
    """A term's place in the upper two levels as initials, e.g. "PF-ED": pathological findings, esophageal diseases."""
    upper = taxonomy.at_level(term, 1)
    if taxonomy[term].level == 1:
        return _initials(upper.name)
    return f"{_initials(upper.name)}-{_initials(taxonomy.at_level(term, 2).name)}"


def render_markdown(counts: dict[str, Any], taxonomy: Taxonomy) -> str:
    """`statistics.md`."""
    tasks = list(counts["table_1"]["train"])
    rows_1 = [[split, *(counts["table_1"][split][task] for task in tasks)] for split in counts["table_1"]]
    rows_2 = [
        [
            row["source"],
            *(row["tasks"][task] or "N/A" for task in tasks),
            row["total"],
            ", ".join(row["types"]),
            row["access"],
        ]
        for row in counts["table_2"]
    ]
    splits = [[split, row["images"], row["groups"], row["boxes"]] for split, row in counts["splits"].items()]
    labels = [
        [row["name"], row["source"], *(row["images"][split.value] for split in Split), row["boxes"]]
        for row in counts["labels"]
    ]
    used = sorted({code for row in counts["table_2"] for code in row["types"]})
    return (
        "\n\n".join(
            [
                "# Statistics",
                "Table 1. Image-text pairs by split and task.\n\n" + markdown_table(["split", *tasks], rows_1),
                "Table 2. Image-text pairs by source and task.\n\n"
                + markdown_table(["source", *tasks, "total", "type", "access"], rows_2),
                *kinds_and_dialogues(counts),
                "Types: " + "; ".join(f"{code} {_type_names(taxonomy)[code]}" for code in used) + ".",
                "Images, groups (patient, video, series or near-duplicates; a group stands in one split) and boxes.\n\n"
                + markdown_table(["split", "images", "groups", "boxes"], splits),
                "Images a label and split; an image counts once for each of its labels.\n\n"
                + markdown_table(["label", "source", *(split.value for split in Split), "boxes"], labels),
            ]
        )
        + "\n"
    )


def kinds_and_dialogues(counts: dict[str, Any]) -> list[str]:
    """Paragraphs on VQA questions by kind, dialogues of several turns and the files beside the splits."""
    found = []
    kinds = list(counts["kinds"]["train"])
    if kinds:
        rows = [[split, *row.values()] for split, row in counts["kinds"].items()]
        found.append(
            "VQA questions built from records, by split and kind.\n\n" + markdown_table(["split", *kinds], rows)
        )
    if any(counts["dialogues"].values()):
        said = ", ".join(f"{split} {number:,}" for split, number in counts["dialogues"].items() if number)
        found.append(f"Dialogues of several turns, counted above by the task of their last question: {said}.")
    if counts["further_files"]:
        said = ", ".join(f"`{name}.jsonl` {number:,}" for name, number in counts["further_files"].items())
        found.append(f"Files beside the splits, not counted above: {said}.")
    return found


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table; numbers get thousands separators, and a bar inside a cell is escaped."""

    def line(cells: Sequence[object]) -> str:
        texts = [
            f"{cell:,}" if isinstance(cell, int) else str(cell).replace("|", "\\|").replace("\n", " ") for cell in cells
        ]
        return "| " + " | ".join(texts) + " |"

    return "\n".join([line(header), "|" + " --- |" * len(header), *(line(row) for row in rows)])


def _per_task(
    conversations: Sequence[Conversation], *, split: Split | None = None, source: str | None = None
) -> dict[str, int]:
    counts = Counter(
        item.task for item in conversations if split in (None, item.split) and source in (None, item.source)
    )
    others = [task for task in Task if task not in TABLE_TASKS and any(item.task is task for item in conversations)]
    return {task.value: counts[task] for task in (*TABLE_TASKS, *others)}


def _per_kind(conversations: Sequence[Conversation], split: Split) -> dict[str, int]:
    """Of the VQA questions that are built from records, those that occur in any split."""
    counts = Counter((item.split, item.kind) for item in conversations)
    return {kind.value: counts[split, kind] for kind in Kind if any(counts[one, kind] for one in Split)}


def _source_row(
    description: SourceDescription, samples: Sequence[Sample], conversations: Sequence[Conversation], taxonomy: Taxonomy
) -> dict[str, Any]:
    own = [sample for sample in samples if sample.source == description.name]
    tasks = _per_task(conversations, source=description.name)
    terms = sorted({finding.term for sample in own for finding in sample.findings}, key=taxonomy.order)
    return {
        "source": description.name,
        "images": len(own),
        "tasks": tasks,
        "total": sum(tasks.values()),
        "types": list(dict.fromkeys(type_code(term, taxonomy) for term in terms)),
        "access": description.access,
        "licence": description.licence,
    }


def _split_row(samples: Sequence[Sample], split: Split) -> dict[str, int]:
    own = [sample for sample in samples if sample.split is split]
    return {
        "images": len(own),
        "groups": len({sample.group for sample in own}),
        "boxes": sum(len(finding.boxes) for sample in own for finding in sample.findings),
    }


def _label_rows(samples: Sequence[Sample], taxonomy: Taxonomy) -> list[dict[str, Any]]:
    images: Counter[tuple[str, str, Split]] = Counter()
    boxes: Counter[tuple[str, str]] = Counter()
    for sample in samples:
        for term in {finding.term for finding in sample.findings}:
            images[term, sample.source, sample.split] += 1
        for finding in sample.findings:
            boxes[finding.term, sample.source] += len(finding.boxes)
    pairs = sorted({(term, source) for term, source, _ in images}, key=lambda pair: (taxonomy.order(pair[0]), pair[1]))
    return [
        {
            "term": term,
            "name": taxonomy[term].name,
            "source": source,
            "images": {split.value: images[term, source, split] for split in Split},
            "boxes": boxes[term, source],
        }
        for term, source in pairs
    ]


def _box_quartiles(samples: Sequence[Sample]) -> list[float] | None:
    """Smallest, lower quartile, median, upper quartile and largest share of the image that a box covers."""
    areas = sorted(box.area for sample in samples for finding in sample.findings for box in finding.boxes)
    if not areas:
        return None
    return [round(areas[round(share * (len(areas) - 1))], 4) for share in (0, 0.25, 0.5, 0.75, 1)]


def _initials(name: str) -> str:
    return "".join(word[0].upper() for word in name.split())


def _type_names(taxonomy: Taxonomy) -> dict[str, str]:
    names = {}
    for term in taxonomy.terms:
        if term.level <= 2:
            parts = [taxonomy.at_level(term.id, level).name for level in range(1, term.level + 1)]
            names[type_code(term.id, taxonomy)] = ", ".join(parts)
    return names
