"""The page of an audit: what it shows first, what it refuses to run or fetch, and how large it may grow."""

from __future__ import annotations

import base64
import io
import json
import re
import sys
from html.parser import HTMLParser

import pytest
from PIL import Image

from gastrovl.core.errors import MissingExtraError
from gastrovl.core.types import Split
from gastrovl.data.audit import AuditedImage, audit_copies, page, write_audit
from gastrovl.data.audit.drawing import draw_bar, draw_matrix
from gastrovl.data.copies import Copy

TRAIN, TEST = Split.TRAIN, Split.TEST


@pytest.fixture
def audited(tmp_path, draw):
    """`audited(("a", TRAIN), ...)` draws a picture each and returns the images of an audit."""

    def make(*rows, **others):
        return [
            AuditedImage(
                id=name,
                path=draw(tmp_path / f"{number}.png", number, (320, 200)),
                sha256=f"{number:064x}",
                split=split,
                **others,
            )
            for number, (name, split) in enumerate(rows)
        ]

    return make


class Reader(HTMLParser):
    """Collects tags and attributes that a browser would act on."""

    def __init__(self):
        super().__init__()
        self.tags, self.attributes, self.texts = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data):
        self.texts.append(data)


def read(path):
    reader = Reader()
    reader.feed(path.read_text(encoding="utf-8"))
    return reader


def test_the_page_shows_the_verdict_and_both_sides_of_a_leak(audited, tmp_path):
    images = audited(("one.png", TRAIN), ("two.png", TEST), ("three.png", TEST))
    path = write_audit(tmp_path, audit_copies(images, [Copy(0, 1, 0.913, "mirrored")]), images, title="my set")
    text = path.read_text(encoding="utf-8")
    assert "Audit of my set" in text
    assert "LEAK: 1 of 2 images of test (50.0\u00a0%) has a copy in train." in text
    assert "91.3 %" in text
    assert "one.png" in text
    assert "two.png" in text
    assert "three.png" not in text
    assert "research use only" in text
    assert json.loads((tmp_path / "audit.json").read_text(encoding="utf-8"))["has_leak"] is True


def test_pictures_are_small_jpegs_inside_the_page(audited, tmp_path):
    images = audited(("one", TRAIN), ("two", TEST))
    reader = read(write_audit(tmp_path, audit_copies(images, [Copy(0, 1, 0.9, "same")]), images))
    sources = [value for name, value in reader.attributes if name == "src"]
    assert len(sources) == 2
    for source in sources:
        head, _, content = source.partition(",")
        assert head == "data:image/jpeg;base64"
        assert Image.open(io.BytesIO(base64.b64decode(content))).size == (256, 160)


def test_a_hostile_name_is_text_and_nothing_is_fetched_or_run(audited, tmp_path):
    name = '<script>alert(1)</script>"><img src=http://evil.example/x onerror=alert(2)>'
    images = audited((name, TRAIN), ("two", TEST), labels=("<b>label</b>",), folder="<i>", source="{{ 7 * 7 }}")
    report = audit_copies(images, [Copy(0, 1, 0.9, "same")])
    reader = read(write_audit(tmp_path, report, images, title="<script>"))
    assert not {"script", "b", "i", "link", "iframe", "object"} & set(reader.tags)
    assert not [key for key, _ in reader.attributes if key.startswith("on")]
    assert not [
        value
        for key, value in reader.attributes
        if key in ("src", "href", "xlink:href") and not value.startswith(("data:image/jpeg;base64,", "#"))
    ]
    assert "url(" not in "".join(reader.texts)
    assert name in reader.texts
    assert any("{{ 7 * 7 }}" in text for text in reader.texts)
    policy = next(value for key, value in reader.attributes if key == "content" and "default-src" in value)
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def test_the_page_can_do_without_pictures(audited, tmp_path):
    images = audited(("one", TRAIN), ("two", TEST))
    report = audit_copies(images, [Copy(0, 1, 0.9, "same")])
    assert "img" not in read(write_audit(tmp_path, report, images, has_pictures=False)).tags


def test_a_picture_that_is_gone_leaves_its_pair(audited, tmp_path):
    images = audited(("one", TRAIN), ("two", TEST))
    images[0].path.unlink()
    text = write_audit(tmp_path, audit_copies(images, [Copy(0, 1, 0.9, "same")]), images).read_text(encoding="utf-8")
    assert "cannot be read any more" in text
    assert text.count("data:image/jpeg") == 1


