"""A training run: stages one after the other, each resumable, ending in a checkpoint folder."""

from __future__ import annotations

import json
import math
import os
import random
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_model, save_model
from transformers import TrainingArguments

from gastrovl.core.errors import ConfigError, OutputError
from gastrovl.core.files import sha256_file, write_text
from gastrovl.core.manifest import write_manifest
from gastrovl.core.types import Conversation
from gastrovl.model import adapters
from gastrovl.model.checkpoint import build_model, load_checkpoint, save_checkpoint
from gastrovl.model.presets import resolve
from gastrovl.model.processor import GastroVLProcessor
from gastrovl.training.config import Part, StageConfig, TrainConfig
from gastrovl.training.dataset import ImageStore, RowDataset, cached_side, load_conversations
from gastrovl.training.features import tower_features
from gastrovl.training.grounding import TermIndex
from gastrovl.training.stages import describe, open_parts
from gastrovl.training.trainer import GastroTrainer, JsonlLog

Say = Callable[[str], None]
Progress = Callable[[str, int, int], None]
Features = dict[str, torch.Tensor]  # of each image, what the frozen tower says of it


@dataclass(frozen=True)
class _Part:
    """One split of the data: its conversations and where its images are kept."""

    conversations: Sequence[Conversation]
    images: ImageStore


def train(
    config: TrainConfig,
    output: Path,
    *,
    resume: bool = False,
    show_bar: bool = True,
    say: Say = print,
    progress: Progress | None = None,
) -> Path:
    """Run all stages and write a checkpoint to `output`; `resume` goes on where an interrupted run stopped.

    Args:
        show_bar: Draw the trainer's progress bar where standard error is a terminal; elsewhere losses are printed.
        say: Told one line at a time what happens.
        progress: Told (what, done, all) while images are read.

    Raises:
        ConfigError: No training conversations are given, or a stage cannot run.
        OutputError: `output` holds another run, or a run and `resume` is False.
        RecordError, ImageError, CheckpointError: An input is broken.
    """
    output = Path(output)
    if config.train is None:
        raise ConfigError("train: no conversations given; set `train:` to a JSONL file of conversations")
    train_set = load_conversations(Path(config.train))
    val_set = _some_images(load_conversations(Path(config.val)), config) if config.val else []
    _check_output(output, config, resume)
    model, processor = _start(config)
    say(
        f"model {config.name}: {sum(p.numel() for p in model.parameters()) / 1e6:.1f} M parameters, "
        f"{processor.image_tokens} image tokens, vocabulary {len(processor.tokenizer)}"
    )
    train_part = _read_images(
        train_set, Path(config.train), cached_side(processor, config.augment), processor, progress
    )
    val_part = None
    if val_set and config.val:
        val_part = _read_images(val_set, Path(config.val), processor.image_size_px, processor, progress)
    write_text(output / "run.json", config.model_dump_json(indent=2) + "\n")  # from here on there is a run to resume
    features: Features | None = None
    for number, stage in enumerate(config.stages, start=1):
        features = _run_stage(
            model, processor, stage, number, train_part, val_part, config, output, show_bar, say, features
        )
    model = adapters.merge(model)
    model.drop_grounding_head()
    save_checkpoint(output, model, processor, config.name)
    write_manifest(
        output, stage="train", config=config.model_dump(mode="json"), seed=config.seed, inputs=_hashes(config)
    )
    shutil.rmtree(output / "stages")  # last: until the manifest stands, a resumed run needs them
    return output


def _check_output(output: Path, config: TrainConfig, resume: bool) -> None:
    """Check that `output` is free for this run, or is this run's already and may go on."""
    said = config.model_dump_json(indent=2)
    mark = output / "run.json"
    if output.is_file():
        raise OutputError(f"{output} is a file; choose another -o")
    if not output.exists() or not any(output.iterdir()):
        if resume:
            raise OutputError(f"{output} holds no run to resume; leave --resume out to start one")
        return
    if not mark.is_file():
        raise OutputError(f"{output} holds files of something else; choose another -o")
    if (output / "manifest.json").is_file():
        raise OutputError(f"{output} holds a finished run; choose another -o")
    if not resume:
        raise OutputError(f"{output} holds an unfinished run; pass --resume to go on with it, or choose another -o")
    if json.loads(mark.read_text(encoding="utf-8")) != json.loads(said):
        raise OutputError(f"{mark} was written by another config; resume with the same one, or choose another -o")


def _start(config: TrainConfig) -> tuple[Any, GastroVLProcessor]:
    random.seed(config.seed)
    torch.manual_seed(config.seed)
    if config.start_from:
        model, processor, _ = load_checkpoint(Path(config.start_from))
    else:
        model, processor = build_model(config.model, config.seed)
    if any(Part.LORA in stage.trains for stage in config.stages):
        lora = resolve(config.model).lora
        if lora is None:
            raise ConfigError("a stage trains `lora`, but neither model.lora nor the preset describes adapters")
        model = adapters.add_lora(model, lora)
    if any(stage.grounding_weight for stage in config.stages):
        adapters.inner(model).add_grounding_head()
    return model, processor


def _some_images(conversations: list[Conversation], config: TrainConfig) -> list[Conversation]:
    """The conversations of at most `val_images` images, drawn by the run's seed."""
    paths = sorted({conversation.image.path for conversation in conversations})
    if config.val_images is None or len(paths) <= config.val_images:
        return conversations
    chosen = set(random.Random(config.seed).sample(paths, config.val_images))
    return [conversation for conversation in conversations if conversation.image.path in chosen]


