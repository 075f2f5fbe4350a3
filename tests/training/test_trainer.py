"""One optimiser step: accumulation does not matter, losses are divided by what they are summed over."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace

import pytest
import torch
from transformers import TrainerCallback, TrainingArguments

from gastrovl.core.types import Task
from gastrovl.model.checkpoint import build_model
from gastrovl.model.gastrovl import IGNORED
from gastrovl.training.config import Part, StageConfig
from gastrovl.training.rows.dataset import Collator, RowDataset, load_conversations
from gastrovl.training.rows.grounding import TermIndex
from gastrovl.training.rows.images import ImageStore
from gastrovl.training.stages import open_parts
from gastrovl.training.trainer import GastroTrainer
from gastrovl.training.watching.joblog import JsonlLog

ALL = (Task.CLS, Task.REC, Task.REG, Task.CAP)


class Gradients(TrainerCallback):
    """Keeps every step's gradients."""

    def __init__(self):
        self.steps = []

    def on_pre_optimizer_step(self, args, state, control, model=None, **_):
        del args, state, control
        self.steps.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})


@pytest.fixture
def one_run(tiny_data, tiny_model, tmp_path):
    """`one_run(batch, accumulation, images=8, ...)` gives trainer, gradients of each step, weights before."""

    def run(batch, accumulation, images=8, connector=("mlp", "siglip"), is_scored=False, arguments=None, **stage):
        torch.manual_seed(3)
        file = tiny_data(images=images)
        model, processor = build_model(tiny_model(*connector), seed=1)
        fields = {
            "name": "s",
            "tasks": ALL,
            "trains": (Part.VISION, Part.PROJECTOR, Part.LANGUAGE),
            "learning_rate": 1e-3,
            "steps": 1,
        } | stage
        stage = StageConfig(**fields)
        if stage.grounding_weight:
            model.add_grounding_head()
        open_parts(model, stage)
        conversations = load_conversations(file)
        terms = TermIndex(conversations) if stage.grounding_weight else None

        def dataset(is_training):
            return RowDataset(
                conversations,
                ImageStore(file.parent, 32, processor),
                processor,
                stage,
                seed=7,
                max_length=512,
                augment=None,
                is_training=is_training,
                terms=terms,
                grid_side=4,
            )

        settings = {
            "output_dir": str(tmp_path / "trainer"),
            "per_device_train_batch_size": batch,
            "gradient_accumulation_steps": accumulation,
            "max_steps": stage.steps or -1,
            "num_train_epochs": stage.epochs or 1,
            "learning_rate": stage.learning_rate,
            "max_grad_norm": 0.0,
            "logging_steps": 1,
            "save_strategy": "no",
            "report_to": [],
            "use_cpu": True,
            "remove_unused_columns": False,
            "dataloader_pin_memory": False,
            "disable_tqdm": True,
        }
        before = {name: value.clone() for name, value in model.state_dict().items()}
        settings = TrainingArguments(**settings | (arguments or {}))
        trainer = GastroTrainer(model, settings, stage, dataset(True), dataset(False) if is_scored else None)
        trainer.add_callback(gradients := Gradients())
        trainer.train()
        return SimpleNamespace(trainer=trainer, gradients=gradients.steps, before=before)

    return run


def logged_loss(run):
    """Of the first step."""
    return run.trainer.state.log_history[0]["loss"]


def norm(gradients):
    return math.sqrt(sum(float(g.square().sum()) for g in gradients.values()))


def distance(one, other):
    """Relative difference of two sets of gradients."""
    assert one.keys() == other.keys()
    return norm({name: one[name] - other[name] for name in one}) / norm(other)


@pytest.mark.parametrize("lengths", ["token", "sqrt", "dialogue"])
def test_eight_batches_of_one_equal_one_batch_of_eight(one_run, lengths):
    weights = {"task_weights": {Task.REC: 3.0, Task.CAP: 0.5}, "length_weighting": lengths}
    whole, parts = one_run(8, 1, **weights), one_run(1, 8, **weights)

    assert logged_loss(parts) == pytest.approx(logged_loss(whole), rel=1e-5)
    assert distance(parts.gradients[0], whole.gradients[0]) < 1e-5
    moved, expected = (dict(run.trainer.model.named_parameters()) for run in (parts, whole))
    for name, gradient in whole.gradients[0].items():
        is_clear = gradient.abs() > 1e-6  # Adam's first step is the gradient's sign; below, that is rounding
        torch.testing.assert_close(moved[name][is_clear], expected[name][is_clear], rtol=0, atol=1e-5)


