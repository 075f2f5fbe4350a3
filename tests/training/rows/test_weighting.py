"""Answers weighed by length: by hand."""

from __future__ import annotations

import pytest

from gastrovl.model.gastrovl import IGNORED
from gastrovl.training.rows.packing import PackedRow
from gastrovl.training.rows.weighting import weigh_lengths

# an image, a dialogue of four answer tokens that weigh 2 each, one of a single token
ROW = PackedRow(
    ids=[9, 1, 2, 3, 4, 5, 6, 7],
    positions=[0, 1, 2, 3, 4, 5, 1, 2],
    segments=[0, 1, 1, 1, 1, 1, 2, 2],
    labels=[IGNORED, IGNORED, 2, 3, 4, 5, IGNORED, 7],
    weights=[0.0, 0.0, 2.0, 2.0, 2.0, 2.0, 0.0, 1.0],
)


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("token", [0, 0, 2, 2, 2, 2, 0, 1]),
        ("sqrt", [0, 0, 1, 1, 1, 1, 0, 1]),  # 2 / sqrt(4)
        ("dialogue", [0, 0, 0.5, 0.5, 0.5, 0.5, 0, 1]),  # 2 / 4: in total 2, its task's weight
    ],
)
def test_a_dialogue_counts_by_its_length_as_asked(how, expected):
    weighed = weigh_lengths(ROW, how)

    assert weighed.weights == pytest.approx(expected)
    assert (weighed.ids, weighed.labels) == (ROW.ids, ROW.labels)
