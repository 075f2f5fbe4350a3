"""What an export wrote, and the dataset's card, to the README.md with which it can be published as it is."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gastrovl.core.files import write_text
from gastrovl.core.types import Task
from gastrovl.data.exporters.streamed import BuiltImage
from gastrovl.data.frontmatter import front_matter, without_front_matter

CARDS = ("README.md", "card.md")  # of a dataset folder; the second of folders built before version 0.2
FIGURES = "figures"


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
    """README.md of an export: metadata, `notes` on its files, then the dataset's own card with its figures."""
    card = next((path for name in CARDS if (path := dataset / name).is_file()), None)
    body = (
        without_front_matter(card.read_text(encoding="utf-8")) if card else "# Dataset card\n\nThe dataset has none.\n"
    )
    head = front_matter(
        sources=sorted(exported.licences),
        licences=exported.licences.values(),
        n_images=exported.n_images,
        tasks=exported.tasks,
        configs=list(exported.configs.values()),
        dataset_info=list(exported.infos.values()),
    )
    title, _, rest = body.partition("\n\n")
    write_text(folder / "README.md", head + "\n\n".join([title, "## Files", *notes, rest]))
    if (dataset / FIGURES).is_dir():
        shutil.copytree(dataset / FIGURES, folder / FIGURES)
