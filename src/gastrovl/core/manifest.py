"""`manifest.json`: what made an output folder, so that a stranger can make it again."""

from __future__ import annotations

import json
import platform
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from gastrovl.core.config import Config
from gastrovl.core.errors import RecordError
from gastrovl.core.files import write_text

LIBRARIES = ("numpy", "pillow", "pydantic", "torch", "transformers", "tokenizers", "peft", "accelerate")


class Manifest(Config):
    """What made a folder.

    Attributes:
        stage: The command, e.g. "data build".
        version: Of this package.
        created: ISO 8601 time with offset, to the second.
        seed: The run's seed, or None when nothing was drawn.
        config: The whole config the stage ran with.
        inputs: Each input file or folder with its sha256.
        licences: Each source with its licence.
        libraries: Installed libraries with their versions.
        platform: Python version, system and machine.
    """

    stage: str
    version: str
    created: str
    seed: int | None
    config: dict[str, Any]
    inputs: dict[str, str]
    licences: dict[str, str]
    libraries: dict[str, str]
    platform: str


def write_manifest(
    folder: Path,
    *,
    stage: str,
    config: dict[str, Any],
    seed: int | None,
    inputs: dict[str, str] | None = None,
    licences: dict[str, str] | None = None,
    now: datetime | None = None,
) -> Manifest:
    """Write `folder/manifest.json`; `now` defaults to the clock."""
    manifest = Manifest(
        stage=stage,
        version=metadata.version("gastrovl"),
        created=(now or datetime.now(UTC)).isoformat(timespec="seconds"),
        seed=seed,
        config=config,
        inputs=inputs or {},
        licences=licences or {},
        libraries={name: found for name in LIBRARIES if (found := _installed(name))},
        platform=f"Python {platform.python_version()}, {platform.system()} {platform.machine()}",
    )
    write_text(Path(folder) / "manifest.json", manifest.model_dump_json(indent=2) + "\n")
    return manifest


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a folder.

    Raises:
        RecordError: There is none, or it is not one of ours.
    """
    path = Path(folder) / "manifest.json"
    if not path.is_file():
        raise RecordError(f"{path}: no such file; expected a folder written by a gastrovl command")
    try:
        return Manifest.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except ValueError as error:
        raise RecordError(f"{path}: not a manifest of this version; make the folder again ({error})") from error


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