def _read_images(
    conversations: Sequence[Conversation],
    file: Path,
    side: int,
    processor: GastroVLProcessor,
    progress: Progress | None,
) -> _Part:
    store = ImageStore(file.parent, side, processor)
    paths = sorted({conversation.image.path for conversation in conversations})
    store.load(
        paths, (lambda done, total: progress(f"reading images of {file.name}", done, total)) if progress else None
    )
    return _Part(conversations, store)


def _run_stage(
    model: Any,
    processor: GastroVLProcessor,
    stage: StageConfig,
    number: int,
    train_part: _Part,
    val_part: _Part | None,
    config: TrainConfig,
    output: Path,
    show_bar: bool,
    say: Say,
    features: Features | None,
) -> Features | None:
    """Train one stage; `features` are those the stage before used, and the return value is for the next one."""
    folder = output / "stages" / f"{number}-{stage.name}"
    weights = folder / "weights.safetensors"
    if weights.is_file():
        load_model(model, weights)
        say(f"stage {number} {stage.name}: done before, weights read")
        return None
    counts = open_parts(model, stage)
    say(f"stage {number} {stage.name}: {', '.join(stage.tasks)}; {_length(stage)}")
    for part, count, rate in describe(stage, counts, model):
        say(f"  {part:<10} {count:>28}  {rate}")
    seed = config.seed + 1000 * number
    terms, grid_side = None, 0
    if stage.grounding_weight:
        terms = TermIndex(train_part.conversations)
        grid_side = math.isqrt(adapters.inner(model).grounding.cells)
    if Part.VISION in stage.trains or features is None:
        features = _features(model, stage, train_part, config, say)
    datasets = [
        RowDataset(
            part.conversations,
            part.images,
            processor,
            stage,
            seed=seed,
            max_length=config.max_length,
            augment=config.augment if is_training else None,
            is_training=is_training,
            terms=terms,
            grid_side=grid_side,
            features=features if is_training else None,
        )
        if part
        else None
        for part, is_training in ((train_part, True), (val_part, False))
    ]
    assert datasets[0] is not None
    trainer = GastroTrainer(
        model, _arguments(stage, config, folder, output, seed, show_bar), stage, datasets[0], datasets[1]
    )
    trainer.add_callback(JsonlLog(output / "log.jsonl", stage.name))
    last = _last_state(folder)
    _cut_log(output / "log.jsonl", stage.name, last)
    trainer.train(resume_from_checkpoint=last)
    if datasets[1] is not None and not _is_scored(trainer):
        trainer.evaluate()
    partial = folder / "weights.partial.safetensors"
    save_model(trainer.accelerator.unwrap_model(trainer.model), str(partial))
    partial.replace(weights)
    for state in folder.glob("checkpoint-*"):
        shutil.rmtree(state)
    return features


def _is_scored(trainer: GastroTrainer) -> bool:
    """Whether the last step was validated already; newer transformers do so by themselves."""
    last = [entry for entry in trainer.state.log_history if entry.get("step") == trainer.state.global_step]
    return any(name.startswith("eval_") for entry in last for name in entry)


def _features(model: Any, stage: StageConfig, part: _Part, config: TrainConfig, say: Say) -> Features | None:
    """What the frozen tower says of the training images, or None where the tower learns or the images change."""
    inner = adapters.inner(model)
    shape = inner.model.shape
    paths = sorted({conversation.image.path for conversation in part.conversations})
    bytes_each = shape.tokens * shape.width * (2 if config.precision == "bfloat16" else 4)
    if Part.VISION in stage.trains or config.augment or len(paths) * bytes_each > config.feature_cache_mb * 2**20:
        return None
    device = "cuda" if torch.cuda.is_available() else "cpu"
    is_mixed = config.precision == "bfloat16"
    precision = torch.autocast(device, dtype=torch.bfloat16, enabled=is_mixed)
    say(f"  tower runs once for {len(paths)} images: it is frozen and nothing changes them")
    return tower_features(inner.to(device), part.images, paths, precision)


def _arguments(
    stage: StageConfig, config: TrainConfig, folder: Path, output: Path, seed: int, show_bar: bool
) -> TrainingArguments:
    os.environ["TENSORBOARD_LOGGING_DIR"] = str(output / "tensorboard" / stage.name)
    return TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=stage.images_per_step,
        per_device_eval_batch_size=stage.images_per_step,
        gradient_accumulation_steps=stage.accumulation,
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
        report_to=["tensorboard"],
        remove_unused_columns=False,
        dataloader_num_workers=config.workers,
        dataloader_pin_memory=torch.cuda.is_available(),
        disable_tqdm=not (show_bar and sys.stderr.isatty()),
        ddp_find_unused_parameters=False,
    )


def _length(stage: StageConfig) -> str:
    return f"{stage.epochs:g} epochs" if stage.epochs else f"{stage.steps} steps"


def _last_state(folder: Path) -> str | None:
    """The newest whole state of a stage; one that was being written when the run died lacks its last file."""
    states = [path.parent for path in folder.glob("checkpoint-*/trainer_state.json")]
    return str(max(states, key=lambda path: int(path.name.rsplit("-", 1)[1]))) if states else None


def _cut_log(path: Path, stage: str, checkpoint: str | None) -> None:
    """Drop log lines of this stage after the state that is resumed, so that no step is logged twice."""
    if not path.is_file():
        return
    step = int(checkpoint.rsplit("-", 1)[1]) if checkpoint else 0
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.endswith("}")]
    kept = [line for line in lines if line["stage"] != stage or line["step"] <= step]
    write_text(path, "".join(json.dumps(line) + "\n" for line in kept))


def _hashes(config: TrainConfig) -> dict[str, str]:
    return {path: sha256_file(Path(path)) for path in (config.train, config.val) if path}
