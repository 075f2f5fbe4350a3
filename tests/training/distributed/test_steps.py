"""An epoch dealt to processes: every image once, the same batches for any number of processes, nobody waits in vain."""

from __future__ import annotations

import json

import pytest
import torch
from pydantic import ValidationError

from gastrovl.core.errors import OutputError
from gastrovl.core.types import Task
from gastrovl.training.config import Part, StageConfig
from gastrovl.training.distributed.steps import (
    COUNTED,
    StepCollator,
    StepPlan,
    Uncounted,
    batch_seed,
    dealt,
    plan_steps,
    shuffled,
)
from gastrovl.training.runfolder import check_step, last_state


def stage(**fields):
    basics = {"name": "s", "tasks": (Task.CAP,), "trains": (Part.PROJECTOR,), "learning_rate": 1e-3, "steps": 1}
    return StageConfig(**basics | fields)


def test_a_step_is_cut_into_batches_that_are_dealt_in_turn():
    plan = StepPlan(images=4, batch=1, accumulation=2, processes=2)
    order = [5, 3, 0, 4, 1, 2, 6]

    assert list(plan.batches(order, 0)) == [[5], [0], [1], [6]]
    assert list(plan.batches(order, 1)) == [[3], [4], [2], [~1]]  # the last step has three images: one keeps step


def test_the_last_step_of_an_epoch_may_be_a_single_image():
    plan = StepPlan(images=4, batch=2, accumulation=1, processes=2)

    assert [list(plan.batches(range(5), process)) for process in (0, 1)] == [[[0, 1], [4]], [[2, 3], [~4]]]


@pytest.mark.parametrize("rows", [1, 5, 24, 25, 47])
@pytest.mark.parametrize("processes", [1, 2, 3, 4])
@pytest.mark.parametrize(("wanted", "batch"), [(12, 3), (12, 5), (10, 4), (1, 4)])
def test_each_image_counts_once_an_epoch_and_all_processes_take_equally_many_batches(rows, processes, wanted, batch):
    plan = plan_steps(stage(images_per_step=batch, global_images_per_step=wanted), processes)
    order = shuffled(rows, seed=7, epoch=0)

    taken = [list(plan.batches(order, process)) for process in range(processes)]

    assert sorted(index for batches in taken for some in batches for index in some if index >= 0) == list(range(rows))
    assert {len(batches) for batches in taken} == {plan.count(rows)}
    assert all(1 <= len(some) <= batch for batches in taken for some in batches)
    steps = -(-plan.count(rows) // plan.accumulation)
    assert steps == -(-rows // wanted)  # whatever the number of processes


@pytest.mark.parametrize("processes", [2, 4])
def test_the_batches_of_a_step_are_the_same_for_any_number_of_processes(processes):
    whole, shared = (
        plan_steps(stage(images_per_step=2, global_images_per_step=8), number) for number in (1, processes)
    )
    order = shuffled(21, seed=7, epoch=3)

    taken = [list(shared.batches(order, process)) for process in range(processes)]
    in_turn = [taken[process][turn] for turn in range(shared.count(21)) for process in range(processes)]

    assert [some for some in in_turn if some[0] >= 0] == list(whole.batches(order, 0))


def test_without_a_global_number_each_device_brings_its_own_images():
    assert plan_steps(stage(images_per_step=4, accumulation=3), 2) == StepPlan(24, 4, 3, 2)


def test_batches_shrink_where_a_step_does_not_divide():
    settings = stage(images_per_step=16, global_images_per_step=16)

    assert plan_steps(settings, 1) == StepPlan(16, 16, 1, 1)
    assert plan_steps(settings, 2) == StepPlan(16, 8, 1, 2)
    assert plan_steps(settings, 3) == StepPlan(16, 6, 1, 3)  # 6 + 6 + 4


def test_accumulation_follows_from_a_global_number():
    with pytest.raises(ValidationError, match="give either `accumulation` or `global_images_per_step`"):
        stage(accumulation=2, global_images_per_step=8)


def test_an_epoch_has_its_own_order_and_a_batch_its_own_seed():
    orders = [shuffled(20, seed, epoch) for seed, epoch in ((7, 0), (7, 1), (8, 0))]
    assert shuffled(20, 7, 0) == orders[0]
    assert len({tuple(order) for order in orders}) == 3
    seeds = [batch_seed(7, step, place) for step in range(3) for place in range(3)]
    assert len(set(seeds)) == 9
    assert all(0 <= seed < 2**64 for seed in seeds)


def test_validation_batches_are_dealt_so_that_all_compute_equally_many():
    assert dealt(5, 0, 2) == [(0, True), (2, True), (4, True)]
    assert dealt(5, 1, 2) == [(1, True), (3, True), (4, False)]


def test_an_image_that_keeps_step_weighs_nothing_and_has_no_caption():
    def collate(rows):
        weights = torch.tensor([[0.0, 1.0, 0.5]] * len(rows))
        return {"label_weights": weights, "caption_rows": torch.arange(len(rows))}

    counted = StepCollator(collate)(["a row", "another"])
    uncounted = StepCollator(collate)([Uncounted("a row")])

    assert counted[COUNTED] == (2, 3.0)
    assert counted["caption_rows"].tolist() == [0, 1]
    assert uncounted[COUNTED] == (0, 0.0)
    assert not uncounted["label_weights"].any()
    assert uncounted["caption_rows"].tolist() == []


def test_a_state_is_not_resumed_with_another_number_of_images_a_step(tmp_path):
    check_step(tmp_path, StepPlan(8, 4, 1, 2), None)

    check_step(tmp_path, StepPlan(8, 4, 2, 1), "checkpoint-2")  # the same images on one process
    with pytest.raises(
        OutputError, match="begun on 1 processes with 8 images an optimiser step; 2 processes make that 16"
    ):
        check_step(tmp_path, StepPlan(16, 4, 2, 2), "checkpoint-2")


def test_a_state_whose_last_file_was_cut_off_is_passed_over(tmp_path):
    for step, content in ((2, json.dumps({"global_step": 2})), (4, ""), (6, '{"global_step": 6, "log')):
        (tmp_path / f"checkpoint-{step}").mkdir()
        (tmp_path / f"checkpoint-{step}" / "trainer_state.json").write_text(content, encoding="utf-8")

    assert last_state(tmp_path) == str(tmp_path / "checkpoint-2")
