"""Folders, ours and foreign, as the audit reads them, and copies planted between them."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from gastrovl.core.errors import ImageError, RecordError, SourceError
from gastrovl.core.files import sha256_file
from gastrovl.core.records import write_records
from gastrovl.core.types import Finding, ImageRef, Sample, Split, Status
from gastrovl.data.audit import audit_folders
from gastrovl.data.audit.folders import find_images, short_names, split_named, title_of


@pytest.fixture
def picture():
    """`picture(path, seed)` draws soft blots, large enough to be told from those of another seed."""

    def write(path, seed=0):
        path.parent.mkdir(parents=True, exist_ok=True)
        blots = np.random.default_rng(seed).integers(0, 256, (7, 8, 3), dtype=np.uint8)
        Image.fromarray(blots).resize((320, 240), Image.Resampling.BICUBIC).save(path)
        return path

    return write


@pytest.fixture
def foreign(tmp_path, picture):
    """Three classes' worth of train, val and test: six pictures, no two alike."""
    root = tmp_path / "set"
    for seed, name in enumerate(
        ("train/polyp/1.png", "train/polyp/2.png", "train/ulcer/3.png", "val/ulcer/4.png", "test/polyp/5.png")
    ):
        picture(root / name, seed)
    picture(root / "test/ulcer/6.png", 9)
    return root


def sample(root, name, split, **others):
    path = root / f"images/{name}.png"
    image = ImageRef(path=f"images/{name}.png", width_px=320, height_px=240, sha256=sha256_file(path))
    fields = {"group": name, "findings": (Finding(term="polyp"),), **others}
    return Sample(id=f"src/{name}", image=image, source="src", split=split, **fields)


def pairs(report):
    return {(pair.a, pair.b): pair.how for pair in report.pairs}


def test_splits_and_labels_come_from_the_names_of_folders(foreign):
    found = {one.name: (one.split, one.labels) for one in find_images(foreign).images}
    assert found["train/polyp/1.png"] == (Split.TRAIN, ("polyp",))
    assert found["val/ulcer/4.png"] == (Split.VAL, ("ulcer",))
    assert found["test/ulcer/6.png"] == (Split.TEST, ("ulcer",))


def test_a_class_may_lie_above_the_split_and_images_is_no_class(tmp_path, picture):
    picture(tmp_path / "polyp/Training/images/1.png")
    picture(tmp_path / "polyp/Test_images/001/2.png", 1)
    picture(tmp_path / "unlabelled/3.png", 2)
    found = [(one.split, one.labels) for one in find_images(tmp_path).images]
    assert found == [(Split.TEST, ("polyp",)), (Split.TRAIN, ("polyp",)), (None, ())]


def test_the_audited_folder_itself_may_be_a_split(tmp_path, picture):
    picture(tmp_path / "train/1.png")
    picture(tmp_path / "test/2.png", 1)
    report, images = audit_folders([tmp_path / "train", tmp_path / "test"])
    assert [(one.id, one.split) for one in images] == [("train: 1.png", Split.TRAIN), ("test: 2.png", Split.TEST)]
    assert 'test: split by folder name: "test" is test (1)' in report.notes


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train", Split.TRAIN),
        ("TRAIN", Split.TRAIN),
        ("val2017", Split.VAL),
        ("valid", Split.VAL),
        ("test-set", Split.TEST),
        ("images_test", Split.TEST),
        ("train_test", None),
        ("testis", None),
        ("trained_by_bob", None),
        ("2", None),
    ],
)
def test_a_split_is_named_by_whole_words(name, split):
    assert split_named(name) is split


