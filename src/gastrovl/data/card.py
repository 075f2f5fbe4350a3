"""Everything known of a build to its data card: what is in it, where it comes from, what it is not good for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gastrovl.core.types import Split
from gastrovl.data.collect import CollectedSource
from gastrovl.data.config import BuildConfig
from gastrovl.data.statistics import kinds_and_dialogues, markdown_table

LISTED = 20  # rows of a list that are spelled out; the whole list is in quality.json


@dataclass(frozen=True)
class CardFacts:
    """What `card.md` is written from; `counts` and `quality` are the contents of the two JSON files."""

    config: BuildConfig
    taxonomy_version: str
    sources: Sequence[CollectedSource]
    counts: dict[str, Any]
    quality: dict[str, Any]


def render_card(facts: CardFacts) -> str:
    """`card.md`."""
    sections = [
        "# Data card",
        "For research only. This is no medical device: it drafts, a physician decides.",
        _sources(facts),
        _labels(facts),
        _splits(facts),
        _conversations(facts),
        _quality(facts),
        _limits(facts),
    ]
    return "\n\n".join(sections) + "\n"


def _sources(facts: CardFacts) -> str:
    rows = [
        [
            f"`{source.description.name}`",
            source.description.title,
            source.n_files,
            len(source.usable),
            source.description.licence,
            source.description.citation,
        ]
        for source in facts.sources
    ]
    table = markdown_table(["source", "title", "image files", "used", "licence", "citation"], rows)
    notes = [
        f"- `{source.description.name}`: {source.description.note.strip()}"
        for source in facts.sources
        if source.description.note
    ]
    return "\n\n".join(part for part in ["## Sources", table, "\n".join(notes)] if part)


def _labels(facts: CardFacts) -> str:
    uses = [use for source in facts.sources for use in source.harmonised.uses]
    mapped = [[use.source, use.label, use.term or "", use.images, use.annotations] for use in uses if use.term]
    left_out = [[use.source, use.label, use.reason or "", use.images] for use in uses if not use.term]
    parts = [
        f"## Labels\n\nMapped to taxonomy {facts.taxonomy_version}. A label that is neither mapped nor excluded by "
        "name stops the build.",
        markdown_table(["source", "label", "term", "images", "annotations"], mapped),
    ]
    if left_out:
        parts += ["Excluded by name:", markdown_table(["source", "label", "reason", "images"], left_out)]
    silent = [
        f"`{source.description.name}` {len(source.harmonised.silent):,}"
        for source in facts.sources
        if source.harmonised.silent
    ]
    if silent:
        parts.append(f"Images of which no annotation speaks, left out: {', '.join(silent)}.")
    over = [f"`{source.description.name}` {source.n_over_limit:,}" for source in facts.sources if source.n_over_limit]
    if over:
        parts.append(f"Left out by `limit`: {', '.join(over)}.")
    return "\n\n".join(parts)


def _splits(facts: CardFacts) -> str:
    rows = [[split, row["images"], row["groups"], row["boxes"]] for split, row in facts.counts["splits"].items()]
    labels = [
        [row["name"], row["source"], *(row["images"][split.value] for split in Split), row["boxes"]]
        for row in facts.counts["labels"]
    ]
    is_sought = facts.config.quality.copies is not None
    alike = "byte-equal files and copies of other images" if is_sought else "byte-equal files"
    text = (
        "A group never stands in two splits. A group is what shares a patient, video or series key, joined with "
        f"{alike}, over all sources."
    )
    empty = [row["name"] for row in facts.counts["labels"] if 0 in row["images"].values()]
    warning = (
        f"Not in every split, because too few groups carry them: {', '.join(dict.fromkeys(empty))}." if empty else ""
    )
    how = [_group_line(source) for source in facts.sources]
    return "\n\n".join(
        part
        for part in [
            "## Splits",
            text,
            "\n".join(how),
            markdown_table(["split", "images", "groups", "boxes"], rows),
            markdown_table(["label", "source", *(split.value for split in Split), "boxes"], labels),
            warning,
        ]
        if part
    )


def _group_line(source: CollectedSource) -> str:
    name, rule = source.description.name, source.description.group
    official = "official split" if source.description.official_split else "no official split"
    if any(labelled.groups for labelled in source.usable):
        return f"- `{name}`: {official}; the source gives the group of each image."
    if rule is None:
        return (
            f"- `{name}`: {official}; no patient or video key, so frames of one patient may stand in two splits unless "
            "they look alike."
        )
    if rule.series:
        return (
            f"- `{name}`: {official}; no patient or video key. Numbered series are cut into runs of at most "
            f"{rule.series} frames where neighbours look least alike: better than chance, but no proof that no patient "
            "stands in two splits."
        )
    return f"- `{name}`: {official}; the group is read from the file name by `{rule.pattern}`."


def _conversations(facts: CardFacts) -> str:
    tasks = list(facts.counts["table_1"]["train"])
    rows = [[split, *(row[task] for task in tasks)] for split, row in facts.counts["table_1"].items()]
    text = f"Of the REC questions, {facts.counts['absent_questions']:,} ask for something that is not there."
    areas = facts.counts["box_share_of_image"]
    if areas:
        text += (
            f" A box covers {areas[2]:.0%} of its image in the median (quartiles {areas[1]:.0%} and {areas[3]:.0%}, "
            f"extremes {areas[0]:.1%} and {areas[4]:.0%})."
        )
    further = (
        "`*_reworded.jsonl` asks the same questions in wordings that no training turn has; `*_dialogues.jsonl`, where "
        "it is there, asks for places after other turns."
    )
    tables = [markdown_table(["split", *tasks], rows), text, *kinds_and_dialogues(facts.counts), further]
    return "\n\n".join(["## Conversations", *tables])


def _quality(facts: CardFacts) -> str:
    quality = facts.quality
    lines = [
        f"- images that could not be used and were left out: {len(quality['broken'])}",
        f"- byte-equal files: {len(quality['exact_duplicates'])} sets",
        f"- pairs of copies: {len(quality['copies'])}, of which "
        f"{sum(pair['labels_differ'] for pair in quality['copies'])} with different labels",
        f"- images left out because an official split parted their group: {len(quality['dropped_by_official_split'])}",
        "- images that ask viewers to rotate them (boxes and models use the pixels as stored): "
        f"{len(quality['rotated_by_exif'])}",
    ]
    lines += [
        f"- {fault.replace('_', ' ')}: {row['images']} images ({row['action']})"
        for fault, row in quality["faults"].items()
        if row["images"]
    ]
    lines.append(f"- stored copies that lost EXIF, comments or profiles: {quality['metadata_removed']}")
    parts = ["## Quality", "\n".join(lines)]
    if quality["broken"]:
        rows = [[row["path"], row["reason"]] for row in quality["broken"][:LISTED]]
        parts.append(markdown_table(["left out", "reason"], rows))
    across = [pair for pair in quality["copies"] if pair["labels_differ"]]
    if across:
        rows = [[pair["a"], pair["b"], pair["likeness"]] for pair in across[:LISTED]]
        parts += ["Look-alikes with different labels:", markdown_table(["image", "image", "likeness"], rows)]
    parts.append("The whole lists are in `quality.json`, the measures of each image in `quality.jsonl`.")
    return "\n\n".join(parts)


def _shortcuts(facts: CardFacts) -> str:
    masked = [fault.replace("_", " ") for fault, row in facts.quality["faults"].items() if row["action"] == "mask"]
    start = "- Shortcuts (burned-in text, masked corners, position maps, one processor a class) are left in the images"
    if not masked:
        return f"{start}."
    return f"{start}, but for what was found of: {', '.join(masked)}. The detectors miss some."


def _limits(facts: CardFacts) -> str:
    lines = [
        "- Labels are the sources' own; nobody looked at the images again.",
        "- A term is asked for as absent only where its source marks that term in every image.",
        _shortcuts(facts),
    ]
    if any("unspecified" in (use.term or "") for source in facts.sources for use in source.harmonised.uses):
        lines.append("- Labels that do not name the organ stay unspecified; they are no evidence about a site.")
    terms = sorted({licence for source in facts.sources if (licence := source.description.licence)})
    lines.append(
        f"- Every licence above applies to this folder and may bind what is trained on it: {'; '.join(terms)}."
    )
    return "## Known limits\n\n" + "\n".join(lines)
