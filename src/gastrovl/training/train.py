"""A training run: stages one after the other, each resumable, ending in a checkpoint folder."""

from __future__ import annotations

import math
import os
import random
import shutil
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from transformers import PrinterCallback

from gastrovl.core.errors import ConfigError, MissingExtraError, RecordError
from gastrovl.core.files import write_text
from gastrovl.core.manifest import write_manifest
from gastrovl.core.types import Conversation
from gastrovl.model import adapters, checkpointing
from gastrovl.model.checkpoint import build_model, load_checkpoint, save_checkpoint
from gastrovl.model.flex import why_not_flex
from gastrovl.model.foreign_processor import ForeignProcessor
from gastrovl.model.presets import resolve
from gastrovl.model.processor import GastroVLProcessor
from gastrovl.model.quantise import load_weights, quantise, save_weights
from gastrovl.model.shared_prefix import Backend
from gastrovl.training.arguments import training_arguments
from gastrovl.training.config import Part, StageConfig, TrainConfig
from gastrovl.training.dataset import RowDataset, cached_side, load_conversations
from gastrovl.training.estimate import advice_here, estimate
from gastrovl.training.featurecache import FeatureCache
from gastrovl.training.features import FeatureFiller, may_keep
from gastrovl.training.generation import (
    SECONDS,
    AnswerSource,
    AnswerValidation,
    ScoreAnswers,
    chosen_questions,
    last_scores,
)
from gastrovl.training.grounding import TermIndex
from gastrovl.training.guards import (
    StopAtNoNumber,
    check_space,
    named_failures,
    space_needed,
    writing_checkpoint,
)
from gastrovl.training.images import ImageStore
from gastrovl.training.inputs import begin_or_check_inputs, check_tokenizer
from gastrovl.training.joblog import JsonlLog
from gastrovl.training.model_card import write_facts, write_model_card
from gastrovl.training.picture import save_picture
from gastrovl.training.progress import StepReport
from gastrovl.training.runfolder import check_output, cut_log, input_hashes, is_last_step, last_state
from gastrovl.training.stages import describe, open_parts
from gastrovl.training.trackers import check_trackers, tracked
from gastrovl.training.trainer import GastroTrainer

Say = Callable[[str], None]
Progress = Callable[[str, int, int], None]

_SURELY_SMALL = 50_000_000  # parameters; a smaller model fits wherever PyTorch does


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
    answers: AnswerSource | None
    progress: Progress | None
    cache: FeatureCache | None

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
    score_answers: ScoreAnswers | None = None,
) -> Path:
    """Run all stages and write a checkpoint to `output`; `resume` goes on where an interrupted run stopped.

    Args:
        show_bar: Tell `progress` every step where standard error is a terminal; elsewhere losses are said in lines.
        say: Told one line at a time what happens.
        progress: Told (what, done, all) while images are read and a frozen tower looks at them; of a step, "what" has a
            second line, loss and speed.
        score_answers: Answers questions and scores the replies, for `validate_answers`: `pipeline.AnswerScorer`.

    Raises:
        ConfigError: No training conversations are given, or a stage cannot run.
        OutputError: `output` holds another run, or a run and `resume` is False.
        RecordError, ImageError, CheckpointError: An input is broken.
        MissingExtraError: A library that the config asks for is not installed.
    """
    output = Path(output)
    check_trackers(config.trackers)
    if config.train is None:
        raise ConfigError("train: no conversations given; set `train:` to a JSONL file of conversations")
    if config.val is None and any(stage.early_stop for stage in config.stages):
        raise ConfigError("early_stop needs validation conversations; set `val:` to a JSONL file, or leave it out")
    train_set = load_conversations(Path(config.train))
    val_set = _some_images(load_conversations(Path(config.val)), config) if config.val else []
    answers = _answer_source(config, output, score_answers, say)
    check_output(output, config, resume)
    model, processor = _start(config)
    say(
        f"model {config.name}: {sum(p.numel() for p in model.parameters()) / 1e6:.1f} M parameters, "
        f"{processor.image_tokens} image tokens, vocabulary {len(processor.tokenizer)}"
    )
    _choose_attention(model, config, say)
    is_frozen = config.feature_cache_gb > 0 and all(Part.VISION not in stage.trains for stage in config.stages)
    is_frozen = is_frozen and not isinstance(processor, ForeignProcessor)
    is_whole = (config.cached_views or not config.augment) and not any(stage.cutmix for stage in config.stages)
    side = cached_side(processor, config.augment)
    train_part = _Part(train_set, ImageStore(Path(config.train).parent, side, processor, config.image_memory_mb))
    _read_images(train_part, Path(config.train), progress, is_decoded=not (is_frozen and is_whole))
    val_part = None
    if val_set and config.val:
        side = processor.image_size_px
        val_part = _Part(val_set, ImageStore(Path(config.val).parent, side, processor, config.image_memory_mb))
        _read_images(val_part, Path(config.val), progress, is_decoded=not is_frozen)
    check_space(output, space_needed(config, model))
    begin_or_check_inputs(output, config, processor.tokenizer)
    write_text(output / "run.json", config.model_dump_json(indent=2) + "\n")  # from here on there is a run to resume
    cache = None
    if config.feature_cache_gb:
        cache = FeatureCache(
            Path(config.feature_cache or output.parent / "feature-cache"), round(config.feature_cache_gb * 1e9)
        )
    has_bar = show_bar and sys.stderr.isatty()
    run = _Run(config, output, model, processor, train_part, val_part, has_bar, say, answers, progress, cache)
    for number in range(1, len(config.stages) + 1):
        _run_stage(run, number)
    model = adapters.merge(model)
    model.drop_grounding_head()
    model.drop_contrastive_head()
    used = {
        path: part.conversations for path, part in ((config.train, train_part), (config.val, val_part)) if path and part
    }
    with writing_checkpoint(output):
        save_checkpoint(output, model, processor, config.name)
        write_facts(output, config, used, _hardware())
        write_manifest(
            output, stage="train", config=config.model_dump(mode="json"), seed=config.seed, inputs=input_hashes(config)
        )
        _describe_run(output, say)
    shutil.rmtree(output / "stages")  # last: until the manifest stands, a resumed run needs them
    return output


