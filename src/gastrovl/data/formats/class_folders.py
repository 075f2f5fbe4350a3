"""Class folders to annotations: the folder that holds an image is its label (Kvasir, HyperKvasir, GastroVision)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from pydantic import Field

from gastrovl.core.config import Config
from gastrovl.core.errors import SourceError
from gastrovl.data.annotation import Annotation
from gastrovl.data.images import ImageFolder


class Options(Config):
    """Attributes: `level` says which folder above the image is the label: 1 is the one that holds it."""

    level: int = Field(default=1, ge=1)


def read(_root: Path, options: Options, images: ImageFolder) -> Iterator[Annotation]:
    """One annotation an image.

    Raises:
        SourceError: An image lies in no class folder.
    """
    for image in images:
        folders = PurePosixPath(image.name).parts[:-1]
        if len(folders) < options.level:
            raise SourceError(
                f"{image.path}: lies in {len(folders)} folders below {images.root}, expected at least {options.level}; "
                "put it into the folder of its class, or correct `level` in the source description"
            )
        yield Annotation(image, label=folders[-options.level], where=str(image.path.parent))
