"""Published splits: from a column, from lists, from the path."""

from __future__ import annotations

from pathlib import Path

import pytest

from gastrovl.core.errors import SourceError
from gastrovl.core.types import Split
from gastrovl.data.images import ImageFile
from gastrovl.data.official import official_splits
from gastrovl.data.source import OfficialSplit


def images(*names):
    return [ImageFile(Path(name), name, None) for name in names]


def test_a_source_without_a_split_gives_none(tmp_path):
    assert official_splits(images("a.png"), [None], None, tmp_path) == [None]


def test_lists_name_images_with_or_without_suffix_or_folder(tmp_path):
    (tmp_path / "train.txt").write_text("a.png\n\nx/b\n", encoding="utf-8")
    (tmp_path / "test.txt").write_text("c\n", encoding="utf-8")
    rule = OfficialSplit(lists={"train": "train.txt", "test": "test.txt"})
    found = official_splits(images("a.png", "x/b.png", "y/c.png", "d.png"), [None] * 4, rule, tmp_path)
    assert found == [Split.TRAIN, Split.TRAIN, Split.TEST, None]


def test_an_image_in_two_lists_is_refused_with_the_line(tmp_path):
    (tmp_path / "train.txt").write_text("a.png\n", encoding="utf-8")
    (tmp_path / "test.txt").write_text("b.png\na.png\n", encoding="utf-8")
    rule = OfficialSplit(lists={"train": "train.txt", "test": "test.txt"})
    with pytest.raises(SourceError, match=r"test\.txt:2: 'a\.png' is also listed for train"):
        official_splits(images("a.png"), [None], rule, tmp_path)


def test_a_missing_list_is_named(tmp_path):
    with pytest.raises(SourceError, match=r"train\.txt: no such file"):
        official_splits(images("a.png"), [None], OfficialSplit(lists={"train": "train.txt"}), tmp_path)


def test_the_path_may_say_the_split_in_other_words(tmp_path):
    rule = OfficialSplit(pattern="^(?P<split>[a-z]+)/", names={"validation": "val"})
    found = official_splits(images("train/a.png", "validation/b.png", "c.png"), [None] * 3, rule, tmp_path)
    assert found == [Split.TRAIN, Split.VAL, None]


def test_a_column_goes_before_the_path_and_case_does_not_matter(tmp_path):
    rule = OfficialSplit(pattern="^(?P<split>train)/")
    assert official_splits(images("train/a.png"), ["Test"], rule, tmp_path) == [Split.TEST]


def test_an_unknown_word_shows_how_to_name_it(tmp_path):
    with pytest.raises(SourceError, match=r"found split 'Training', expected train, val or test; .*`Training: val`"):
        official_splits(images("a.png"), ["Training"], OfficialSplit(), tmp_path)
