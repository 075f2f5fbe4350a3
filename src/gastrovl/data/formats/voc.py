"""Pascal VOC to annotations: one XML file an image, with the name and the pixel corners of every object.

The form is that of the VOC2012 development kit, section 3: <annotation> with <filename>, <size> and <object>.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from gastrovl.data.annotation import Annotation
from gastrovl.data.formats.shapes import ShapeOptions, box_of_shape, check_size, finite_numbers
from gastrovl.data.formats.textlines import files_below
from gastrovl.data.formats.xmltree import Element, read_xml
from gastrovl.data.images import ImageFolder


class Options(ShapeOptions):
    """Where the files are and how they count.

    Attributes:
        folder: Holds the XML files, also in folders below it.
        image_from: The image is named by <filename>, or by the path of the XML file (tools that rename images forget
            the former).
        first_pixel: 0 when the corners are edges; 1 when they are the first and last pixel counted from 1, as in the
            original VOC sets.
    """

    folder: str = "Annotations"
    image_from: Literal["filename", "path"] = "filename"
    first_pixel: Literal[0, 1] = 0


def read(root: Path, options: Options, images: ImageFolder) -> Iterator[Annotation]:
    """One annotation an object.

    Raises:
        SourceError: The folder is missing, a file is not of this form, or a box or size is wrong.
    """
    for path, name in files_below(root, options.folder, ".xml"):
        tree = read_xml(path, "annotation")
        image = images.find(tree.text_of("filename") if options.image_from == "filename" else name, tree.where)
        if image is None:
            continue
        size = tree.find("size")
        if size is not None:
            check_size((size.text_of("width"), size.text_of("height")), image, size.where)
        for thing in tree.all("object"):
            box = box_of_shape(_corners(thing.child("bndbox"), options), options, image, thing.where)
            yield Annotation(image, thing.text_of("name"), thing.where, box=box)


def _corners(box: Element, options: Options) -> tuple[float, float, float, float]:
    texts = [box.text_of(name) for name in ("xmin", "ymin", "xmax", "ymax")]
    x0, y0, x1, y1 = finite_numbers(texts, 4, box.where)
    return x0 - options.first_pixel, y0 - options.first_pixel, x1, y1