def _describe_run(output: Path, say: Say) -> None:
    """The picture and the model card of a finished run."""
    try:
        save_picture(output)
    except (MissingExtraError, RecordError) as error:  # a run of fewer steps than `log_every` has nothing to draw
        say(f"no picture of the run: {error}")
    found = last_scores(output)
    write_model_card(output, found[1] if found else (), measured=datetime.now(UTC) if found else None)


def _hardware() -> str:
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
        return ", ".join(f"{names.count(name)} x {name}" for name in sorted(set(names)))
    return f"{os.cpu_count()} CPU cores, no GPU"


def _start(config: TrainConfig) -> tuple[Any, GastroVLProcessor]:
    random.seed(config.seed)
    torch.manual_seed(config.seed)
    if config.start_from:
        model, processor, _ = load_checkpoint(Path(config.start_from))
    else:
        model, processor = build_model(config.model, config.seed)
    check_tokenizer(model, processor.tokenizer, config)
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
    reason = why_not_flex(inner.config.get_text_config(), device, dtype)
    if reason and config.attention is Backend.FLEX:
        raise ConfigError(f"attention: flex cannot be used here: {reason}; leave `attention` out to have it chosen")
    inner.packed_attention = Backend.MASK if reason else Backend.FLEX
    say(f"packed rows are attended by {inner.packed_attention}" + (f": {reason}" if reason else ""))


def _answer_source(config: TrainConfig, output: Path, score: ScoreAnswers | None, say: Say) -> AnswerSource | None:
    """What validation by generation needs, or None where the config wants none."""
    if config.validate_answers is None:
        return None
    if config.val is None or score is None:
        lacking = (
            "no validation conversations are given (`val`)" if config.val is None else "nothing scores the answers"
        )
        raise ConfigError(
            f"validate_answers: {lacking}; set `val`, and from Python pass "
            "score_answers=gastrovl.pipeline.AnswerScorer(...), as `gastrovl train` does"
        )
    file = Path(config.val)
    source = AnswerSource(
        config.validate_answers, score, load_conversations(file), file.parent, output, config.seed, say
    )
    for stage in config.stages:
        if stage.answer_weight:
            chosen_questions(source, stage)
    return source


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
    weights = folder / "weights.safetensors"
    if weights.is_file():
        load_weights(run.model, weights)
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
    with tracked(run.config.trackers, run.config.tracking, run.output, run=run.config.name, stage=stage.name):
        trainer = _trainer(run, number)
        filler = _filler(run, stage, trainer)
        last = last_state(folder)
        cut_log(run.output / "log.jsonl", stage.name, last)
        with _failures_named(run, number, trainer):
            if last and (trainer.had_stopped(last) or is_last_step(last)):
                trainer.take(last)
            else:
                trainer.train(resume_from_checkpoint=last)
            if _is_score_due(trainer):
                trainer.evaluate()
            trainer.take_final_weights()
            if filler:
                for dataset, what in _kept_parts(stage, trainer):
                    filler.finish(dataset, what)
            partial = folder / "weights.partial.safetensors"
            save_weights(trainer.accelerator.unwrap_model(trainer.model), partial)
            partial.replace(weights)
    for state in folder.glob("checkpoint-*"):
        shutil.rmtree(state)
    for kept in folder.glob("best-*.safetensors"):
        kept.unlink()


