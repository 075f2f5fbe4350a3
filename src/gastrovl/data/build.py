"""A build config to a dataset folder: records, conversations, images, statistics, data card and manifest.

The work on each image is done by tasks that any engine can run (`engines.py`): `looks.py` reads and stores images,
`composing.py` writes records and conversations. What needs the whole set stands between the two: copies, groups and
splits (`dividing.py`). Both kinds of task leave files in the folder to be, so a build that was killed goes on there.
"""

from __future__ import annotations

import json
import os
import shutil
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

from gastrovl.clinical.taxonomy import Taxonomy
from gastrovl.core.errors import MissingExtraError
from gastrovl.core.files import LOCK, atomic_path, resumed_folder, sha256_file, write_text
from gastrovl.core.manifest import write_manifest
from gastrovl.core.types import Split
from gastrovl.data.audit import AuditedImage, audit_copies, write_audit
from gastrovl.data.captioning.file import caption_section, caption_statistics, load_captions
from gastrovl.data.card import CardFacts, render_card
from gastrovl.data.collect import CollectedSource, Progress, collect, look_tasks
from gastrovl.data.composing import ComposeTasks, Joined, compose_chunk, file_names, join_chunks
from gastrovl.data.config import BuildConfig
from gastrovl.data.dividing import Division, divide
from gastrovl.data.engines import Engine, run_tasks
from gastrovl.data.figures import save_figures
from gastrovl.data.imagequality import count_faults
from gastrovl.data.lesionmasks import MASKS, FoundMask, count_masks, digest_masks, list_masks, mask_section
from gastrovl.data.looks import LookTask, broken_of, fill_journal
from gastrovl.data.rows import Looked, journal_lines, read_looks
from gastrovl.data.statistics import render_markdown

__all__ = ["BuildConfig", "build_dataset"]

WORK = ".work"  # below the folder to be: journals, chunks and drawn images; gone from the finished one
PLAN = "plan.json"
IMAGES = "images"


def build_dataset(
    config: BuildConfig,
    output: Path,
    *,
    data_root: Path | None = None,
    is_replaced: bool = False,
    engine: Engine | None = None,
    progress: Progress | None = None,
) -> Path:
    """Build the dataset folder `output`; it appears whole or not at all.

    What a build that was stopped has done stays in `.NAME.partial` beside `output`, and the same call goes on from
    there: no image that has not changed is read or stored twice.

    Args:
        data_root: Folder that the sources' `root` is relative to; default: the environment variable GASTROVL_DATA.
        is_replaced: Replace a dataset folder that is there already.
        engine: Who does the work on single images; default: this process. The result is the same.
        progress: Called with (step, done, total) as long work goes on.

    Returns:
        `output`.

    Raises:
        ConfigError: A description or setting is wrong.
        SourceError: A source folder does not hold what its description says, or a box is wrong.
        LabelError: Labels did not map, or rules name unknown terms.
        ImageError: Images are broken.
        OutputError: `output` is not free, or a worker died.
    """
    report, engine = progress or _silent, engine or Engine()
    taxonomy = Taxonomy.load()
    with resumed_folder(Path(output), is_replaced=is_replaced) as folder:
        work, plan = folder / WORK, _plan(config)
        _clear(folder, keeps_work=_read_plan(work) == plan)
        sources = collect(config, taxonomy, data_root=data_root, drawn=work / "drawn", progress=report)
        _write_json(work / PLAN, plan)
        tasks = look_tasks(sources, config, work / "looks", folder / IMAGES, folder / MASKS)
        images = sum(len(task.images) for task in tasks)
        _run(fill_journal, tasks, images, engine, "looking at images", report)
        looked = read_looks(sources, tasks, config, work)
        division = divide(looked, config, report)
        captions = load_captions(Path(place)) if (place := config.conversations.captions) else {}
        chunks = ComposeTasks(division, config, taxonomy, captions, work / "chunks")
        _run(compose_chunk, chunks, len(division.rows), engine, "writing conversations", report)
        quality = _quality(sources, looked, division, config)
        _write_quality_rows(folder, tasks, division)
        joined = join_chunks(chunks.folders(), file_names(config.conversations), folder)
        said = caption_statistics(captions.values(), joined.caption_uses) if captions else None
        _write(folder, config, taxonomy, sources, joined, quality, said, _masks(sources, division))
        if config.quality.copies is not None:
            _write_audit(folder, division, report)
        _remove_unused(folder, division)
        del looked  # its arrays lie in the work folder
        shutil.rmtree(work)
    return Path(output)


