"""Chosen questions to cells: the same questions with one thing changed, as a file with its images beside it."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from gastrovl.clinical.taxonomy import Taxonomy
from gastrovl.core.errors import RecordError
from gastrovl.core.files import atomic_path, sha256_file
from gastrovl.core.images import open_image
from gastrovl.core.parallel import in_order
from gastrovl.core.records import read_records, write_records
from gastrovl.core.types import Box, Conversation, Task
from gastrovl.evaluation.robustness import objects
from gastrovl.evaluation.robustness.corruptions import corrupt, generator_of
from gastrovl.evaluation.robustness.leading import Led, Trap, lead
from gastrovl.evaluation.robustness.record import Family

OTHER_WORDINGS = "other_wordings"
IMAGES = "images"
Show = Callable[[int, int], None]


@dataclass(frozen=True)
class Cell:
    """One change to all questions it fits; `level` is 0 for all but corruptions."""

    family: Family
    name: str
    level: int = 0

    @property
    def label(self) -> str:
        """Name of its files."""
        return f"{self.name}-{self.level}" if self.level else self.name


CLEAN = Cell(Family.CLEAN, "clean")


@dataclass(frozen=True)
class Chosen:
    """The questions of a measurement, with what belongs to them.

    Attributes:
        folder: Where the paths of their images begin.
        reworded: Those that are also there in other words, under the same ids.
    """

    conversations: tuple[Conversation, ...]
    folder: Path
    reworded: tuple[Conversation, ...]
    seed: int

    def boxes(self) -> dict[str, list[Box]]:
        """All boxes that any question about an image is about, by the image's path."""
        found: dict[str, list[Box]] = defaultdict(list)
        for one in self.conversations:
            found[one.image.path] += one.target.boxes
        return found


def choose(conversations: Path, *, tasks: Sequence[Task], limit: int | None, seed: int) -> Chosen:
    """The questions of some tasks about at most `limit` images, which are drawn by a seed.

    Other wordings lie beside a file that `gastrovl data build` wrote, as e.g. test_reworded.jsonl.

    Raises:
        RecordError: A file is missing or broken, or holds no question of these tasks.
    """
    conversations = Path(conversations)
    found = [one for one in read_records(conversations, Conversation) if one.task in tasks]
    if not found:
        raise RecordError(
            f"{conversations}: holds no conversation of {', '.join(tasks)}; choose other --tasks or another file"
        )
    images = sorted(
        {one.image.path for one in found}, key=lambda path: hashlib.sha256(f"{seed}\n{path}".encode()).digest()
    )
    kept = set(images[:limit])
    chosen = tuple(one for one in found if one.image.path in kept)
    return Chosen(chosen, conversations.parent, _reworded(conversations, chosen), seed)


def _reworded(conversations: Path, chosen: Sequence[Conversation]) -> tuple[Conversation, ...]:
    beside = conversations.with_name(f"{conversations.stem}_reworded{conversations.suffix}")
    if not beside.is_file():
        return ()
    words = {one.id: one.turns[-2].text for one in chosen}
    found = read_records(beside, Conversation)
    return tuple(one for one in found if one.id in words and one.turns[-2].text != words[one.id])


def cells_of(chosen: Chosen, corruptions: Sequence[str], levels: Sequence[int], traps: Sequence[Trap]) -> list[Cell]:
    """The cells of a measurement in order of work, the unchanged questions first."""
    taxonomy = Taxonomy.load()
    fitting = [trap for trap in traps if any(lead(one, trap, taxonomy, chosen.seed) for one in chosen.conversations)]
    return [
        CLEAN,
        *(Cell(Family.CORRUPTION, name, level) for name in corruptions for level in sorted(set(levels))),
        *(Cell(Family.LEADING, trap.value) for trap in fitting),
        *([Cell(Family.WORDING, OTHER_WORDINGS)] if chosen.reworded else []),
    ]


def led_questions(chosen: Chosen, trap: Trap) -> list[Led]:
    """The questions that a trap fits, with it."""
    taxonomy = Taxonomy.load()
    found = (lead(one, trap, taxonomy, chosen.seed) for one in chosen.conversations)
    return [one for one in found if one is not None]


