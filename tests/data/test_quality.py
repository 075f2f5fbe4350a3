"""What is known of an image's pixels, and which images look alike."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from PIL import Image

from gastrovl.core.errors import ImageError, MissingExtraError
from gastrovl.data.images import ImageFile
from gastrovl.data.quality import QualityOptions, colour_likeness, look_at, look_at_all, near_duplicates, stop_at_broken

OPTIONS = QualityOptions()


def file(path):
    return ImageFile(path, path.name, None)


def distance(a, b):
    return int(np.count_nonzero(look_at(file(a), OPTIONS).bits != look_at(file(b), OPTIONS).bits))


def test_a_truncated_jpeg_is_refused_with_its_remedy(tmp_path, draw):
    path = draw(tmp_path / "cut.jpg", size_wh=(400, 300))
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(ImageError, match=r"cut\.jpg: truncated or damaged .*; copy it again"):
        look_at(file(path), OPTIONS)


def test_a_damaged_png_is_refused(tmp_path, draw):
    path = draw(tmp_path / "a.png", size_wh=(100, 100))
    content = bytearray(path.read_bytes())
    content[200:260] = bytes(60)
    path.write_bytes(content)
    with pytest.raises(ImageError, match=r"a\.png: (truncated or damaged|broken header)"):
        look_at(file(path), OPTIONS)


def test_a_tiny_image_is_refused_with_the_limit(tmp_path, draw):
    with pytest.raises(ImageError, match=r"only 64x20 px; .*`quality.min_side_px` in the config \(now 32\)"):
        look_at(file(draw(tmp_path / "a.png", size_wh=(64, 20))), OPTIONS)


def test_all_broken_images_are_listed_in_one_error(tmp_path, draw, bomb):
    good = draw(tmp_path / "good.png")
    broken = [bomb(tmp_path / "bomb.png"), tmp_path / "empty.png", tmp_path / "gone.png"]
    broken[1].touch()
    looks, rows = look_at_all([file(path) for path in (good, *broken)], OPTIONS)
    assert list(looks) == [good]
    with pytest.raises(ImageError) as caught:
        stop_at_broken(rows)
    message = str(caught.value)
    assert "3 images cannot be used" in message
    assert "bomb.png: claims too many pixels" in message
    assert "empty.png: empty (0 bytes)" in message
    assert "gone.png: missing" in message
    assert "`quality.on_broken_image: skip`" in message


def test_whole_images_do_not_stop_anything(tmp_path, draw):
    _, rows = look_at_all([file(draw(tmp_path / "a.png"))], OPTIONS)
    stop_at_broken(rows)


def test_a_smaller_recompressed_copy_looks_alike_and_another_picture_does_not(tmp_path, draw):
    original = draw(tmp_path / "a.png", 1, (400, 300))
    with Image.open(original) as picture:
        picture.resize((200, 150)).save(tmp_path / "copy.jpg", quality=70)
    other = draw(tmp_path / "b.png", 2, (400, 300))
    assert distance(original, tmp_path / "copy.jpg") <= OPTIONS.near_duplicate_bits
    assert distance(original, other) > 80


def test_rotation_asked_for_by_exif_is_noticed(tmp_path, draw):
    path = draw(tmp_path / "a.jpg")
    with Image.open(path) as picture:
        exif = picture.getexif()
        exif[0x0112] = 6
        picture.save(tmp_path / "turned.jpg", exif=exif)
    assert not look_at(file(path), OPTIONS).rotated
    assert look_at(file(tmp_path / "turned.jpg"), OPTIONS).rotated


def test_colours_overlap_wholly_with_themselves_and_not_with_their_opposite(tmp_path):
    for name, colour in (("red", (200, 30, 30)), ("blue", (10, 10, 90))):
        Image.new("RGB", (64, 64), colour).save(tmp_path / f"{name}.png")
    red, blue = (look_at(file(tmp_path / f"{name}.png"), OPTIONS) for name in ("red", "blue"))
    assert colour_likeness(red, red) == pytest.approx(1)
    assert colour_likeness(red, blue) == 0


def test_near_duplicates_finds_exactly_the_pairs_of_a_full_search():
    rng = np.random.default_rng(0)
    hashes = rng.random((120, 256)) < 0.5
    for index in range(1, 60):  # copies with 0 to 59 flipped bits
        hashes[60 + index] = hashes[0]
        hashes[60 + index][rng.permutation(256)[:index]] ^= True
    for limit in (0, 15, 36, 47):
        full = [
            (i, j, int(np.count_nonzero(hashes[i] != hashes[j])))
            for i in range(120)
            for j in range(i + 1, 120)
            if np.count_nonzero(hashes[i] != hashes[j]) <= limit
        ]
        assert near_duplicates(hashes, limit) == full


def test_no_images_have_no_near_duplicates():
    assert near_duplicates(np.zeros((0, 256), dtype=bool), 36) == []


def test_without_imagehash_the_error_names_the_extra_and_the_way_around(tmp_path, draw, monkeypatch):
    monkeypatch.setitem(sys.modules, "imagehash", None)
    path = draw(tmp_path / "a.png")
    with pytest.raises(MissingExtraError, match=r'pip install "gastrovl\[data\]".*near_duplicate_bits: null'):
        look_at(file(path), OPTIONS)
    assert look_at(file(path), QualityOptions(near_duplicate_bits=None)).bits.size == 0
