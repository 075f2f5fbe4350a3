"""A build config to a dataset folder: records, conversations, images, statistics, data card and manifest."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gastrovl.clinical.taxonomy import Taxonomy
from gastrovl.core.errors import SourceError
from gastrovl.core.files import sha256_file, whole_folder, write_text
from gastrovl.core.manifest import write_manifest
from gastrovl.core.records import to_line, write_records
from gastrovl.core.types import Conversation, ImageRef, Sample, Split
from gastrovl.data.card import CardFacts, render_card
from gastrovl.data.collect import CollectedSource, Progress, collect
from gastrovl.data.config import BuildConfig
from gastrovl.data.harmonise import LabelledImage
from gastrovl.data.imagequality import count_faults, is_excluded, quality_row
from gastrovl.data.instructions import conversations_of, evaluation_dialogues
from gastrovl.data.official import official_splits
from gastrovl.data.quality import Look, near_duplicates
from gastrovl.data.series import group_keys
from gastrovl.data.splits import Member, assign_splits, join_groups, resolve_parted
from gastrovl.data.statistics import count_dataset, render_markdown
from gastrovl.data.storing import store_image
from gastrovl.data.wordings import Phrasing

__all__ = ["BuildConfig", "build_dataset"]

EVALUATED = (Split.VAL, Split.TEST)


@dataclass(frozen=True)
class _Row:
    """One usable image on its way to a sample."""

    source: CollectedSource
    labelled: LabelledImage
    look: Look

    @property
    def id(self) -> str:
        return f"{self.source.description.name}/{self.labelled.image.key}"

    @property
    def stored(self) -> str:
        return f"images/{self.source.description.name}/{self.labelled.image.name}"


def build_dataset(
    config: BuildConfig,
    output: Path,
    *,
    data_root: Path | None = None,
    is_replaced: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Build the dataset folder `output`; either all of it appears or nothing does.

    Args:
        data_root: Folder that the sources' `root` is relative to; default: the environment variable GASTROVL_DATA.
        is_replaced: Replace a dataset folder that is there already.
        progress: Called with (step, done, total) as long work goes on.

    Returns:
        `output`.

    Raises:
        ConfigError: A description or setting is wrong.
        SourceError: A source folder does not hold what its description says, or a box is wrong.
        LabelError: Labels did not map, or rules name unknown terms.
        ImageError: Images are broken.
        OutputError: `output` is not free.
    """
    report = progress or _silent
    taxonomy = Taxonomy.load()
    with whole_folder(Path(output), is_replaced=is_replaced) as folder:
        drawn = folder / ".drawn"
        sources, looks = collect(config, taxonomy, data_root=data_root, drawn=drawn, progress=report)
        rows, excluded = _rows(sources, looks, config)
        measured = sorted((*rows, *excluded), key=lambda row: row.id)
        pairs = _look_alikes(rows, config, report)
        rows, pairs, samples, dropped = _divide(rows, pairs, config)
        conversations = _conversations(rows, samples, config, taxonomy, report)
        removed = _store_images(rows, config, folder, report)
        shutil.rmtree(drawn, ignore_errors=True)
        _write_quality_rows(folder, measured, removed, config)
        quality = _quality(sources, rows, samples, pairs, dropped)
        quality["faults"] = count_faults([row.look.measures for row in measured], config.quality.faults)
        quality["excluded_by_fault"] = [row.id for row in excluded]
        quality["metadata_removed"] = sum(bool(kinds) for kinds in removed.values())
        _write(folder, config, taxonomy, sources, samples, conversations, quality)
    return Path(output)


def _rows(
    sources: Sequence[CollectedSource], looks: dict[Path, Look], config: BuildConfig
) -> tuple[list[_Row], list[_Row]]:
    """Rows that go on, and rows that `quality.faults` excludes."""
    all_rows = [_Row(source, labelled, looks[labelled.image.path]) for source in sources for labelled in source.usable]
    excluded = [row for row in all_rows if is_excluded(row.look.measures, config.quality.faults)]
    out = {row.id for row in excluded}
    rows = [row for row in all_rows if row.id not in out]
    if not rows:
        raise SourceError(
            "no image is left: every one is excluded, broken or unlabelled. Check `labels`, `limit` and "
            "`quality.faults`"
        )
    return rows, excluded


