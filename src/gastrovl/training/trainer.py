"""A thin transformers.Trainer: our loss divisor, our optimiser groups, validation by task."""

from __future__ import annotations

import math
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from accelerate.data_loader import prepare_data_loader
from accelerate.utils import broadcast_object_list
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerCallback, TrainerState, TrainingArguments

from gastrovl.model import adapters
from gastrovl.model.checkpointing import keep_recomputing
from gastrovl.model.quantise import load_weights, save_weights
from gastrovl.training.config import StageConfig
from gastrovl.training.distributed import sharded
from gastrovl.training.distributed.steps import (
    COUNTED,
    StepCollator,
    StepPlan,
    StepRows,
    StepSampler,
    batch_seed,
    shuffled,
)
from gastrovl.training.distributed.team import Team
from gastrovl.training.earlystop import EarlyStop
from gastrovl.training.ema import AveragedWeights
from gastrovl.training.guards import NamedCollator, StepWatch
from gastrovl.training.rows.dataset import Collator, RowDataset
from gastrovl.training.stages import frozen_modules, parameter_groups
from gastrovl.training.watching import validation
from gastrovl.training.watching.generation import AnswerValidation

WHOLE_MODEL = "whole.safetensors"


class _RowsOfEpoch(TrainerCallback):
    """Tells the rows which epoch it is.

    The data loader does so itself, except where a run goes on in the middle of an epoch: the one that skips batches
    tells its sampler alone, and wordings and views would be those of the first epoch.
    """

    def __init__(self, rows: RowDataset) -> None:
        self.rows = rows

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Called before the epoch's data loader is opened."""
        del args, control
        self.rows.set_epoch(math.floor(state.epoch + 1e-6))