def write_cell(cell: Cell, chosen: Chosen, folder: Path, progress: Show | None = None) -> Path:
    """Write `folder/<label>.questions.jsonl` with its images below `folder/images`; returns the file.

    Images that are not changed are linked into `folder/images/clean`, which all cells share.

    Raises:
        ImageError: An image is missing or broken.
    """
    path = folder / f"{cell.label}.questions.jsonl"
    if cell.family is Family.CORRUPTION:
        boxes = chosen.boxes()

        def change(one: Conversation, image: Image.Image) -> Image.Image:
            key = one.image.sha256
            return corrupt(image, cell.name, cell.level, key=key, seed=chosen.seed, boxes=boxes[one.image.path])

        first_of = {one.image.path: one for one in chosen.conversations}
        places = _changed(list(first_of.values()), lambda one: one.image.path, change, cell, chosen, folder, progress)
        rows = [_moved(one, *places[one.image.path]) for one in chosen.conversations]
    elif cell.family is Family.LEADING and cell.name == Trap.BURNED_IN_LABEL:
        led = {one.conversation.id: one for one in led_questions(chosen, Trap.BURNED_IN_LABEL)}

        def burn(one: Conversation, image: Image.Image) -> Image.Image:
            generator = generator_of(one.id, "burned in", chosen.seed)
            return objects.burned_in(image, (led[one.id].burned_in or "").upper(), generator)

        asked = [one.conversation for one in led.values()]
        places = _changed(asked, lambda one: one.id, burn, cell, chosen, folder, progress)
        rows = [_moved(one, *places[one.id]) for one in asked]
    else:
        if cell.family is Family.LEADING:
            plain = [one.conversation for one in led_questions(chosen, Trap(cell.name))]
        else:
            plain = list(chosen.reworded if cell.family is Family.WORDING else chosen.conversations)
        rows = [_moved(one, _linked(one, chosen.folder, folder), one.image.sha256) for one in plain]
    write_records(path, rows)
    return path


def remove_images(cell: Cell, folder: Path) -> None:
    """Delete the images that were changed for a cell."""
    if cell is not CLEAN:
        shutil.rmtree(folder / IMAGES / cell.label, ignore_errors=True)


def _changed(
    conversations: Sequence[Conversation],
    key: Callable[[Conversation], str],
    change: Callable[[Conversation, Image.Image], Image.Image],
    cell: Cell,
    chosen: Chosen,
    folder: Path,
    progress: Show | None,
) -> dict[str, tuple[str, str]]:
    """Path in `folder` and SHA-256 of the changed image of each conversation, by its key."""

    def make(one: Conversation) -> tuple[str, str]:
        name = hashlib.sha256(key(one).encode()).hexdigest()[:24]
        relative = f"{IMAGES}/{cell.label}/{name}.png"
        target = folder / relative
        if not target.is_file():
            changed = change(one, open_image(chosen.folder / one.image.path))
            with atomic_path(target) as temporary:
                changed.save(temporary, format="PNG", compress_level=1)
        return relative, sha256_file(target)

    found: dict[str, tuple[str, str]] = {}
    for one, place in zip(conversations, in_order(make, conversations), strict=True):
        found[key(one)] = place
        if progress:
            progress(len(found), len(conversations))
    return found


def _linked(one: Conversation, source: Path, folder: Path) -> str:
    """Path in `folder` of an image as it was."""
    original = (source / one.image.path).resolve()
    name = hashlib.sha256(one.image.path.encode()).hexdigest()[:24]
    relative = f"{IMAGES}/{CLEAN.label}/{name}{original.suffix}"
    target = folder / relative
    if not target.exists() and original.is_file():  # a missing one is named by whoever opens it
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(original, target)
        except OSError:  # another file system, or one without hard links
            shutil.copyfile(original, target)
    return relative


def _moved(one: Conversation, path: str, sha256: str) -> Conversation:
    image = one.image.model_copy(update={"path": path, "sha256": sha256})
    target = one.target.model_copy(update={"mask": None})  # it stays in the dataset folder
    return one.model_copy(update={"image": image, "target": target})
