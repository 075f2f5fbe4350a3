"""A thin transformers.Trainer: our loss divisor, our optimiser groups, validation by task."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import broadcast_object_list
from torch import Tensor
from transformers import Trainer, TrainerState, TrainingArguments

from gastrovl.model import adapters
from gastrovl.model.checkpointing import keep_recomputing
from gastrovl.model.quantise import load_weights, save_weights
from gastrovl.training import validation
from gastrovl.training.config import StageConfig
from gastrovl.training.dataset import Collator, RowDataset
from gastrovl.training.earlystop import EarlyStop
from gastrovl.training.ema import AveragedWeights
from gastrovl.training.generation import AnswerValidation
from gastrovl.training.guards import NamedCollator, StepWatch
from gastrovl.training.sampling import EpochOrder
from gastrovl.training.stages import frozen_modules, parameter_groups

WHOLE_MODEL = "whole.safetensors"


class GastroTrainer(Trainer):
    """Trains one stage. Distribution, resume, schedules and trackers are the parent's work."""

    optimizer: Any
    control: Any
    state: Any
    current_gradient_accumulation_steps: int  # set by the parent: fewer in the last step of an epoch

    def __init__(
        self, model: Any, args: TrainingArguments, stage: StageConfig, train: RowDataset, val: RowDataset | None
    ) -> None:
        super().__init__(
            model=model,
            args=args,
            train_dataset=train,
            eval_dataset=val,
            data_collator=NamedCollator(
                Collator(train.processor, train.terms, has_captions=stage.contrastive_weight > 0)
            ),
        )
        self.watch = StepWatch()
        self.stage = stage
        self._frozen = frozen_modules(model)
        self.model_accepts_loss_kwargs = True
        self.average = AveragedWeights(self.model, stage.ema) if stage.ema else None
        self.answers: AnswerValidation | None = None
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
        """Whether a stage that goes on from a saved state ended early in it; then it is read."""
        if state is None or self.early_stop is None:
            return False
        self.early_stop.load(Path(state))
        if self.early_stop.is_over:
            self._load_from_checkpoint(state)
        return self.early_stop.is_over

    def take_final_weights(self) -> None:
        """Put into the model what the stage ends with: the best weights, or the average, or the last ones."""
        self.accelerator.wait_for_everyone()
        if self.early_stop is not None and self.early_stop.best is not None:
            self.early_stop.apply()
        elif self.average is not None:
            self.average.apply()

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        """The stage's own order of an epoch where it samples; else the parent's, every image once."""
        dataset = train_dataset or self.train_dataset
        return super()._get_train_sampler(train_dataset) if dataset.shares is None else EpochOrder(dataset)

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
        model = self.accelerator.unwrap_model(self.model)
        if adapters.inner(model) is not model:
            save_weights(model, Path(output_dir or self.args.output_dir) / WHOLE_MODEL)
        for keeper in self._keepers():
            keeper.save(Path(output_dir or self.args.output_dir))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Weights of a saved state, as `_save` wrote them."""
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        whole = Path(resume_from_checkpoint) / WHOLE_MODEL
        if whole.is_file():
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

        The answers' loss is divided by all answer tokens of the optimiser step; the other two are means over a batch,
        so they are divided by the number of batches that are added up. Frozen modules keep their running statistics;
        they are told here, because the parent puts the whole model into training mode just before.
        """
        for module in self._frozen:
            module.eval()
        keep_recomputing(adapters.inner(self.accelerator.unwrap_model(model)))
        batches = self.current_gradient_accumulation_steps * self.args.world_size
        inputs = inputs | {
            "answer_weight": self.stage.answer_weight,
            "contrastive_weight": self.stage.contrastive_weight / batches,
            "grounding_weight": self.stage.grounding_weight / batches,
        }
        return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: torch.device) -> Any:
        """The batches of one optimiser step and the loss's divisor; the watch is told whose records they are."""
        batches, divisor = super().get_batch_samples(epoch_iterator, num_batches, device)
        self.watch.begin(batches)
        return batches, divisor

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Tensor:
        """Forward and backward of one batch; the watch keeps its size and its loss."""
        self.watch.shape = tuple(inputs["input_ids"].shape)
        loss: Tensor = super().training_step(model, inputs, num_items_in_batch)
        self.watch.losses.append(loss.detach())
        return loss

    def _get_num_items_in_batch(self, batch_samples: list[dict[str, Any]], device: torch.device) -> Tensor | None:
        """The divisor of the loss: the answer tokens' weights over all accumulated batches and devices.

        With it, eight batches of one and one batch of eight give the same gradient.
        """
        if not batch_samples:
            return None
        total = torch.stack([batch["label_weights"][:, 1:].sum() for batch in batch_samples]).sum().to(device)
        if self.args.world_size > 1:
            total = self.accelerator.gather(total).sum()
        return total

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