class GastroTrainer(Trainer):
    """Trains one stage. Distribution, resume, schedules and trackers are the parent's work."""

    optimizer: Any
    control: Any
    state: Any
    current_gradient_accumulation_steps: int  # set by the parent: fewer in the last step of an epoch

    def __init__(
        self,
        model: Any,
        args: TrainingArguments,
        stage: StageConfig,
        train: RowDataset,
        val: RowDataset | None,
        plan: StepPlan | None = None,
    ) -> None:
        super().__init__(
            model=model,
            args=args,
            train_dataset=train,
            eval_dataset=val,
            data_collator=NamedCollator(
                Collator(
                    train.processor,
                    train.terms,
                    has_captions=stage.contrastive_weight > 0,
                    perception=train.perception,
                )
            ),
        )
        self.watch = StepWatch()
        sharded.check(self.accelerator, model, stage)
        self.stage = stage
        self.team = Team(args.process_index, args.world_size)
        batch, accumulation = args.per_device_train_batch_size, args.gradient_accumulation_steps
        self.plan = plan or StepPlan(batch * accumulation * self.team.size, batch, accumulation, self.team.size)
        self._turns: list[float] = []  # of the step under way: images that all processes take at once, turn by turn
        self._turn = 0  # the next one
        self._frozen = frozen_modules(model)
        self.model_accepts_loss_kwargs = True
        self.average = AveragedWeights(self.model, stage.ema) if stage.ema else None
        self.answers: AnswerValidation | None = None
        self.add_callback(_RowsOfEpoch(train))
        self.early_stop = None
        if stage.early_stop:
            is_saving = args.save_strategy != "no"
            self.early_stop = EarlyStop(stage.early_stop, self.model, Path(str(args.output_dir)), is_saving)
        for callback in self._keepers():
            self.add_callback(callback)

    def _keepers(self) -> list[AveragedWeights | EarlyStop]:
        """Those that keep weights of their own, in saved states too."""
        return [keeper for keeper in (self.average, self.early_stop) if keeper is not None]

    def had_stopped(self, state: str | None) -> bool:
        """Whether a stage that goes on from a saved state ended early in it; then `take` reads the rest of it."""
        if state is None or self.early_stop is None:
            return False
        self.early_stop.load(Path(state))
        return self.early_stop.is_over

    def take_final_weights(self) -> None:
        """Put into the model what the stage ends with: the best weights, or the average, or the last ones."""
        self.accelerator.wait_for_everyone()
        if self.early_stop is not None and self.early_stop.best is not None:
            self.early_stop.apply()
        elif self.average is not None:
            self.average.apply()

    def get_train_dataloader(self) -> DataLoader[Any]:
        """This process's batches, see `steps`; the parent would fill the last ones with copies of the first images."""
        rows: RowDataset = self.train_dataset
        loader: DataLoader[Any] = DataLoader(
            StepRows(rows),
            batch_sampler=StepSampler(rows, self.plan, self.team.rank, self._order),
            collate_fn=StepCollator(self.data_collator),
            num_workers=self.args.dataloader_num_workers,
            pin_memory=self.args.dataloader_pin_memory,
        )
        return prepare_data_loader(loader, self.accelerator.device, num_processes=1, process_index=0)

    def _order(self, epoch: int) -> list[int]:
        """The stage's own order of an epoch where it samples; else every image once."""
        rows: RowDataset = self.train_dataset
        return shuffled(len(rows), rows.seed, epoch) if rows.shares is None else rows.epoch_order(epoch)

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """AdamW over the open parts, each at its own rate."""
        if self.optimizer is None:
            self.optimizer = torch.optim.AdamW(
                parameter_groups(model or self.model, self.stage), betas=(0.9, 0.98), fused=True
            )
        return self.optimizer

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        """A saved state; with adapters also the whole model, of which the parent keeps adapters and connector only."""
        super()._save(output_dir, state_dict)
        if not self.args.should_save or sharded.is_sharded(self.accelerator):
            return
        model = self.accelerator.unwrap_model(self.model)
        if adapters.inner(model) is not model:
            save_weights(model, Path(output_dir or self.args.output_dir) / WHOLE_MODEL)
        for keeper in self._keepers():
            keeper.save(Path(output_dir or self.args.output_dir))

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        """A saved state's optimiser; of a sharded model with adapters the whole model, as `_save` does for others."""
        super()._save_optimizer_and_scheduler(output_dir)
        if self.is_fsdp_enabled and hasattr(self.model, "get_base_model"):
            state = sharded.whole_state(self.model)
            if self.args.should_save:
                save_file(state, str(Path(output_dir) / WHOLE_MODEL))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Weights of a saved state, as `_save` wrote them."""
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        whole = Path(resume_from_checkpoint) / WHOLE_MODEL
        if whole.is_file() and self.is_fsdp_enabled:
            sharded.take_whole_state(model or self.model, load_file(whole) if self.team.is_first else {})
        elif whole.is_file():
            load_weights(self.accelerator.unwrap_model(model or self.model), whole)
        for keeper in self._keepers():
            keeper.load(Path(resume_from_checkpoint))

    def take(self, folder: str) -> None:
        """Weights and history of a saved state, without a step from there."""
        self._load_from_checkpoint(folder)
        self.state = TrainerState.load_from_json(str(Path(folder) / "trainer_state.json"))

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The stage's weighted losses.

        The answers' loss is divided by all answer tokens of the optimiser step. The other two are means over images,
        the grounding loss over a batch, the contrastive loss over what all processes compute at once; each mean weighs
        as much as its images' share of the step. Frozen modules keep their running statistics; they are told here,
        because the parent puts the whole model into training mode just before.
        """
        for module in self._frozen:
            module.eval()
        keep_recomputing(adapters.inner(self.accelerator.unwrap_model(model)))
        images, _ = inputs.pop(COUNTED)
        step, at_once = sum(self._turns), self._turns[self._turn]
        inputs = inputs | {
            "answer_weight": self.stage.answer_weight,
            "contrastive_weight": self.stage.contrastive_weight * at_once / (step * self.team.size),
            "grounding_weight": self.stage.grounding_weight * (images or 1) / step,
            "perception_weight": self.stage.perception_weight * (images or 1) / step,
        }
        loss, outputs = super().compute_loss(model, inputs, True, num_items_in_batch)
        if not images:  # a batch that keeps step: the other processes wait for its gradients, and they are zero
            loss = loss * 0.0
        return (loss, outputs) if return_outputs else loss

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: torch.device) -> Any:
        """The batches of one optimiser step and the loss's divisor; the watch is told whose records they are."""
        batches, divisor = super().get_batch_samples(epoch_iterator, num_batches, device)
        self.watch.begin(batches)
        return batches, divisor

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Tensor:
        """Forward and backward of one batch, whose dropout depends on the batch alone; the watch keeps its loss."""
        place = self._turn * self.team.size + self.team.rank
        torch.manual_seed(batch_seed(self.args.seed, self.state.global_step, place))
        self.watch.shape = tuple(inputs["input_ids"].shape)
        loss: Tensor = super().training_step(model, inputs, num_items_in_batch)
        self.watch.losses.append(loss.detach())
        self._turn += 1
        return loss

    def _get_num_items_in_batch(self, batch_samples: list[dict[str, Any]], device: torch.device) -> Tensor | None:
        """The divisor of the loss: the answer tokens' weights over all accumulated batches and devices.

        With it, eight batches of one and one batch of eight give the same gradient, on one process or several.
        """
        if not batch_samples:
            return None
        counts, weights = zip(*(batch[COUNTED] for batch in batch_samples), strict=True)
        *self._turns, total = self.team.summed((*counts, sum(weights)))
        self._turn = 0
        return torch.tensor(total, dtype=torch.float32, device=device)

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Validation by task under teacher forcing, see `validation.scores`, and by generation where it is due.

        Where an average of the weights is kept, it is what is validated.
        """
        del ignore_keys
        dataset = eval_dataset or self.eval_dataset
        scores: dict[str, float] = {}
        averaged = self.average.applied() if self.average else nullcontext()
        with averaged, validation.untouched(self.model):
            if dataset is not None:
                scores = validation.scores(
                    self.model,
                    dataset,
                    self.stage,
                    batch_size=self.args.eval_batch_size,
                    prepare=self._prepare_inputs,
                    precision=self.compute_loss_context_manager,
                    team=self.team,
                )
            if self.answers is not None and self.answers.is_due:
                scores |= self._answer_metrics(self.answers)
            metrics = {f"{metric_key_prefix}_{name}": value for name, value in scores.items()}
            self.log(metrics)
            self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _answer_metrics(self, answers: AnswerValidation) -> dict[str, float]:
        """What validation by generation says; the first process answers, and all learn the same numbers."""
        found = {}
        if self.is_world_process_zero():
            found = answers.metrics(self.accelerator.unwrap_model(self.model), self.state.global_step)
        answers.is_due = False
        return dict(broadcast_object_list([found])[0])