def test_planted_copies_are_found_and_counted(foreign):
    one = Image.open(foreign / "train/polyp/1.png")
    ImageOps.mirror(one).save(foreign / "test/polyp/mirrored.jpg", quality=90)
    one.resize((200, 150)).save(foreign / "val/ulcer/small.png")
    shutil.copy(foreign / "train/polyp/2.png", foreign / "test/polyp/same.png")
    report, _ = audit_folders([foreign])
    assert pairs(report) == {
        ("test/polyp/same.png", "train/polyp/2.png"): "byte-equal",
        ("test/polyp/mirrored.jpg", "train/polyp/1.png"): "mirrored",
        ("train/polyp/1.png", "val/ulcer/small.png"): "same",
        ("test/polyp/mirrored.jpg", "val/ulcer/small.png"): "mirrored",
    }
    # test: 5, 6, mirrored, same; val: 4, small
    found = {(one.of, one.inside): (one.copies, one.images) for one in report.overlaps}
    assert found == {("test", "train"): (2, 4), ("val", "train"): (1, 2), ("test", "val"): (1, 4)}
    assert report.families_across_splits == 2
    assert report.pairs_labelled_differently == 2  # small lies with the ulcers
    assert report.exact_duplicates == (("test/polyp/same.png", "train/polyp/2.png"),)


def test_two_foreign_folders_are_compared_with_each_other(tmp_path, picture):
    picture(tmp_path / "a/images/1.png")
    picture(tmp_path / "b/images/2.png", 1)
    shutil.copy(tmp_path / "a/images/1.png", tmp_path / "b/images/9.png")
    report, images = audit_folders([tmp_path / "a/images", tmp_path / "b/images"])
    assert {one.folder for one in images} == {"a/images", "b/images"}
    assert pairs(report) == {("a/images: 1.png", "b/images: 9.png"): "byte-equal"}
    assert report.has_leak


def test_our_folder_is_read_by_its_records(tmp_path, picture):
    for seed, name in enumerate("abc"):
        picture(tmp_path / f"images/{name}.png", seed)
    shutil.copy(tmp_path / "images/a.png", tmp_path / "images/d.png")
    findings = (Finding(term="polyp", status=Status.ABSENT), Finding(term="ulcer", status=Status.UNCERTAIN))
    samples = [
        sample(tmp_path, "a", Split.TRAIN, group="p1"),
        sample(tmp_path, "b", Split.TEST, group="p1"),
        sample(tmp_path, "d", Split.TEST, group="p2", findings=findings),
    ]
    write_records(tmp_path / "records.jsonl", samples)
    report, images = audit_folders([tmp_path])
    assert [(one.id, one.split, one.group, one.source) for one in images] == [
        ("src/a", Split.TRAIN, "p1", "src"),
        ("src/b", Split.TEST, "p1", "src"),
        ("src/d", Split.TEST, "p2", "src"),
    ]  # c has no record
    assert images[2].labels == ("no polyp", "perhaps ulcer")
    assert pairs(report) == {("src/a", "src/d"): "byte-equal"}
    assert report.stated_groups_across_splits == ("p1",)


def test_a_record_that_leads_out_of_its_folder_is_not_read(tmp_path, picture):
    root = tmp_path / "set"
    picture(root / "images/a.png")
    picture(tmp_path / "secret.png", 1)
    good = sample(root, "a", Split.TRAIN)
    image = ImageRef(path="../secret.png", width_px=320, height_px=240, sha256=sha256_file(tmp_path / "secret.png"))
    write_records(root / "records.jsonl", [good, good.model_copy(update={"id": "src/b", "image": image})])
    report, images = audit_folders([root])
    assert [one.id for one in images] == ["src/a"]
    assert [(one.path, one.reason) for one in report.unread] == [("../secret.png", "leads out of the folder")]


def test_links_out_of_the_folder_are_listed_and_never_opened(foreign, tmp_path, picture, monkeypatch):
    picture(tmp_path / "outside/secret.png", 20)
    (foreign / "test/polyp/file.png").symlink_to(tmp_path / "outside/secret.png")
    (foreign / "test/folder").symlink_to(tmp_path / "outside")
    opened = []
    real_open = Image.open
    monkeypatch.setattr(
        Image, "open", lambda path, *rest: opened.append(Path(path).resolve()) or real_open(path, *rest)
    )
    report, images = audit_folders([foreign])
    assert len(images) == len(opened) == 6
    assert all(path.is_relative_to(foreign.resolve()) for path in opened)
    assert {(one.path, one.reason) for one in report.unread} == {
        ("test/folder", "a link to a folder; not entered"),
        ("test/polyp/file.png", "leads out of the folder"),
    }


