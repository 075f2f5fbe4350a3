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


def test_a_table_names_folder_and_file_so_that_equal_file_names_stay_apart(tmp_path):
    (tmp_path / "train.csv").write_text("Filename,Class\n1.jpg,Pylorus\n", encoding="utf-8")
    (tmp_path / "test.csv").write_text("Filename,Class\n1.jpg,Normal stomach\n", encoding="utf-8")
    rule = OfficialSplit(
        tables=[
            {"file": f"{split}.csv", "image": "Filename", "folder": "Class", "split": split}
            for split in ("train", "test")
        ]
    )
    found = official_splits(images("Pylorus/1.jpg", "Normal stomach/1.jpg", "Ulcer/1.jpg"), [None] * 3, rule, tmp_path)
    assert found == [Split.TRAIN, Split.TEST, None]


def test_a_table_of_folds_is_read_in_the_words_of_the_rule(tmp_path):
    (tmp_path / "folds.csv").write_text("file-name;class-name;split-index\na.jpg;polyps;0\nb.jpg;z-line;4\n")
    rule = OfficialSplit(
        tables=[{"file": "folds.csv", "image": "file-name", "column": "split-index", "delimiter": ";"}],
        names={"0": "train", "4": "test"},
    )
    found = official_splits(images("x/polyps/a.jpg", "x/z-line/b.jpg"), [None] * 2, rule, tmp_path)
    assert found == [Split.TRAIN, Split.TEST]


def test_a_table_without_its_column_is_named(tmp_path):
    (tmp_path / "folds.csv").write_text("name,fold\na.jpg,0\n")
    rule = OfficialSplit(tables=[{"file": "folds.csv", "image": "file", "column": "fold"}])
    with pytest.raises(SourceError, match=r"folds\.csv:1: found columns name, fold, expected also file"):
        official_splits(images("a.jpg"), [None], rule, tmp_path)


def test_a_split_of_other_files_is_refused_rather_than_ignored(tmp_path):
    (tmp_path / "train.txt").write_text("z.png\n", encoding="utf-8")
    with pytest.raises(SourceError, match="names 2 images, but none of the 1 that are there"):
        official_splits(images("a.png"), [None], OfficialSplit(lists={"train": "train.txt"}), tmp_path)


def test_a_table_says_either_a_column_or_one_split():
    with pytest.raises(ValueError, match="either `column`"):
        OfficialSplit(tables=[{"file": "a.csv", "image": "name"}])
