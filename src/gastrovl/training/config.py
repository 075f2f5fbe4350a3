"""The YAML of a training run: a model, its data, and a list of stages that each say what trains and at what rate."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field, model_validator

from gastrovl.core.config import Config
from gastrovl.core.types import Task
from gastrovl.model.config import ModelConfig
from gastrovl.model.shared_prefix import Backend

Positive = Annotated[float, Field(gt=0)]


class Part(StrEnum):
    """A part of the model that a stage can open. `lora` are the adapters on the language model."""

    VISION = "vision"
    PROJECTOR = "projector"
    LANGUAGE = "language"
    LORA = "lora"


class AugmentConfig(Config):
    """Random views of a training image; boxes in questions and answers move along.

    Attributes:
        flip: Mirror left to right and top to bottom, each with probability one half.
        smallest_crop: Side of the smallest window as a share of the image; windows always keep every box whole.
        colour: Largest relative change of brightness, contrast and of each colour channel.
    """

    flip: bool = True
    smallest_crop: Annotated[float, Field(gt=0.2, le=1)] = 0.7
    colour: Annotated[float, Field(ge=0, lt=1)] = 0.2


class StageConfig(Config):
    """One stage.

    Attributes:
        name: Folder name of the stage's checkpoints.
        tasks: Which conversations are used.
        trains: Parts that learn; everything else is frozen.
        learning_rate: Peak after warm-up; `rates` gives single parts their own.
        epochs, steps: How long; give one.
        images_per_step: Images per optimiser step on each device; all drawn dialogues of an image share one row.
        accumulation: Batches per optimiser step.
        dialogues_per_image: Dialogues drawn anew per image and epoch; None takes all.
        repeat_several: Images with several boxes stand this many times in an epoch. They are rare, and only they teach
            that a list of labels goes on.
        warmup: Share of the steps with a rising rate; then the rate falls on a cosine to zero.
        answer_weight: Weight of the answers' cross-entropy; 0 trains tower and connector without the language model.
        contrastive_weight: Weight of an image-caption InfoNCE term (needs CAP).
        grounding_weight: Weight of the loss that makes image tokens say what they show and where (needs CLS and REC).
        cutmix: Share of the images that get a part of another one, cut at a border between cells (needs answer_weight
            0: no words are true of such an image). It breaks the shortcut from the whole frame to each of its cells.
        task_weights: Weight of a task's answer tokens; 1 when left out.
        digit_weights: Weights of the three digits of a box coordinate in an answer. The last digit is one part in a
            thousand, mostly noise that a short training should not spend its gradient on.
    """

    name: Annotated[str, Field(pattern="^[a-z0-9-]+$")]
    tasks: tuple[Task, ...] = Field(min_length=1)
    trains: tuple[Part, ...] = Field(min_length=1)
    learning_rate: Positive
    rates: dict[Part, Positive] = Field(default_factory=dict)
    epochs: Positive | None = None
    steps: Annotated[int, Field(gt=0)] | None = None
    images_per_step: Annotated[int, Field(gt=0)] = 16
    accumulation: Annotated[int, Field(gt=0)] = 1
    dialogues_per_image: Annotated[int, Field(gt=0)] | None = None
    repeat_several: Annotated[int, Field(gt=0)] = 1
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.03
    weight_decay: Annotated[float, Field(ge=0)] = 0.05
    answer_weight: Annotated[float, Field(ge=0)] = 1.0
    contrastive_weight: Annotated[float, Field(ge=0)] = 0.0
    grounding_weight: Annotated[float, Field(ge=0)] = 0.0
    cutmix: Annotated[float, Field(ge=0, le=1)] = 0.0
    task_weights: dict[Task, Positive] = Field(default_factory=dict)
    digit_weights: tuple[Positive, Positive, Positive] = (1.0, 1.0, 1.0)

    @model_validator(mode="after")
    def _check(self) -> StageConfig:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError(f"stage {self.name!r}: give either `epochs` or `steps`")
        if closed := set(self.rates) - set(self.trains):
            raise ValueError(f"stage {self.name!r}: rates for parts that do not train: {', '.join(sorted(closed))}")
        if self.contrastive_weight and Task.CAP not in self.tasks:
            raise ValueError(f"stage {self.name!r}: contrastive_weight needs CAP among the tasks")
        if self.cutmix and (self.answer_weight or self.contrastive_weight or not self.grounding_weight):
            raise ValueError(
                f"stage {self.name!r}: cutmix needs answer_weight 0, no contrastive_weight and a grounding_weight: "
                "no words are true of a mixed image"
            )
        if not (self.answer_weight or self.contrastive_weight or self.grounding_weight):
            raise ValueError(f"stage {self.name!r}: every loss has weight 0")
        return self


class TrainConfig(Config):
    """A whole run.

    Attributes:
        name: Stands in the checkpoint and in every prediction.
        train, val: JSONL files of conversations; images are found relative to each file's folder.
        start_from: A checkpoint folder to go on from, instead of a new model.
        precision: `bfloat16` computes in mixed precision; weights stay float32.
        evaluate_every, save_every, log_every: Optimiser steps between validation, saved states, log lines.
        val_images: At most this many validation images (seeded draw); None takes all.
        feature_cache_mb: A frozen tower runs once per unaugmented image and what it said is kept
            in memory, unless that takes more than this many MB; 0 never does.
        attention: How packed rows are attended: `groups` (dense products, for CPUs), `flex` (FlexAttention, for GPUs),
            `mask` (anywhere). `auto` takes groups on a CPU, on a GPU flex where a trial succeeds, and mask otherwise.
        workers: Processes that prepare batches; 0 prepares in the main process.
    """

    name: str
    model: ModelConfig
    train: str | None = None
    val: str | None = None
    start_from: str | None = None
    stages: tuple[StageConfig, ...] = Field(min_length=1)
    augment: AugmentConfig | None = None
    seed: int = 7
    precision: Literal["float32", "bfloat16"] = "float32"
    evaluate_every: Annotated[int, Field(gt=0)] | None = None
    save_every: Annotated[int, Field(gt=0)] | None = None
    log_every: Annotated[int, Field(gt=0)] = 10
    val_images: Annotated[int, Field(gt=0)] | None = None
    attention: Backend = Backend.AUTO
    workers: Annotated[int, Field(ge=0)] = 0
    feature_cache_mb: Annotated[int, Field(ge=0)] = 2048
    max_length: Annotated[int, Field(gt=0)] = 2048

    @model_validator(mode="after")
    def _check(self) -> TrainConfig:
        names = [stage.name for stage in self.stages]
        if len(set(names)) != len(names):
            raise ValueError(f"stages share a name: {names}")
        has_lora = any(Part.LORA in stage.trains for stage in self.stages)
        if any(Part.LORA in stage.trains and Part.LANGUAGE in stage.trains for stage in self.stages):
            raise ValueError("a stage trains either `lora` or `language`, not both")
        if has_lora and self.model.preset is None and self.model.lora is None:
            raise ValueError("a stage trains `lora`, but the model describes none (model.lora)")
        return self
