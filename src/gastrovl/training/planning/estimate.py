"""A training config to its plan: what each stage needs, before anything is downloaded or allocated."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from gastrovl.core.errors import ConfigError, GastroVLError
from gastrovl.core.types import Conversation
from gastrovl.model import adapters
from gastrovl.model.checkpoint import build_model, checkpoint_shape
from gastrovl.model.config import ModelConfig, PartConfig
from gastrovl.model.packed.answerloss import CHUNK_BYTES
from gastrovl.model.presets import PRESETS, resolve
from gastrovl.model.processor import GastroVLProcessor
from gastrovl.model.tokenizer import SHIPPED
from gastrovl.training.config import Part, StageConfig, TrainConfig
from gastrovl.training.planning.advice import advice
from gastrovl.training.planning.devices import memory_here
from gastrovl.training.planning.footprint import footprint
from gastrovl.training.planning.lengths import ASSUMED_IMAGES, SAMPLE, assumed_lengths, measured_lengths
from gastrovl.training.planning.plan import BATCH_SECONDS, FLOAT, HALF, UTILISATION, Plan, StagePlan
from gastrovl.training.rows.dataset import cached_side, load_conversations


@dataclass(frozen=True)
class _Inputs:
    """What is known of a run before it starts."""

    config: TrainConfig
    model: Any
    processor: GastroVLProcessor
    conversations: Sequence[Conversation]
    images: int


def estimate(
    config: TrainConfig, *, sample: int = SAMPLE, chunk_bytes: int = CHUNK_BYTES, is_cpu: bool = False
) -> Plan:
    """What a run needs; see `plan.Plan`.

    Args:
        sample: Rows that are tokenised to learn how long they are.
        chunk_bytes: Bound on the float32 logits that exist at once.
        is_cpu: Whether attention is laid out as on a CPU, instead of under a mask as on a GPU.

    Raises:
        ConfigError, RecordError, CheckpointError: As the run itself would raise it; of paths that are not here yet only
            where no preset says the shape.
    """
    assumptions: list[str] = []
    model, processor = _shape(config, assumptions)
    conversations: Sequence[Conversation] = []
    if config.train and Path(config.train).is_file():
        conversations = load_conversations(Path(config.train))
    else:
        where = f"{config.train} is not here" if config.train else "the config names no conversations (train)"
        assumptions.insert(
            0,
            f"{where}: assumed are {ASSUMED_IMAGES:,} images with one dialogue of each of the stage's tasks, 30-60 "
            "tokens each; time grows with the number of images",
        )
    images = len({one.image.path for one in conversations}) or ASSUMED_IMAGES
    inputs = _Inputs(config, model, processor, conversations, images)
    if rewarded := [stage.name for stage in config.stages if stage.reward]:
        assumptions.append(
            f"{', '.join(rewarded)}: sampling replies and asking the reference come on top, and two more copies of the "
            "open weights with them"
        )
    stages = tuple(_stage(inputs, stage, sample, chunk_bytes, is_cpu) for stage in config.stages)
    assumptions.insert(
        0,
        f"training reaches {UTILISATION:.0%} of a device's peak: the weightiest assumption, all times are inversely "
        "proportional to it. Validation, reading images and saving come on top. A batch takes "
        f"{BATCH_SECONDS * 1000:.0f} ms at least, which is what bounds small models on a GPU",
    )
    largest = max(stages, key=lambda stage: stage.cost.trainable).cost
    parameters, side = largest.parameters, cached_side(processor, config.augment)
    kept = [stage for stage in stages if stage.is_tower_cached]
    return Plan(
        name=config.name,
        precision=config.precision,
        parts=largest.parts,
        image_tokens=processor.image_tokens,
        image_size_px=processor.image_size_px,
        squares_bytes=min(images * side * side * 3, config.image_memory_mb * 2**20),
        features_bytes=images * _feature_bytes(inputs) if kept else 0,
        state_bytes=parameters * FLOAT + largest.trainable * 2 * FLOAT,
        result_bytes=(len(stages) + 1) * parameters * FLOAT,
        stages=stages,
        assumptions=tuple(assumptions),
    )


def advice_here(config: TrainConfig, stage: StageConfig) -> str:
    """What would make a stage fit on the device it runs on; never fails, for it is asked for when something else "
    "has."""
    try:
        plan = estimate(config.model_copy(update={"stages": (stage,)}), is_cpu=not torch.cuda.is_available())
        return advice(plan.stages[0], memory_here(), int(os.environ.get("WORLD_SIZE", "1")))
    except (GastroVLError, RuntimeError, ValueError):
        return "take a smaller images_per_step with more accumulation, which gives the same result"


