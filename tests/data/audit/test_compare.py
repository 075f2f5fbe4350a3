"""What counts as a leak, and the numbers of an audit, on a handful of images whose copies are stated by the test."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from gastrovl.core.errors import RecordError
from gastrovl.core.types import Split
from gastrovl.data.audit import AuditedImage, audit_copies, audit_images, compare, report_json
from gastrovl.data.audit.report import Overlap
from gastrovl.data.audit.verdict import percent
from gastrovl.data.copies import Copy, CopyOptions
from gastrovl.data.fingerprint import FINGERPRINT_BYTES

TRAIN, VAL, TEST = Split.TRAIN, Split.VAL, Split.TEST


def image(name, split=None, *, bytes_of=None, **others):
    """An image whose bytes are its own, or those of the image called `bytes_of`."""
    sha256 = (bytes_of or name).encode().hex().ljust(64, "0")
    return AuditedImage(id=name, path=Path(name), sha256=sha256, split=split, **others)


def overlaps(report):
    return {(one.of, one.inside): (one.copies, one.images) for one in report.overlaps}


def test_a_copy_across_splits_is_counted_from_both_sides():
    images = [image("a", TRAIN), image("b", TEST), image("c", TEST), image("d", VAL), image("e", TRAIN)]
    # test b is a copy of train a; test c and val d are copies of each other
    report = audit_copies(images, [Copy(0, 1, 0.9, "same"), Copy(2, 3, 0.8, "cropped")])
    assert report.has_leak
    assert overlaps(report) == {("test", "train"): (1, 2), ("val", "train"): (0, 1), ("test", "val"): (1, 2)}
    assert {(one.of, one.inside): one.copies for one in report.crossings} == {
        ("train", "test"): 1,
        ("test", "train"): 1,
        ("test", "val"): 1,
        ("val", "test"): 1,
    }
    assert report.verdict == (
        "LEAK: 1 of 2 images of test (50.0 %) has a copy in train; 1 of 2 images of test (50.0 %) has a copy in val. "
        "2 families of copies stand in several splits."
    )


def test_families_are_tied_through_others_but_a_leak_needs_a_copy_of_its_own():
    images = [image("a", TRAIN), image("b", TRAIN), image("c", TEST), image("d", TEST)]
    report = audit_copies(images, [Copy(0, 1, 0.9, "same"), Copy(1, 2, 0.9, "same"), Copy(2, 3, 0.9, "same")])
    assert (report.families, report.families_across_splits, report.largest_family) == (1, 1, 4)
    assert overlaps(report)["test", "train"] == (1, 2)  # d is a copy of c only
    assert {pair.family for pair in report.pairs} == {"a"}


def test_byte_equal_images_share_each_others_copies():
    # a1 = a2 = a3 in bytes; only a1 is said to be a copy of b
    images = [image("a1", TRAIN), image("a2", TRAIN, bytes_of="a1"), image("a3", TEST, bytes_of="a1"), image("b", VAL)]
    report = audit_copies(images, [Copy(0, 3, 0.85, "mirrored")])
    assert report.exact_duplicates == (("a1", "a2", "a3"),)
    # pairs: a1-a2 within; a1-a3, a2-a3 across; a1-b, a2-b, a3-b across
    assert report.pairs_by_crossing == {"across splits": 5, "across folders": 0, "across sources": 0, "within": 1}
    assert report.pairs_by_how == {"byte-equal": 3, "mirrored": 3}
    assert overlaps(report) == {("test", "train"): (1, 1), ("val", "train"): (1, 1), ("test", "val"): (1, 1)}
    assert [(one.name, one.copies_inside, one.copies_elsewhere) for one in report.places] == [
        ("train", 2, 2),
        ("val", 0, 1),
        ("test", 0, 1),
    ]


def test_a_copy_that_is_stated_twice_counts_once_with_its_best_likeness():
    report = audit_copies([image("a"), image("b")], [Copy(0, 1, 0.8, "cropped"), Copy(0, 1, 0.9, "same")])
    assert [(pair.likeness, pair.how) for pair in report.pairs] == [(0.9, "same")]


def test_an_image_is_no_copy_of_itself():
    report = audit_copies([image("a", TRAIN), image("b", TEST)], [])
    assert not report.has_leak
    assert report.images_with_copy == 0
    assert report.verdict == "No copies found among 2 images."
    assert [one.copies_inside for one in report.places] == [0, 0]


@pytest.mark.parametrize(
    ("a", "b", "crossing", "is_leak"),
    [
        ({"split": TRAIN}, {"split": TEST}, "across splits", True),
        ({"split": TRAIN, "folder": "x"}, {"split": TRAIN, "folder": "y"}, "across folders", True),
        ({"split": TRAIN}, {"split": None}, "within", False),
        ({"source": "x"}, {"source": "y"}, "across sources", False),
        ({"split": TRAIN, "source": "x"}, {"split": TRAIN, "source": "x"}, "within", False),
    ],
)
def test_the_worst_crossing_names_the_pair(a, b, crossing, is_leak):
    report = audit_copies([image("a", **a), image("b", **b)], [Copy(0, 1, 0.9, "same")])
    assert [pair.crossing for pair in report.pairs] == [crossing]
    assert report.has_leak is is_leak


def test_folders_are_compared_in_both_directions():
    images = [image("x: 1", folder="x"), image("x: 2", folder="x"), image("y: 1", folder="y")]
    report = audit_copies(images, [Copy(0, 2, 0.9, "same")])
    assert overlaps(report) == {("x", "y"): (1, 2), ("y", "x"): (1, 1)}
    assert report.families_across_folders == 1
    assert report.verdict == (
        "LEAK: 1 of 2 images of x (50.0 %) has a copy in y; 1 of 1 images of y (100.0 %) has a copy in x."
    )


def test_leaks_are_listed_before_anything_else_and_the_most_alike_first():
    images = [image("a", TRAIN), image("b", TRAIN), image("c", TEST), image("d", VAL)]
    copies = [Copy(0, 1, 0.99, "same"), Copy(0, 2, 0.81, "same"), Copy(1, 3, 0.95, "same")]
    report = audit_copies(images, copies)
    assert [(pair.a, pair.b) for pair in report.pairs] == [("b", "d"), ("a", "c"), ("a", "b")]


def test_a_stated_group_in_two_splits_is_a_leak_although_nothing_looks_alike():
    images = [image("a", TRAIN, group="p1"), image("b", TEST, group="p1"), image("c", TEST, group="p2")]
    report = audit_copies(images, [])
    assert report.has_leak
    assert (report.stated_groups, report.stated_groups_across_splits) == (2, ("p1",))
    assert report.verdict == "LEAK: 1 of 2 stated groups (patients, videos) stands in several splits, e.g. p1."


def test_groups_of_two_folders_with_one_name_are_two_groups():
    images = [image("a", TRAIN, group="1", folder="x"), image("b", TEST, group="1", folder="y")]
    assert not audit_copies(images, []).has_leak


def test_labels_differ_only_where_both_sides_have_some():
    images = [
        image("a", labels=("polyp",)),
        image("b", labels=("ulcer",), bytes_of="a"),
        image("c", bytes_of="a"),
        image("d", labels=("ulcer", "polyp")),
        image("e", labels=("polyp", "ulcer")),
    ]
    report = audit_copies(images, [Copy(3, 4, 0.9, "same")])
    assert {(pair.a, pair.b) for pair in report.pairs if pair.labels_differ} == {("a", "b")}
    assert report.pairs_labelled_differently == 1
    assert [one.labels for one in report.label_conflicts] == [{"a": ("polyp",), "b": ("ulcer",), "c": ()}]


def test_without_splits_the_verdict_claims_no_leak_and_no_safety():
    report = audit_copies([image("a"), image("b"), image("c")], [Copy(0, 1, 0.9, "same")])
    assert not report.has_leak
    assert (
        report.verdict == "No splits to compare. 2 of 3 images have a copy, in 1 family; a family belongs in one split."
    )


def test_a_leak_of_faint_likeness_only_is_called_possible():
    report = audit_copies([image("a", TRAIN), image("b", TEST)], [Copy(0, 1, 0.8211, "cropped")])
    assert report.has_leak
    assert report.verdict == (
        "POSSIBLE LEAK: 1 of 1 images of test (100.0 %) has a copy in train. 1 family of copies stands in several "
        "splits. None of these pairs has a likeness above 82.2 %: look at them before you believe it."
    )


def test_copies_inside_a_split_are_told_but_are_no_leak():
    images = [image("a", TRAIN), image("b", TRAIN), image("c", TEST)]
    report = audit_copies(images, [Copy(0, 1, 0.9, "same")])
    assert not report.has_leak
    assert report.verdict == "No copy crosses the splits. Inside them, 2 of 3 images have a copy, in 1 family."


def test_a_long_list_is_cut_but_counted_and_keeps_the_least_alike(monkeypatch):
    monkeypatch.setattr(compare, "LISTED", 4)
    monkeypatch.setattr(compare, "LISTED_LEAST", 1)
    # 100 equal files: 4,950 pairs; and one unsure pair
    images = [image(f"{n:03d}", bytes_of="same") for n in range(100)] + [image("x"), image("y")]
    report = audit_copies(images, [Copy(100, 101, 0.8, "cropped")])
    assert report.n_pairs == 4951
    assert [(pair.a, pair.b) for pair in report.pairs] == [("000", "001"), ("000", "002"), ("000", "003"), ("x", "y")]
    assert report.notes == ("4,951 pairs are counted and 4 listed: the worst, and the 1 that look least alike",)


def test_two_images_of_one_id_are_refused():
    with pytest.raises(RecordError, match="1 ids stand for several images"):
        audit_copies([image("a"), image("a", bytes_of="b")], [])


def test_equal_files_are_compared_once(monkeypatch):
    seen = []

    def fake(prints, _options, progress):
        seen.append(prints[:, 0].tolist())
        progress(1, 1)
        return [Copy(0, 1, 0.9, "same")]

    monkeypatch.setattr(compare, "find_copies", fake)
    images = [image("a"), image("b", bytes_of="a"), image("c")]
    prints = np.arange(3, dtype=np.uint8)[:, None].repeat(FINGERPRINT_BYTES, axis=1)
    told = []
    report = audit_images(images, prints, CopyOptions(likeness=0.9), lambda *state: told.append(state))
    assert seen == [[0, 2]]
    assert {(pair.a, pair.b) for pair in report.pairs} == {("a", "b"), ("a", "c"), ("b", "c")}
    assert told == [("comparing images", 1, 1)]
    assert report.notes == ("copies: byte-equal files, and images whose likeness is at least 0.9",)


def test_the_report_is_json_with_a_schema_and_shares():
    report = audit_copies([image("a", TRAIN), image("b", TEST), image("c", TEST)], [Copy(0, 1, 0.9, "same")])
    content = json.loads(report_json(report))
    assert content["schema"] == "gastrovl/audit/1"
    assert content["overlaps"] == [{"of": "test", "inside": "train", "images": 2, "copies": 1, "share": 0.5}]
    assert "path" not in report_json(report)


def test_a_share_is_never_rounded_to_nothing_or_to_all():
    def of(copies, images):
        return percent(Overlap(of="test", inside="train", images=images, copies=copies))

    assert [of(0, 5), of(1, 3000), of(2999, 3000), of(5, 5), of(1, 3)] == [
        "0.0 %",
        "< 0.1 %",
        "> 99.9 %",
        "100.0 %",
        "33.3 %",
    ]