def test_the_page_stops_growing(audited, tmp_path, monkeypatch):
    images = audited(("one", TRAIN), ("two", TEST))
    monkeypatch.setattr(page, "MOST_BYTES", 1)
    text = write_audit(tmp_path, audit_copies(images, [Copy(0, 1, 0.9, "same")]), images).read_text(encoding="utf-8")
    assert text.count("data:image/jpeg") == 1
    assert "left out: the page is full" in text


def test_leaks_come_first_and_no_pair_twice(audited, tmp_path):
    images = audited(*((f"i{n}", TEST if n == 7 else TRAIN) for n in range(8)))
    images[2] = images[2].model_copy(update={"labels": ("polyp",)})
    images[3] = images[3].model_copy(update={"labels": ("ulcer",)})
    copies = [Copy(0, 1, 0.85, "same"), Copy(2, 3, 0.9, "same"), Copy(4, 5, 1.0, "same"), Copy(6, 7, 0.95, "same")]
    text = write_audit(tmp_path, audit_copies(images, copies), images).read_text(encoding="utf-8")
    assert re.findall(r'<section id="(\w+)">', text) == [
        "result",
        "leaks",
        "labels",
        "unsure",
        "others",
        "lists",
        "reading",
    ]
    shown = re.findall(r'<span class="id">(i\d)</span>', text)
    assert shown == ["i6", "i7", "i2", "i3", "i0", "i1", "i4", "i5"]
    assert text.count(" 1 pair.") == 4


def test_a_large_family_takes_three_places_only(audited, tmp_path):
    images = audited(*((f"i{n}", TRAIN) for n in range(5)), ("j", TEST), ("k", TRAIN))
    copies = [Copy(a, b, 0.99, "same") for a in range(5) for b in range(a + 1, 6)] + [Copy(5, 6, 0.8, "same")]
    # i0-i4 are copies of each other and of j: with k one family, with 6 leaks
    text = write_audit(tmp_path, audit_copies(images, copies), images).read_text(encoding="utf-8")
    leaks = text.partition('<section id="leaks">')[2].partition("</section>")[0]
    assert leaks.count('class="card leak"') == 3
    assert "3 of 6 pairs are shown, at most 3 of one family" in leaks


def test_the_matrix_counts_images_of_the_row_with_a_copy_in_the_column(audited):
    images = audited(("a", TRAIN), ("b", TRAIN), ("c", TEST))
    matrix = draw_matrix(audit_copies(images, [Copy(0, 1, 0.9, "same"), Copy(1, 2, 0.9, "same")]))
    assert [one.text for one in matrix.rows] == ["train", "test"]
    cells = [(cell.kind, cell.count, cell.share) for cell in matrix.cells]
    assert cells == [("same", "2", "100.0 %"), ("leak", "1", "50.0 %"), ("leak", "1", "100.0 %"), ("none", "0", "")]
    assert matrix.cells[1].words == "1 of 2 images of train have a copy in test"


def test_a_matrix_of_many_places_keeps_those_with_copies(audited):
    images = audited(*((f"i{n}", None) for n in range(14)))
    images = [one.model_copy(update={"folder": f"folder {n:02d}"}) for n, one in enumerate(images)]
    matrix = draw_matrix(audit_copies(images, [Copy(12, 13, 0.9, "same")]))
    assert [one.words for one in matrix.rows][-2:] == ["folder 12", "folder 13"]
    assert (len(matrix.rows), matrix.left_out) == (10, 4)


def test_the_bar_is_as_long_as_the_share_with_a_copy(audited):
    images = audited(("a", None), ("b", None), ("c", None), ("d", None))
    bar = draw_bar(audit_copies(images, [Copy(0, 1, 0.9, "same")]))
    assert bar.filled == bar.width / 2
    assert bar.words == "2 of 4 images have a copy among the others"


def test_the_same_report_gives_the_same_bytes(audited, tmp_path):
    images = audited(("one", TRAIN), ("two", TEST))
    report = audit_copies(images, [Copy(0, 1, 0.9, "same")])
    first = write_audit(tmp_path, report, images).read_bytes()
    assert write_audit(tmp_path, report, images).read_bytes() == first


def test_without_jinja2_the_extra_is_named_and_nothing_is_written(audited, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    images = audited(("one", TRAIN), ("two", TEST))
    with pytest.raises(MissingExtraError, match=r"gastrovl\[data\]"):
        write_audit(tmp_path, audit_copies(images, []), images)
    assert not (tmp_path / "audit.json").exists()