def _stage(inputs: _Inputs, stage: StageConfig, sample: int, chunk_bytes: int, is_cpu: bool) -> StagePlan:
    config, model, processor = inputs.config, inputs.model, inputs.processor
    lengths = (
        measured_lengths(inputs.conversations, stage, config, processor, sample)
        if inputs.conversations
        else assumed_lengths(stage, processor.image_tokens)
    )
    is_cached = _is_cached(inputs, stage)
    row = lengths.laid_out if is_cpu else lengths.padded
    is_mixed = config.precision == "bfloat16"
    cost = footprint(model, stage, row, is_mixed=is_mixed, is_tower_cached=is_cached, has_layout=is_cpu)
    has_statistics = stage.trains_tower and adapters.inner(model).model.shape.is_convolutional
    return StagePlan(
        name=stage.name,
        images_per_step=stage.images_per_step,
        accumulation=stage.accumulation,
        global_images=stage.global_images_per_step,
        epochs=stage.epochs,
        steps=stage.steps,
        trains=tuple(part.value for part in stage.trains),
        is_mixed=is_mixed,
        is_checkpointed=config.gradient_checkpointing is True,
        is_tower_cached=is_cached,
        is_exact_split=not stage.contrastive_weight and not has_statistics and not stage.reward,
        is_answered=bool(stage.answer_weight),
        chunk=max(1, chunk_bytes // (FLOAT * cost.vocabulary)),
        lengths=lengths,
        row=row,
        quantised=config.quantise,
        cost=cost,
    )


def _is_cached(inputs: _Inputs, stage: StageConfig) -> bool:
    """Whether the run keeps the tower's features for this stage."""
    config = inputs.config
    is_repeated = config.augment is None or config.cached_views > 0
    is_small = inputs.images * _feature_bytes(inputs) <= config.feature_cache_gb * 1e9
    return not stage.trains_tower and not stage.cutmix and not stage.paste and is_repeated and is_small


def _feature_bytes(inputs: _Inputs) -> int:
    """Of one image, all its views."""
    shape, views = adapters.inner(inputs.model).model.shape, max(1, inputs.config.cached_views)
    return int(views * shape.tokens * shape.width * (HALF if inputs.config.precision == "bfloat16" else FLOAT))


def _shape(config: TrainConfig, assumptions: list[str]) -> tuple[Any, GastroVLProcessor]:
    """The model on the meta device with the adapters and the head that the run adds, and its processor."""
    described = resolve(config.model)
    if described.huggingface is not None:
        raise ConfigError(
            f"model.huggingface {described.huggingface}: the estimate knows composed models only; train a few steps "
            "(--set stages.0.steps=3) and look at the memory, or name a preset of like size"
        )
    if config.start_from:
        model, processor = checkpoint_shape(Path(config.start_from))
    else:
        present = _present(described, config.model, assumptions)
        words = 0
        if present.language != described.language and present.language is not None and present.language.config:
            words = int(present.language.config.get("vocab_size", 0))  # of the weights that are not here
        model, processor = build_model(present, config.seed, only_shape=True, least_words=words)
    wrapped: Any = model
    with torch.device("meta"):
        if any(Part.LORA in stage.trains for stage in config.stages):
            if described.lora is None:
                raise ConfigError("a stage trains `lora`, but neither model.lora nor the preset describes adapters")
            wrapped = adapters.add_lora(model, described.lora)
        if any(stage.grounding_weight for stage in config.stages):
            model.add_grounding_head()
        if any(stage.contrastive_weight for stage in config.stages):
            model.add_contrastive_head()
    return wrapped, processor


def _present(described: ModelConfig, said: ModelConfig, assumptions: list[str]) -> ModelConfig:
    """The description with the preset's shapes in the place of folders that are not here yet."""
    preset = PRESETS.get(said.preset or "")
    changes: dict[str, Any] = {}
    for name in ("vision", "language"):
        part: PartConfig = getattr(described, name)
        if preset is not None and part.path is not None and not (Path(part.path) / "config.json").is_file():
            changes[name] = getattr(preset, name)
            assumptions.append(f"{part.path} is not here: its shape is taken from preset {said.preset}")
    tokenizer = described.tokenizer or SHIPPED
    if tokenizer != SHIPPED and not Path(tokenizer).is_dir() and preset is not None:
        changes["tokenizer"] = SHIPPED
        assumptions.append(f"tokenizer {tokenizer} is not here: words are counted with the shipped one")
    return described.model_copy(update=changes)
