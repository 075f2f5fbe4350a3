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

from gastrovl.core.errors import ConfigError
from gastrovl.core.files import write_text
from gastrovl.core.manifest import write_manifest
from gastrovl.core.types import Conversation
from gastrovl.model import adapters, checkpointing
from gastrovl.model.checkpoint import build_model, load_checkpoint, save_checkpoint
from gastrovl.model.flex import why_not_flex
from gastrovl.model.presets import resolve
from gastrovl.model.processor import GastroVLProcessor
from gastrovl.model.quantise import load_weights, quantise, save_weights
from gastrovl.model.shared_prefix import Backend
from gastrovl.training import sharded
from gastrovl.training.arguments import training_arguments
from gastrovl.training.config import Part, StageConfig, TrainConfig
from gastrovl.training.dataset import RowDataset, cached_side, load_conversations
from gastrovl.training.featurecache import FeatureCache
from gastrovl.training.features import FeatureFiller, may_keep
from gastrovl.training.grounding import TermIndex
from gastrovl.training.images import ImageStore
from gastrovl.training.joblog import JsonlLog
from gastrovl.training.processes import Team, joined
from gastrovl.training.runfolder import check_output, check_step, cut_log, input_hashes, last_state
from gastrovl.training.stages import describe, open_parts
from gastrovl.training.steps import plan_steps
from gastrovl.training.trainer import GastroTrainer

Say = Callable[[str], None]
Progress = Callable[[str, int, int], None]
WEIGHTS = "weights.safetensors"  # of a finished stage


@dataclass(frozen=True)
class _Part:
    """One split of the data: its conversations and where its images are kept."""

    conversations: Sequence[Conversation]
    images: ImageStore


