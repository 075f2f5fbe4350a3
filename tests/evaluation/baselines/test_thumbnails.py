from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from gastrovl.core.errors import ImageError
from gastrovl.core.types import Task
from gastrovl.evaluation.baselines.thumbnails import nearest, read_thumbnails, thumbnail


def test_a_thumbnail_is_the_mean_colour_of_each_cell():
    image = Image.new("RGB", (8, 8), (0, 0, 0))
    image.paste((255, 0, 102), (0, 0, 2, 2))  # exactly the first cell of the 4x4 grid
    found = thumbnail(image)
    assert found.shape == (48,)
    assert found[:3].tolist() == pytest.approx([1.0, 0.0, 0.4])
    assert not found[3:].any()


def test_the_nearest_is_found_and_the_first_wins_a_tie():
    known = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 0.0]], dtype=np.float32)
    assert nearest(np.array([[0.9, 0.1], [0.2, 0.0]], dtype=np.float32), known).tolist() == [1, 0]


def test_chunks_do_not_change_the_nearest(monkeypatch):
    generator = np.random.default_rng(1)
    asked, known = (generator.random((30, 48), dtype=np.float32) for _ in range(2))
    whole = nearest(asked, known).tolist()
    monkeypatch.setattr("gastrovl.evaluation.baselines.thumbnails._PAIRS_AT_ONCE", 64)
    assert nearest(asked, known).tolist() == whole


def test_every_image_is_read_once_and_progress_is_told(tmp_path, conversation):
    Image.new("RGB", (16, 16), (255, 255, 255)).save(tmp_path / "white.png")
    asked = [conversation(Task.CLS, f"drawn/{i}#CLS-0", terms=["angle"], image="white.png") for i in range(3)]
    told = []
    found = read_thumbnails([(asked, tmp_path)], lambda *state: told.append(state[1:]))
    assert [one.tolist() for one in found.values()] == [[1.0] * 48]
    assert told == [(1, 1)]


def test_a_missing_image_is_named_with_a_way_out(tmp_path, conversation):
    asked = [conversation(Task.CLS, "drawn/0#CLS-0", terms=["angle"], image="gone.png")]
    with pytest.raises(ImageError, match=r"gone\.png.*--no-images"):
        read_thumbnails([(asked, tmp_path)])
