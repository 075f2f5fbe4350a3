"""Validation by task under teacher forcing: one pass over the validation rows, and what it says of each task."""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from gastrovl.core import boxtext, geometry
from gastrovl.core.errors import BoxTextError
from gastrovl.core.types import Task
from gastrovl.model.gastrovl import IGNORED
from gastrovl.training.config import StageConfig
from gastrovl.training.distributed.steps import dealt
from gastrovl.training.distributed.team import Team
from gastrovl.training.rows.dataset import Collator, Row, RowDataset


def scores(
    model: Any,
    dataset: RowDataset,
    stage: StageConfig,
    *,
    batch_size: int,
    prepare: Callable[[dict[str, Any]], dict[str, Any]],
    precision: Callable[[], AbstractContextManager[Any]],
    team: Team | None = None,
) -> dict[str, float]:
    """Loss and exact answers, over all and of each task, and for REC mean IoU of single boxes.

    An answer is exact under teacher forcing if and only if greedy decoding would give it, so CLS and REG accuracies are
    those of greedy decoding. A stage without answers reports the losses of the heads alone.

    Args:
        model: In evaluation mode, see `untouched`.
        prepare: Brings a batch to the model's device.
        precision: The context the stage computes in.
        team: The processes that share the batches; each computes its own, all get the scores of the whole.
    """
    team = team or Team()
    mine = dealt(math.ceil(len(dataset) / batch_size), team.rank, team.size)
    places = range(len(dataset))
    numbers = [list(places[number * batch_size :][:batch_size]) for number, _ in mine]
    loader = DataLoader(dataset, batch_sampler=numbers, collate_fn=list)
    collator = Collator(dataset.processor, dataset.terms, perception=dataset.perception)
    tally: dict[str, list[float]] = defaultdict(list)
    for (_, counts), rows in zip(mine, loader, strict=True):
        found = tally if counts else defaultdict(list)
        batch = collator(rows)
        inputs = prepare(batch)
        with torch.no_grad(), precision():
            if "grounding" in batch:
                found["grounding_loss"].append(float(model(**inputs, answer_weight=0.0, grounding_weight=1.0).loss))
            if "perceived" in batch:
                found["perception_loss"].append(float(model(**inputs, answer_weight=0.0, perception_weight=1.0).loss))
            if stage.answer_weight:
                output = model(**inputs, with_guesses=True)
                _tally(rows, batch, output.token_losses.cpu(), output.guesses.cpu(), dataset.processor.decode, found)
    merged: dict[str, list[float]] = defaultdict(list)
    for tallies in team.gathered(dict(tally)):
        for name, values in tallies.items():
            merged[name] += values
    return {name: math.fsum(values) / len(values) for name, values in merged.items()}


def _tally(
    rows: Sequence[Row],
    batch: dict[str, Any],
    losses: Tensor,
    guesses: Tensor,
    decode: Callable[..., str],
    tally: dict[str, list[float]],
) -> None:
    labels = batch["labels"][:, 1:]
    is_answer = labels != IGNORED
    targets = labels[is_answer]
    row_of, place_of = is_answer.nonzero(as_tuple=True)
    for number, row in enumerate(rows):
        segments = torch.tensor(row.packed.segments[1:])
        here = row_of == number
        spoken = segments[place_of[here]]
        for index, task in enumerate(row.tasks, start=1):
            mine = spoken == index
            truth, guess = targets[here][mine], guesses[here][mine]
            tally["loss"].append(float(losses[here][mine].mean()))
            tally[f"{task.lower()}_loss"].append(float(losses[here][mine].mean()))
            tally[f"{task.lower()}_exact"].append(float(torch.equal(truth, guess)))
            read = partial(decode, size_wh=row.size_wh)
            if task == Task.REC and (overlap := _overlap(read, truth, guess)) is not None:
                tally["rec_iou"].append(overlap)


def _overlap(decode: Callable[[Sequence[int]], str], truth: Tensor, guess: Tensor) -> float | None:
    """IoU of one true box with the guessed one; None when the truth is not exactly one box."""
    try:
        true_boxes = boxtext.decode_boxes(decode(truth.tolist()))
    except BoxTextError:  # a dialogue that says more than boxes
        return None
    if len(true_boxes) != 1:
        return None
    try:
        guessed = boxtext.decode_boxes(decode(guess.tolist()))
    except BoxTextError:
        return 0.0
    return geometry.iou(true_boxes[0], guessed[0]) if len(guessed) == 1 else 0.0


@contextmanager
def untouched(model: Any) -> Iterator[None]:
    """The model in evaluation mode within the block; behind it its modes and all generators are as before.

    So the weights are those of a run that never looked: a data loader alone draws a number when it starts.
    """
    modes = {module: module.training for module in model.modules()}
    python, numbers = random.getstate(), np.random.get_state()
    devices = range(torch.cuda.device_count()) if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=list(devices)):
        model.eval()
        try:
            yield
        finally:
            for module, mode in modes.items():
                module.training = mode
            random.setstate(python)
            np.random.set_state(numbers)