def test_the_loss_is_the_mean_over_all_answer_tokens(one_run):
    run = one_run(2, 4, learning_rate=1e-12)
    trainer = run.trainer
    rows = [trainer.train_dataset[index] for index in range(8)]
    batch = Collator(trainer.train_dataset.processor, None)(rows)

    expected = trainer.model(**batch).loss.item()  # its own divisor: the sum of the weights

    assert logged_loss(run) == pytest.approx(expected, rel=1e-5)


def single_gradients(trainer, index, **weights):
    """Gradients of one image alone, of a model that did not move."""
    batch = Collator(trainer.train_dataset.processor, trainer.train_dataset.terms)([trainer.train_dataset[index]])
    trainer.model.zero_grad()
    trainer.model(**batch, **weights).loss.backward()
    return {name: p.grad.clone() for name, p in trainer.model.named_parameters() if p.grad is not None}


def test_other_losses_are_means_over_the_accumulated_batches(one_run):
    stage = {"answer_weight": 0.0, "grounding_weight": 2.0, "trains": (Part.VISION, Part.PROJECTOR)}
    run = one_run(1, 2, images=2, learning_rate=1e-12, **stage)

    first, second = (single_gradients(run.trainer, i, answer_weight=0.0, grounding_weight=2.0) for i in range(2))

    assert distance(run.gradients[0], {name: (first[name] + second[name]) / 2 for name in first}) < 1e-4


def test_the_last_step_of_an_epoch_is_divided_by_the_batches_it_has(one_run):
    stage = {"answer_weight": 0.0, "grounding_weight": 1.0, "trains": (Part.VISION, Part.PROJECTOR), "steps": None}
    run = one_run(1, 2, images=3, learning_rate=1e-12, epochs=1, **stage)
    singles = [single_gradients(run.trainer, i, answer_weight=0.0, grounding_weight=1.0) for i in range(3)]

    assert len(run.gradients) == 2
    assert min(distance(run.gradients[1], single) for single in singles) < 1e-4


def test_a_frozen_tower_keeps_its_running_statistics(one_run):
    run = one_run(2, 1, connector=("pool", "resnet"), trains=(Part.PROJECTOR,), steps=3)

    moved = {name for name, value in run.trainer.model.state_dict().items() if not torch.equal(value, run.before[name])}
    assert moved == {name for name in run.before if "multi_modal_projector" in name}


def test_an_open_tower_moves_its_running_statistics(one_run):
    run = one_run(2, 1, connector=("pool", "resnet"), trains=(Part.VISION,), steps=1)

    counts = {int(v) for name, v in run.trainer.model.state_dict().items() if "num_batches_tracked" in name}
    assert counts == {1}


def test_the_identity_of_a_linear_connector_stays_one(one_run):
    run = one_run(
        2, 1, connector=("linear", "siglip"), trains=(Part.PROJECTOR, Part.LANGUAGE), steps=3, weight_decay=1.0
    )
    projector = run.trainer.model.model.multi_modal_projector

    assert torch.equal(projector.linear_2.weight, torch.eye(32))
    assert not projector.linear_2.bias.any()
    assert not torch.equal(projector.linear_1.weight, run.before["model.multi_modal_projector.linear_1.weight"])


def test_each_part_learns_at_its_own_rate(one_run):
    run = one_run(4, 1, rates={Part.VISION: 0.5e-3}, arguments={"lr_scheduler_type": "constant"})

    assert {group["lr"] for group in run.trainer.optimizer.param_groups} == {0.5e-3, 1e-3}


def test_a_stage_that_samples_shows_each_epoch_in_its_own_order(one_run, monkeypatch):
    asked = []
    take = RowDataset.__getitem__
    monkeypatch.setattr(RowDataset, "__getitem__", lambda rows, n: asked.append((rows.epoch, n)) or take(rows, n))

    run = one_run(1, 1, images=5, steps=None, epochs=2, sampling={"temperature": 2, "by": ["class"]})

    dataset = run.trainer.train_dataset
    assert asked == [(epoch, index) for epoch in (0, 1) for index in dataset.epoch_order(epoch)]


def test_the_average_is_what_is_validated(one_run):
    trainer = one_run(2, 1, images=3, is_scored=True, ema=0.9, steps=3, learning_rate=1e-2).trainer
    scored, last = trainer.evaluate()["eval_loss"], {n: p.clone() for n, p in trainer.model.state_dict().items()}

    average, trainer.average = trainer.average, None
    of_the_last = trainer.evaluate()["eval_loss"]
    average.apply()

    assert trainer.evaluate()["eval_loss"] == scored != of_the_last
    assert not torch.equal(last["lm_head.weight"], trainer.model.lm_head.weight)


