"""What is painted on real frames is found, and what is not is not; counted by eye, see docs/quality.md."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from gastrovl.data.colours import colour_histogram, overlap
from gastrovl.data.measures import Fault, FaultOptions, draft_size, measure, small_copies

pytestmark = pytest.mark.real_data

OPTIONS = FaultOptions()
# frames with a green map, and polyp frames with text that is faint or on bright mucosa, by the start of their names
MAPS = {
    "199f0e04",
    "5092a4ec",
    "54d055a1",
    "70f5b2dc",
    "7624042a",
    "76e203da",
    "a9e850a2",
    "b93ca6a1",
    "bceac4e5",
    "e1a47a88",
    "f17e9186",
}
TEXTS = {
    "c251ef74",
    "d095e613",
    "c1c63d79",
    "46d0232d",
    "14e5d20e",
    "ccf6122c",
    "59f15786",
    "b657ea2e",
    "0d944153",
    "3f3f88ee",
}
# frames of EDD2020 without a letter
BARE = (
    "B0060",
    "AJ0011",
    "AJ0034",
    "AJ0004",
    "B0052",
    "B0050",
    "AJ0043",
    "AJ0003",
    "AJ0061",
    "AJ0069",
    "B0071",
    "AJ0000",
    "B0027",
    "B0036",
    "AJ0068",
)


@pytest.fixture(scope="module")
def faults(real_data_root):
    """`faults(folder)` is the faults of every frame of a folder of HyperKvasir, by file name."""
    cache = {}

    def of(folder):
        if folder not in cache:
            paths = sorted((real_data_root / "hyperkvasir/images" / folder).glob("*.jpg"))
            cache[folder] = {path.name: measure(rgb(path)).faults(OPTIONS) for path in paths}
        return cache[folder]

    return of


def rgb(path):
    with Image.open(path) as picture:
        return picture.convert("RGB")


def share(faults, fault):
    return sum(fault in found for found in faults.values()) / len(faults)


@pytest.mark.parametrize(
    ("folder", "have_one"),
    [("bbps-0-1", 106 / 110), ("bbps-2-3", 1), ("impacted-stool", 1), ("normal-cecum", 116 / 120)],
)
def test_nearly_all_lower_frames_without_a_polyp_carry_a_corner_square(faults, folder, have_one):
    assert share(faults(folder), Fault.CORNER_SQUARE) == pytest.approx(have_one, abs=0.02)


def test_over_half_of_the_polyp_frames_carry_a_square_and_slanted_corners_are_none(faults):
    assert 0.54 < share(faults("polyp"), Fault.CORNER_SQUARE) < 0.6  # it was 0.73 with slanted corners


def test_upper_frames_carry_neither_square_nor_map(faults):
    for folder in ("normal-z-line", "oesophagitis-a"):
        assert share(faults(folder), Fault.CORNER_SQUARE) == 0
        assert share(faults(folder), Fault.GREEN_MAP) == 0


def test_green_maps_are_found_in_the_frames_that_show_one_and_in_no_other(faults):
    found = {name[:8] for name, found in faults("polyp").items() if Fault.GREEN_MAP in found}
    assert found == MAPS
    for folder in ("bbps-0-1", "bbps-2-3", "impacted-stool", "normal-cecum"):
        assert share(faults(folder), Fault.GREEN_MAP) == 0


def test_faint_text_is_found(faults):
    flagged = {name[:8] for name, found in faults("polyp").items() if Fault.TEXT in found}
    assert len(flagged & TEXTS) >= len(TEXTS) - 1
    assert share(faults("bbps-2-3"), Fault.TEXT) > 0.98  # all of them show the recorder's settings


def test_frames_without_a_letter_are_rarely_said_to_have_some(real_data_root):
    names = [real_data_root / f"edd2020/images/EDD2020_{stem}.jpg" for stem in BARE]
    flagged = [path.name for path in names if measure(rgb(path)).cells]
    assert len(flagged) <= 1


def test_real_frames_are_neither_dark_nor_blurred_nor_overexposed(faults):
    for folder in ("polyp", "normal-cecum", "normal-z-line"):
        assert max(share(faults(folder), fault) for fault in (Fault.DARK, Fault.BLURRED, Fault.OVEREXPOSED)) < 0.01


def test_a_large_frame_decoded_at_half_size_has_the_same_faults_and_colours(real_data_root):
    differ = 0
    large = []
    for path in sorted((real_data_root / "edd2020/images").glob("*.jpg")):
        with Image.open(path) as picture:
            if draft_size(picture.size) and len(large) < 40:
                large.append(path)
    assert len(large) == 40
    for path in large:
        whole = small_copies(rgb(path))
        with Image.open(path) as picture:
            picture.draft("RGB", draft_size(picture.size))
            half = small_copies(picture.convert("RGB"))
        a, b = measure(whole), measure(half)
        differ += a.faults(OPTIONS) != b.faults(OPTIONS)
        assert b.brightness == pytest.approx(a.brightness, abs=0.01)
        assert overlap(colour_histogram(whole.thumbnail), colour_histogram(half.thumbnail)) > 0.95
    assert differ <= 1


def test_a_truncated_large_frame_still_fails_at_half_size(real_data_root):
    paths = sorted((real_data_root / "edd2020/images").glob("EDD2020_INAB*.jpg"))[:12]
    checked = 0
    for path in paths:
        content = path.read_bytes()
        with Image.open(io.BytesIO(content[:-500])) as picture:
            size = draft_size(picture.size)
            if size is None:
                continue
            picture.draft("RGB", size)
            with pytest.raises(OSError, match="truncated"):
                picture.load()
            checked += 1
    assert checked > 2
