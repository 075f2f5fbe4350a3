"""Segmentation masks to annotations: one box a connected component, or one hull around everything marked."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from gastrovl.core import geometry
from gastrovl.core.components import components
from gastrovl.core.config import Config
from gastrovl.core.errors import ImageError, SourceError
from gastrovl.core.types import Box
from gastrovl.data.annotation import Annotation
from gastrovl.data.formats.textlines import files_below
from gastrovl.data.images import DECODING_ERRORS, SUFFIXES, ImageFile, ImageFolder, open_image

_COLOUR = re.compile("#[0-9a-f]{6}")


class Options(Config):
    """Where the masks lie and how to read them.

    Attributes:
        folder: Holds STEM.png when `label` or `classes` is given, STEM_CLASS.png otherwise.
        label: The class of every mask, when file names do not say.
        classes: The class of each pixel value, when a mask shows several: grey values or palette indices (1: polyp), or
            colours ("#ff0000": polyp). Any other value in a mask is refused.
        background: Values of `classes`' kind that are no class, e.g. also 255 or "#ffffff" for outlines.
        name_ending: What mask names have after the image's name, e.g. "_mask".
        boxes: One box a connected component (8-neighbourhood), or one `hull` a class.
        min_area: Components smaller than this share of the image are specks and are left out.
        threshold: Without `classes`, a pixel brighter than this (0-255) is marked.
    """

    folder: str
    label: str | None = None
    classes: dict[int | str, str] = Field(default_factory=dict)
    background: tuple[int | str, ...] = (0, "#000000")
    name_ending: str = ""
    boxes: Literal["components", "hull"] = "components"
    min_area: float = 0.0005
    threshold: int = 127

    @model_validator(mode="after")
    def _check(self) -> Options:
        keys = list(self.classes)
        if self.label is not None and keys:
            raise ValueError("expected `label`, the class of every mask, or `classes`, those within a mask, not both")
        if any(isinstance(key, str) and not _COLOUR.fullmatch(key) for key in (*keys, *self.background)):
            raise ValueError('expected whole numbers or colours as "#rrggbb", in small letters')
        if len({type(key) for key in keys}) > 1:
            raise ValueError("`classes` has numbers and colours; expected one of both")
        return self


def read(root: Path, options: Options, images: ImageFolder) -> Iterator[Annotation]:
    """One annotation a component or hull; a mask with `classes` that shows none of them gives none.

    Raises:
        SourceError: The folder is missing, or a mask is broken, empty, of another size than its image, or has values
            that are no class.
    """
    stems = images.stems()
    for path, name in files_below(root, options.folder, *SUFFIXES):
        stem, label = _image_and_class(path, name, stems, options)
        image = images.find(stem, str(path))
        if image is None or image.size_wh is None:
            continue
        planes = _class_planes(path, image, options) if options.classes else [(label, _marked(path, image, options))]
        for said, mask in planes:
            boxes = [geometry.from_mask(mask)] if options.boxes == "hull" else component_boxes(mask, options.min_area)
            for box in boxes:
                yield Annotation(image, said, str(path), box=box)


def white_pixels(path: Path, image: ImageFile, threshold: int = 127) -> NDArray[np.bool_]:
    """Where a mask file of an image is brighter than `threshold` (0-255), (height, width).

    Raises:
        SourceError: The file is missing or broken, or of another size than the image.
    """
    return np.asarray(_pixels(path, image, "L") > threshold)


def component_boxes(mask: NDArray[np.bool_], min_area: float = 0.0) -> list[Box]:
    """Tight boxes of the 8-connected components of a mask, (height, width), from the top; the largest always stays."""
    height, width = mask.shape
    parts = components(mask)
    sizes = np.bincount(parts.ravel(), minlength=1)[1:]
    rows, columns = np.nonzero(parts)
    numbers = parts[rows, columns] - 1
    first = np.full((len(sizes), 2), max(height, width))
    last = np.full((len(sizes), 2), -1)
    for axis, places in enumerate((columns, rows)):
        np.minimum.at(first[:, axis], numbers, places)
        np.maximum.at(last[:, axis], numbers, places)
    return [
        Box(x0=x0 / width, y0=y0 / height, x1=(x1 + 1) / width, y1=(y1 + 1) / height)
        for (x0, y0), (x1, y1), size in zip(first.tolist(), last.tolist(), sizes.tolist(), strict=True)
        if size >= min_area * mask.size or size == sizes.max()
    ]


def _image_and_class(path: Path, name: str, stems: set[str], options: Options) -> tuple[str, str]:
    if not path.stem.endswith(options.name_ending):
        raise SourceError(
            f"{path}: the name does not end in {options.name_ending!r}; expected that of every mask. Move "
            "other files elsewhere, or correct `name_ending` in the source description"
        )
    name = name.removesuffix(options.name_ending)
    if options.label is not None or options.classes:
        return name, options.label or ""
    parts = PurePosixPath(name).name.split("_")
    for cut in range(len(parts) - 1, 0, -1):
        stem = "_".join(parts[:cut])
        if stem in stems:
            return stem, "_".join(parts[cut:])
    if len(parts) > 1:
        return "_".join(parts[:-1]), parts[-1]
    raise SourceError(
        f"{path}: found the name {path.name!r}, expected STEM_CLASS{path.suffix}; if all masks are of one class, set "
        "`label` in the source description, and `classes` if a mask shows several"
    )


def _marked(path: Path, image: ImageFile, options: Options) -> NDArray[np.bool_]:
    """The one plane of a mask without classes."""
    mask = white_pixels(path, image, options.threshold)
    if not mask.any():
        raise SourceError(
            f"mask {path}: no pixel above {options.threshold}; expected at least one. Delete it, or lower `threshold`"
        )
    return mask


def _class_planes(path: Path, image: ImageFile, options: Options) -> list[tuple[str, NDArray[np.bool_]]]:
    """(class, mask) of each class that the pixel values of a mask show."""
    is_coloured = isinstance(next(iter(options.classes)), str)
    values = _pixels(path, image, "RGB" if is_coloured else None)
    if is_coloured:
        red, green, blue = (values[:, :, channel].astype(np.int64) for channel in range(3))
        values = (red << 16) + (green << 8) + blue
    if values.ndim != 2:
        raise SourceError(
            f"mask {path}: its pixels have {values.shape[2]} channels; expected one value a pixel. Name the classes by "
            'colours ("#rrggbb") in the source description'
        )
    names = {int(str(key)[1:], 16) if is_coloured else key: label for key, label in options.classes.items()}
    plain = {
        int(str(key)[1:], 16) if is_coloured else key
        for key in options.background
        if is_coloured == isinstance(key, str)
    }
    shown = [int(value) for value in np.unique(values)]
    unknown = [f"#{value:06x}" if is_coloured else str(value) for value in shown if value not in {*names, *plain}]
    if unknown:
        raise SourceError(
            f"mask {path}: found the values {', '.join(unknown[:8])}, expected those under `classes` or `background`; "
            "complete them. Masks saved as JPEG have blurred values and cannot be used"
        )
    labels = dict.fromkeys(names[value] for value in shown if value in names)
    return [(label, np.isin(values, [key for key, name in names.items() if name == label])) for label in labels]


def _pixels(path: Path, image: ImageFile, mode: str | None) -> NDArray[Any]:
    """The pixels of a mask file converted to a mode of Pillow, or as they are stored."""
    try:
        with open_image(path) as picture:
            pixels = np.asarray(picture.convert(mode) if mode else picture)
    except ImageError as error:
        raise SourceError(f"mask {error}") from error
    except DECODING_ERRORS as error:
        raise SourceError(f"mask {path}: cannot be decoded ({error}); copy it again from the source") from error
    height, width = pixels.shape[:2]
    if (width, height) != image.size_wh:
        raise SourceError(
            f"mask {path}: is {width}x{height} px, but {image.path} is {image.size_wh}; expected the same size. Copy "
            "both from the same release"
        )
    return pixels