def test_broken_images_are_listed_and_the_rest_is_audited(foreign, bomb):
    whole = (foreign / "train/polyp/1.png").read_bytes()
    (foreign / "test/cut.png").write_bytes(whole[: len(whole) // 2])
    (foreign / "test/empty.png").write_bytes(b"")
    (foreign / "test/text.jpg").write_text("no image", encoding="utf-8")
    bomb(foreign / "test/bomb.png")
    Image.new("RGB", (20, 20)).save(foreign / "test/tiny.png")
    report, _ = audit_folders([foreign])
    assert report.images == 6
    reasons = {one.path: one.reason for one in report.unread}
    assert reasons.keys() == {f"test/{name}" for name in ("cut.png", "empty.png", "text.jpg", "bomb.png", "tiny.png")}
    assert reasons["test/tiny.png"] == "only 20 x 20 px"
    assert "truncated or damaged" in reasons["test/cut.png"]
    assert str(foreign) not in "".join(reasons.values())


def test_masks_are_left_out_unless_asked_for(foreign, picture):
    picture(foreign / "train/Masks/1.png", 30)
    report, _ = audit_folders([foreign])
    assert report.images == 6
    assert 'left out: 1 file(s) in folders called "Masks" (--masks takes them)' in report.notes
    assert audit_folders([foreign], takes_annotations=True)[0].images == 7


def test_a_folder_of_nothing_but_broken_images_is_an_error(tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(ImageError, match="none of the 1 images can be read, e"):
        audit_folders([tmp_path])


def test_wrong_folders_are_refused_with_the_reason(tmp_path, foreign):
    with pytest.raises(SourceError, match="no such folder"):
        audit_folders([tmp_path / "absent"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match="holds no image that can be audited; expected files ending in"):
        audit_folders([tmp_path / "empty"])
    with pytest.raises(SourceError, match="are the same folder; name each folder once"):
        audit_folders([foreign, tmp_path / "empty" / ".." / "set"])
    with pytest.raises(SourceError, match="lie one inside the other"):
        audit_folders([foreign, foreign / "train"])
    with pytest.raises(SourceError, match="no folder is named"):
        audit_folders([])
    (foreign / "records.jsonl").write_text("{", encoding="utf-8")
    with pytest.raises(RecordError, match=r"records\.jsonl:1"):
        audit_folders([foreign])


def test_names_of_folders_are_as_short_as_tells_them_apart():
    assert short_names([Path("/x/a/images")]) == [""]
    assert short_names([Path("/x/a/images"), Path("/x/b/images")]) == ["a/images", "b/images"]
    assert short_names([Path("/x/a"), Path("/x/b")]) == ["a", "b"]
    assert short_names([Path("/x/a/images"), Path("/y/b")]) == ["a/images", "y/b"]
    assert title_of([Path("/x/a/images"), Path("/x/b")]) == "a/images and b"


def test_a_name_that_is_no_text_is_still_written(tmp_path, picture):
    strange = Path(str(tmp_path / "set")) / "caf\udce9.png"  # the byte E9, which is no UTF-8
    shutil.copy(picture(tmp_path / "plain.png"), _made(strange))
    assert [one.name for one in find_images(tmp_path / "set").images] == ["caf\\xe9.png"]


def _made(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def test_the_same_folder_gives_the_same_report(foreign):
    told = []
    first, _ = audit_folders([foreign], progress=lambda *state: told.append(state))
    assert first == audit_folders([foreign])[0]
    assert ("reading images", 6, 6) in told


@pytest.mark.real_data
def test_known_duplicates_of_edd2020_are_found(real_data_root):
    report, _ = audit_folders([real_data_root / "edd2020" / "images"])
    found = {(pair.a[8:-4], pair.b[8:-4]) for pair in report.pairs}  # EDD2020_X.jpg
    known = {("AJ0019", "AJ0020"), ("AJ0040", "AJ0041"), ("F0002", "F0006"), ("F0004", "F0005")}
    assert known <= found
    assert report.images == 309
    assert not report.unread
