"""One stage of a run: what opens, what is kept of the tower, the trainer, and the weights it ends with."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PrinterCallback

from gastrovl.core.errors import ConfigError
from gastrovl.core.types import Conversation
from gastrovl.model import adapters, checkpointing
from gastrovl.model.processor import GastroVLProcessor
from gastrovl.model.published.processor import ForeignProcessor
from gastrovl.model.quantise import load_weights, save_weights
from gastrovl.training.arguments import training_arguments
from gastrovl.training.cache.features import FeatureFiller, may_keep
from gastrovl.training.cache.store import FeatureCache
from gastrovl.training.config import StageConfig, TrainConfig
from gastrovl.training.distributed import sharded
from gastrovl.training.distributed.steps import plan_steps
from gastrovl.training.distributed.team import Team
from gastrovl.training.guards import (
    StopAtNoNumber,
    named_failures,
)
from gastrovl.training.planning.estimate import advice_here, estimate
from gastrovl.training.rewarded.trainer import RewardedTrainer
from gastrovl.training.rows.dataset import RowDataset
from gastrovl.training.rows.grounding import TermIndex
from gastrovl.training.rows.images import ImageStore
from gastrovl.training.rows.perception import PerceptionRows
from gastrovl.training.runfolder import DONE, check_step, cut_log, is_last_step, last_state
from gastrovl.training.stages import describe, open_parts
from gastrovl.training.start import start_model
from gastrovl.training.trainer import GastroTrainer
from gastrovl.training.watching.generation import (
    SECONDS,
    AnswerSource,
    AnswerValidation,
)
from gastrovl.training.watching.joblog import JsonlLog
from gastrovl.training.watching.progress import StepReport
from gastrovl.training.watching.trackers import tracked

Say = Callable[[str], None]
Progress = Callable[[str, int, int], None]

_SURELY_SMALL = 50_000_000  # parameters; a smaller model fits wherever PyTorch does


@dataclass(frozen=True)
class Split:
    """One split of the data: its conversations and where its images are kept."""

    conversations: Sequence[Conversation]
    images: ImageStore


@dataclass
class Run:
    """What all stages of a run share; `model` is replaced behind a stage that laid it in pieces."""

    config: TrainConfig
    output: Path
    model: Any
    processor: GastroVLProcessor
    train_part: Split
    val_part: Split | None
    show_bar: bool
    say: Say
    answers: AnswerSource | None
    progress: Progress | None
    cache: FeatureCache | None
    team: Team

    def stage_folder(self, number: int) -> Path:
        """Where the states and weights of the `number`-th stage lie, counted from 1."""
        return self.output / "stages" / f"{number}-{self.config.stages[number - 1].name}"


def run_stage(run: Run, number: int) -> None:
    """Train one stage."""
    stage, folder = run.config.stages[number - 1], run.stage_folder(number)
    if run.team.first((folder / DONE).is_file):
        load_weights(run.model, folder / DONE)
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
        last = run.team.first(lambda: _prepare_folder(run, stage, folder))
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
            if sharded.is_sharded(trainer.accelerator):
                _hand_over(run, trainer, folder)
            else:
                run.team.first(lambda: _close_folder(folder, trainer.accelerator.unwrap_model(trainer.model)))


def _prepare_folder(run: Run, stage: StageConfig, folder: Path) -> str | None:
    """The saved state a stage goes on from, if there is one; checks that it fits and drops log lines behind it."""
    last = last_state(folder)
    check_step(folder, plan_steps(stage, run.team.size), last)
    cut_log(run.output / "log.jsonl", stage.name, last)
    return last


def _hand_over(run: Run, trainer: GastroTrainer, folder: Path) -> None:
    """End a stage whose model lies in pieces: the next one starts from a whole model with the stage's weights."""
    state = sharded.whole_state(trainer.model_wrapped, trainer.accelerator)
    attention = adapters.inner(run.model).packed_attention
    sharded.expect_whole_models()
    run.model, _ = start_model(run.config)
    adapters.inner(run.model).packed_attention = attention

    def keep() -> None:
        run.model.load_state_dict(state)
        _close_folder(folder, run.model)

    run.team.first(keep)
    load_weights(run.model, folder / DONE)


def _close_folder(folder: Path, model: Any) -> None:
    """Keep a trained stage's weights and remove its saved states."""
    partial = folder / "weights.partial.safetensors"
    save_weights(model, partial)
    partial.replace(folder / DONE)
    for state in folder.glob("checkpoint-*"):
        shutil.rmtree(state)
    for kept in folder.glob("best-*.safetensors"):
        kept.unlink()


def _trainer(run: Run, number: int) -> GastroTrainer:
    """The trainer of one stage, with its data."""
    config, stage, folder = run.config, run.config.stages[number - 1], run.stage_folder(number)
    seed = config.seed + 1000 * number
    plan = plan_steps(stage, run.team.size)
    model, terms, grid_side = adapters.inner(run.model), None, 0
    if stage.grounding_weight or stage.perception_weight:
        terms = TermIndex(run.train_part.conversations)
    if stage.grounding_weight:
        grid_side = math.isqrt(model.grounding.cells)
    if stage.perception_weight and model.perception is None:
        raise ConfigError(
            f"stage {stage.name!r}: perception_weight needs a model with a perception head; add "
            "`perception: {}` to `model`, and with `start_from` begin from a checkpoint that has one"
        )

    def dataset(part: Split, is_training: bool) -> RowDataset:
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
            perception=PerceptionRows(terms, part.images, model.perception.fine_side)
            if terms and stage.perception_weight
            else None,
            cached_views=config.cached_views,
            view_seed=config.seed,
        )

    kind = RewardedTrainer if stage.reward else GastroTrainer
    trainer = kind(
        run.model,
        training_arguments(stage, config, folder, seed, plan),
        stage,
        dataset(run.train_part, True),
        dataset(run.val_part, False) if run.val_part else None,
        plan,
    )
    trainer.remove_callback(PrinterCallback)
    title = f"{number}/{len(config.stages)} {stage.name}"
    trainer.add_callback(StepReport(title, plan.images, run.say, run.progress if run.show_bar else None))
    trainer.add_callback(JsonlLog(run.output / "log.jsonl", stage.name))
    trainer.add_callback(StopAtNoNumber(trainer.watch, stage.name, folder))
    if run.answers is not None and stage.answer_weight:
        sharded.check_whole(trainer.accelerator, stage.name, ["validate_answers"])  # one process answers alone
        trainer.answers = AnswerValidation(run.answers, run.processor, stage, number)
        trainer.add_callback(trainer.answers)
    return trainer


def _is_recomputing(run: Run, stage: StageConfig) -> bool:
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


def _failures_named(run: Run, number: int, trainer: GastroTrainer) -> AbstractContextManager[None]:
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


def _filler(run: Run, stage: StageConfig, trainer: GastroTrainer) -> FeatureFiller | None:
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
