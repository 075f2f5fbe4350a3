"""Files are opened inside the source's folder only, whatever names and links say."""

from __future__ import annotations

from pathlib import Path

import pytest

from gastrovl.core.errors import SourceError
from gastrovl.data.formats.textlines import files_below, inside, parse_json, require_file, split_files
from gastrovl.data.images import list_images


@pytest.fixture
def root(tmp_path):
    """A source's folder beside a file that is none of its business."""
    (tmp_path / "secret.txt").write_text("secret", encoding="utf-8")
    (tmp_path / "root/labels").mkdir(parents=True)
    (tmp_path / "root/labels/a.txt").write_text("a", encoding="utf-8")
    return tmp_path / "root"


@pytest.mark.parametrize(
    "name", ["../secret.txt", "labels/../../secret.txt", "/etc/hostname", "link", "folder/secret.txt"]
)
def test_a_name_that_leads_out_is_refused(root, name):
    (root / "link").symlink_to(root.parent / "secret.txt")
    (root / "folder").symlink_to(root.parent)
    with pytest.raises(SourceError, match="leads out of"):
        require_file(root, name)


def test_a_link_within_the_folder_is_followed(root):
    (root / "b.txt").symlink_to(root / "labels/a.txt")
    assert require_file(root, "b.txt").read_text() == "a"


def test_the_folder_itself_may_be_a_link(root):
    (root.parent / "alias").symlink_to(root)
    assert require_file(root.parent / "alias", "labels/a.txt").read_text() == "a"


@pytest.mark.parametrize("name", ["a\0b", "loop"])
def test_a_name_that_is_no_path_is_refused(root, name):
    (root / "loop").symlink_to(root / "loop")
    with pytest.raises(SourceError):
        require_file(root, name)


def test_a_link_among_the_files_of_a_folder_is_refused(root):
    assert [name for _, name in files_below(root, "labels", ".txt")] == ["a"]
    (root / "labels/z.txt").symlink_to(root.parent / "secret.txt")
    with pytest.raises(SourceError, match=r"labels/z\.txt: leads out of"):
        files_below(root, "labels", ".txt")


def test_the_folder_may_be_named_from_where_the_command_runs(root, monkeypatch):
    monkeypatch.chdir(root.parent)
    here = Path(root.name)
    assert files_below(here, "labels", ".txt") == [(here / "labels/a.txt", "a")]


def test_files_carry_their_split(root):
    assert [word for _, word in split_files(root, ("labels/a.txt",))] == [None]
    assert [word for _, word in split_files(root, {"train": "labels/a.txt"})] == ["train"]


def test_an_image_that_leads_out_is_set_aside_unread(root, draw):
    draw(root / "images/a.png", 1)
    outside = draw(root.parent / "b.png", 2)
    (root / "images/b.png").symlink_to(outside)
    images = list_images(root, ["images/*.png"], max_px=10_000)
    assert [(image.name, image.size_wh) for image in images] == [("a.png", (64, 48)), ("b.png", None)]
    assert "leads out of" in images.broken[0].reason


@pytest.mark.parametrize("pattern", ["/etc/*.png", ""])
def test_a_pattern_that_is_no_relative_glob_is_refused(root, pattern):
    with pytest.raises(SourceError, match="cannot be searched for"):
        list_images(root, [pattern], max_px=10_000)


@pytest.mark.parametrize("text", ["{", "[" * 100_000, "9" * 5000])
def test_json_that_cannot_be_read_is_refused(text):
    with pytest.raises(SourceError, match=r"^f"):
        parse_json(text, "f")


def test_a_path_inside_comes_back_as_it_was_named(root):
    assert inside(root, "labels/new.txt") == root / "labels/new.txt"
