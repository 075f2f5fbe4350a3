"""Source folders to labelled images, and those to tasks that look at them: the half of a build that only reads."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gastrovl.clinical.taxonomy import Taxonomy
from gastrovl.core.errors import ConfigError, SourceError
from gastrovl.core.files import write_text
from gastrovl.data.annotation import Annotation
from gastrovl.data.config import BuildConfig, DrawnOptions, SourceChoice, source_folder, spread
from gastrovl.data.harmonise import Harmonised, LabelledImage, check_labels, check_rules, harmonise, with_named_labels
from gastrovl.data.images import BrokenImage, ImageFolder, list_images
from gastrovl.data.lesionmasks import wanted_masks
from gastrovl.data.looks import LookTask
from gastrovl.data.quality import stop_at_broken
from gastrovl.data.source import SourceDescription, load_source, read_annotations
from gastrovl.data.synthetic import write_drawn_set

Progress = Callable[[str, int, int], None]  # (step, done, total)
NO_IMAGE = "no image is left: every one is excluded, broken or unlabelled. Check `labels`, `limit` and `quality.faults`"
IMAGES_A_TASK = 128  # half a second of work: little to lose, and enough for a worker


@dataclass
class CollectedSource:
    """A source after reading.

    Attributes:
        file: Its description's YAML file.
        usable: Images with a label that counts, decoded and whole, in order of their names.
        n_files: Images found in the folder.
        n_over_limit: Usable images that `limit` left out.
        broken: Images left out because they cannot be used.
    """

    description: SourceDescription
    file: Path
    root: Path
    harmonised: Harmonised
    usable: list[LabelledImage] = field(default_factory=list)
    n_files: int = 0
    n_over_limit: int = 0
    broken: list[BrokenImage] = field(default_factory=list)


def collect(
    config: BuildConfig, taxonomy: Taxonomy, *, data_root: Path | None, drawn: Path, progress: Progress
) -> list[CollectedSource]:
    """Read all sources of a config but their pixels, cheapest checks first: descriptions, headers, annotations, labels.

    Args:
        drawn: Folder into which synthetic sources may draw; a set that is there already is not drawn again.

    Raises:
        ConfigError, SourceError, LabelError, ImageError: Something is wrong; nothing has been written.
    """
    described = [_describe(choice, taxonomy) for choice in config.sources]
    names = [description.name for description, _ in described]
    double = sorted({name for name in names if names.count(name) > 1})
    if double:
        raise ConfigError(f"sources: {', '.join(double)} is listed twice; expected every source once")
    roots = [
        _draw(choice.synthetic, drawn / description.name, progress)
        if choice.synthetic
        else source_folder(choice, data_root)
        for choice, (description, _) in zip(config.sources, described, strict=True)
    ]
    folders: list[ImageFolder] = []
    found: list[list[Annotation]] = []
    for (description, _), root in zip(described, roots, strict=True):
        images = list_images(root, description.images, max_px=config.quality.max_px)
        folders.append(images)
        found.append(list(read_annotations(description, root, images)))
    described = [
        (with_named_labels(description, said, taxonomy), file)
        for (description, file), said in zip(described, found, strict=True)
    ]
    check_labels([description for description, _ in described], found, taxonomy)
    sources = [
        _select(description, file, root, images, annotations, taxonomy, choice.limit)
        for choice, (description, file), root, images, annotations in zip(
            config.sources, described, roots, folders, found, strict=True
        )
    ]
    if not any(source.usable for source in sources):
        raise SourceError(NO_IMAGE)
    return sources


def look_tasks(
    sources: Sequence[CollectedSource], config: BuildConfig, journals: Path, stored: Path, masks: Path
) -> list[LookTask]:
    """The usable images of all sources in chunks, in order.

    Args:
        journals: Folder of the journals.
        stored, masks: Folders of the dataset's images and masks.

    Raises:
        SourceError: As in `wanted_masks`.
    """
    tasks = []
    for source in sources:
        name = source.description.name
        wanted = wanted_masks(source.usable, source.description.masks, source.root)
        for start in range(0, len(source.usable), IMAGES_A_TASK):
            images = tuple(labelled.image for labelled in source.usable[start : start + IMAGES_A_TASK])
            tasks.append(
                LookTask(
                    source=name,
                    images=images,
                    quality=config.quality,
                    storing=config.images,
                    stored=stored / name,
                    journal=journals / name / f"{start // IMAGES_A_TASK:06d}.jsonl",
                    masks=masks / name if wanted else None,
                    wanted={image.name: wanted[image.name] for image in images if image.name in wanted},
                )
            )
    return tasks


def leave_out_broken(sources: Sequence[CollectedSource], broken: dict[str, BrokenImage], config: BuildConfig) -> None:
    """Take broken images, by path, out of what is usable, and list them with their source.

    Raises:
        ImageError: There are any, those with a broken header included, and `quality.on_broken_image` is "stop".
    """
    for source in sources:
        known = {row.path for row in source.broken}
        own = [str(labelled.image.path) for labelled in source.usable if str(labelled.image.path) in broken]
        source.broken += [broken[path] for path in own if path not in known]
        source.usable = [labelled for labelled in source.usable if str(labelled.image.path) not in broken]
        source.harmonised.silent = [image for image in source.harmonised.silent if str(image.path) not in known]
    if config.quality.on_broken_image == "stop":
        stop_at_broken([row for source in sources for row in source.broken])


def _describe(choice: SourceChoice, taxonomy: Taxonomy) -> tuple[SourceDescription, Path]:
    description, file = load_source(choice.description or "drawn")
    check_rules(description, taxonomy, str(file))
    return description, file


def _draw(options: DrawnOptions, folder: Path, progress: Progress) -> Path:
    mark, said = folder / "drawn.json", options.model_dump_json()
    if mark.is_file() and mark.read_text(encoding="utf-8") == said:
        return folder
    shutil.rmtree(folder, ignore_errors=True)  # frames of another drawn set

    def show(done: int, total: int) -> None:
        progress("drawing images", done, total)

    write_drawn_set(folder, options.images, options.seed, progress=show)
    write_text(mark, said)
    return folder


def _select(
    description: SourceDescription,
    file: Path,
    root: Path,
    images: ImageFolder,
    annotations: list[Annotation],
    taxonomy: Taxonomy,
    limit: int | None,
) -> CollectedSource:
    harmonised = harmonise(description, images, annotations, taxonomy)
    chosen = spread(len(harmonised.images), limit)
    return CollectedSource(
        description,
        file,
        root,
        harmonised,
        usable=[harmonised.images[index] for index in chosen],
        n_files=len(images.images),
        n_over_limit=len(harmonised.images) - len(chosen),
        broken=list(images.broken),
    )
