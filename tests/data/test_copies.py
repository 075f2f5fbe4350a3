"""Planted copies are found, what they are is said, and different pictures stay apart."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageEnhance, ImageOps

from gastrovl.core.errors import SourceError
from gastrovl.data import candidates
from gastrovl.data.candidates import candidate_pairs, code_matches, key_mask, lone_bits, rows_of
from gastrovl.data.copies import CopyOptions, find_copies
from gastrovl.data.fingerprint import CODE_BITS, FINGERPRINT_BYTES, LAYOUT, MIRRORS, PLACES, fingerprint
from gastrovl.data.images import list_images
from gastrovl.data.synthetic import SITES, draw_image

ORIGINALS = 12


def cut(picture, left, top, right, bottom):
    width, height = picture.size
    return picture.crop((round(left * width), round(top * height), round(right * width), round(bottom * height)))


def with_logo(picture):
    pasted = picture.copy()
    ImageDraw.Draw(pasted).ellipse((40, 150, 90, 200), fill=(20, 90, 240))
    return pasted


PLANTED = {
    "half the size": (lambda picture: picture.resize((128, 128)), "same"),
    "brighter": (lambda picture: ImageEnhance.Brightness(picture).enhance(1.3), "same"),
    "less contrast": (lambda picture: ImageEnhance.Contrast(picture).enhance(0.7), "same"),
    "logo": (with_logo, "same"),
    "black bars": (lambda picture: ImageOps.expand(picture, (40, 0, 10, 25), fill=(0, 0, 0)), "same"),
    "left-right": (ImageOps.mirror, "mirrored"),
    "up-down": (ImageOps.flip, "mirrored"),
    "180 degrees": (lambda picture: picture.rotate(180), "mirrored"),
    "81 % of the area": (lambda picture: cut(picture, 0.1, 0.02, 1.0, 0.92), "cropped"),
    "81 %, left-right": (lambda picture: ImageOps.mirror(cut(picture, 0.05, 0.1, 0.95, 1.0)), "mirrored and cropped"),
}


@pytest.fixture(scope="module")
def originals():
    sites = sorted(SITES)
    drawn = (
        draw_image(np.random.default_rng(seed), sites[seed % len(sites)], ("gastric_polyp",), size_wh=(256, 256))
        for seed in range(ORIGINALS)
    )
    return [Image.fromarray(one.pixels) for one in drawn]


@pytest.fixture(scope="module")
def prints(originals):
    return np.stack([fingerprint(picture) for picture in originals])


def random_prints(count, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, FINGERPRINT_BYTES), dtype=np.uint8)


def set_code(print_, place, code):
    print_[LAYOUT.wide][6 * place : 6 * place + 6] = np.frombuffer(code.to_bytes(6, "big"), dtype=np.uint8)


def test_different_pictures_are_no_copies(prints):
    assert find_copies(prints, CopyOptions()) == []


@pytest.mark.parametrize("kind", PLANTED)
def test_a_planted_copy_is_found_with_what_was_done_to_it(originals, prints, kind):
    plant, how = PLANTED[kind]
    copies = np.stack([fingerprint(plant(picture)) for picture in originals])
    found = find_copies(np.concatenate((prints, copies)), CopyOptions())
    assert {(copy.i, copy.j) for copy in found} == {(number, number + ORIGINALS) for number in range(ORIGINALS)}
    said = [copy.how for copy in found]
    assert max(set(said), key=said.count) == how
    assert all(copy.likeness >= CopyOptions().likeness for copy in found)


def test_equal_pictures_have_likeness_one_and_are_the_same(prints):
    found = find_copies(np.concatenate((prints[:3], prints[:3])), CopyOptions())
    assert [tuple(copy) for copy in found] == [(0, 3, 1.0, "same"), (1, 4, 1.0, "same"), (2, 5, 1.0, "same")]


def test_mirrored_copies_are_looked_for_only_if_asked(originals, prints):
    turned = np.stack([fingerprint(ImageOps.mirror(picture)) for picture in originals])
    assert find_copies(np.concatenate((prints, turned)), CopyOptions(mirrored=False)) == []


def test_a_higher_likeness_keeps_a_part_of_the_pairs(originals, prints):
    both = np.concatenate((prints, np.stack([fingerprint(with_logo(picture)) for picture in originals])))
    loose, strict = (find_copies(both, CopyOptions(likeness=value)) for value in (0.88, 0.999))
    assert set(strict) < set(loose)


def test_the_result_is_sorted_and_the_same_again_and_from_a_memory_map(prints, tmp_path):
    both = np.concatenate((prints, prints[::-1]))
    np.save(tmp_path / "prints.npy", both)
    found = find_copies(both, CopyOptions())
    assert found == sorted(found)
    assert found == find_copies(both, CopyOptions())
    assert found == find_copies(np.load(tmp_path / "prints.npy", mmap_mode="r"), CopyOptions())


def test_a_large_group_of_equal_pictures_is_linked_without_gaps(prints):
    found = find_copies(np.repeat(prints[:1], 200, axis=0), CopyOptions())
    linked = {(copy.i, copy.j) for copy in found}
    assert {(number, number + 1) for number in range(199)} <= linked
    assert len(linked) <= 200 * candidates.NEIGHBOURS * 64  # and not all of the 19,900 pairs times the codes


@pytest.mark.parametrize("count", [0, 1])
def test_no_pair_no_copy(count):
    assert find_copies(random_prints(count), CopyOptions()) == []


def test_progress_ends_at_all_of_it(prints):
    calls = []
    find_copies(np.concatenate((prints, prints)), CopyOptions(), lambda done, total: calls.append((done, total)))
    assert calls[-1] == (100, 100)
    assert calls == sorted(calls)


@pytest.mark.parametrize("mirror", range(4))
def test_codes_that_differ_in_one_of_the_lowest_bits_always_meet(mirror):
    """The pigeonhole of the four tables; the codes are else random, so no key is crowded."""
    rows = random_prints(2 * PLACES)
    for bit in range(PLACES):  # one pair of pictures for each of the lowest bits
        code = int(np.random.default_rng(bit).integers(1 << CODE_BITS))
        set_code(rows[2 * bit], 0, code)
        set_code(rows[2 * bit + 1], 0, code ^ MIRRORS[mirror] ^ 1 << (CODE_BITS - 1 - bit))
    matches = code_matches(rows, max_bits=4, mirrored=True)
    met = set(zip(matches.i.tolist(), matches.j.tolist(), matches.mirror.tolist(), matches.bits.tolist(), strict=True))
    assert {(2 * bit, 2 * bit + 1, mirror, 1) for bit in range(PLACES)} <= met


def test_the_keys_of_the_tables_leave_out_every_low_bit_once():
    masks = [int(key_mask(2_000, table)) for table in range(4)]
    together = masks[0] | masks[1] | masks[2] | masks[3]
    for bit in range(CODE_BITS):
        if together >> bit & 1:
            assert sum(mask >> bit & 1 for mask in masks) == 3


@pytest.mark.parametrize(("pictures", "bits"), [(100, 4), (5_000, 4), (15_000, 3), (45_000, 2), (10**7, -1)])
def test_one_place_alone_must_be_the_more_alike_the_more_pictures_there_are(pictures, bits):
    assert lone_bits(pictures) == bits


def test_too_many_pictures_are_refused_with_what_to_do(monkeypatch):
    monkeypatch.setattr(candidates, "MAX_PICTURES", 3)
    with pytest.raises(SourceError, match=r"4 pictures are too many.*at most 3.*two at a time"):
        candidate_pairs(random_prints(4), 8, True)


def test_rows_of_a_memory_map_and_of_a_part_of_one_are_its_rows(tmp_path):
    np.save(tmp_path / "prints.npy", random_prints(20))
    stored = np.load(tmp_path / "prints.npy", mmap_mode="r")
    assert np.array_equal(rows_of(stored, slice(3, 6)), stored[3:6])
    assert np.array_equal(rows_of(stored[10:], np.array([0, 2])), stored[[10, 12]])


@pytest.mark.real_data
def test_known_duplicates_of_edd2020_are_found(real_data_root):
    pairs = [("AJ0019", "AJ0020"), ("AJ0040", "AJ0041"), ("F0002", "F0006"), ("F0004", "F0005")]
    names = [f"images/EDD2020_{name}.jpg" for pair in pairs for name in pair]
    images = list_images(real_data_root / "edd2020", names, max_px=10**8).images
    rows = []
    for image in images:
        with Image.open(image.path) as stored:
            rows.append(fingerprint(stored.convert("RGB")))
    stems = [image.stem.removeprefix("EDD2020_") for image in images]
    assert {(stems[copy.i], stems[copy.j]) for copy in find_copies(np.stack(rows), CopyOptions())} == set(pairs)


@pytest.mark.real_data
def test_cropped_and_mirrored_copies_of_real_frames_are_found(real_data_root):
    paths = sorted((real_data_root / "edd2020" / "images").glob("*.jpg"))[::10]
    rows = []
    for path in paths:
        with Image.open(path) as stored:
            picture = stored.convert("RGB")
        rows += [picture, ImageOps.mirror(cut(picture, 0.06, 0.0, 1.0, 0.9)), cut(picture, 0.0, 0.12, 0.95, 1.0)]
    found = {(copy.i, copy.j) for copy in find_copies(np.stack([fingerprint(one) for one in rows]), CopyOptions())}
    planted = {(3 * number, 3 * number + part) for number in range(len(paths)) for part in (1, 2)}
    assert len(planted & found) >= 0.96 * len(planted)  # 60 of 62 or more