def _plan(config: BuildConfig) -> dict[str, Any]:
    """All that decides how images are looked at and stored; under another plan, what is there is of no use."""
    return {
        "version": metadata.version("gastrovl"),
        "quality": config.quality.model_dump(mode="json", exclude={"on_broken_image", "copies", "embeddings"}),
        "fingerprints": config.quality.copies is not None,
        "images": config.images.model_dump(mode="json"),
    }


def _clear(folder: Path, *, keeps_work: bool) -> None:
    """Remove what an earlier build left that this one cannot take up."""
    kept = {LOCK, *((WORK, IMAGES, MASKS) if keeps_work else ())}
    for old in folder.iterdir():
        if old.name not in kept:
            shutil.rmtree(old) if old.is_dir() else old.unlink()


def _remove_unused(folder: Path, division: Division) -> None:
    """Remove images and masks that no record names: left out since, or stored by an earlier build of other images."""
    named = {row.stored for row in division.rows}
    named |= {finding.mask for row in division.rows for finding in row.findings if finding.mask}
    for place, _, files in (found for top in (IMAGES, MASKS) for found in os.walk(folder / top, topdown=False)):
        below = Path(place).relative_to(folder).as_posix()
        for file in files:
            if f"{below}/{file}" not in named:
                (Path(place) / file).unlink()
        if not next(Path(place).iterdir(), None):
            Path(place).rmdir()


