"""Segmentation masks to annotations: one box a connected component, or one hull around everything marked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gastrovl.core import geometry
from gastrovl.core.config import Config
from gastrovl.core.errors import ImageError, SourceError
from gastrovl.core.types import Box
from gastrovl.data.annotation import Annotation
from gastrovl.data.formats.textlines import require_folder
from gastrovl.data.images import DECODING_ERRORS, SUFFIXES, ImageFile, ImageFolder, open_image


class Options(Config):
    """Where the masks lie and how to read them.

    Attributes:
        folder: Holds STEM.png when `label` is given, STEM_CLASS.png otherwise.
        label: The class of every mask, when file names do not say.
        boxes: One box a connected component (8-neighbourhood), or one `hull` a mask.
        min_area: Components smaller than this share of the image are specks and are left out.
        threshold: A pixel brighter than this (0-255) is marked.
    """

    folder: str
    label: str | None = None
    boxes: Literal["components", "hull"] = "components"
    min_area: float = 0.0005
    threshold: int = 127


def read(root: Path, options: Options, images: ImageFolder) -> Iterator[Annotation]:
    """One annotation a component or hull.

    Raises:
        SourceError: The folder is missing, or a mask is broken, empty, or of another size than its image.
    """
    folder = require_folder(root / options.folder)
    stems = images.stems()
    for path in sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES):
        stem, label = (path.stem, options.label) if options.label else _split_name(path, stems)
        image = images.find(stem, str(path))
        if image is None or image.size_wh is None:
            continue
        mask = _load(path, image, options.threshold)
        boxes = [geometry.from_mask(mask)] if options.boxes == "hull" else component_boxes(mask, options.min_area)
        for box in boxes:
            yield Annotation(image, label or "", str(path), box=box)


def component_boxes(mask: NDArray[np.bool_], min_area: float = 0.0) -> list[Box]:
    """Tight boxes of the 8-connected components of a mask, (height, width), from the top; the largest always stays."""
    height, width = mask.shape
    runs = _runs(mask)
    parent = list(range(len(runs)))
    first_of_row = np.searchsorted([run[0] for run in runs], np.arange(height + 1))
    for row in range(1, height):
        _join_rows(runs, parent, range(*first_of_row[row - 1 : row + 1]), range(*first_of_row[row : row + 2]))
    parts: dict[int, list[tuple[int, int, int]]] = {}
    for index, run in enumerate(runs):
        parts.setdefault(_root(parent, index), []).append(run)
    sizes = {root: sum(end - start for _, start, end in part) for root, part in parts.items()}
    largest = max(sizes.values(), default=0)
    return [
        Box(
            x0=min(start for _, start, _ in part) / width,
            y0=part[0][0] / height,
            x1=max(end for _, _, end in part) / width,
            y1=(part[-1][0] + 1) / height,
        )
        for root, part in parts.items()
        if sizes[root] >= min_area * mask.size or sizes[root] == largest
    ]


def _runs(mask: NDArray[np.bool_]) -> list[tuple[int, int, int]]:
    """(row, start, end) of every horizontal run of marked pixels, in reading order; `end` is exclusive."""
    edges = np.diff(np.pad(mask, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    rows, starts = np.nonzero(edges == 1)
    ends = np.nonzero(edges == -1)[1]
    return list(zip(rows.tolist(), starts.tolist(), ends.tolist(), strict=True))


def _join_rows(runs: list[tuple[int, int, int]], parent: list[int], above: range, below: range) -> None:
    for i in above:
        for j in below:
            if runs[i][1] <= runs[j][2] and runs[j][1] <= runs[i][2]:  # <= also joins corners: 8-neighbourhood
                first, second = sorted((_root(parent, i), _root(parent, j)))
                parent[second] = first


def _root(parent: list[int], index: int) -> int:
    while parent[index] != index:
        parent[index] = parent[parent[index]]
        index = parent[index]
    return index


def _split_name(path: Path, stems: set[str]) -> tuple[str, str]:
    parts = path.stem.split("_")
    for cut in range(len(parts) - 1, 0, -1):
        stem = "_".join(parts[:cut])
        if stem in stems:
            return stem, "_".join(parts[cut:])
    if len(parts) > 1:
        return "_".join(parts[:-1]), parts[-1]
    raise SourceError(
        f"{path}: found the name {path.name!r}, expected STEM_CLASS{path.suffix}; if all masks are of one class, set "
        "`label` in the source description"
    )


def _load(path: Path, image: ImageFile, threshold: int) -> NDArray[np.bool_]:
    try:
        with open_image(path) as picture:
            mask = np.asarray(picture.convert("L")) > threshold
    except ImageError as error:
        raise SourceError(f"mask {error}") from error
    except DECODING_ERRORS as error:
        raise SourceError(f"mask {path}: cannot be decoded ({error}); copy it again from the source") from error
    height, width = mask.shape
    if (width, height) != image.size_wh:
        raise SourceError(
            f"mask {path}: is {width}x{height} px, but {image.path} is {image.size_wh}; expected the same size. Copy "
            "both from the same release"
        )
    if not mask.any():
        raise SourceError(
            f"mask {path}: no pixel above {threshold}; expected at least one. Delete it, or lower `threshold`"
        )
    return mask
