"""COCO JSON to annotations: a box each, from `bbox` or else from the outline or the run lengths of the segmentation.

The form is https://cocodataset.org/#format-data: `images` (id, file_name, width, height), `categories` (id, name) and
`annotations` (image_id, category_id, bbox as x, y, width, height in pixels, segmentation).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from gastrovl.core.errors import SourceError
from gastrovl.core.types import Box
from gastrovl.data.annotation import Annotation
from gastrovl.data.formats.shapes import ShapeOptions, box_of_points, box_of_shape, check_size
from gastrovl.data.formats.textlines import Files, read_json, split_files
from gastrovl.data.images import ImageFile, ImageFolder

MAX_MASK_PX = 100_000_000


class Options(ShapeOptions):
    """Where the annotations are and how to read them.

    Attributes:
        files: JSON files relative to the source's root, as a list or as a mapping from the split's word to its file.
        crowd: Whether annotations of whole groups (`iscrowd`) are kept or left out.
    """

    files: Files
    crowd: Literal["keep", "skip"] = "keep"


def read(root: Path, options: Options, images: ImageFolder) -> Iterator[Annotation]:
    """One annotation an entry of `annotations`.

    Raises:
        SourceError: A file is missing or not of this form; an id is unknown or double; a shape or size is wrong.
    """
    for path, split in split_files(root, options.files):
        content = read_json(path)
        names = {
            key: _text(entry, "name", where) for key, (where, entry) in _by_id(content, "categories", path).items()
        }
        found: dict[int | str, ImageFile | None] = {}
        for key, (where, entry) in _by_id(content, "images", path).items():
            image = found[key] = images.find(_text(entry, "file_name", where), where)
            if image is not None:
                check_size((entry.get("width"), entry.get("height")), image, where)
        for where, entry in _entries(content, "annotations", path):
            label = _referred(entry, "category_id", names, where)
            image = _referred(entry, "image_id", found, where)
            if image is None or image.size_wh is None or (options.crowd == "skip" and entry.get("iscrowd")):
                continue
            yield Annotation(image, label, where, box=_box(entry, options, image, where), split=split)


def _entries(content: Any, key: str, path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    entries = content.get(key) if isinstance(content, dict) else None
    if not isinstance(entries, list):
        raise SourceError(
            f"{path}: found no list {key!r}, expected an object with the lists images, categories and annotations; "
            "check `format` in the source description"
        )
    for index, entry in enumerate(entries):
        where = f"{path} ({key}[{index}])"
        if not isinstance(entry, dict):
            raise SourceError(f"{where}: found {str(entry)[:80]}, expected an object; correct that entry")
        yield where, entry


def _by_id(content: Any, key: str, path: Path) -> dict[int | str, tuple[str, dict[str, Any]]]:
    found: dict[int | str, tuple[str, dict[str, Any]]] = {}
    for where, entry in _entries(content, key, path):
        number = entry.get("id")
        if not isinstance(number, int | str) or isinstance(number, bool) or number in found:
            raise SourceError(f"{where}: found id {str(number)[:80]}, expected an id of its own; correct that entry")
        found[number] = (where, entry)
    return found


def _referred(entry: dict[str, Any], key: str, known: dict[int | str, Any], where: str) -> Any:
    number = entry.get(key)
    if not isinstance(number, int | str) or number not in known:
        raise SourceError(
            f"{where}: {key} is {str(number)[:80]}, which the file does not list; expected one of {len(known)} ids. "
            "Correct the entry, or export the annotations again"
        )
    return known[number]


def _text(entry: dict[str, Any], key: str, where: str) -> str:
    value = entry.get(key)
    if not isinstance(value, str) or not value.strip():
        raise SourceError(f"{where}: {key} is {str(value)[:80]!r}; expected a text. Correct that entry")
    return value.strip()


def _box(entry: dict[str, Any], options: Options, image: ImageFile, where: str) -> Box | None:
    if entry.get("bbox"):
        return box_of_shape(entry["bbox"], options, image, where, box_order="xywh")
    outline = entry.get("segmentation")
    if isinstance(outline, list) and outline:
        return box_of_points(_points(outline, where), options, image, where)
    if isinstance(outline, dict):
        return box_of_shape(_mask_edges(outline, image, where), options, image, where)
    raise SourceError(
        f"{where}: has neither `bbox` nor `segmentation`; expected one of them. Give labels of whole images in a table "
        "(`format: csv_labels`)"
    )


def _points(polygons: list[Any], where: str) -> list[tuple[Any, Any]]:
    """The points of one or more polygons, each stored as x, y, x, y, ..."""
    points: list[tuple[Any, Any]] = []
    for polygon in polygons:
        if not isinstance(polygon, list) or len(polygon) % 2 or len(polygon) < 6:
            raise SourceError(
                f"{where}: found the polygon {str(polygon)[:80]}, expected x, y, x, y, ... of at least three points; "
                "correct that entry"
            )
        points += zip(polygon[::2], polygon[1::2], strict=True)
    return points


def _mask_edges(mask: dict[str, Any], image: ImageFile, where: str) -> tuple[float, float, float, float]:
    """Pixel edges of a run-length mask: lengths of unmarked and marked runs in turn, down the columns."""
    size, counts = mask.get("size"), mask.get("counts")
    if not isinstance(size, list) or [*reversed(size)] != list(image.size_wh or ()):
        raise SourceError(
            f"{where}: found a mask of (height, width) {str(size)[:40]}, but {image.path} is (width, height) "
            f"{image.size_wh}; expected the same size. Copy the original image"
        )
    height, width = size
    runs = _unpacked(counts, where) if isinstance(counts, str) else counts
    if not isinstance(runs, list) or not all(isinstance(run, int) and 0 <= run <= MAX_MASK_PX for run in runs):
        raise SourceError(f"{where}: found run lengths {str(counts)[:80]}, expected whole numbers from 0; correct them")
    if sum(runs) != height * width:
        raise SourceError(
            f"{where}: the run lengths add up to {sum(runs)}, expected {height} x {width} pixels; the entry is broken. "
            "Export the annotations again"
        )
    x0, y0, x1, y1 = width, height, 0, 0
    start = 0
    for index, run in enumerate(runs):
        if index % 2 and run:
            first, last = start, start + run - 1
            x0, x1 = min(x0, first // height), max(x1, last // height + 1)
            is_one_column = first // height == last // height
            y0 = min(y0, first % height if is_one_column else 0)
            y1 = max(y1, last % height + 1 if is_one_column else height)
        start += run
    return x0, y0, x1, y1


def _unpacked(text: str, where: str) -> list[int]:
    """Run lengths from COCO's compressed text (maskApi.c, rleFrString): groups of five bits, from the third on
    differences to the run two before."""
    runs: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or shift > 60:
            raise SourceError(f"{where}: {text[:40]!r} is no compressed mask; expected characters from '0' to 'o'")
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            if bits & 16:
                value -= 1 << shift
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
    if shift:
        raise SourceError(f"{where}: {text[-40:]!r} breaks off inside a run; export the annotations again")
    return runs
