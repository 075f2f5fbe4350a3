"""Training order: every row once, like lengths together, the same for the same seed and epoch."""

from __future__ import annotations

import pytest

from gastrovl.training.sampler import LikeLengths

BATCH = 4


class Rows:
    """A dataset of known lengths."""

    def __init__(self, lengths):
        self.lengths, self.epoch, self.seed = lengths, 0, 3

    def __len__(self):
        return len(self.lengths)

    def set_epoch(self, epoch):
        self.epoch = epoch

    def length(self, index):
        return self.lengths[index] + self.epoch


@pytest.fixture
def rows():
    return Rows([index * 37 % 101 for index in range(101)])


def order(rows, epoch=0, seed=3):
    rows.seed = seed
    sampler = LikeLengths(rows, BATCH)
    sampler.set_epoch(epoch)
    return list(sampler)


def padding(rows, indices):
    batches = [indices[start : start + BATCH] for start in range(0, len(indices), BATCH)]
    return sum(max(rows.lengths[i] for i in batch) - rows.lengths[j] for batch in batches for j in batch)


def test_every_row_comes_once_and_the_order_is_known_by_seed_and_epoch(rows):
    assert sorted(order(rows)) == list(range(101))
    assert order(rows) == order(rows)
    assert order(rows) != order(rows, epoch=1)
    assert order(rows) != order(rows, seed=4)


def test_a_batch_holds_like_lengths_and_batches_are_not_in_order_of_length(rows):
    drawn = order(rows)
    firsts = [rows.lengths[index] for index in drawn[:100:BATCH]]
    assert padding(rows, drawn) < 0.25 * padding(rows, list(range(101)))
    assert firsts != sorted(firsts)


def test_the_batch_that_is_not_full_comes_last(rows):
    whole = order(rows)[:100]
    assert padding(rows, whole) < 0.25 * padding(rows, list(range(100)))


def test_the_dataset_is_told_the_epoch(rows):
    order(rows, epoch=5)
    assert rows.epoch == 5
