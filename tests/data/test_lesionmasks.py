"""Masks of a term: united, scaled, painted over, and left out where they and the boxes disagree."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from gastrovl.core.errors import SourceError
from gastrovl.core.types import Box, Finding, Status
from gastrovl.data.harmonise import LabelledImage
from gastrovl.data.images import ImageFile
from gastrovl.data.lesionmasks import FoundMask, Outcome, WantedMask, store_mask, wanted_masks, with_masks
from gastrovl.data.source import MaskRule

IMAGE = ImageFile(Path("images/a.png"), "a.png", (8, 4))
LEFT = Box(x0=0, y0=0, x1=0.5, y1=1)
RIGHT = Box(x0=0.5, y0=0, x1=1, y1=1)


@pytest.fixture
def stored(tmp_path):
    """`stored(*masks, boxes=..., max_side_px=None, painted=())`: what became of a mask, and its rows when it is there.

    A mask is rows of "#" for white; a number stands for a grey value of every white pixel.
    """

    def run(*masks, boxes=(LEFT,), max_side_px=None, painted=(), white=255):
        paths = []
        for number, rows in enumerate(masks):
            paths.append(tmp_path / f"{number}.png")
            if rows is not None:
                pixels = [[white if character == "#" else 0 for character in row] for row in rows]
                Image.fromarray(np.array(pixels, dtype=np.uint8)).save(paths[-1])
        wanted = WantedMask("gastric_polyp", tuple(paths), boxes)
        target = tmp_path / "out/a.png"
        found = store_mask(wanted, IMAGE, target, max_side_px, painted)
        if found.outcome is not Outcome.STORED:
            assert not target.exists()
            return found, None
        with Image.open(target) as picture:
            assert picture.mode == "L"
            pixels = np.asarray(picture)
        assert set(np.unique(pixels)) <= {0, 255}
        assert found.sha256 == hashlib.sha256(target.read_bytes()).hexdigest()
        return found, ["".join("#" if value else "." for value in row) for row in pixels]

    return run


A = ["##......", "##......", "........", "........"]
B = ["........", "........", "......##", "......##"]


def test_masks_of_several_labels_are_united(stored):
    assert stored(A, B, boxes=(LEFT, RIGHT))[1] == ["##......", "##......", "......##", "......##"]


def test_a_term_of_which_one_label_has_no_mask_has_none(stored):
    assert stored(A, None, boxes=(LEFT, RIGHT))[0] == FoundMask("gastric_polyp", Outcome.ABSENT)


@pytest.mark.parametrize(("white", "outcome"), [(127, Outcome.EMPTY), (128, Outcome.STORED)])
def test_white_is_what_is_above_half(stored, white, outcome):
    assert stored(A, white=white)[0].outcome is outcome


def test_a_box_without_white_leaves_the_mask_out_with_its_place(stored):
    found, _ = stored(A, boxes=(LEFT, RIGHT))
    assert found.outcome is Outcome.APART
    assert found.why.endswith("0.png: box 2 of 2, 4 0 8 4 px, holds no white pixel")


def test_a_mask_that_lies_mostly_outside_its_boxes_is_left_out(stored):
    half = ["..####..", "........", "........", "........"]
    assert stored(half)[0].outcome is Outcome.STORED  # 2 of 4 in the left half
    found, _ = stored(["..#####.", "........", "........", "........"])
    assert found.outcome is Outcome.APART
    assert found.why.endswith("only 40% of the white pixels lie in its boxes")


def test_a_pixel_of_a_smaller_copy_is_white_where_half_of_it_is(stored):
    #        1 of 4, 2 of 4 (a diagonal), 3 of 4, 4 of 4
    rows = ["#.#.####", "...#.###", "........", "........"]
    assert stored(rows, boxes=(Box(x0=0, y0=0, x1=1, y1=1),), max_side_px=4)[1] == [".###", "...."]


def test_a_mask_that_vanishes_in_a_smaller_copy_is_left_out(stored):
    found, _ = stored(["#.......", "........", "........", "........"], max_side_px=4)
    assert found.outcome is Outcome.EMPTY
    assert "smaller or painted copy" in found.why


def test_what_is_painted_over_is_black(stored):
    left_column = Box(x0=0, y0=0, x1=0.125, y1=1)
    assert stored(A, painted=(left_column,))[1] == [".#......", ".#......", "........", "........"]
    assert stored(A, painted=(LEFT,))[0].outcome is Outcome.EMPTY


def test_a_mask_of_another_size_and_one_that_is_none_are_broken(stored, tmp_path):
    found, _ = stored(["##", "##"])
    assert found.outcome is Outcome.BROKEN
    assert "is 2x2 px, but images/a.png is (8, 4)" in found.why
    (tmp_path / "0.png").write_text("no pixels")
    found = store_mask(WantedMask("t", (tmp_path / "0.png",), (LEFT,)), IMAGE, tmp_path / "out.png", None, ())
    assert found.outcome is Outcome.BROKEN
    assert "not an image" in found.why


def labelled(name="a.png", label="polyp", **finding):
    boxed = {"gastric_polyp": (label,)}
    findings = (Finding(term="gastric_polyp", **{"boxes": (LEFT,), **finding}), Finding(term="antrum"))
    return LabelledImage(ImageFile(Path(name), name, (8, 4)), findings, boxed=boxed)


def test_masks_are_wanted_of_what_is_present_boxed_and_spoken_of(tmp_path):
    rule = MaskRule(files="masks/{name}-{label}.png")
    found = wanted_masks([labelled("p1/a.png")], rule, tmp_path)
    assert found == {"p1/a.png": (WantedMask("gastric_polyp", (tmp_path / "masks/p1/a-polyp.png",), (LEFT,)),)}
    assert wanted_masks([labelled(status=Status.UNCERTAIN), labelled(boxes=())], rule, tmp_path) == {}
    other = MaskRule(files="{stem}.png", labels=("ulcer",))
    assert wanted_masks([labelled()], other, tmp_path) == {}
    assert wanted_masks([labelled()], None, tmp_path) == {}


def test_one_mask_for_two_images_and_one_outside_the_source_are_refused(tmp_path):
    rule = MaskRule(files="masks/{stem}.png", labels=("polyp",))
    with pytest.raises(SourceError, match=r"is the mask of p1/a\.png and of p2/a\.png; .*Use \{name\}"):
        wanted_masks([labelled("p1/a.png"), labelled("p2/a.png")], rule, tmp_path)
    with pytest.raises(SourceError, match="leads out of"):
        wanted_masks([labelled()], MaskRule(files="../{stem}.png", labels=("polyp",)), tmp_path)


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"files": "masks/polyp.png"}, "needs {stem} or {name}"),
        ({"files": "masks/{stem}_{class}.png"}, "needs {stem} or {name}"),
        ({"files": "masks/{stem}.png"}, "say in `labels`"),
        ({"files": "masks/{stem}_{label.png"}, "expected '}'"),
    ],
)
def test_a_rule_says_which_image_and_which_label(rule, message):
    with pytest.raises(ValidationError, match=message):
        MaskRule(**rule)


def test_only_present_boxed_findings_of_a_stored_term_name_its_mask():
    polyp = Finding(term="gastric_polyp", boxes=(LEFT,))
    findings = [polyp, Finding(term="gastric_polyp", status=Status.UNCERTAIN, boxes=(RIGHT,)), Finding(term="antrum")]
    found = [FoundMask("gastric_polyp", Outcome.STORED), FoundMask("antrum", Outcome.APART)]
    named = with_masks(findings, found, IMAGE, "masks/own")
    assert [one.mask for one in named] == ["masks/own/a.gastric_polyp.png", None, None]
