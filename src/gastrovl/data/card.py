"""Everything known of a build to its README.md, a dataset card in the form of the Hugging Face Hub.

The card says what is in the dataset, where it comes from, how it was checked, and what it is not good for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gastrovl.core.types import Split, Task
from gastrovl.data.citation import bibtex
from gastrovl.data.collect import CollectedSource
from gastrovl.data.config import BuildConfig
from gastrovl.data.frontmatter import front_matter, hub_split
from gastrovl.data.statistics import balance_table, kinds_and_dialogues, markdown_table, taxonomy_table

STRUCTURE = "## Dataset structure"
LISTED = 20  # rows of a list that are spelled out; the whole list is in quality.json
_FIGURES = {
    "taxonomy": "Images by place in the three-level taxonomy.",
    "class_balance": "Images of each label by split.",
    "tasks": "Conversations of each task by split.",
}
_TASKS = {
    Task.CLS: "name the site and every finding of the image",
    Task.REC: "say where something is, as boxes, or that it is absent",
    Task.REG: "name what is inside a box",
    Task.CAP: "describe the image",
    Task.VQA: "answer another question about the image",
    Task.REPORT: "write a report",
}


@dataclass(frozen=True)
class CardFacts:
    """What the card is written from; `counts` and `quality` are the contents of the two JSON files.

    Attributes:
        figures: Pictures in the folder `figures` beside the card; empty when none could be drawn, and the card says so;
            None to say nothing about figures.
        extra_sections: Further sections in Markdown, each with its own heading of level 2.
    """

    config: BuildConfig
    taxonomy_version: str
    sources: Sequence[CollectedSource]
    counts: dict[str, Any]
    quality: dict[str, Any]
    figures: Sequence[Path] | None = None
    extra_sections: Sequence[str] = ()


def render_card(facts: CardFacts) -> str:
    """`README.md`: metadata for the Hub, then the card."""
    sections = [
        "# Dataset card",
        "For research only. This is no medical device: it drafts, a physician decides.",
        _description(facts),
        _structure(facts),
        "## Dataset creation",
        _sources(facts),
        _labels(facts),
        _splits(facts),
        _wording(facts),
        _statistics(facts),
        _quality(facts),
        _privacy(facts),
        *facts.extra_sections,
        _considerations(facts),
        _licensing(facts),
        _citation(facts),
    ]
    return _metadata(facts) + "\n\n".join(section.strip("\n") for section in sections) + "\n"


def _metadata(facts: CardFacts) -> str:
    files = [
        {"split": hub_split(name), "path": f"{name}.jsonl"}
        for name, number in (*_conversations_of(facts).items(), *facts.counts["further_files"].items())
        if number
    ]
    return front_matter(
        sources=[source.description.name for source in facts.sources],
        licences=[source.description.licence for source in facts.sources],
        n_images=_n_images(facts),
        tasks=_tasks(facts),
        configs=[{"config_name": "conversations", "data_files": files}] if files else [],
    )


def _description(facts: CardFacts) -> str:
    names = ", ".join(f"`{source.description.name}`" for source in facts.sources)
    number = sum(_conversations_of(facts).values())
    asked = "\n".join(f"- {task}: {_TASKS[task]}" for task in _tasks(facts))
    return (
        f"## Dataset description\n\n{_n_images(facts):,} endoscopic images of {names} with {number:,} conversations in "
        "English, made for training and testing vision-language models of the upper gastrointestinal tract. Labels "
        f"are mapped to one taxonomy of three levels (version {facts.taxonomy_version}). What is asked:\n\n{asked}"
    )


def _structure(facts: CardFacts) -> str:
    further = (
        "\n- `*_reworded.jsonl` asks the same questions in wordings that no training turn has; `*_dialogues.jsonl`, "
        "where it is there, asks for places after other turns."
        if facts.counts["further_files"]
        else ""
    )
    audit = (
        "\n- `audit.html`, `audit.json`: copies that were found, to look at, and that none of them crosses splits."
        if facts.config.quality.copies is not None
        else ""
    )
    return f"""{STRUCTURE}

