"""The folder that holds an image is its label."""

from __future__ import annotations

import pytest

from gastrovl.core.errors import SourceError
from gastrovl.data.formats.class_folders import Options, read
from gastrovl.data.images import list_images


def test_the_folder_of_an_image_is_its_label(tmp_path, draw):
    draw(tmp_path / "images/pylorus/1.png")
    draw(tmp_path / "images/z-line/2.png")
    images = list_images(tmp_path, ["images/**/*.png"], max_px=10_000)
    assert [(a.image.name, a.label, a.box) for a in read(tmp_path, Options(), images)] == [
        ("pylorus/1.png", "pylorus", None),
        ("z-line/2.png", "z-line", None),
    ]


def test_level_2_takes_the_folder_above(tmp_path, draw):
    draw(tmp_path / "pylorus/patient-1/1.png")
    images = list_images(tmp_path, ["**/*.png"], max_px=10_000)
    assert [a.label for a in read(tmp_path, Options(level=2), images)] == ["pylorus"]


def test_an_image_outside_every_folder_is_refused_by_name(tmp_path, draw):
    draw(tmp_path / "loose.png")
    images = list_images(tmp_path, ["**/*.png"], max_px=10_000)
    with pytest.raises(SourceError, match=r"loose\.png: lies in 0 folders .* expected at least 1"):
        list(read(tmp_path, Options(), images))


def test_a_level_below_the_holding_folder_is_refused():
    with pytest.raises(ValueError, match="greater than or equal to 1"):
        Options(level=0)
