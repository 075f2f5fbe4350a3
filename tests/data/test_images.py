"""Listing a source's images: sizes from headers, broken files set aside, names found again."""

from __future__ import annotations

import pytest
from PIL import Image

from gastrovl.core.errors import ImageError, SourceError
from gastrovl.data.images import header_size, list_images, open_image

LIMIT = 1_000_000


def test_images_are_listed_by_name_with_their_size(tmp_path, draw):
    draw(tmp_path / "images/b/2.png", size_wh=(80, 40))
    draw(tmp_path / "images/a/1.jpg", size_wh=(30, 60))
    (tmp_path / "images/notes.txt").write_text("no image")
    folder = list_images(tmp_path, ["images/**/*"], max_px=LIMIT)
    assert [(image.name, image.size_wh) for image in folder] == [("a/1.jpg", (30, 60)), ("b/2.png", (80, 40))]


def test_an_image_is_found_by_path_name_or_stem(tmp_path, draw):
    draw(tmp_path / "images/a/one.two.png")
    folder = list_images(tmp_path, ["images/**/*.png"], max_px=LIMIT)
    for name in ("a/one.two.png", "a/one.two", "one.two.png", "one.two"):
        assert folder.find(name, "here").name == "a/one.two.png"
    assert folder.broken == []


def test_a_stem_in_two_folders_is_ambiguous(tmp_path, draw):
    draw(tmp_path / "a/1.png", 1)
    draw(tmp_path / "b/1.png", 2)
    folder = list_images(tmp_path, ["**/*.png"], max_px=LIMIT)
    assert folder.find("b/1", "here").name == "b/1.png"
    with pytest.raises(SourceError, match=r"t\.csv:3: image '1' may be any of .*a/1\.png, .*b/1\.png"):
        folder.find("1", "t.csv:3")


def test_one_name_with_two_suffixes_is_refused(tmp_path, draw):
    draw(tmp_path / "1.jpg")
    draw(tmp_path / "1.png")
    with pytest.raises(SourceError, match=r"1\.png: has the same name as .*1\.jpg"):
        list_images(tmp_path, ["*"], max_px=LIMIT)


def test_a_missing_folder_points_at_root_and_data_root(tmp_path):
    with pytest.raises(SourceError, match=r"gone: no such folder; check `root`.*--data-root"):
        list_images(tmp_path / "gone", ["*.jpg"], max_px=LIMIT)


def test_a_folder_without_images_is_refused(tmp_path):
    with pytest.raises(SourceError, match=r"no image matches images/\*\.jpg"):
        list_images(tmp_path, ["images/*.jpg"], max_px=LIMIT)


def test_a_bomb_is_refused_from_its_header(tmp_path, bomb):
    with pytest.raises(
        ImageError, match=r"bomb\.png: claims too many pixels .*; if it is genuine, store a smaller copy"
    ):
        header_size(bomb(tmp_path / "bomb.png"), max_px=LIMIT)


def test_more_pixels_than_the_limit_are_refused_with_both_numbers(tmp_path, draw):
    with pytest.raises(ImageError, match=r"claims 100x50 px, more than the limit of 4,999"):
        header_size(draw(tmp_path / "a.png", size_wh=(100, 50)), max_px=4_999)


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", "empty"), (b"these are no pixels", "not an image"), (b"\x89PNG\r\n\x1a\n", "not an image|broken header")],
)
def test_files_that_are_no_images_are_told_apart(tmp_path, content, reason):
    path = tmp_path / "a.png"
    path.write_bytes(content)
    with pytest.raises(ImageError, match=rf"a\.png: ({reason})"):
        open_image(path)


def test_a_missing_image_is_an_image_error(tmp_path):
    with pytest.raises(ImageError, match=r"a\.png: missing"):
        open_image(tmp_path / "a.png")


def test_broken_headers_are_listed_and_leave_no_size(tmp_path, draw, bomb):
    draw(tmp_path / "good.png")
    bomb(tmp_path / "bomb.png")
    (tmp_path / "empty.jpg").touch()
    folder = list_images(tmp_path, ["*"], max_px=LIMIT)
    assert [(image.name, image.size_wh) for image in folder] == [
        ("bomb.png", None),
        ("empty.jpg", None),
        ("good.png", (64, 48)),
    ]
    assert [row.path.rsplit("/", 1)[-1] for row in folder.broken] == ["bomb.png", "empty.jpg"]
    assert all(row.remedy for row in folder.broken)


def test_a_header_is_read_without_decoding(tmp_path, draw):
    path = draw(tmp_path / "cut.jpg", size_wh=(400, 300))
    path.write_bytes(path.read_bytes()[:700])
    assert header_size(path, max_px=LIMIT) == (400, 300)
    with Image.open(path) as image, pytest.raises(OSError, match="truncated"):
        image.load()
