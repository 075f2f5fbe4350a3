"""CVAT for images 1.1 to annotations: one XML file of many images, with boxes, outlines, masks and tags.

The form is https://docs.cvat.ai/docs/other/xml_format: <image name width height> with <box>, <polygon>, <ellipse>,
<mask> and <tag>, each with a label and, if declared, <attribute name="..."> values.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from gastrovl.core.errors import SourceError
from gastrovl.core.types import Box
from gastrovl.data.annotation import Annotation
from gastrovl.data.formats.shapes import (
    ShapeOptions,
    box_of_points,
    box_of_shape,
    check_size,
    finite_numbers,
    is_skipped,
)
from gastrovl.data.formats.textlines import Files, split_files
from gastrovl.data.formats.xmltree import Element, read_xml
from gastrovl.data.images import ImageFile, ImageFolder

KINDS = ("box", "polygon", "ellipse", "mask", "tag")


class Options(ShapeOptions):
    """Where the annotations are and what they mean.

    Attributes:
        files: XML files relative to the source's root, as a list or as a mapping from the split's word to its file.
        subset_is_split: An image's `subset` is its official split; else it is not used.
        attribute: The label is this attribute's value in the place of the label's name, e.g. "grade".
        group: The attribute that holds the patient or video key, if any.
    """

    files: Files = ("annotations.xml",)
    subset_is_split: bool = False
    attribute: str | None = None
    group: str | None = None


def read(root: Path, options: Options, images: ImageFolder) -> Iterator[Annotation]:
    """One annotation a shape or tag.

    Raises:
        SourceError: A file is missing or not of this form (CVAT for video has tracks), or a shape or size is wrong.
    """
    for path, word in split_files(root, options.files):
        tree = read_xml(path, "annotations")
        track = tree.find("track")
        if track is not None:
            raise SourceError(
                f"{track.where}: found <track>, the form of CVAT for video; expected <image>. Export the task as "
                "'CVAT for images 1.1'"
            )
        for entry in tree.all("image"):
            image = images.find(entry.attribute("name"), entry.where)
            if image is None:
                continue
            check_size((entry.attribute("width"), entry.attribute("height")), image, entry.where)
            split = entry.attributes.get("subset") if options.subset_is_split else word
            for shape in entry.children:
                if is_skipped(shape.tag, KINDS, options, shape.where):
                    continue
                yield Annotation(
                    image,
                    _attribute(shape, options.attribute) if options.attribute else shape.attribute("label"),
                    shape.where,
                    box=_box(shape, options, image),
                    group=_attribute(shape, options.group) if options.group else None,
                    split=split,
                )


def _attribute(shape: Element, name: str) -> str:
    for attribute in shape.all("attribute"):
        if attribute.attributes.get("name") == name and attribute.text:
            return attribute.text
    raise SourceError(
        f"{shape.where}: <{shape.tag}> has no value for the attribute {name!r}; expected one on each. Fill it in, "
        "or correct `attribute` or `group` in the source description"
    )


def _box(shape: Element, options: Options, image: ImageFile) -> Box | None:
    if shape.tag == "tag":
        return None
    if shape.tag == "polygon":
        points = [pair.split(",") for pair in shape.attribute("points").split(";")]
        return box_of_points(points, options, image, shape.where)
    if shape.tag == "box":
        if float(finite_numbers([shape.attributes.get("rotation", 0)], 1, shape.where)[0]) % 180:
            raise SourceError(
                f"{shape.where}: the box is rotated by {shape.attributes['rotation']} degrees; expected an upright "
                "box. Draw it upright or as a polygon"
            )
        corners = [shape.attribute(name) for name in ("xtl", "ytl", "xbr", "ybr")]
        return box_of_shape(corners, options, image, shape.where)
    if shape.tag == "ellipse":
        texts = [shape.attribute(name) for name in ("cx", "cy", "rx", "ry")]
        cx, cy, rx, ry = finite_numbers(texts, 4, shape.where)
        return box_of_shape((cx - rx, cy - ry, cx + rx, cy + ry), options, image, shape.where)
    corners = [shape.attribute(name) for name in ("left", "top", "width", "height")]
    return box_of_shape(corners, options, image, shape.where, box_order="xywh")
