"""The order of training rows: shuffled, with rows of like length in one batch, so that little of it is padding."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler

from gastrovl.training.dataset import RowDataset

_POOL = 8  # batches that are sorted together; more would pad less, and mix less


class LikeLengths(Sampler[int]):
    """Every index once an epoch, in an order that follows from the dataset's seed and the epoch alone.

    Indices are drawn into pools of some batches, each pool is sorted by length and cut into batches, and the batches
    are shuffled again. `batch_size` counts the rows of one optimiser step: what it sees does not depend on how many
    devices and accumulated batches share it.
    """

    def __init__(self, dataset: RowDataset, batch_size: int) -> None:
        self.dataset, self.batch_size, self.epoch = dataset, batch_size, 0

    def set_epoch(self, epoch: int) -> None:
        """Called by the trainer, which tells the sampler or the dataset, not both."""
        self.epoch = epoch
        self.dataset.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self.dataset)

    def __iter__(self) -> Iterator[int]:
        rng = np.random.default_rng((self.dataset.seed, self.epoch))
        drawn = rng.permutation(len(self.dataset))
        batches = []
        for start in range(0, len(drawn), _POOL * self.batch_size):
            pool = drawn[start : start + _POOL * self.batch_size]
            alike = pool[np.argsort([self.dataset.length(int(index)) for index in pool], kind="stable")]
            batches += [alike[first : first + self.batch_size] for first in range(0, len(alike), self.batch_size)]
        whole = [batch for batch in batches if len(batch) == self.batch_size]
        for number in rng.permutation(len(whole)):
            yield from whole[number].tolist()
        for batch in batches:  # a batch that is not full comes last, or it would shift those behind it
            if len(batch) < self.batch_size:
                yield from batch.tolist()
