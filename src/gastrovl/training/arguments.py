"""A stage of a run as the transformers.TrainingArguments that the parent trainer reads."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import TrainingArguments

from gastrovl.training.config import StageConfig, TrainConfig
from gastrovl.training.distributed.steps import StepPlan
from gastrovl.training.watching.trackers import StageArguments


def training_arguments(
    stage: StageConfig, config: TrainConfig, folder: Path, seed: int, plan: StepPlan
) -> TrainingArguments:
    """Arguments of one stage; `folder` keeps its saved states."""
    arguments = StageArguments(
        output_dir=str(folder),
        per_device_train_batch_size=plan.batch,
        per_device_eval_batch_size=stage.images_per_step,
        gradient_accumulation_steps=plan.accumulation,
        num_train_epochs=stage.epochs or 1,
        max_steps=stage.steps or -1,
        learning_rate=stage.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=stage.warmup,
        max_grad_norm=1.0,
        bf16=config.precision == "bfloat16",
        use_cpu=not torch.cuda.is_available(),
        seed=seed,
        data_seed=seed,
        logging_steps=config.log_every,
        logging_nan_inf_filter=False,
        eval_strategy="steps" if config.evaluate_every and config.val else "no",
        eval_steps=config.evaluate_every,
        save_strategy="steps" if config.save_every else "no",
        save_steps=config.save_every or 500,
        save_total_limit=1,
        report_to=list(config.trackers),
        remove_unused_columns=False,
        dataloader_num_workers=config.workers,
        dataloader_pin_memory=torch.cuda.is_available(),
        disable_tqdm=True,  # see progress.py
        average_tokens_across_devices=True,
        ddp_find_unused_parameters=not stage.answer_weight,  # then little or nothing reaches the language model
    )
    if arguments.n_gpu > 1:  # one process and several GPUs: the parent would split batches in a way of its own
        arguments._n_gpu = 1
    return arguments
