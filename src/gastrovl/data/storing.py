"""A source image to its place in a dataset folder: linked, copied, without metadata, smaller, or painted over."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from gastrovl.core.types import Box
from gastrovl.data.config import ImageOptions
from gastrovl.data.images import ImageFile
from gastrovl.data.masking import paint_over
from gastrovl.data.metadata import without_metadata


def store_image(
    image: ImageFile,
    content: bytes,
    pixels: Image.Image,
    target: Path,
    options: ImageOptions,
    masked: Sequence[Box],
    *,
    inpaint: bool,
) -> tuple[str, ...]:
    """Store one image and say which kinds of metadata it lost; a file whose pixels change is encoded anew, without any.

    Args:
        content, pixels: The file's bytes, and what they decode to (RGB).
        target: Replaced when it is there, as a build that was killed may have left half of it.

    Raises:
        ImageError: Its metadata cannot be cut out.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    if masked or max(pixels.size) > (options.max_side_px or max(pixels.size)):
        _store_changed(pixels, target, options.max_side_px, masked, inpaint=inpaint)
        return ("all: encoded anew",)
    kept, removed = without_metadata(content, str(image.path)) if options.strip_metadata else (content, ())
    if removed or options.mode == "copy" or not _linked(image.path, target):
        target.write_bytes(kept)
    return removed


def _linked(source: Path, target: Path) -> bool:
    try:
        os.link(source.resolve() if source.is_symlink() else source, target)
    except OSError:  # another file system, or one without hard links
        return False
    return True


def _store_changed(
    pixels: Image.Image, target: Path, max_side_px: int | None, masked: Sequence[Box], *, inpaint: bool
) -> None:
    kind = pixels.format
    changed = paint_over(pixels, masked, inpaint=inpaint)
    if max_side_px is not None:
        changed = changed.copy()
        changed.thumbnail((max_side_px, max_side_px), Image.Resampling.LANCZOS)
    changed.info.clear()  # Pillow would save comments and profiles from there
    if kind == "JPEG":
        changed.save(target, format=kind, quality=95, subsampling=0)
    else:
        changed.save(target, format=kind)
