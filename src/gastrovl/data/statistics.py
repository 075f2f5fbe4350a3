"""Counts of a dataset to its page of tables: Tables 1, 2 and 3 of He et al. 2025, and what lies beneath them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from gastrovl.clinical.taxonomy import Taxonomy
from gastrovl.core.types import Conversation, Sample, Split
from gastrovl.data.source import SourceDescription
from gastrovl.data.tally import Tally, type_code

__all__ = [
    "Tally",
    "balance_table",
    "count_dataset",
    "kinds_and_dialogues",
    "markdown_table",
    "render_markdown",
    "taxonomy_table",
    "type_code",
]


def count_dataset(
    samples: Iterable[Sample],
    conversations: Iterable[Conversation],
    descriptions: Sequence[SourceDescription],
    taxonomy: Taxonomy,
    further: Mapping[str, Sequence[Conversation]] | None = None,
) -> dict[str, Any]:
    """Everything `statistics.json` holds, of a dataset that is in memory.

    Args:
        conversations: Of train.jsonl, val.jsonl and test.jsonl, each about one of `samples`.
        further: Of the files beside them, by name; they are no part of the tables.
    """
    beside = further or {}
    of_sample: dict[str, dict[str, list[Conversation]]] = {}
    for item in conversations:
        of_sample.setdefault(item.sample_id, {}).setdefault(item.split.value, []).append(item)
    for name, items in beside.items():
        for item in items:
            of_sample.setdefault(item.sample_id, {}).setdefault(name, []).append(item)
    tally = Tally()
    for sample in samples:
        tally.add(sample, of_sample.get(sample.id, {}))
    return tally.result(descriptions, taxonomy, beside)


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
                "Types: " + "; ".join(f"{code} {_type_names(taxonomy)[code]}" for code in used) + ".",
                "Table 3. Images by place in the three-level taxonomy; an image counts once at each place, so the "
                "places below one may add up to more than it.\n\n" + taxonomy_table(counts),
                *kinds_and_dialogues(counts),
                "Images, groups (patient, video, series or near-duplicates; a group stands in one split) and boxes.\n\n"
                + markdown_table(["split", "images", "groups", "boxes"], splits),
                "Images a label and split; an image counts once for each of its labels.\n\n"
                + markdown_table(["label", "source", *(split.value for split in Split), "boxes"], labels),
                "Class balance by split. Imbalance: images of the commonest label over those of the rarest that "
                "occurs. Effective labels: as many equally common ones would be as uneven (exp of the entropy).\n\n"
                + balance_table(counts),
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


def taxonomy_table(counts: dict[str, Any]) -> str:
    """Table 3 with numbers: the upper two levels, and of the third what occurs."""
    places = counts["table_3"]
    rows = []
    for upper in (row for row in places if row["level"] == 1):
        if upper["labelled"]:
            rows.append([f"{upper['name']} ({_total(upper):,})", "(itself)", "", upper["labelled"]])
        for middle in (row for row in places if row["parent"] == upper["term"]):
            own = [f"(itself) {middle['labelled']:,}"] if middle["labelled"] else []
            below = [row for row in places if row["parent"] == middle["term"]]
            own += [f"{row['name']} {_total(row):,}" for row in below]
            rows.append([f"{upper['name']} ({_total(upper):,})", middle["name"], ", ".join(own), _total(middle)])
    return markdown_table(["level I (images)", "level II", "level III with images", "images"], rows)


def balance_table(counts: dict[str, Any]) -> str:
    """A row a split: labels that occur, how uneven they are, and which labels of the build are missing."""
    names = {row["term"]: row["name"] for row in counts["table_3"]}
    rows = [
        [
            split,
            row["images"],
            row["labels"],
            "" if row["imbalance"] is None else f"{row['imbalance']:,.1f}",
            "" if row["effective_classes"] is None else f"{row['effective_classes']:.1f}",
            ", ".join(names[term] for term in row["missing"]),
        ]
        for split, row in counts["balance"].items()
    ]
    return markdown_table(["split", "images", "labels", "imbalance", "effective labels", "missing labels"], rows)


def _total(row: dict[str, Any]) -> int:
    return int(sum(row["images"].values()))


def _type_names(taxonomy: Taxonomy) -> dict[str, str]:
    names = {}
    for term in taxonomy.terms:
        if term.level <= 2:
            parts = [taxonomy.at_level(term.id, level).name for level in range(1, term.level + 1)]
            names[type_code(term.id, taxonomy)] = ", ".join(parts)
    return names