@dataclass
class _Run:
    """What all stages of a run share; `model` is replaced behind a stage that laid it in pieces."""

    config: TrainConfig
    output: Path
    model: Any
    processor: GastroVLProcessor
    train_part: _Part
    val_part: _Part | None
    show_bar: bool
    say: Say
    progress: Progress | None
    cache: FeatureCache | None
    team: Team

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

    Under `torchrun` or `accelerate launch` every process calls this; the first one says what happens and writes.

    Args:
        show_bar: Draw the trainer's progress bar where standard error is a terminal; elsewhere losses are printed.
        say: Told one line at a time what happens.
        progress: Told (what, done, all) while images are read and a frozen tower looks at them.

    Raises:
        ConfigError: No training conversations are given, or a stage cannot run.
        OutputError: `output` holds another run, or a run and `resume` is False.
        RecordError, ImageError, CheckpointError: An input is broken.
        PeerError: Another process of the run has ended.
    """
    with joined() as team:
        if team.is_first:
            return _train(config, Path(output), resume, show_bar, say, progress, team)
        return _train(config, Path(output), resume, False, _nothing, None, team)


def _train(
    config: TrainConfig, output: Path, resume: bool, show_bar: bool, say: Say, progress: Progress | None, team: Team
) -> Path:
    if config.train is None:
        raise ConfigError("train: no conversations given; set `train:` to a JSONL file of conversations")
    if config.val is None and any(stage.early_stop for stage in config.stages):
        raise ConfigError("early_stop needs validation conversations; set `val:` to a JSONL file, or leave it out")
    train_set = load_conversations(Path(config.train))
    val_set = _some_images(load_conversations(Path(config.val)), config) if config.val else []
    team.first(lambda: check_output(output, config, resume))
    model, processor = _start(config)
    say(
        f"model {config.name}: {sum(p.numel() for p in model.parameters()) / 1e6:.1f} M parameters, "
        f"{processor.image_tokens} image tokens, vocabulary {len(processor.tokenizer)}"
    )
    _choose_attention(model, config, say)
    is_frozen = config.feature_cache_gb > 0 and all(Part.VISION not in stage.trains for stage in config.stages)
    is_whole = (config.cached_views or not config.augment) and not any(stage.cutmix for stage in config.stages)
    side = cached_side(processor, config.augment)
    train_part = _Part(train_set, ImageStore(Path(config.train).parent, side, processor, config.image_memory_mb))
    _read_images(train_part, Path(config.train), progress, is_decoded=not (is_frozen and is_whole))
    val_part = None
    if val_set and config.val:
        side = processor.image_size_px
        val_part = _Part(val_set, ImageStore(Path(config.val).parent, side, processor, config.image_memory_mb))
        _read_images(val_part, Path(config.val), progress, is_decoded=not is_frozen)
    # from here on there is a run to resume
    team.first(lambda: write_text(output / "run.json", config.model_dump_json(indent=2) + "\n"))
    cache = None
    if config.feature_cache_gb:
        cache = FeatureCache(
            Path(config.feature_cache or output.parent / "feature-cache"), round(config.feature_cache_gb * 1e9)
        )
    run = _Run(config, output, model, processor, train_part, val_part, show_bar, say, progress, cache, team)
    for number in range(1, len(config.stages) + 1):
        _run_stage(run, number)
    team.first(lambda: _finish(run))
    return output


def _finish(run: _Run) -> None:
    """Write the checkpoint of a trained model, and then take the stages away."""
    config, output = run.config, run.output
    model = adapters.merge(run.model)
    model.drop_grounding_head()
    model.drop_contrastive_head()
    save_checkpoint(output, model, run.processor, config.name)
    write_manifest(
        output, stage="train", config=config.model_dump(mode="json"), seed=config.seed, inputs=input_hashes(config)
    )
    shutil.rmtree(output / "stages")  # last: until the manifest stands, a resumed run needs them


def _nothing(_: str) -> None:
    """What processes say that are not the first."""


def _start(config: TrainConfig) -> tuple[Any, GastroVLProcessor]:
    random.seed(config.seed)
    torch.manual_seed(config.seed)
    if config.start_from:
        model, processor, _ = load_checkpoint(Path(config.start_from))
    else:
        model, processor = build_model(config.model, config.seed)
    if config.quantise:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        quantise(model, config.quantise, device, getattr(torch, config.precision))
    if any(Part.LORA in stage.trains for stage in config.stages):
        lora = resolve(config.model).lora
        if lora is None:
            raise ConfigError("a stage trains `lora`, but neither model.lora nor the preset describes adapters")
        model = adapters.add_lora(model, lora)
    if any(stage.grounding_weight for stage in config.stages):
        adapters.inner(model).add_grounding_head()
    if any(stage.contrastive_weight for stage in config.stages):
        adapters.inner(model).add_contrastive_head()
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


def _read_images(part: _Part, file: Path, progress: Progress | None, *, is_decoded: bool) -> None:
    """Look at every image before the first step; they are decoded unless what the tower said of them may do."""
    paths = sorted({conversation.image.path for conversation in part.conversations})
    told = (lambda done, total: progress(f"reading images of {file.name}", done, total)) if progress else None
    (part.images.load if is_decoded else part.images.hash)(paths, told)


def _run_stage(run: _Run, number: int) -> None:
    """Train one stage."""
    stage, folder = run.config.stages[number - 1], run.stage_folder(number)
    if run.team.first((folder / WEIGHTS).is_file):
        load_weights(run.model, folder / WEIGHTS)
        run.say(f"stage {number} {stage.name}: done before, weights read")
        return
    if stage.contrastive_weight:
        adapters.inner(run.model).contrast.start(stage.contrastive)
    counts = open_parts(run.model, stage)
    run.say(f"stage {number} {stage.name}: {', '.join(stage.tasks)}; {_length(stage)}")
    for part, count, rate in describe(stage, counts, run.model):
        run.say(f"  {part:<14} {count:>24}  {rate}")
    if is_recomputing := _is_recomputing(run, stage):
        run.say("  activations are worked out again in the backward pass, which saves memory and takes time")
    checkpointing.set_checkpointing(adapters.inner(run.model), is_recomputing)
    trainer = _trainer(run, number)
    filler = _filler(run, stage, trainer)
    last = run.team.first(lambda: _prepare_folder(run, stage, folder))
    if not trainer.had_stopped(last):
        trainer.train(resume_from_checkpoint=last)
        if trainer.eval_dataset is not None and not _is_scored(trainer):
            trainer.evaluate()
    trainer.take_final_weights()
    if filler:
        for dataset, what in _kept_parts(stage, trainer):
            filler.finish(dataset, what)
    if sharded.is_sharded(trainer.accelerator):
        _hand_over(run, trainer, folder)
    else:
        run.team.first(lambda: _close_folder(folder, trainer.accelerator.unwrap_model(trainer.model)))


def _prepare_folder(run: _Run, stage: StageConfig, folder: Path) -> str | None:
    """The saved state a stage goes on from, if there is one; checks that it fits and drops log lines behind it."""
    last = last_state(folder)
    check_step(folder, plan_steps(stage, run.team.size), last)
    cut_log(run.output / "log.jsonl", stage.name, last)
    return last


def _hand_over(run: _Run, trainer: GastroTrainer, folder: Path) -> None:
    """End a stage whose model lies in pieces: the next one starts from a whole model with the stage's weights."""
    state = sharded.whole_state(trainer.model_wrapped, trainer.accelerator)
    attention = adapters.inner(run.model).packed_attention
    run.model, _ = _start(run.config)
    adapters.inner(run.model).packed_attention = attention

    def keep() -> None:
        run.model.load_state_dict(state)
        _close_folder(folder, run.model)

    run.team.first(keep)
    load_weights(run.model, folder / WEIGHTS)