def _read_plan(work: Path) -> object:
    try:
        return json.loads((work / PLAN).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _run(
    function: Callable[[Any], int], tasks: Sequence[Any], total: int, engine: Engine, step: str, report: Progress
) -> None:
    """Run tasks, each of which returns the number of its images."""
    done = 0
    for count in run_tasks(function, tasks, engine):
        done += count
        report(step, done, total)


def _quality(
    sources: Sequence[CollectedSource], looked: Looked, division: Division, config: BuildConfig
) -> dict[str, Any]:
    """What quality.json holds."""
    rows = division.rows
    equal: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        equal[row.seen.sha256].append(row.id)

    def terms(index: int) -> set[str]:
        return {finding.term for finding in rows[index].labelled.findings}

    return {
        "schema": "gastrovl/quality/2",
        "broken": [asdict(item) for source in sources for item in source.broken],
        "exact_duplicates": sorted(ids for ids in equal.values() if len(ids) > 1),
        "copies": [
            {
                "a": rows[copy.i].id,
                "b": rows[copy.j].id,
                "likeness": round(copy.likeness, 4),
                "how": copy.how,
                "labels_differ": terms(copy.i) != terms(copy.j),
            }
            for copy in division.copies
        ],
        "rotated_by_exif": [row.id for row in rows if row.seen.rotated],
        "parted_by_official_split": division.parted,
        "dropped_by_official_split": sorted(row.id for row in division.dropped),
        "excluded": {
            source.description.name: [image.name for image in source.harmonised.excluded] for source in sources
        },
        "unannotated": {
            source.description.name: [image.name for image in source.harmonised.silent] for source in sources
        },
        "faults": count_faults(looked.faults, config.quality.faults),
        "excluded_by_fault": sorted(row.id for row in looked.excluded),
        "metadata_removed": sum(row.seen.removed for row in rows),
    }


def _masks(sources: Sequence[CollectedSource], division: Division) -> dict[str, list[FoundMask]]:
    """What became of the masks of each source that describes any."""
    found: dict[str, list[FoundMask]] = {
        source.description.name: [] for source in sources if source.description.masks is not None
    }
    for row in division.rows:
        if row.seen.masks:
            found[row.source.description.name] += row.seen.masks
    return found


def _write_audit(folder: Path, division: Division, report: Progress) -> None:
    """audit.json and audit.html: the copies that were found, and that none of them crosses splits."""
    images = [
        AuditedImage(
            id=row.id,
            path=folder / row.stored,
            sha256=row.seen.sha256,
            source=row.source.description.name,
            split=split,
            group=group,
            labels=tuple(finding.term for finding in row.labelled.findings),
        )
        for row, group, split in zip(division.rows, division.groups, division.splits, strict=True)
    ]
    write_audit(folder, audit_copies(images, division.copies), images, title="this dataset", progress=report)


def _write_quality_rows(folder: Path, tasks: Sequence[LookTask], division: Division) -> None:
    """quality.jsonl: one line for each image that was decoded and has a label, in the order of records.jsonl."""
    dropped = {row.id for row in division.dropped}
    with atomic_path(folder / "quality.jsonl") as temporary, temporary.open("w", encoding="utf-8") as stream:
        for line in journal_lines(tasks):
            if broken_of(line) is None:
                row = line["quality"]
                if row["id"] in dropped:
                    row |= {"action": "unused", "metadata_removed": []}
                stream.write(json.dumps(row, ensure_ascii=False) + "\n")


def _write(
    folder: Path,
    config: BuildConfig,
    taxonomy: Taxonomy,
    sources: Sequence[CollectedSource],
    joined: Joined,
    quality: dict[str, Any],
    captions: dict[str, Any] | None,
    masks: dict[str, list[FoundMask]],
) -> None:
    further = [name for name in file_names(config.conversations) if name not in set(Split)]
    counts = joined.tally.result([source.description for source in sources], taxonomy, further)
    if captions:
        counts["captions"] = captions
    if masks:
        counts["masks"] = count_masks(masks)
        quality = quality | {"masks": list_masks(masks)}
    _write_json(folder / "statistics.json", counts)
    write_text(folder / "statistics.md", render_markdown(counts, taxonomy))
    _write_json(folder / "quality.json", quality)
    uses = [asdict(use) for source in sources for use in source.harmonised.uses]
    _write_json(
        folder / "harmonised.json", {"schema": "gastrovl/harmonised/1", "taxonomy": taxonomy.version, "labels": uses}
    )
    figures = _figures(folder, counts, taxonomy) if config.figures else None
    sections = [caption_section(captions)] if captions else []
    sections += [mask_section(counts["masks"])] if masks else []
    facts = CardFacts(config, taxonomy.version, sources, counts, quality, figures, sections)
    write_text(folder / "README.md", render_card(facts))
    inputs = {f"{source.description.name} (description)": sha256_file(source.file) for source in sources}
    inputs |= {f"{name} (images and findings)": digest for name, digest in joined.digests.items()}
    inputs |= {f"{name} (masks)": digest_masks(own) for name, own in masks.items()}
    if place := config.conversations.captions:
        inputs["captions"] = sha256_file(Path(place))
    if chosen := config.quality.embeddings:
        inputs["embeddings"] = sha256_file(Path(chosen.file))
    write_manifest(
        folder,
        stage="data build",
        config=config.model_dump(mode="json"),
        seed=config.seed,
        inputs=inputs,
        licences={source.description.name: source.description.licence for source in sources},
    )


def _figures(folder: Path, counts: dict[str, Any], taxonomy: Taxonomy) -> list[Path]:
    """Figures of the counts; none where matplotlib is not installed, and the card says so then."""
    try:
        return save_figures(folder, counts, taxonomy)
    except MissingExtraError:
        return []


def _write_json(path: Path, content: dict[str, Any]) -> None:
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def _silent(_step: str, _done: int, _total: int) -> None:
    """Report nothing."""