def _look_alikes(rows: Sequence[_Row], config: BuildConfig, report: Progress) -> list[tuple[int, int, int]]:
    """(i, j, bits that differ) of near-duplicate rows."""
    bits = config.quality.near_duplicate_bits
    if bits is None:
        return []

    def show(done: int, total: int) -> None:
        report("comparing images", done, total)

    return near_duplicates(np.stack([row.look.bits for row in rows]), bits, show)


def _divide(
    rows: list[_Row], pairs: list[tuple[int, int, int]], config: BuildConfig
) -> tuple[list[_Row], list[tuple[int, int, int]], list[Sample], list[str]]:
    """Rows with their pairs and samples, and the ids that an official split made leave."""
    members = _members(rows, config)
    groups = join_groups(members, [(i, j) for i, j, _ in pairs])
    dropped = resolve_parted(members, groups, config.splits)
    kept = [index for index in range(len(rows)) if index not in dropped]
    place = {index: new for new, index in enumerate(kept)}
    members, groups = [members[index] for index in kept], [groups[index] for index in kept]
    splits = assign_splits(members, groups, config.splits, config.seed)
    samples = [_sample(rows[index], group, split) for index, group, split in zip(kept, groups, splits, strict=True)]
    pairs = [(place[i], place[j], bits) for i, j, bits in pairs if i in place and j in place]
    return [rows[index] for index in kept], pairs, samples, sorted(rows[index].id for index in dropped)


def _members(rows: Sequence[_Row], config: BuildConfig) -> list[Member]:
    keys: dict[str, list[str]] = defaultdict(list)
    official: dict[str, Split] = {}
    for source in dict.fromkeys(id(row.source) for row in rows):
        own = [row for row in rows if id(row.source) == source]
        description, root = own[0].source.description, own[0].source.root
        images = [row.labelled.image for row in own]
        if description.group is not None:
            looks = {row.labelled.image.path: row.look for row in own}
            for row, key in zip(own, group_keys(images, looks, description.group), strict=True):
                keys[row.id].append(f"{description.name}:{key}")
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
                f"sha256:{row.look.sha256}",
            ),
            labels=(
                f"{row.source.description.name}:",
                *(f"{row.source.description.name}:{finding.term}" for finding in row.labelled.findings),
            ),
            official=official.get(row.id),
        )
        for row in rows
    ]


def _sample(row: _Row, group: str, split: Split) -> Sample:
    width, height = row.labelled.image.size_wh or (0, 0)
    return Sample(
        id=row.id,
        image=ImageRef(path=row.stored, width_px=width, height_px=height, sha256=row.look.sha256),
        source=row.source.description.name,
        group=group,
        split=split,
        findings=row.labelled.findings,
        licence=row.source.description.licence,
        dialogues=row.labelled.dialogues,
    )


def _conversations(
    rows: Sequence[_Row], samples: Sequence[Sample], config: BuildConfig, taxonomy: Taxonomy, report: Progress
) -> dict[str, list[Conversation]]:
    """The conversations of each file, by the file's name."""
    phrasing, options = Phrasing.load(), config.conversations
    exhaustive = {
        id(source): _exhaustive_terms(source) for source in {id(row.source): row.source for row in rows}.values()
    }
    found: dict[str, list[Conversation]] = {split.value: [] for split in Split}
    for split in EVALUATED:
        found[reworded(split)] = []
        if options.dialogues:
            found[dialogues(split)] = []
    for done, (row, sample) in enumerate(zip(rows, samples, strict=True), start=1):
        allowed = options.model_copy(
            update={"tasks": tuple(task for task in options.tasks if task in row.labelled.tasks)}
        )
        terms = exhaustive[id(row.source)]
        found[sample.split.value] += conversations_of(sample, taxonomy, phrasing, allowed, config.seed, terms)
        if sample.split in EVALUATED:
            found[reworded(sample.split)] += conversations_of(
                sample, taxonomy, phrasing, allowed, config.seed, terms, is_reworded=True
            )
            if options.dialogues:
                found[dialogues(sample.split)] += evaluation_dialogues(sample, taxonomy, phrasing, allowed, config.seed)
        report("writing conversations", done, len(rows))
    return found


def reworded(split: Split) -> str:
    """Name of the file that words a split's conversations by the held-out wordings, without its ending."""
    return f"{split.value}_reworded"


def dialogues(split: Split) -> str:
    """Name of the file of questions that follow others, without its ending."""
    return f"{split.value}_dialogues"