def _close_folder(folder: Path, model: Any) -> None:
    """Keep a trained stage's weights and remove its saved states."""
    partial = folder / "weights.partial.safetensors"
    save_weights(model, partial)
    partial.replace(folder / WEIGHTS)
    for state in folder.glob("checkpoint-*"):
        shutil.rmtree(state)
    for kept in folder.glob("best-*.safetensors"):
        kept.unlink()


def _trainer(run: _Run, number: int) -> GastroTrainer:
    """The trainer of one stage, with its data."""
    config, stage, folder = run.config, run.config.stages[number - 1], run.stage_folder(number)
    seed = config.seed + 1000 * number
    plan = plan_steps(stage, run.team.size)
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
            cached_views=config.cached_views,
            view_seed=config.seed,
        )

    trainer = GastroTrainer(
        run.model,
        training_arguments(stage, config, folder, run.output, seed, run.show_bar, plan),
        stage,
        dataset(run.train_part, True),
        dataset(run.val_part, False) if run.val_part else None,
        plan,
    )
    trainer.add_callback(JsonlLog(run.output / "log.jsonl", stage.name))
    return trainer


def _is_recomputing(run: _Run, stage: StageConfig) -> bool:
    """Whether the stage throws activations away; `auto` does so only where an estimate of its memory is known."""
    del stage
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    needed_bytes = None
    return checkpointing.is_wanted(run.config.gradient_checkpointing, needed_bytes, checkpointing.free_memory(device))


def _is_scored(trainer: GastroTrainer) -> bool:
    """Whether the last step was validated already; newer transformers do so by themselves."""
    last = [entry for entry in trainer.state.log_history if entry.get("step") == trainer.state.global_step]
    return any(name.startswith("eval_") for entry in last for name in entry)


def _kept_parts(stage: StageConfig, trainer: GastroTrainer) -> list[tuple[RowDataset, str]]:
    """The datasets of a stage whose rows a frozen tower need see once only, with what to call the work."""
    named = ((trainer.train_dataset, "training images"), (trainer.eval_dataset, "validation images"))
    return [
        (part, f"tower on {what}") for part, what in named if isinstance(part, RowDataset) and may_keep(stage, part)
    ]


def _filler(run: _Run, stage: StageConfig, trainer: GastroTrainer) -> FeatureFiller | None:
    """Give the datasets of a stage what the frozen tower says of their images, where that holds for the whole stage."""
    parts = _kept_parts(stage, trainer)
    if run.cache is None or not parts:
        return None
    args, is_mixed = trainer.args, run.config.precision == "bfloat16"
    filler = FeatureFiller(
        adapters.inner(run.model).to(args.device),
        run.processor,
        run.cache,
        precision=torch.autocast(args.device.type, dtype=torch.bfloat16, enabled=is_mixed),
        dtype=torch.bfloat16 if is_mixed else torch.float32,
        device=args.device,
        rank=args.process_index,
        world_size=args.world_size,
        say=run.say,
        progress=run.progress,
    )
    for dataset, what in parts:
        dataset.features = filler.fill(dataset, what)
    return filler


def _length(stage: StageConfig) -> str:
    return f"{stage.epochs:g} epochs" if stage.epochs else f"{stage.steps} steps"