def test_every_epoch_is_announced_to_the_data(one_run):
    run = one_run(2, 1, images=2, steps=None, epochs=4)

    assert run.trainer.state.epoch == 4
    assert run.trainer.train_dataset.epoch == 3  # counted from 0


class Oracle(torch.nn.Module):
    """Says the truth, except that `slips` replaces token sequences of answers."""

    def __init__(self, vocabulary, slips):
        super().__init__()
        self.vocabulary, self.slips = vocabulary, slips

    def forward(self, labels, **_):
        said = [token for token in labels[:, 1:].flatten().tolist() if token != IGNORED]
        for old, new in self.slips:
            places = [place for place in range(len(said)) if said[place : place + len(old)] == old]
            assert places
            for place in places:
                said[place : place + len(old)] = new
        truth = labels[:, 1:][labels[:, 1:] != IGNORED]
        logits = 20.0 * torch.nn.functional.one_hot(torch.tensor(said), self.vocabulary).float()
        losses = torch.nn.functional.cross_entropy(logits, truth, reduction="none")
        return SimpleNamespace(token_losses=losses, guesses=logits.argmax(dim=-1))


def test_perfect_answers_score_one(one_run):
    trainer = one_run(4, 1, images=3, is_scored=True).trainer
    trainer.model = Oracle(len(trainer.eval_dataset.processor.tokenizer), [])

    scores = trainer.evaluate()

    assert {scores[f"eval_{task.lower()}_exact"] for task in ALL} == {1.0}
    assert scores["eval_rec_iou"] == 1.0
    assert scores["eval_loss"] == pytest.approx(0.0, abs=1e-5)


def test_one_wrong_digit_costs_an_exact_answer_and_some_overlap(one_run):
    trainer = one_run(2, 1, images=3, is_scored=True).trainer
    tokenizer = trainer.eval_dataset.processor.tokenizer
    old, new = (tokenizer.encode(text, add_special_tokens=False) for text in ("[125,250,500,749]", "[025,250,500,749]"))
    trainer.model = Oracle(len(tokenizer), [(old, new)])
    truth, guess = "[125,250,500,749]", "[025,250,500,749]"
    assert [tokenizer.decode(old), tokenizer.decode(new)] == [truth, guess]

    scores = trainer.evaluate()

    # one of three REC answers is wrong: x 25-500 instead of 125-500, so it keeps 375 of 475 of the overlap
    assert scores["eval_rec_exact"] == pytest.approx(2 / 3)
    assert scores["eval_rec_iou"] == pytest.approx((375 / 475 + 1 + 1) / 3)
    assert scores["eval_cls_exact"] == scores["eval_reg_exact"] == scores["eval_cap_exact"] == 1.0


def test_an_answer_that_is_no_box_overlaps_nothing(one_run):
    trainer = one_run(2, 1, images=1, is_scored=True).trainer
    tokenizer = trainer.eval_dataset.processor.tokenizer
    (comma,), (zero,) = (tokenizer.encode(text, add_special_tokens=False) for text in (",", "0"))
    trainer.model = Oracle(len(tokenizer), [([comma], [zero])])

    scores = trainer.evaluate()

    assert scores["eval_rec_iou"] == scores["eval_rec_exact"] == 0.0


def test_a_dialogue_of_box_and_words_is_scored_without_an_overlap(one_run):
    trainer = one_run(2, 1, images=1, is_scored=True).trainer
    dataset = trainer.eval_dataset
    group = dataset.groups[0]
    both = group[1].model_copy(update={"turns": (*group[0].turns, *group[1].turns)})  # asks what, then where
    dataset.groups[0] = [group[0], both]
    trainer.model = Oracle(len(dataset.processor.tokenizer), [])

    scores = trainer.evaluate()

    assert scores["eval_rec_exact"] == 1.0
    assert "eval_rec_iou" not in scores


def test_log_lines_are_json_with_stage_step_and_epoch(tmp_path):
    log = JsonlLog(tmp_path / "log.jsonl", "align")
    state = SimpleNamespace(is_world_process_zero=True, global_step=5, epoch=0.5)

    log.on_log(None, state, None, {"loss": 1.5})
    log.on_log(None, SimpleNamespace(**vars(state) | {"is_world_process_zero": False}), None, {"loss": 9.0})
    log.on_log(None, state, None, {"eval_loss": 2.0})

    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    assert lines == [
        {"stage": "align", "step": 5, "epoch": 0.5, "loss": 1.5},
        {"stage": "align", "step": 5, "epoch": 0.5, "eval_loss": 2.0},
    ]
