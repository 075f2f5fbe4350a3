"""LabelMe to annotations: one JSON file an image with labelled shapes, or the XML of the older web tool.

The JSON form is that of https://github.com/wkentaro/labelme: imagePath, imageWidth, imageHeight, `shapes` (label,
points, shape_type) and `flags`, labels of the whole image. The XML form: <annotation> with <filename> and <object> of a
<polygon>.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from gastrovl.core.errors import SourceError
from gastrovl.core.types import Box
from gastrovl.data.annotation import Annotation
from gastrovl.data.formats.shapes import (
    ShapeOptions,
    box_of_points,
    check_size,
    finite_numbers,
    is_skipped,
)
from gastrovl.data.formats.textlines import files_below, read_json
from gastrovl.data.formats.xmltree import read_xml
from gastrovl.data.images import ImageFile, ImageFolder

KINDS = ("polygon", "rectangle", "circle", "mask")


class Options(ShapeOptions):
    """Where the files are.

    Attributes:
        folder: Holds the JSON or XML files, also in folders below it; often it is the folder of the images.
        kind: "json" of the desktop tool, "xml" of the older web tool.
        image_from: The image is named in the file, or by the path of the file.
        flags: Flags that are set are labels of the whole image; else they are not used.
    """

    folder: str
    kind: Literal["json", "xml"] = "json"
    image_from: Literal["file", "path"] = "file"
    flags: bool = False


def read(root: Path, options: Options, images: ImageFolder) -> Iterator[Annotation]:
    """One annotation a shape, and one a flag that is set.

    Raises:
        SourceError: The folder is missing, a file is not of this form, or a shape or size is wrong.
    """
    read_one = _read_xml if options.kind == "xml" else _read_json
    for path, name in files_below(root, options.folder, f".{options.kind}"):
        yield from read_one(path, name, options, images)


def _read_json(path: Path, name: str, options: Options, images: ImageFolder) -> Iterator[Annotation]:
    content = read_json(path)
    shapes = content.get("shapes") if isinstance(content, dict) else None
    if not isinstance(shapes, list) or not isinstance(content.get("imagePath"), str):
        raise SourceError(
            f"{path}: found no list `shapes` with `imagePath`, expected the JSON that LabelMe writes; move other JSON "
            "files elsewhere, or correct `folder` in the source description"
        )
    named = content["imagePath"].replace("\\", "/")  # as LabelMe writes it on Windows
    image = images.find(named if options.image_from == "file" else name, str(path))
    if image is None:
        return
    check_size((content.get("imageWidth"), content.get("imageHeight")), image, str(path))
    if options.flags:
        flags = content.get("flags")
        for label, is_set in (flags if isinstance(flags, dict) else {}).items():
            if is_set is True:
                yield Annotation(image, label, f"{path} (flags)")
    for index, shape in enumerate(shapes):
        where = f"{path} (shapes[{index}])"
        if not isinstance(shape, dict) or not isinstance(shape.get("label"), str) or not shape["label"].strip():
            raise SourceError(f"{where}: found {str(shape)[:80]}, expected a shape with a label; correct that entry")
        kind = str(shape.get("shape_type") or "polygon")
        if not is_skipped(kind, KINDS, options, where):
            yield Annotation(image, shape["label"].strip(), where, box=_box(shape, kind, options, image, where))


def _box(shape: dict[str, Any], kind: str, options: Options, image: ImageFile, where: str) -> Box | None:
    points = shape.get("points")
    if not isinstance(points, list):
        raise SourceError(f"{where}: found points {str(points)[:80]}, expected a list of (x, y); correct that entry")
    if kind in ("rectangle", "circle", "mask") and len(points) != 2:
        raise SourceError(f"{where}: found a {kind} of {len(points)} points, expected 2; draw it again")
    if kind == "circle":
        (x, y), (edge_x, edge_y) = (finite_numbers(point, 2, where) for point in points)
        radius = math.hypot(edge_x - x, edge_y - y)
        points = [(x - radius, y - radius), (x + radius, y + radius)]
    return box_of_points(points, options, image, where)


def _read_xml(path: Path, name: str, options: Options, images: ImageFolder) -> Iterator[Annotation]:
    tree = read_xml(path, "annotation")
    image = images.find(tree.text_of("filename") if options.image_from == "file" else name, tree.where)
    if image is None:
        return
    size = tree.find("imagesize")
    if size is not None:
        check_size((size.text_of("ncols"), size.text_of("nrows")), image, size.where)
    for thing in tree.all("object"):
        deleted = thing.find("deleted")
        if deleted is not None and deleted.text == "1":  # the web tool marks what was deleted and keeps it
            continue
        outline = thing.find("polygon")
        if outline is None:
            is_skipped("object without <polygon>", ("polygon",), options, thing.where)
            continue
        points = [(point.text_of("x"), point.text_of("y")) for point in outline.all("pt")]
        yield Annotation(
            image, thing.text_of("name"), thing.where, box=box_of_points(points, options, image, thing.where)
        )
