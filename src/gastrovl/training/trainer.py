"""A thin transformers.Trainer: our loss divisor, our optimiser groups, validation by task."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from accelerate.data_loader import prepare_data_loader
from safetensors.torch import load_file, load_model, save_file, save_model
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import Trainer, TrainingArguments

from gastrovl.model import adapters
from gastrovl.training import sharded, validation
from gastrovl.training.config import StageConfig
from gastrovl.training.dataset import Collator, RowDataset
from gastrovl.training.processes import Team
from gastrovl.training.stages import frozen_modules, parameter_groups
from gastrovl.training.steps import (
    COUNTED,
    StepCollator,
    StepPlan,
    StepRows,
    StepSampler,
    batch_seed,
    shuffled,
)

WHOLE_MODEL = "whole.safetensors"


class GastroTrainer(Trainer):
    """Trains one stage. Distribution, resume, schedules and trackers are the parent's work."""

    optimizer: Any
    control: Any
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
            data_collator=Collator(train.processor, train.terms),
        )
        sharded.check_kind(self.accelerator)
        sharded.name_blocks(self.accelerator, model)
        self.stage = stage
        self.team = Team(args.process_index, args.world_size)
        batch, accumulation = args.per_device_train_batch_size, args.gradient_accumulation_steps
        self.plan = plan or StepPlan(batch * accumulation * self.team.size, batch, accumulation, self.team.size)
        self._step_images = 0.0  # images of the step under way, over all processes
        self._place = 0  # of the next batch among this process's own of that step
        self._frozen = frozen_modules(model)
        self.model_accepts_loss_kwargs = True

    def get_train_dataloader(self) -> DataLoader[Any]:
        """This process's batches, see `steps`; the parent would fill the last ones with copies of the first images."""
        rows: RowDataset = self.train_dataset
        sampler = StepSampler(
            rows, self.plan, self.team.rank, lambda epoch: shuffled(len(rows), self.args.data_seed or 0, epoch)
        )
        loader: DataLoader[Any] = DataLoader(
            StepRows(rows),
            batch_sampler=sampler,
            collate_fn=StepCollator(self.data_collator),
            num_workers=self.args.dataloader_num_workers,
            pin_memory=self.args.dataloader_pin_memory,
        )
        return prepare_data_loader(loader, self.accelerator.device, num_processes=1, process_index=0)

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Tensor:
        """Forward and backward of one batch, whose dropout depends on the batch alone."""
        place = self._place * self.team.size + self.team.rank
        torch.manual_seed(batch_seed(self.args.seed, self.state.global_step, place))
        self._place += 1
        return super().training_step(model, inputs, num_items_in_batch)

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
        if self.args.should_save and adapters.inner(model) is not model and not sharded.is_sharded(self.accelerator):
            save_model(model, str(Path(output_dir or self.args.output_dir) / WHOLE_MODEL))

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
            load_model(self.accelerator.unwrap_model(model or self.model), str(whole))

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The stage's weighted losses.

        The answers' loss is divided by all answer tokens of the optimiser step; the other two are means over a batch,
        and a batch weighs as much as its share of the step's images. Frozen modules keep their running statistics;
        they are told here, because the parent puts the whole model into training mode just before.
        """
        for module in self._frozen:
            module.eval()
        images, _ = inputs.pop(COUNTED)
        share = (images or 1) / self._step_images
        inputs = inputs | {
            "answer_weight": self.stage.answer_weight,
            "contrastive_weight": self.stage.contrastive_weight * share,
            "grounding_weight": self.stage.grounding_weight * share,
        }
        loss, outputs = super().compute_loss(model, inputs, True, num_items_in_batch)
        if not images:  # a batch that keeps step: the other processes wait for its gradients, and they are zero
            loss = loss * 0.0
        return (loss, outputs) if return_outputs else loss

    def _get_num_items_in_batch(self, batch_samples: list[dict[str, Any]], device: torch.device) -> Tensor | None:
        """The divisor of the loss: the answer tokens' weights over all accumulated batches and devices.

        With it, eight batches of one and one batch of eight give the same gradient, on one process or several.
        """
        self._place = 0
        if not batch_samples:
            return None
        images, weights = (sum(numbers) for numbers in zip(*(batch[COUNTED] for batch in batch_samples), strict=True))
        self._step_images, total = self.team.summed((images, weights))
        return torch.tensor(total, dtype=torch.float32, device=device)

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Validation by task under teacher forcing, see `validation.scores`."""
        del ignore_keys
        scores = validation.scores(
            self.model,
            eval_dataset or self.eval_dataset,
            self.stage,
            batch_size=self.args.eval_batch_size,
            prepare=self._prepare_inputs,
            precision=self.compute_loss_context_manager,
            team=self.team,
        )
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in scores.items()}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics
