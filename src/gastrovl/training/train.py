"""A training run: stages one after the other, each resumable, ending in a checkpoint folder."""

from __future__ import annotations

import math
import random
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_model, save_model

from gastrovl.core.errors import ConfigError
from gastrovl.core.files import write_text
from gastrovl.core.manifest import write_manifest
from gastrovl.core.types import Conversation
from gastrovl.model import adapters
from gastrovl.model.checkpoint import build_model, load_checkpoint, save_checkpoint
from gastrovl.model.flex import why_not_flex
from gastrovl.model.presets import resolve
from gastrovl.model.processor import GastroVLProcessor
from gastrovl.model.shared_prefix import Backend
from gastrovl.training.arguments import training_arguments
from gastrovl.training.config import Part, StageConfig, TrainConfig
from gastrovl.training.dataset import ImageStore, RowDataset, cached_side, load_conversations
from gastrovl.training.features import tower_features
from gastrovl.training.grounding import TermIndex
from gastrovl.training.joblog import JsonlLog
from gastrovl.training.runfolder import check_output, cut_log, input_hashes, last_state
from gastrovl.training.stages import describe, open_parts
from gastrovl.training.trainer import GastroTrainer

Say = Callable[[str], None]
Progress = Callable[[str, int, int], None]
Features = dict[str, torch.Tensor]  # of each image, what the frozen tower says of it


@dataclass(frozen=True)
class _Part:
    """One split of the data: its conversations and where its images are kept."""

    conversations: Sequence[Conversation]
    images: ImageStore


@dataclass(frozen=True)
class _Run:
    """What all stages of a run share."""

    config: TrainConfig
    output: Path
    model: Any
    processor: GastroVLProcessor
    train_part: _Part
    val_part: _Part | None
    show_bar: bool
    say: Say

    def stage_folder(self, number: int) -> Path:
        """Where the states and weights of the `number`-th stage lie, counted from 1."""
        return self.output / "stages" / f"{number}-{self.config.stages[number - 1].name}"


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
    check_output(output, config, resume)
    model, processor = _start(config)
    say(
        f"model {config.name}: {sum(p.numel() for p in model.parameters()) / 1e6:.1f} M parameters, "
        f"{processor.image_tokens} image tokens, vocabulary {len(processor.tokenizer)}"
    )
    _choose_attention(model, config, say)
    train_part = _read_images(
        train_set, Path(config.train), cached_side(processor, config.augment), processor, progress
    )
    val_part = None
    if val_set and config.val:
        val_part = _read_images(val_set, Path(config.val), processor.image_size_px, processor, progress)
    write_text(output / "run.json", config.model_dump_json(indent=2) + "\n")  # from here on there is a run to resume
    run = _Run(config, output, model, processor, train_part, val_part, show_bar, say)
    features: Features | None = None
    for number in range(1, len(config.stages) + 1):
        features = _run_stage(run, number, features)
    model = adapters.merge(model)
    model.drop_grounding_head()
    save_checkpoint(output, model, processor, config.name)
    write_manifest(
        output, stage="train", config=config.model_dump(mode="json"), seed=config.seed, inputs=input_hashes(config)
    )
    shutil.rmtree(output / "stages")  # last: until the manifest stands, a resumed run needs them
    return output


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


def _choose_attention(model: Any, config: TrainConfig, say: Say) -> None:
    """Set how packed rows are attended; on a GPU the fast way is tried out first.

    Raises:
        ConfigError: `attention: flex` is asked for and cannot work here.
    """
    inner, device = adapters.inner(model), torch.device("cuda" if torch.cuda.is_available() else "cpu")
    inner.packed_attention = config.attention
    if config.attention is not Backend.FLEX and (config.attention is not Backend.AUTO or device.type == "cpu"):
        return
    dtype = torch.bfloat16 if config.precision == "bfloat16" else torch.float32
    reason = why_not_flex(inner.config.text_config, device, dtype)
    if reason and config.attention is Backend.FLEX:
        raise ConfigError(f"attention: flex cannot be used here: {reason}; leave `attention` out to have it chosen")
    inner.packed_attention = Backend.MASK if reason else Backend.FLEX
    say(f"packed rows are attended by {inner.packed_attention}" + (f": {reason}" if reason else ""))


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


