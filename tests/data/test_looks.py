"""What is known of an image's pixels, and journals that lose nothing and do nothing twice."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from gastrovl.core.errors import ImageError
from gastrovl.data import looks
from gastrovl.data.colours import overlap
from gastrovl.data.config import ImageOptions
from gastrovl.data.images import ImageFile, as_broken
from gastrovl.data.looks import LookTask, broken_of, bytes_of, fill_journal, look_at, read_journal
from gastrovl.data.quality import QualityOptions, stop_at_broken

OPTIONS = QualityOptions()


def look(path, options=OPTIONS):
    return look_at(path, path.read_bytes(), options)[0]


@pytest.fixture
def task(tmp_path, draw):
    """Three images of a source, the second of them cut off."""
    paths = [draw(tmp_path / f"in/{name}.jpg", seed) for seed, name in enumerate("abc")]
    paths[1].write_bytes(paths[1].read_bytes()[:-200])
    images = tuple(ImageFile(path, path.name, (64, 48)) for path in paths)
    return LookTask("own", images, OPTIONS, ImageOptions(), tmp_path / "out", tmp_path / "journal/000000.jsonl")


@pytest.fixture
def looked_at(monkeypatch):
    """Names of the images that are decoded, in order."""
    names = []

    def noted(path, content, options, *, is_reduced):
        names.append(path.name)
        return look_at(path, content, options, is_reduced=is_reduced)

    monkeypatch.setattr(looks, "look_at", noted)
    return names


def test_a_truncated_jpeg_is_refused_with_its_remedy(tmp_path, draw):
    path = draw(tmp_path / "cut.jpg", size_wh=(400, 300))
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(ImageError, match=r"cut\.jpg: truncated or damaged .*; copy it again"):
        look(path)


def test_a_damaged_png_is_refused(tmp_path, draw):
    path = draw(tmp_path / "a.png", size_wh=(100, 100))
    content = bytearray(path.read_bytes())
    content[200:260] = bytes(60)
    path.write_bytes(content)
    with pytest.raises(ImageError, match=r"a\.png: (truncated or damaged|broken header)"):
        look(path)


def test_a_tiny_image_is_refused_with_the_limit(tmp_path, draw):
    with pytest.raises(ImageError, match=r"only 64x20 px; .*`quality.min_side_px` in the config \(now 32\)"):
        look(draw(tmp_path / "a.png", size_wh=(64, 20)))


def test_all_broken_images_are_listed_in_one_error(tmp_path):
    reasons = {
        "bomb.png": "claims too many pixels; store it",
        "empty.png": "empty (0 bytes); copy it",
        "gone.png": "missing; copy it",
    }
    rows = [as_broken(tmp_path / name, ImageError(f"{tmp_path / name}: {why}")) for name, why in reasons.items()]
    with pytest.raises(ImageError) as caught:
        stop_at_broken(rows)
    message = str(caught.value)
    assert "3 images cannot be used" in message
    assert all(f"{name}: {why}" in message for name, why in reasons.items())
    assert "`quality.on_broken_image: skip`" in message


def test_no_broken_images_stop_nothing():
    stop_at_broken([])


def test_rotation_asked_for_by_exif_is_noticed(tmp_path, draw):
    path = draw(tmp_path / "a.jpg")
    with Image.open(path) as picture:
        exif = picture.getexif()
        exif[0x0112] = 6
        picture.save(tmp_path / "turned.jpg", exif=exif)
    assert not look(path).rotated
    assert look(tmp_path / "turned.jpg").rotated


def test_colours_overlap_wholly_with_themselves_and_not_with_their_opposite(tmp_path):
    for name, colour in (("red", (200, 30, 30)), ("blue", (10, 10, 90))):
        Image.new("RGB", (64, 64), colour).save(tmp_path / f"{name}.png")
    red, blue = (look(tmp_path / f"{name}.png") for name in ("red", "blue"))
    assert overlap(red.colours, red.colours) == pytest.approx(1)
    assert overlap(red.colours, blue.colours) == 0


def test_without_a_search_for_copies_no_fingerprint_is_made(tmp_path, draw):
    assert look(draw(tmp_path / "a.png"), QualityOptions(copies=None)).print.size == 0


def test_a_journal_has_a_line_for_every_image_also_for_a_broken_one(task):
    assert fill_journal(task) == 3
    first, cut, last = read_journal(task)
    assert broken_of(first) is None
    assert broken_of(last) is None
    assert "truncated or damaged" in broken_of(cut).reason
    assert first["quality"]["id"] == "own/a"
    assert bytes_of(first, "print") == look(task.images[0].path).print.tobytes()


def test_images_are_stored_as_they_are_looked_at_but_for_broken_ones(task):
    fill_journal(task)
    assert sorted(path.name for path in task.stored.iterdir()) == ["a.jpg", "c.jpg"]
    assert (task.stored / "a.jpg").read_bytes() == task.images[0].path.read_bytes()


def test_a_finished_journal_is_not_filled_again(task, looked_at):
    fill_journal(task)
    looked_at.clear()
    before = task.journal.read_bytes()
    fill_journal(task)
    assert looked_at == []
    assert task.journal.read_bytes() == before


@pytest.mark.parametrize("bytes_left", [0, 1, 40])
def test_a_torn_journal_is_filled_where_it_ends(task, looked_at, bytes_left):
    fill_journal(task)
    lines = task.journal.read_bytes().splitlines(keepends=True)
    task.journal.write_bytes(lines[0] + lines[1][:bytes_left])
    looked_at.clear()
    fill_journal(task)
    assert looked_at == ["b.jpg", "c.jpg"]
    assert [line["name"] for line in read_journal(task)] == ["a.jpg", "b.jpg", "c.jpg"]


def test_an_image_that_changed_is_looked_at_again(task, looked_at, draw):
    fill_journal(task)
    looked_at.clear()
    draw(task.images[1].path, 9)
    fill_journal(task)
    assert looked_at == ["b.jpg"]
    assert [broken_of(line) for line in read_journal(task)] == [None] * 3


def test_a_half_stored_image_is_stored_anew(task):
    task.stored.mkdir()
    (task.stored / "a.jpg").write_bytes(b"half")
    fill_journal(task)
    assert (task.stored / "a.jpg").read_bytes() == task.images[0].path.read_bytes()


def test_an_image_that_vanished_is_broken_and_stops_no_other(task):
    task.images[0].path.unlink()
    fill_journal(task)
    assert broken_of(next(read_journal(task))).reason == "missing"
    assert json.loads(task.journal.read_text().splitlines()[2])["name"] == "c.jpg"


def test_a_large_jpeg_is_looked_at_reduced_and_a_cut_one_is_still_noticed(tmp_path, draw):
    path = draw(tmp_path / "a.jpg", 1, (1600, 1200))
    content = path.read_bytes()
    whole, pixels = look_at(path, content, OPTIONS)
    reduced, fewer = look_at(path, content, OPTIONS, is_reduced=True)
    assert (pixels.size, fewer.size) == ((1600, 1200), (800, 600))
    assert reduced.sha256 == whole.sha256
    assert reduced.measures.brightness == pytest.approx(whole.measures.brightness, abs=0.01)
    with pytest.raises(ImageError, match="truncated or damaged"):
        look_at(path, content[:-3000], OPTIONS, is_reduced=True)


@pytest.mark.parametrize(
    ("storing", "faults", "size_wh"),
    [({}, {}, (1600, 1200)), ({"max_side_px": 1500}, {}, (1500, 1125)), ({}, {"text": "mask"}, (1600, 1200))],
)
def test_a_stored_copy_has_its_full_size_whatever_was_looked_at(tmp_path, draw, storing, faults, size_wh):
    image = ImageFile(draw(tmp_path / "in/a.jpg", 1, (1600, 1200)), "a.jpg", (1600, 1200))
    quality = QualityOptions(faults=faults)
    fill_journal(LookTask("own", (image,), quality, ImageOptions(**storing), tmp_path / "out", tmp_path / "j.jsonl"))
    with Image.open(tmp_path / "out/a.jpg") as picture:
        assert picture.size == size_wh