def _trainer(run: _Run, number: int) -> GastroTrainer:
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
            cached_views=config.cached_views,
            view_seed=config.seed,
        )

    trainer = GastroTrainer(
        run.model,
        training_arguments(stage, config, folder, seed),
        stage,
        dataset(run.train_part, True),
        dataset(run.val_part, False) if run.val_part else None,
    )
    trainer.remove_callback(PrinterCallback)
    images = stage.images_per_step * stage.accumulation * trainer.args.world_size
    title = f"{number}/{len(config.stages)} {stage.name}"
    trainer.add_callback(StepReport(title, images, run.say, run.progress if run.show_bar else None))
    trainer.add_callback(JsonlLog(run.output / "log.jsonl", stage.name))
    trainer.add_callback(StopAtNoNumber(trainer.watch, stage.name, folder))
    if run.answers is not None and stage.answer_weight:
        trainer.answers = AnswerValidation(run.answers, run.processor, stage, number)
        trainer.add_callback(trainer.answers)
    return trainer


def _is_recomputing(run: _Run, stage: StageConfig) -> bool:
    """Whether the stage throws activations away; `auto` does where its estimate is more than the device has left."""
    first = next(run.model.parameters())
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    needed = None
    is_composed = run.config.model.huggingface is None
    if run.config.gradient_checkpointing == "auto" and is_composed and _is_large(run.model):
        alone = run.config.model_copy(update={"stages": (stage,)})
        memory = estimate(alone, is_cpu=device.type == "cpu").stages[0].memory()
        needed = memory.peak - (memory.weights if first.device.type == device.type else 0)
    return checkpointing.is_wanted(run.config.gradient_checkpointing, needed, checkpointing.free_memory(device))


def _is_large(model: Any) -> bool:
    """Whether a model's memory is worth an estimate, which takes a second or two."""
    return sum(p.numel() for p in model.parameters()) > _SURELY_SMALL


def _failures_named(run: _Run, number: int, trainer: GastroTrainer) -> AbstractContextManager[None]:
    """What goes wrong inside becomes an error of ours, with advice for this stage on this machine."""
    stage = run.config.stages[number - 1]
    folder = run.stage_folder(number)
    return named_failures(
        stage.name, folder, trainer.watch, lambda: trainer.state.global_step, lambda: advice_here(run.config, stage)
    )


def _is_score_due(trainer: GastroTrainer) -> bool:
    """Whether the last step still lacks a validation; newer transformers have one there by themselves."""
    last = [entry for entry in trainer.state.log_history if entry.get("step") == trainer.state.global_step]
    if trainer.answers is not None and not any(SECONDS in entry for entry in last):
        trainer.answers.is_due = True
        return True
    return trainer.eval_dataset is not None and not any(name.startswith("eval_") for entry in last for name in entry)


def _kept_parts(stage: StageConfig, trainer: GastroTrainer) -> list[tuple[RowDataset, str]]:
    """The datasets of a stage whose rows a frozen tower need see once only, with what to call the work."""
    named = ((trainer.train_dataset, "training images"), (trainer.eval_dataset, "validation images"))
    return [
        (part, f"tower on {what}") for part, what in named if isinstance(part, RowDataset) and may_keep(stage, part)
    ]


def _filler(run: _Run, stage: StageConfig, trainer: GastroTrainer) -> FeatureFiller | None:
    """Give the datasets of a stage what the frozen tower says of their images, where that holds for the whole stage."""
    parts = _kept_parts(stage, trainer)
    if run.cache is None or not parts or isinstance(run.processor, ForeignProcessor):  # tower and connector in one
        return None
    args, is_mixed = trainer.args, run.config.precision == "bfloat16"
    model = adapters.inner(run.model)
    if next(model.parameters()).device != args.device:
        model.to(args.device)
    filler = FeatureFiller(
        model,
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
