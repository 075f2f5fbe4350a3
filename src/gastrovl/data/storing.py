"""A source image to its place in a dataset folder: linked, copied, without metadata, smaller, or painted over."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from gastrovl.core.types import Box
from gastrovl.data.config import ImageOptions
from gastrovl.data.images import ImageFile
from gastrovl.data.masking import paint_over
from gastrovl.data.metadata import strip_file


def store_image(
    image: ImageFile, target: Path, options: ImageOptions, masked: Sequence[Box], *, inpaint: bool
) -> tuple[str, ...]:
    """Store one image and say which kinds of metadata it lost; a file whose pixels change is encoded anew, without any.

    Raises:
        ImageError: Its metadata cannot be cut out.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    max_side_px = options.max_side_px or max(image.size_wh or (0, 0))
    if masked or max(image.size_wh or (0, 0)) > max_side_px:
        _store_changed(image.path, target, max_side_px, masked, inpaint=inpaint)
        return ("all: encoded anew",)
    removed = strip_file(image.path, target) if options.strip_metadata else ()
    if not removed and (options.mode == "copy" or not _linked(image.path, target)):
        shutil.copyfile(image.path, target)
    return removed


def _linked(source: Path, target: Path) -> bool:
    try:
        os.link(source.resolve(), target)
    except OSError:  # another file system, or one without hard links
        return False
    return True


def _store_changed(source: Path, target: Path, max_side_px: int, masked: Sequence[Box], *, inpaint: bool) -> None:
    with Image.open(source) as picture:
        kind = picture.format
        changed = picture.convert("RGB")
    changed = paint_over(changed, masked, inpaint=inpaint)
    changed.thumbnail((max_side_px, max_side_px), Image.Resampling.LANCZOS)
    changed.info.clear()  # Pillow would save comments and profiles from there
    if kind == "JPEG":
        changed.save(target, format=kind, quality=95, subsampling=0)
    else:
        changed.save(target, format=kind)
