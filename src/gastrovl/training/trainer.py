"""A thin transformers.Trainer: our loss divisor, our optimiser groups, validation by task."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import broadcast_object_list
from safetensors.torch import load_model, save_model
from torch import Tensor
from transformers import Trainer, TrainerCallback, TrainerState, TrainingArguments

from gastrovl.model import adapters
from gastrovl.training import validation
from gastrovl.training.config import StageConfig
from gastrovl.training.dataset import Collator, RowDataset
from gastrovl.training.generation import AnswerValidation
from gastrovl.training.stages import frozen_modules, parameter_groups

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
        self, model: Any, args: TrainingArguments, stage: StageConfig, train: RowDataset, val: RowDataset | None
    ) -> None:
        super().__init__(
            model=model,
            args=args,
            train_dataset=train,
            eval_dataset=val,
            data_collator=Collator(train.processor, train.terms),
        )
        self.stage = stage
        self._frozen = frozen_modules(model)
        self.model_accepts_loss_kwargs = True
        self.answers: AnswerValidation | None = None
        self.add_callback(_RowsOfEpoch(train))

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
            save_model(model, str(Path(output_dir or self.args.output_dir) / WHOLE_MODEL))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Weights of a saved state, as `_save` wrote them."""
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        whole = Path(resume_from_checkpoint) / WHOLE_MODEL
        if whole.is_file():
            load_model(self.accelerator.unwrap_model(model or self.model), str(whole))

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
        batches = self.current_gradient_accumulation_steps * self.args.world_size
        inputs = inputs | {
            "answer_weight": self.stage.answer_weight,
            "contrastive_weight": self.stage.contrastive_weight / batches,
            "grounding_weight": self.stage.grounding_weight / batches,
        }
        return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)

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
        """Validation by task under teacher forcing, see `validation.scores`, and by generation where it is due."""
        del ignore_keys
        dataset = eval_dataset or self.eval_dataset
        scores: dict[str, float] = {}
        with validation.untouched(self.model):
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