def _exhaustive_terms(source: CollectedSource) -> list[str]:
    """Terms that the source boxes wherever they are seen, as far as it does box them."""
    boxed = {finding.term for labelled in source.usable for finding in labelled.findings if finding.boxes}
    rules = source.description.labels
    terms = [rules[label].term for label in source.description.exhaustive_labels()]
    return sorted({term for term in terms if term in boxed})


def _store_images(
    rows: Sequence[_Row], config: BuildConfig, folder: Path, report: Progress
) -> dict[str, tuple[str, ...]]:
    """Store every row's image; the kinds of metadata removed from each, by id."""
    removed = {}
    for done, row in enumerate(rows, start=1):
        masked = row.look.measures.to_mask(config.quality.faults)
        image, target = row.labelled.image, folder / row.stored
        removed[row.id] = store_image(image, target, config.images, masked, inpaint=config.quality.faults.inpaint)
        report("storing images", done, len(rows))
    return removed


def _write_quality_rows(
    folder: Path,
    rows: Sequence[_Row],
    removed: dict[str, tuple[str, ...]],
    config: BuildConfig,
) -> None:
    """quality.jsonl: one line for each image that was decoded and has a label, in order of ids."""
    lines = [
        quality_row(row.id, row.labelled.image, row.look, config.quality.faults, removed.get(row.id)) for row in rows
    ]
    write_text(folder / "quality.jsonl", "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))


def _quality(
    sources: Sequence[CollectedSource],
    rows: Sequence[_Row],
    samples: Sequence[Sample],
    pairs: Sequence[tuple[int, int, int]],
    dropped: list[str],
) -> dict[str, Any]:
    equal: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        equal[row.look.sha256].append(row.id)
    terms = [{finding.term for finding in sample.findings} for sample in samples]
    return {
        "schema": "gastrovl/quality/1",
        "broken": [asdict(item) for source in sources for item in source.broken],
        "exact_duplicates": sorted(ids for ids in equal.values() if len(ids) > 1),
        "near_duplicates": [
            {"a": rows[i].id, "b": rows[j].id, "bits": bits, "labels_differ": terms[i] != terms[j]}
            for i, j, bits in pairs
        ],
        "rotated_by_exif": [row.id for row in rows if row.look.rotated],
        "dropped_by_official_split": dropped,
        "excluded": {
            source.description.name: [image.name for image in source.harmonised.excluded] for source in sources
        },
        "unannotated": {
            source.description.name: [image.name for image in source.harmonised.silent] for source in sources
        },
    }


def _write(
    folder: Path,
    config: BuildConfig,
    taxonomy: Taxonomy,
    sources: Sequence[CollectedSource],
    samples: Sequence[Sample],
    conversations: dict[str, list[Conversation]],
    quality: dict[str, Any],
) -> None:
    write_records(folder / "records.jsonl", samples)
    for name, items in conversations.items():
        write_records(folder / f"{name}.jsonl", items)
    main = [item for split in Split for item in conversations[split.value]]
    further = {name: items for name, items in conversations.items() if name not in set(Split)}
    counts = count_dataset(samples, main, [source.description for source in sources], taxonomy, further)
    _write_json(folder / "statistics.json", counts)
    write_text(folder / "statistics.md", render_markdown(counts, taxonomy))
    _write_json(folder / "quality.json", quality)
    uses = [asdict(use) for source in sources for use in source.harmonised.uses]
    _write_json(
        folder / "harmonised.json", {"schema": "gastrovl/harmonised/1", "taxonomy": taxonomy.version, "labels": uses}
    )
    write_text(folder / "card.md", render_card(CardFacts(config, taxonomy.version, sources, counts, quality)))
    write_manifest(
        folder,
        stage="data build",
        config=config.model_dump(mode="json"),
        seed=config.seed,
        inputs=_input_hashes(sources, samples),
        licences={source.description.name: source.description.licence for source in sources},
    )


def _input_hashes(sources: Sequence[CollectedSource], samples: Sequence[Sample]) -> dict[str, str]:
    """Of each description, and of each source's images with what was read about them."""
    hashes = {f"{source.description.name} (description)": sha256_file(source.file) for source in sources}
    for source in sources:
        digest = hashlib.sha256()
        for sample in samples:
            if sample.source == source.description.name:
                digest.update(to_line(sample.model_copy(update={"split": Split.TRAIN, "group": "any"})).encode())
        hashes[f"{source.description.name} (images and findings)"] = digest.hexdigest()
    return hashes


def _write_json(path: Path, content: dict[str, Any]) -> None:
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def _silent(_step: str, _done: int, _total: int) -> None:
    """Report nothing."""
