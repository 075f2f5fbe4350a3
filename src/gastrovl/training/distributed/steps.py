"""An epoch's order of images as the batches that each process takes, the same ones however many processes there are.

An optimiser step is a run of images of the epoch's order. It is cut into batches, and the batches are dealt to the
processes in turn: the j-th of a step goes to process j modulo their number. So the batches, and all losses within
them, do not depend on how many processes share the work; only who computes which one does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch.utils.data import Dataset, Sampler

from gastrovl.training.config import StageConfig
from gastrovl.training.rows.dataset import Row, RowDataset

# Beside a batch's tensors: (how many of its images count, weight of all answer tokens); zero where it only keeps step.
COUNTED = "counted"

Order = Callable[[int], Sequence[int]]  # an epoch, from 0, to the rows in the order they are taken


@dataclass(frozen=True)
class StepPlan:
    """How an optimiser step is divided.

    Attributes:
        images: Images of a step, over all processes.
        batch: Images of a batch, at most.
        accumulation: Batches of a step on each process.
        processes: How many processes share a step.
    """

    images: int
    batch: int
    accumulation: int
    processes: int

    def batches(self, order: Sequence[int], process: int) -> Iterator[list[int]]:
        """What one process takes of an epoch, batch by batch; every image stands in one batch of one process.

        An epoch that does not divide evenly ends in a smaller step. Where such a step, or one that does not divide, has
        fewer batches than processes want, those without one compute an image along that does not count: it is given as
        `~index`. All processes get equally many batches, for they wait for each other after each.
        """
        for start in range(0, len(order), self.images):
            step = order[start : start + self.images]
            cut = [list(step[place : place + self.batch]) for place in range(0, len(step), self.batch)]
            for turn in range(math.ceil(len(cut) / self.processes)):
                place = turn * self.processes + process
                yield cut[place] if place < len(cut) else [~step[0]]

    def count(self, rows: int) -> int:
        """How many batches of an epoch of `rows` each process takes."""
        last = math.ceil(math.ceil(rows % self.images / self.batch) / self.processes)
        return rows // self.images * self.accumulation + last


def plan_steps(stage: StageConfig, processes: int) -> StepPlan:
    """How a stage's steps are divided among so many processes.

    With `global_images_per_step` a step has that many images on any number of processes, in batches of
    `images_per_step` or, where that does not divide, somewhat fewer.
    """
    wanted = stage.global_images_per_step
    if wanted is None:
        images = stage.images_per_step * stage.accumulation * processes
        return StepPlan(images, stage.images_per_step, stage.accumulation, processes)
    accumulation = math.ceil(wanted / (stage.images_per_step * processes))
    return StepPlan(wanted, math.ceil(wanted / (accumulation * processes)), accumulation, processes)


def shuffled(rows: int, seed: int, epoch: int) -> list[int]:
    """Each of `rows` once, in an order that follows from seed and epoch."""
    rng = np.random.default_rng(np.random.SeedSequence((seed, epoch), spawn_key=(1,)))
    order: list[int] = rng.permutation(rows).tolist()
    return order


def batch_seed(seed: int, step: int, place: int) -> int:
    """Seed of what is drawn while a batch is computed (dropout), from its step and its place in it alone.

    So neither the number of processes nor an interruption changes what is drawn.
    """
    return int(np.random.SeedSequence((seed, step, place), spawn_key=(2,)).generate_state(1, np.uint64)[0])


def dealt(batches: int, process: int, processes: int) -> list[tuple[int, bool]]:
    """Which of so many batches a process takes: (number, whether it counts); all processes take equally many."""
    turns = [turn * processes + process for turn in range(math.ceil(batches / processes))]
    return [(min(number, batches - 1), number < batches) for number in turns]


class StepSampler(Sampler[list[int]]):
    """The batches of one process, in the order of the epoch that the data set was told last."""

    def __init__(self, rows: RowDataset, plan: StepPlan, process: int, order: Order) -> None:
        self.rows, self.plan, self.process, self.order = rows, plan, process, order

    def __len__(self) -> int:
        return self.plan.count(len(self.rows))

    def __iter__(self) -> Iterator[list[int]]:
        return self.plan.batches(self.order(self.rows.epoch), self.process)


@dataclass(frozen=True)
class Uncounted:
    """A row that is computed only to keep step with the other processes."""

    row: Row


class StepRows(Dataset[Row | Uncounted]):
    """Rows under the sampler's indices, `~index` for one that does not count."""

    def __init__(self, rows: RowDataset) -> None:
        self.rows = rows

    def set_epoch(self, epoch: int) -> None:
        """Called by the trainer through its loader."""
        self.rows.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Row | Uncounted:
        return self.rows[index] if index >= 0 else Uncounted(self.rows[~index])


class StepCollator:
    """Rows to a batch that says how many of its images count; answers that do not count weigh nothing."""

    def __init__(self, collator: Callable[[Sequence[Row]], dict[str, Any]]) -> None:
        self.collator = collator

    def __call__(self, rows: Sequence[Row | Uncounted]) -> dict[str, Any]:
        counted = [row for row in rows if not isinstance(row, Uncounted)]
        batch = self.collator([row.row if isinstance(row, Uncounted) else row for row in rows])
        if not counted:
            batch["label_weights"] = batch["label_weights"] * 0.0
            if "caption_rows" in batch:
                batch["caption_rows"] = batch["caption_rows"][:0]
        return batch | {COUNTED: (len(counted), float(batch["label_weights"][:, 1:].sum()))}
