"""Decoded squares in memory: up to a bound, and a broken image is found beyond it too."""

from __future__ import annotations

import pytest

from gastrovl.core.errors import ImageError
from gastrovl.model.checkpoint import build_model
from gastrovl.training.rows.images import ImageStore


def test_a_store_keeps_squares_up_to_its_bound_and_finds_broken_images_beyond(tiny_data, tiny_model):
    folder = tiny_data(images=3).parent
    processor = build_model(tiny_model("mlp"), seed=1)[1]
    side = 600  # 600 x 600 x 3 bytes: one fits into 2 MB, two do not
    store = ImageStore(folder, side, processor, memory_mb=2)
    paths = ["0.png", "1.png", "2.png"]
    told = []

    store.load(paths, lambda done, total: told.append((done, total)))

    assert told == [(1, 3), (2, 3), (3, 3)]
    assert sum(store.square(path) is store.square(path) for path in paths) == 1
    (folder / "2.png").write_bytes(b"no image")
    with pytest.raises(ImageError, match=r"2\.png: cannot be decoded"):
        ImageStore(folder, side, processor, memory_mb=2).load(paths)
