"""Source folders to labelled, decoded images: the half of a build that only reads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from gastrovl.clinical.taxonomy import Taxonomy
from gastrovl.core.errors import ConfigError
from gastrovl.data.annotation import Annotation
from gastrovl.data.config import BuildConfig, DrawnOptions, SourceChoice, source_folder, spread
from gastrovl.data.harmonise import Harmonised, LabelledImage, check_labels, check_rules, harmonise
from gastrovl.data.images import BrokenImage, ImageFolder, list_images
from gastrovl.data.quality import Look, look_at_all, stop_at_broken
from gastrovl.data.source import SourceDescription, load_source, read_annotations
from gastrovl.data.synthetic import write_drawn_set

Progress = Callable[[str, int, int], None]  # (step, done, total)


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
) -> tuple[list[CollectedSource], dict[Path, Look]]:
    """Read all sources of a config, cheapest checks first: descriptions, headers, annotations, labels, then pixels.

    Args:
        drawn: Folder into which synthetic sources may draw.

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
    check_labels([description for description, _ in described], found, taxonomy)
    sources = [
        _select(description, file, root, images, annotations, taxonomy, choice.limit)
        for choice, (description, file), root, images, annotations in zip(
            config.sources, described, roots, folders, found, strict=True
        )
    ]
    return sources, _look(sources, config, progress)


def _describe(choice: SourceChoice, taxonomy: Taxonomy) -> tuple[SourceDescription, Path]:
    description, file = load_source(choice.description or "drawn")
    check_rules(description, taxonomy, str(file))
    return description, file


def _draw(options: DrawnOptions, folder: Path, progress: Progress) -> Path:
    def show(done: int, total: int) -> None:
        progress("drawing images", done, total)

    return write_drawn_set(folder, options.images, options.seed, progress=show)


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


def _look(sources: list[CollectedSource], config: BuildConfig, progress: Progress) -> dict[Path, Look]:
    """Decode every usable image once; broken ones stop the build or leave it, as the config says."""
    total, done = sum(len(source.usable) for source in sources), 0

    def step() -> None:
        nonlocal done
        done += 1
        progress("checking images", done, total)

    looks: dict[Path, Look] = {}
    for source in sources:
        seen, broken = look_at_all((labelled.image for labelled in source.usable), config.quality, step)
        looks.update(seen)
        known = {row.path for row in source.broken}
        source.broken += [row for row in broken if row.path not in known]
        source.usable = [labelled for labelled in source.usable if labelled.image.path in seen]
        source.harmonised.silent = [image for image in source.harmonised.silent if str(image.path) not in known]
    if config.quality.on_broken_image == "stop":
        stop_at_broken([row for source in sources for row in source.broken])
    return looks
