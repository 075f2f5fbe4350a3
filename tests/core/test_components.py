"""Connected parts of a mask, drawn by hand."""

from __future__ import annotations

import numpy as np

from gastrovl.core.components import components


def mask_of(*rows):
    return np.array([[character == "#" for character in row] for row in rows])


def test_parts_are_numbered_in_reading_order_and_corners_join():
    found = components(mask_of("#..##", ".#...", "....#", "##..#"))

    assert found.tolist() == [[1, 0, 0, 2, 2], [0, 1, 0, 0, 0], [0, 0, 0, 0, 3], [4, 4, 0, 0, 3]]


def test_two_arms_that_meet_below_are_one_part():
    found = components(mask_of("#.#.#", "#.#.#", "###.#"))

    assert found[:, 0].tolist() == found[:, 2].tolist() == [1, 1, 1]
    assert found[:, 4].tolist() == [2, 2, 2]


def test_an_empty_mask_has_no_part():
    assert not components(np.zeros((3, 4))).any()


def test_parts_are_those_of_a_flood_fill():
    rng = np.random.default_rng(3)
    for share in (0.2, 0.45, 0.6):
        mask = rng.random((23, 31)) < share
        found = components(mask)
        assert ((found > 0) == mask).all()
        seen = np.zeros_like(mask)
        for start in zip(*np.nonzero(mask), strict=True):
            if seen[start]:
                continue
            part, waiting = {start}, [start]
            while waiting:
                row, column = waiting.pop()
                for place in ((row + i, column + j) for i in (-1, 0, 1) for j in (-1, 0, 1)):
                    inside = 0 <= place[0] < mask.shape[0] and 0 <= place[1] < mask.shape[1]
                    if inside and mask[place] and place not in part:
                        part.add(place)
                        waiting.append(place)
            rows, columns = zip(*part, strict=True)
            assert len(set(found[rows, columns])) == 1
            assert (found == found[start]).sum() == len(part)
            seen[rows, columns] = True
