"""The settings of one data build: which sources, how they are divided, stored and turned into conversations."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from gastrovl.core.config import Config, expand_variables
from gastrovl.core.errors import ConfigError
from gastrovl.data.instructions import InstructionOptions
from gastrovl.data.quality import QualityOptions
from gastrovl.data.splits import SplitOptions

ROOT_VARIABLE = "GASTROVL_DATA"


class DrawnOptions(Config):
    """A set drawn by `gastrovl.data.synthetic` in the place of files: how many frames, from which seed."""

    images: int = Field(gt=0)
    seed: int = 7


class SourceChoice(Config):
    """One source of a build: a described folder, or a drawn set.

    Attributes:
        description: Name of a packaged description, or the path of a YAML file (relative to the working folder).
        root: Its folder, relative to the data root; ${NAME} stands for an environment variable.
        limit: Use this many images, spread evenly over the usable ones; null uses all.
        synthetic: Draw the images instead.
    """

    description: str | None = None
    root: str | None = None
    limit: int | None = Field(default=None, gt=0)
    synthetic: DrawnOptions | None = None

    @model_validator(mode="after")
    def _check(self) -> SourceChoice:
        if (self.synthetic is None) == (self.description is None):
            raise ValueError("expected either `description` and `root`, or `synthetic`")
        if (self.description is None) != (self.root is None):
            raise ValueError("expected `root`, the source's folder, together with `description`")
        return self


class ImageOptions(Config):
    """How images enter the dataset folder.

    Attributes:
        mode: "link" makes a hard link where the file system allows it and copies elsewhere; "copy" always copies.
        max_side_px: Store copies scaled down to this longer side; null keeps the originals. Boxes do not change.
        strip_metadata: Store files that carry EXIF, XMP, comments or profiles as copies without them, same pixels.
    """

    mode: Literal["link", "copy"] = "link"
    max_side_px: int | None = Field(default=None, ge=32)
    strip_metadata: bool = True


class BuildConfig(Config):
    """Everything that decides what a dataset folder holds; same config, seed and files, same records.

    Attributes:
        figures: Draw the counts (needs matplotlib); without it the folder has tables only.
    """

    sources: tuple[SourceChoice, ...] = Field(min_length=1)
    splits: SplitOptions = SplitOptions()
    seed: int = 7
    images: ImageOptions = ImageOptions()
    quality: QualityOptions = QualityOptions()
    conversations: InstructionOptions = InstructionOptions()
    figures: bool = True


def source_folder(choice: SourceChoice, data_root: Path | None) -> Path:
    """The folder of a described source.

    Args:
        data_root: Given by the user; without it the environment variable GASTROVL_DATA is asked.

    Raises:
        ConfigError: `root` is relative and neither is given, or it names a variable that is not set.
    """
    root = Path(expand_variables(choice.root or "", f"source {choice.description}: root")).expanduser()
    if root.is_absolute():
        return root
    base = data_root or (Path(os.environ[ROOT_VARIABLE]) if os.environ.get(ROOT_VARIABLE) else None)
    if base is None:
        raise ConfigError(
            f"source {choice.description}: root {choice.root!r} is relative, and no data root is given; pass "
            f"--data-root FOLDER or set {ROOT_VARIABLE}"
        )
    return base / root


def spread(count: int, limit: int | None) -> Sequence[int]:
    """Indices of `limit` items spread evenly over `count`; all of them without a limit or below it."""
    if limit is None or limit >= count:
        return range(count)
    return [place * count // limit for place in range(limit)]