- `records.jsonl`: an image a line, with findings, boxes, source, group, split and licence, before any wording.
- `train.jsonl`, `val.jsonl`, `test.jsonl`: a conversation a line: image, task, turns, and under `target` the terms \
and boxes behind the last answer.{further}
- `images/`: the pictures that both name.{audit}
- `statistics.json`, `quality.json`, `quality.jsonl`, `harmonised.json`, `manifest.json`: counts, what was found and \
left out, what became of each label, and how to build all of this again.

A box is x0, y0, x1, y1 in fractions of the image; in turns it is written as `[x0,y0,x1,y1]` in steps from 0 to 999."""


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
    return "\n\n".join(part for part in ["### Sources", table, "\n".join(notes)] if part)


def _labels(facts: CardFacts) -> str:
    uses = [use for source in facts.sources for use in source.harmonised.uses]
    mapped = [[use.source, use.label, use.term or "", use.images, use.annotations] for use in uses if use.term]
    left_out = [[use.source, use.label, use.reason or "", use.images] for use in uses if not use.term]
    parts = [
        f"### Labels\n\nMapped to taxonomy {facts.taxonomy_version}. A label that is neither mapped nor excluded by "
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
    is_sought = facts.config.quality.copies is not None
    alike = "byte-equal files and copies of other images" if is_sought else "byte-equal files"
    text = (
        "A group never stands in two splits. A group is what shares a patient, video or series key, joined with "
        f"{alike}, over all sources."
    )
    return "\n\n".join(["### Splits", text, "\n".join(_group_line(source) for source in facts.sources)])


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


def _wording(facts: CardFacts) -> str:
    absent = facts.counts["absent_questions"]
    return (
        "### Conversations\n\nQuestions and answers are made from the findings by fixed wordings, except for dialogues "
        "that a source itself gives. No model wrote any of them, unless a section below says so. Of the REC questions, "
        f"{absent:,} ask for something that is not there."
    )


def _statistics(facts: CardFacts) -> str:
    counts = facts.counts
    tasks = list(counts["table_1"]["train"])
    pairs = [[split, *(row[task] for task in tasks)] for split, row in counts["table_1"].items()]
    labels = [
        [row["name"], row["source"], *(row["images"][split.value] for split in Split), row["boxes"]]
        for row in counts["labels"]
    ]
    splits = [[split, row["images"], row["groups"], row["boxes"]] for split, row in counts["splits"].items()]
    areas = counts["box_share_of_image"]
    parts = [
        "## Statistics",
        "Images, groups (patient, video, series or near-duplicates) and boxes:",
        markdown_table(["split", "images", "groups", "boxes"], splits),
        "Conversations by split and task:",
        markdown_table(["split", *tasks], pairs),
        *kinds_and_dialogues(counts),
        *_figures(facts),
        "Images at each place of the taxonomy; an image counts once at each place:",
        taxonomy_table(counts),
        "Images of each label; an image counts once for each of its labels:",
        markdown_table(["label", "source", *(split.value for split in Split), "boxes"], labels),
        "Class balance. Imbalance: images of the commonest label over those of the rarest that occurs. Effective "
        "labels: as many equally common ones would be as uneven.",
        balance_table(counts),
    ]
    if areas:
        parts.append(
            f"A box covers {areas[2]:.0%} of its image in the median (quartiles {areas[1]:.0%} and {areas[3]:.0%}, "
            f"extremes {areas[0]:.1%} and {areas[4]:.0%})."
        )
    return "\n\n".join(parts)


def _figures(facts: CardFacts) -> list[str]:
    if facts.figures is None:
        return []
    if not facts.figures:
        return [
            "Figures were not drawn, because matplotlib was not installed when this was built "
            '(`pip install "gastrovl[data]"`).'
        ]
    drawn = {path.stem: path.name for path in facts.figures if path.suffix == ".png"}
    return [f"![{text}](figures/{drawn[name]})" for name, text in _FIGURES.items() if name in drawn]


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
    parts = ["## Quality and leaks", "\n".join(lines)]
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


def _privacy(facts: CardFacts) -> str:
    suspected = facts.quality["faults"].get("text", {"images": 0, "action": "report"})
    done = {"report": "left as it is", "exclude": "left out", "mask": "painted over"}.get(suspected["action"], "")
    metadata = (
        "File metadata (EXIF, comments, profiles) was taken out of stored copies"
        if facts.config.images.strip_metadata
        else "File metadata was NOT taken out, because the build was told so"
    )
    private = [f"`{source.description.name}`" for source in facts.sources if source.description.access == "private"]
    lines = [
        f"- {metadata}; copies that lost some: {facts.quality['metadata_removed']}.",
        f"- Text burned into the picture is suspected in {suspected['images']} images ({done}). The detector misses "
        "some, so an image without the flag is not free of text.",
        "- Ids, groups and image paths come from the sources' file names. A name that tells who a patient is would "
        "stand here too.",
    ]
    if private:
        lines.append(f"- Private sources, not to be passed on without their owner's leave: {', '.join(private)}.")
    return "## Privacy\n\n" + "\n".join(lines)


def _considerations(facts: CardFacts) -> str:
    """Intended use, biases and limits."""
    balance = facts.counts["balance"][Split.TRAIN.value]
    biases = [
        "- Nothing is recorded of a patient's age, sex or origin, nor of the centre and the make of the endoscope, so "
        "results cannot be told apart by them."
    ]
    if balance["imbalance"]:
        biases.append(
            f"- Labels are uneven: in train the commonest has {balance['imbalance']:,.0f} times the images of the "
            f"rarest, as uneven as {balance['effective_classes']:.1f} equally common ones."
        )
    names = {row["term"]: row["name"] for row in facts.counts["labels"]}
    for split in Split:
        if missing := facts.counts["balance"][split.value]["missing"]:
            listed = ", ".join(names[term] for term in missing)
            biases.append(f"- Not in {split}: {listed}.")
    limits = [
        "- Labels are the sources' own; nobody looked at the images again.",
        "- A term is asked for as absent only where its source marks that term in every image.",
        _shortcuts(facts),
    ]
    if any("unspecified" in (use.term or "") for source in facts.sources for use in source.harmonised.uses):
        limits.append("- Labels that do not name the organ stay unspecified; they are no evidence about a site.")
    return "\n\n".join(
        [
            "## Considerations for use",
            "Intended for research on models that read endoscopic images. Not for diagnosis, triage or any decision "
            "about a patient, and not for finding out who a patient is.",
            "### Biases",
            "\n".join(biases),
            "### Known limits",
            "\n".join(limits),
        ]
    )


def _licensing(facts: CardFacts) -> str:
    terms = [
        f"- `{source.description.name}`: {source.description.licence or 'not stated'}"
        for source in sorted(facts.sources, key=lambda source: source.description.name)
    ]
    return (
        "## Licensing\n\nEvery licence below applies to its part of this folder and may bind what is trained on it.\n\n"
        + "\n".join(terms)
    )


def _citation(facts: CardFacts) -> str:
    entries = bibtex(source.description for source in facts.sources)
    return f"## Citation\n\nCite the sources, and the paper whose tasks these are:\n\n```bibtex\n{entries}\n```"


def _conversations_of(facts: CardFacts) -> dict[str, int]:
    return {split: sum(row.values()) for split, row in facts.counts["table_1"].items()}


def _n_images(facts: CardFacts) -> int:
    return sum(row["images"] for row in facts.counts["splits"].values())


def _tasks(facts: CardFacts) -> list[Task]:
    """Tasks that occur, in the order of `Task`."""
    return [task for task in Task if any(row.get(task.value) for row in facts.counts["table_1"].values())]
