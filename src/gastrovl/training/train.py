"""A training run: stages one after the other, each resumable, ending in a checkpoint folder."""

from __future__ import annotations

import os
import random
import shutil
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from gastrovl.core.errors import ConfigError, MissingExtraError, RecordError
from gastrovl.core.files import write_text
from gastrovl.core.manifest import write_manifest
from gastrovl.core.types import Conversation, Task
from gastrovl.model import adapters
from gastrovl.model.checkpoint import read_card, save_checkpoint
from gastrovl.model.published.processor import ForeignProcessor
from gastrovl.training.cache.store import FeatureCache
from gastrovl.training.config import TrainConfig
from gastrovl.training.distributed.team import Team, joined
from gastrovl.training.guards import (
    check_space,
    space_needed,
    writing_checkpoint,
)
from gastrovl.training.inputs import begin_or_check_inputs
from gastrovl.training.publishing.model_card import write_facts, write_model_card
from gastrovl.training.rows.dataset import cached_side, load_conversations
from gastrovl.training.rows.grounding import TermIndex
from gastrovl.training.rows.images import ImageStore
from gastrovl.training.runfolder import check_output, input_hashes
from gastrovl.training.stagerun import Run, Split, run_stage
from gastrovl.training.start import choose_attention, start_model
from gastrovl.training.watching.generation import (
    AnswerSource,
    ScoreAnswers,
    chosen_questions,
    last_scores,
)
from gastrovl.training.watching.picture import save_picture
from gastrovl.training.watching.trackers import check_trackers

Say = Callable[[str], None]
Progress = Callable[[str, int, int], None]


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

    Under `torchrun` or `accelerate launch` every process calls this; the first one says what happens and writes.

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
        PeerError: Another process of the run has ended.
    """
    with joined() as team:
        if team.is_first:
            return _train(config, Path(output), resume, show_bar, say, progress, score_answers, team)
        return _train(config, Path(output), resume, False, _nothing, None, score_answers, team)


def _train(
    config: TrainConfig,
    output: Path,
    resume: bool,
    show_bar: bool,
    say: Say,
    progress: Progress | None,
    score_answers: ScoreAnswers | None,
    team: Team,
) -> Path:
    check_trackers(config.trackers)
    if config.train is None:
        raise ConfigError("train: no conversations given; set `train:` to a JSONL file of conversations")
    if config.val is None and any(stage.early_stop for stage in config.stages):
        raise ConfigError("early_stop needs validation conversations; set `val:` to a JSONL file, or leave it out")
    train_set = load_conversations(Path(config.train))
    val_set = _some_images(load_conversations(Path(config.val)), config) if config.val else []
    answers = _answer_source(config, output, score_answers, say)
    team.first(lambda: check_output(output, config, resume))
    model, processor = start_model(config)
    say(
        f"model {config.name}: {sum(p.numel() for p in model.parameters()) / 1e6:.1f} M parameters, "
        f"{processor.image_tokens} image tokens, vocabulary {len(processor.tokenizer)}"
    )
    choose_attention(model, config, say)
    has_cache = config.feature_cache_gb > 0 and not isinstance(processor, ForeignProcessor)  # their tower is one piece
    is_frozen = has_cache and not any(stage.trains_tower for stage in config.stages)
    is_whole = (config.cached_views or not config.augment) and not any(
        stage.cutmix or stage.paste for stage in config.stages
    )
    side = cached_side(processor, config.augment)
    train_part = Split(train_set, ImageStore(Path(config.train).parent, side, processor, config.image_memory_mb))
    _read_images(train_part, Path(config.train), progress, is_decoded=not (is_frozen and is_whole))
    val_part = None
    if val_set and config.val:
        side = processor.image_size_px
        val_part = Split(val_set, ImageStore(Path(config.val).parent, side, processor, config.image_memory_mb))
        _read_images(val_part, Path(config.val), progress, is_decoded=not is_frozen)
    team.first(lambda: check_space(output, space_needed(config, model)))
    team.first(lambda: begin_or_check_inputs(output, config, processor.tokenizer))
    # from here on there is a run to resume
    team.first(lambda: write_text(output / "run.json", config.model_dump_json(indent=2) + "\n"))
    cache = None
    if has_cache:
        cache = FeatureCache(
            Path(config.feature_cache or output.parent / "feature-cache"), round(config.feature_cache_gb * 1e9)
        )
    has_bar = show_bar and sys.stderr.isatty()
    run = Run(config, output, model, processor, train_part, val_part, has_bar, say, answers, progress, cache, team)
    for number in range(1, len(config.stages) + 1):
        run_stage(run, number)
    team.first(lambda: _finish(run))
    return output


def _finish(run: Run) -> None:
    """Write the checkpoint of a trained model, and then take the stages away."""
    config, output = run.config, run.output
    model = adapters.merge(run.model)
    model.drop_grounding_head()
    model.drop_contrastive_head()
    parts = ((config.train, run.train_part), (config.val, run.val_part))
    used = {path: part.conversations for path, part in parts if path and part}
    with writing_checkpoint(output):
        save_checkpoint(output, model, run.processor, config.name, **_perceives(run))
        write_facts(output, config, used, _hardware())
        write_manifest(
            output, stage="train", config=config.model_dump(mode="json"), seed=config.seed, inputs=input_hashes(config)
        )
        _describe_run(output, run.say)
    shutil.rmtree(output / "stages")  # last: until the manifest stands, a resumed run needs them


def _perceives(run: Run) -> dict[str, Any]:
    """What the card says of a perception head: what this run taught it, or else the one that the run began with."""
    taught = [stage for stage in run.config.stages if stage.perception_weight]
    before = read_card(Path(run.config.start_from)) if run.config.start_from else None
    if not taught:
        return {"recognised": before.recognised, "locates": before.locates} if before else {}
    locates = any(stage.answer_weight and Task.REC in stage.tasks for stage in taught)
    terms = TermIndex(run.train_part.conversations)
    return {
        "recognised": dict(zip(terms.terms, terms.names, strict=True)),
        "locates": locates or (before is not None and before.locates),
    }


def _nothing(_: str) -> None:
    """What processes say that are not the first."""


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


def _read_images(part: Split, file: Path, progress: Progress | None, *, is_decoded: bool) -> None:
    """Look at every image before the first step; they are decoded unless what the tower said of them may do."""
    paths = sorted({conversation.image.path for conversation in part.conversations})
    told = (lambda done, total: progress(f"reading images of {file.name}", done, total)) if progress else None
    (part.images.load if is_decoded else part.images.hash)(paths, told)
