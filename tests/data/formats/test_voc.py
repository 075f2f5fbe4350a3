"""Pascal VOC XML: one file an image; sizes, corners, and XML that is refused unread."""

from __future__ import annotations

import pytest

from gastrovl.core.errors import SourceError
from gastrovl.data.formats.voc import Options, read
from gastrovl.data.images import list_images


def xml(corners=(10, 5, 60, 45), size=(100, 50), filename="a.png"):
    box = "".join(f"<{k}>{v}</{k}>" for k, v in zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True))
    return (
        f"<annotation>\n<filename>{filename}</filename>\n"
        f"<size><width>{size[0]}</width><height>{size[1]}</height><depth>3</depth></size>\n"
        f"<object><name>polyp</name><bndbox>{box}</bndbox></object>\n</annotation>"
    )


@pytest.fixture
def read_voc(tmp_path, draw):
    """Annotations of a.png, 100 x 50 px, by a VOC file of the given text, called n.xml."""

    def run(text, **options):
        draw(tmp_path / "images/a.png", size_wh=(100, 50))
        (tmp_path / "Annotations").mkdir()
        (tmp_path / "Annotations/n.xml").write_text(text, encoding="utf-8")
        images = list_images(tmp_path, ["images/*.png"], max_px=10_000)
        return list(read(tmp_path, Options(**options), images)), images

    return run


def test_corners_become_a_box(read_voc):
    (found,), _ = read_voc(xml())
    assert (found.image.name, found.label, found.box.xyxy) == ("a.png", "polyp", (0.1, 0.1, 0.6, 0.9))
    assert found.where.endswith("n.xml:4")


def test_pixels_counted_from_one_include_the_last(read_voc):
    (found,), _ = read_voc(xml(corners=(1, 1, 100, 50)), first_pixel=1)
    assert found.box.xyxy == (0, 0, 1, 1)


def test_the_path_of_the_file_may_name_the_image(read_voc):
    found, images = read_voc(xml(filename="other.png"), image_from="path")
    assert found == []
    assert images.broken[0].path.endswith("/n")


def test_swapped_axes_are_refused(read_voc):
    with pytest.raises(SourceError, match=r"n\.xml:3: states an image of 50x100 px with width and height swapped"):
        read_voc(xml(size=(50, 100)))


@pytest.mark.parametrize(
    "corners", [(60, 5, 10, 45), (10, 5, 10, 45), (10, 5, 160, 45), ("x", 5, 60, 45), ("", 5, 6, 7)]
)
def test_a_wrong_box_names_its_line(read_voc, corners):
    with pytest.raises(SourceError, match=r"n\.xml:4: "):
        read_voc(xml(corners=corners))


def test_entities_are_refused_before_they_unfold(read_voc):
    lol = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10 if n else "lol"}">' for n in range(12))
    with pytest.raises(SourceError, match=r"n\.xml:1: has a document type"):
        read_voc(f"<!DOCTYPE annotation [{lol}]>" + xml(filename="&l11;"))


def test_an_external_entity_is_refused(read_voc):
    with pytest.raises(SourceError, match=r"n\.xml:1: has a document type"):
        read_voc('<!DOCTYPE annotation [<!ENTITY x SYSTEM "file:///etc/passwd">]>' + xml(filename="&x;"))


def test_half_a_file_names_the_line_it_breaks_at(read_voc):
    with pytest.raises(SourceError, match=r"n\.xml:4: not well-formed XML"):
        read_voc(xml()[:200])


def test_deep_nesting_is_refused(read_voc):
    with pytest.raises(SourceError, match=r"nested deeper than 64"):
        read_voc("<annotation>" * 5000)


def test_another_root_is_refused(read_voc):
    with pytest.raises(SourceError, match="found <annotations>, expected <annotation>"):
        read_voc("<annotations></annotations>")
