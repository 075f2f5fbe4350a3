"""What an export wrote, and the dataset's card, to the README.md with which it can be published as it is."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gastrovl.core.files import write_text
from gastrovl.core.frontmatter import without_front_matter
from gastrovl.core.types import Task
from gastrovl.data.card import STRUCTURE
from gastrovl.data.exporters.streamed import BuiltImage
from gastrovl.data.frontmatter import front_matter
from gastrovl.data.lesionmasks import HEADING as MASKS

CARDS = ("README.md", "card.md")  # of a dataset folder; the second of folders built before version 0.2
FIGURES = "figures"
_ELSEWHERE = (
    "Other files that this card names, such as `quality.json`, stay with the dataset folder that this was written from."
)


@dataclass
class Exported:
    """What has gone into an export so far.

    Attributes:
        licences: Of each source.
        configs, infos: What the Hub loads, and how many rows each split has; see `front_matter`.
    """

    licences: dict[str, str] = field(default_factory=dict)
    tasks: set[Task] = field(default_factory=set)
    n_images: int = 0
    configs: dict[str, dict[str, Any]] = field(default_factory=dict)
    infos: dict[str, dict[str, Any]] = field(default_factory=dict)

    def count(self, built: BuiltImage) -> None:
        self.licences[built.sample.source] = built.sample.licence
        self.tasks |= {item.task for items in built.conversations.values() for item in items}
        self.n_images += 1

    def add_split(self, config: str, split: str, path: str, n_rows: int, n_bytes: int) -> None:
        """Add a split; the first config is the one that is loaded unless another is asked for."""
        first = {} if self.configs else {"default": True}
        files = self.configs.setdefault(config, {"config_name": config, **first, "data_files": []})["data_files"]
        files.append({"split": split, "path": path})
        info = self.infos.setdefault(config, {"config_name": config, "splits": []})
        info["splits"].append({"name": split, "num_bytes": n_bytes, "num_examples": n_rows})


def write_hub_card(dataset: Path, folder: Path, exported: Exported, notes: Sequence[str]) -> None:
    """README.md of an export: metadata, and the dataset's own card with its figures; `notes` tell of the files."""
    card = next((path for name in CARDS if (path := dataset / name).is_file()), None)
    body = without_front_matter(card.read_text(encoding="utf-8")) if card else "# Dataset card\n"
    head = front_matter(
        sources=sorted(exported.licences),
        licences=exported.licences.values(),
        n_images=exported.n_images,
        tasks=exported.tasks,
        configs=list(exported.configs.values()),
        dataset_info=list(exported.infos.values()),
    )
    write_text(folder / "README.md", head + _with_structure(body, "\n\n".join([STRUCTURE, *notes, _ELSEWHERE])))
    if (dataset / FIGURES).is_dir():
        shutil.copytree(dataset / FIGURES, folder / FIGURES)


def _with_structure(body: str, structure: str) -> str:
    """A card whose section on its files is `structure`, in the place of its own or behind its title.

    That on masks, which are not exported, is left out.
    """
    parts = [part for part in re.split(r"^(?=## )", body, flags=re.MULTILINE) if not part.startswith(f"{MASKS}\n")]
    own = next((n for n, part in enumerate(parts) if part.startswith(f"{STRUCTURE}\n")), None)
    parts[slice(1, 1) if own is None else slice(own, own + 1)] = [f"{structure}\n\n"]
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"
