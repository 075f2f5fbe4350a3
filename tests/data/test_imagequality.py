"""Lines and counts of image quality, with and without measures."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from gastrovl.data.imagequality import count_faults, is_excluded, quality_row
from gastrovl.data.images import ImageFile
from gastrovl.data.looks import look_at
from gastrovl.data.measures import Fault, FaultOptions
from gastrovl.data.quality import QualityOptions

DARK_OUT = FaultOptions(dark="exclude", dark_brightness=0.5)


@pytest.fixture
def dark(tmp_path):
    """A file whose pixels are all at 40 of 255, and its look."""
    Image.fromarray(np.full((80, 100, 3), 40, dtype=np.uint8)).save(tmp_path / "a.png")
    image = ImageFile(tmp_path / "a.png", "a.png", (100, 80))
    return image, look_at(image.path, image.path.read_bytes(), QualityOptions(copies=None))[0]


def test_a_line_says_what_was_measured_and_done(dark):
    image, look = dark
    row = quality_row("x", image, look, DARK_OUT, None)
    assert row["brightness"] == pytest.approx(40 / 255, abs=1e-4)
    assert row["faults"] == ["dark", "blurred"]
    assert row["action"] == "exclude"
    assert quality_row("x", image, look, FaultOptions(), ("COM",))["action"] == "keep"
    assert quality_row("x", image, look, FaultOptions(), None)["action"] == "unused"


def test_a_line_without_measures_says_nothing_of_faults(dark):
    image, look = dark
    bare = {"id": "x", "sha256": look.sha256, "width_px": 100, "height_px": 80}
    expected = bare | {"action": "keep", "metadata_removed": ["COM"]}
    assert quality_row("x", image, replace(look, measures=None), FaultOptions(), ("COM",)) == expected
    assert quality_row("x", image, look, None, ("COM",)) == expected
    assert quality_row("x", image, look, None, None)["action"] == "unused"


def test_what_is_not_measured_is_not_excluded(dark):
    _, look = dark
    assert is_excluded(look.measures, DARK_OUT)
    assert not is_excluded(None, DARK_OUT)
    assert not is_excluded(look.measures, None)


def test_counts_name_every_fault_and_what_was_done_about_it():
    counts = count_faults({"dark": 2}, DARK_OUT)
    assert set(counts) == {fault.value for fault in Fault}
    assert counts["dark"] == {"images": 2, "action": "exclude"}
    assert counts["text"] == {"images": 0, "action": "report"}
    assert count_faults({}, None) == {}