def _run_stage(run: _Run, number: int, features: Features | None) -> Features | None:
    """Train one stage; `features` are those the stage before used, and the return value is for the next one."""
    stage, folder = run.config.stages[number - 1], run.stage_folder(number)
    weights = folder / "weights.safetensors"
    if weights.is_file():
        load_model(run.model, weights)
        run.say(f"stage {number} {stage.name}: done before, weights read")
        return None
    counts = open_parts(run.model, stage)
    run.say(f"stage {number} {stage.name}: {', '.join(stage.tasks)}; {_length(stage)}")
    for part, count, rate in describe(stage, counts, run.model):
        run.say(f"  {part:<10} {count:>28}  {rate}")
    if Part.VISION in stage.trains or features is None:
        features = _features(run, stage)
    trainer = _trainer(run, number, features)
    last = last_state(folder)
    cut_log(run.output / "log.jsonl", stage.name, last)
    trainer.train(resume_from_checkpoint=last)
    if trainer.eval_dataset is not None and not _is_scored(trainer):
        trainer.evaluate()
    partial = folder / "weights.partial.safetensors"
    save_model(trainer.accelerator.unwrap_model(trainer.model), str(partial))
    partial.replace(weights)
    for state in folder.glob("checkpoint-*"):
        shutil.rmtree(state)
    return features


def _trainer(run: _Run, number: int, features: Features | None) -> GastroTrainer:
    """The trainer of one stage, with its data."""
    config, stage, folder = run.config, run.config.stages[number - 1], run.stage_folder(number)
    seed = config.seed + 1000 * number
    terms, grid_side = None, 0
    if stage.grounding_weight:
        terms = TermIndex(run.train_part.conversations)
        grid_side = math.isqrt(adapters.inner(run.model).grounding.cells)

    def dataset(part: _Part, is_training: bool) -> RowDataset:
        return RowDataset(
            part.conversations,
            part.images,
            run.processor,
            stage,
            seed=seed,
            max_length=config.max_length,
            augment=config.augment if is_training else None,
            is_training=is_training,
            terms=terms,
            grid_side=grid_side,
            features=features if is_training else None,
        )

    trainer = GastroTrainer(
        run.model,
        training_arguments(stage, config, folder, run.output, seed, run.show_bar),
        stage,
        dataset(run.train_part, True),
        dataset(run.val_part, False) if run.val_part else None,
    )
    trainer.add_callback(JsonlLog(run.output / "log.jsonl", stage.name))
    return trainer


def _is_scored(trainer: GastroTrainer) -> bool:
    """Whether the last step was validated already; newer transformers do so by themselves."""
    last = [entry for entry in trainer.state.log_history if entry.get("step") == trainer.state.global_step]
    return any(name.startswith("eval_") for entry in last for name in entry)


def _features(run: _Run, stage: StageConfig) -> Features | None:
    """What the frozen tower says of the training images, or None where the tower learns or the images change."""
    inner, config, part = adapters.inner(run.model), run.config, run.train_part
    shape = inner.model.shape
    paths = sorted({conversation.image.path for conversation in part.conversations})
    bytes_each = shape.tokens * shape.width * (2 if config.precision == "bfloat16" else 4)
    if Part.VISION in stage.trains or config.augment or len(paths) * bytes_each > config.feature_cache_mb * 2**20:
        return None
    device = "cuda" if torch.cuda.is_available() else "cpu"
    is_mixed = config.precision == "bfloat16"
    precision = torch.autocast(device, dtype=torch.bfloat16, enabled=is_mixed)
    run.say(f"  tower runs once for {len(paths)} images: it is frozen and nothing changes them")
    return tower_features(inner.to(device), part.images, paths, precision)


def _length(stage: StageConfig) -> str:
    return f"{stage.epochs:g} epochs" if stage.epochs else f"{stage.steps} steps"
