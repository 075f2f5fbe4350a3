"""A thin transformers.Trainer: our loss divisor, our optimiser groups, validation by task, one JSON line per log."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_model, save_model
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerCallback, TrainingArguments

from gastrovl.core import boxtext, geometry
from gastrovl.core.errors import BoxTextError
from gastrovl.core.types import Task
from gastrovl.model import adapters
from gastrovl.model.gastrovl import IGNORED
from gastrovl.training.config import StageConfig
from gastrovl.training.dataset import Collator, Row, RowDataset
from gastrovl.training.stages import frozen_modules, parameter_groups

WHOLE_MODEL = "whole.safetensors"


class GastroTrainer(Trainer):
    """Trains one stage. Distribution, resume, schedules and trackers are the parent's work."""

    optimizer: Any
    control: Any
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
        """Validation by task under teacher forcing: loss, exact answers, and for REC mean IoU of single boxes.

        An answer is exact under teacher forcing if and only if greedy decoding would give it, so CLS and REG
        accuracies are those of greedy decoding. A stage without answers reports the grounding loss alone.
        """
        del ignore_keys
        dataset = eval_dataset or self.eval_dataset
        loader = DataLoader(dataset, batch_size=self.args.eval_batch_size, collate_fn=list)
        collator = Collator(dataset.processor, dataset.terms)
        tally: dict[str, list[float]] = defaultdict(list)
        self.model.eval()
        for rows in loader:
            batch = collator(rows)
            if "grounding" in batch:
                tally["grounding_loss"].append(self._grounding_loss(batch))
            if self.stage.answer_weight:
                self._tally(rows, batch, dataset, tally)
        metrics = {f"{metric_key_prefix}_{name}": math.fsum(values) / len(values) for name, values in tally.items()}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    @torch.no_grad()
    def _grounding_loss(self, batch: dict[str, Any]) -> float:
        inputs = self._prepare_inputs(batch)
        with self.compute_loss_context_manager():
            return float(self.model(**inputs, answer_weight=0.0, grounding_weight=1.0).loss)

    @torch.no_grad()
    def _tally(
        self, rows: Sequence[Row], batch: dict[str, Any], dataset: RowDataset, tally: dict[str, list[float]]
    ) -> None:
        inputs = self._prepare_inputs(batch)
        with self.compute_loss_context_manager():
            output = self.model(**inputs)
        labels = batch["labels"][:, 1:]
        is_answer = labels != IGNORED
        targets = labels[is_answer]
        logits = output.logits.float().cpu()
        losses = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
        guesses = logits.argmax(dim=-1)
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
                if task == Task.REC and (overlap := _overlap(dataset, truth, guess)) is not None:
                    tally["rec_iou"].append(overlap)


class JsonlLog(TrainerCallback):
    """Every log line of the trainer as one JSON object in a file, marked with the stage."""

    def __init__(self, path: Path, stage: str) -> None:
        self.path, self.stage = path, stage

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        """Append one line; called on every process, written by the first."""
        del args, control
        if state.is_world_process_zero and logs:
            kept = {name: value for name, value in logs.items() if name != "train_loss"}  # wrong after a resume
            line = {"stage": self.stage, "step": state.global_step, "epoch": state.epoch, **kept}
            with self.path.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(line) + "\n")


def _overlap(dataset: RowDataset, truth: Tensor, guess: Tensor) -> float | None:
    """IoU of one true box with the guessed one; None when the truth is not exactly one box."""
    try:
        true_boxes = boxtext.decode_boxes(dataset.processor.decode(truth.tolist()))
    except BoxTextError:  # a dialogue that says more than boxes
        return None
    if len(true_boxes) != 1:
        return None
    try:
        guessed = boxtext.decode_boxes(dataset.processor.decode(guess.tolist()))
    except BoxTextError:
        return 0.0
    return geometry.iou(true_boxes[0], guessed[0]) if len(guessed) == 1 else 0.0
