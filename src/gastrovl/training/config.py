"""The YAML of a training run: a model, its data, and a list of stages that each say what trains and at what rate."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field, model_validator

from gastrovl.core.config import Config
from gastrovl.core.types import Task
from gastrovl.model.config import ModelConfig
from gastrovl.model.contrastive import ContrastiveKind
from gastrovl.model.packed.shared_prefix import Backend
from gastrovl.model.quantise import Kind as Quantisation
from gastrovl.training.rows.operations import OPERATIONS
from gastrovl.training.watching.trackers import TrackerName, TrackingConfig

LengthWeighting = Literal["token", "sqrt", "dialogue"]
Positive = Annotated[float, Field(gt=0)]


class Part(StrEnum):
    """A part of the model that a stage can open.

    `vision_2` is the second tower, `lora` are the adapters on the language model, `perception` is the head for boxes,
    presence and names.
    """

    VISION = "vision"
    VISION_2 = "vision_2"
    PROJECTOR = "projector"
    LANGUAGE = "language"
    LORA = "lora"
    PERCEPTION = "perception"


TOWERS = frozenset({Part.VISION, Part.VISION_2})


class AugmentConfig(Config):
    """Random views of a training image; boxes in questions and answers move along.

    Attributes:
        flip: Mirror left to right and top to bottom, each with probability one half.
        smallest_crop: Side of the smallest window as a share of the image.
        least_kept: Share of each box, along each side, that a window has to keep; what it cuts off is cut off the box.
            1 keeps every box whole, so frames that a finding fills are hardly ever cropped. Lower suits findings that
            are areas of mucosa and not things.
        colour: Largest relative change of brightness, contrast and of each colour channel.
        operations: Further changes, each with its probability, in this order: `turn` (by quarters), `letterbox`
            (smaller, in black), `highlights` (white reflections), `narrow_band` (white light as narrow-band imaging
            shows it, roughly), and what `operations.register` has added.
    """

    flip: bool = True
    smallest_crop: Annotated[float, Field(gt=0.2, le=1)] = 0.7
    least_kept: Annotated[float, Field(gt=0, le=1)] = 1.0
    colour: Annotated[float, Field(ge=0, lt=1)] = 0.2
    operations: dict[str, Annotated[float, Field(ge=0, le=1)]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _check(self) -> AugmentConfig:
        if unknown := set(self.operations) - set(OPERATIONS):
            raise ValueError(
                f"no augmentation is called {', '.join(sorted(unknown))}; known: {', '.join(sorted(OPERATIONS))}"
            )
        return self


class SamplingConfig(Config):
    """Which images and dialogues an epoch shows how often (see `sampling`).

    Attributes:
        temperature: 1 shows the data as they are; the higher, the more alike rare and common strata come up.
        by: What makes a stratum, together.
    """

    temperature: Annotated[float, Field(ge=1)]
    by: tuple[Literal["task", "class", "source"], ...] = Field(default=("task", "class", "source"), min_length=1)


class EarlyStopConfig(Config):
    """When a stage ends before its time, and with which weights.

    Attributes:
        metric: A validation score, such as `loss`, `rec_iou` or `cls_exact`; of a loss the lowest is best, of any other
            score the highest. The best weights are kept, whether the stage ended early or not.
        patience: Validations in a row that are no better, after which the stage ends.
        min_delta: What a better one has to gain at least.
    """

    metric: str = Field(min_length=1)
    patience: Annotated[int, Field(gt=0)] = 3
    min_delta: Annotated[float, Field(ge=0)] = 0.0


class RewardConfig(Config):
    """How a stage learns from the model's own replies in the place of given ones (see `rewarded`).

    Attributes:
        group: Replies sampled to each question; each is compared with their mean.
        temperature: Of sampling, and of the policy that learns.
        kl: Weight of the divergence from the model as it was when the stage began; 0 leaves it out.
        max_new_tokens: Longest reply; one that has not ended by then cannot be read. A box of digits takes 18.
        parse: Earned by every reply that can be read.
        penalty: Lost by an unreadable reply, by "absent" where the object is there, and by boxes where it is not.
        sharpness: Exponent of the overlap, which is in [0, 1]; above 1 a good box gains more on a fair one.
    """

    group: Annotated[int, Field(ge=2)] = 8
    temperature: Positive = 1.0
    kl: Annotated[float, Field(ge=0)] = 0.02
    max_new_tokens: Annotated[int, Field(gt=0)] = 96
    parse: Annotated[float, Field(ge=0)] = 0.1
    penalty: Annotated[float, Field(ge=0)] = 0.5
    sharpness: Positive = 1.0


_UNREWARDED = {  # what a stage with `reward` has to leave as it is: no given answer is learnt there, and no head
    "answer_weight": 1.0,
    "contrastive_weight": 0.0,
    "grounding_weight": 0.0,
    "perception_weight": 0.0,
    "cutmix": 0.0,
    "task_weights": {},
    "digit_weights": (1.0, 1.0, 1.0),
    "length_weighting": "token",
}


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
        contrastive_weight: Weight of a loss that draws images and their captions together (needs CAP).
        grounding_weight: Weight of the loss that makes image tokens say what they show and where (needs CLS and REC).
        perception_weight: Weight of the perception head's loss: masks, boxes, presence and names of regions (needs REC,
            and a model with `perception`; CLS and REG add presence and names). With `answer_weight`, REC questions
            are asked of it in their own words too, and without by the terms' names alone.
        cutmix: Share of the images that get a part of another one, cut at a border between cells (needs answer_weight
            0: no words are true of such an image). It breaks the shortcut from the whole frame to each of its cells.
        paste: Share of the images that get a lesion of another image of their source, cut out by its mask, where they
            are known to show none of its term; the rarer a term, the more often (needs answer_weight 0, too). Masks,
            boxes and what is known to be absent follow.
        task_weights: Weight of a task's answer tokens; 1 when left out.
        digit_weights: Weights of the three digits of a box coordinate in an answer. The last digit is one part in a
            thousand, mostly noise that a short training should not spend its gradient on.
        contrastive: `infonce` (CLIP) or `sigmoid` (SigLIP), against the captions of all processes, with a temperature
            (and bias) that trains with the projector and is not kept. Equal captions are not held against each other.
        layers: Of a tower or `language`, only these blocks train, as a slice: `{language: "-4:", vision: "-2:"}` opens
            the last four and the last two; embeddings, final norms and the output layer stay closed. Blocks of a
            convolutional tower are its stages; blocks behind `feature_layer` do not count.
        ema: Share of itself that a running average of the weights keeps each step, such as 0.999; the average is
            validated and kept. None keeps the weights themselves.
        sampling: Show images and dialogues of rare tasks, classes and sources more often; None shows each image once.
        length_weighting: Whether each answer token counts alike (`token`), each dialogue (`dialogue`), or something
            between (`sqrt`): a caption of 60 tokens drowns a label of 2.
        early_stop: Ends the stage when a validation score no longer improves, with the best weights.
        global_images_per_step: Images per optimiser step over all devices, in place of `accumulation`: batches of
            `images_per_step` or somewhat fewer are added up. Then steps do not depend on the number of devices, and a
            run may go on with another number.
        reward: Learn from what the model's own boxes are worth, in the place of given answers; for REC alone, behind a
            stage that has taught the model to answer.
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
    perception_weight: Annotated[float, Field(ge=0)] = 0.0
    cutmix: Annotated[float, Field(ge=0, le=1)] = 0.0
    paste: Annotated[float, Field(ge=0, le=1)] = 0.0
    task_weights: dict[Task, Positive] = Field(default_factory=dict)
    digit_weights: tuple[Positive, Positive, Positive] = (1.0, 1.0, 1.0)
    contrastive: ContrastiveKind = "infonce"
    layers: dict[Part, Annotated[str, Field(pattern=r"^(-?\d+)?:(-?\d+)?$")]] = Field(default_factory=dict)
    ema: Annotated[float, Field(gt=0, lt=1)] | None = None
    early_stop: EarlyStopConfig | None = None
    sampling: SamplingConfig | None = None
    length_weighting: LengthWeighting = "token"
    global_images_per_step: Annotated[int, Field(gt=0)] | None = None
    reward: RewardConfig | None = None

    @property
    def trains_tower(self) -> bool:
        """Whether what a vision tower says of an image changes during the stage."""
        return not TOWERS.isdisjoint(self.trains)

    @model_validator(mode="after")
    def _check(self) -> StageConfig:
        if self.global_images_per_step is not None and self.accumulation != 1:
            raise ValueError(
                f"stage {self.name!r}: give either `accumulation` or `global_images_per_step`, from which it follows"
            )
        if (self.epochs is None) == (self.steps is None):
            raise ValueError(f"stage {self.name!r}: give either `epochs` or `steps`")
        if closed := set(self.rates) - set(self.trains):
            raise ValueError(f"stage {self.name!r}: rates for parts that do not train: {', '.join(sorted(closed))}")
        if others := set(self.layers) - ({*self.trains} & {*TOWERS, Part.LANGUAGE}):
            raise ValueError(
                f"stage {self.name!r}: layers of {', '.join(sorted(others))}; expected a tower or `language`, "
                "and the part among those that train"
            )
        if self.sampling and self.repeat_several > 1:
            raise ValueError(f"stage {self.name!r}: give either `sampling` or `repeat_several`; both repeat images")
        if self.contrastive_weight and Task.CAP not in self.tasks:
            raise ValueError(f"stage {self.name!r}: contrastive_weight needs CAP among the tasks")
        if self.cutmix and (self.answer_weight or self.contrastive_weight or not self.grounding_weight):
            raise ValueError(
                f"stage {self.name!r}: cutmix needs answer_weight 0, no contrastive_weight and a grounding_weight: "
                "no words are true of a mixed image"
            )
        if self.cutmix and self.perception_weight:
            raise ValueError(f"stage {self.name!r}: cutmix cuts through masks, which perception_weight needs whole")
        if self.paste and (self.answer_weight or self.contrastive_weight or self.cutmix):
            raise ValueError(
                f"stage {self.name!r}: paste needs answer_weight 0, no contrastive_weight and no cutmix: no words are "
                "true of an image with a lesion pasted into it"
            )
        if not (self.answer_weight or self.contrastive_weight or self.grounding_weight or self.perception_weight):
            raise ValueError(f"stage {self.name!r}: every loss has weight 0")
        if self.reward:
            self._check_reward()
        return self

    def _check_reward(self) -> None:
        if self.tasks != (Task.REC,):
            raise ValueError(
                f"stage {self.name!r}: reward is known for boxes alone; found tasks {', '.join(self.tasks)}, expected "
                "tasks: [REC]"
            )
        if idle := [name for name, default in _UNREWARDED.items() if getattr(self, name) != default]:
            raise ValueError(
                f"stage {self.name!r}: {', '.join(idle)} cannot be set beside reward: the model learns from its own "
                "replies there, not from given answers or heads; leave it out, or put it into another stage"
            )
        if Part.PERCEPTION in self.trains:
            raise ValueError(
                f"stage {self.name!r}: trains `perception`, which a reward for words does not reach; leave it out"
            )


class AnswerConfig(Config):
    """Validation by generation: the model answers, and the evaluation stage scores what it said.

    Attributes:
        every: Optimiser steps between two; the last step of a stage has one too.
        images: At most this many validation images (seeded draw); None takes all.
        tasks: What is asked; None asks for the tasks of the stage.
        batch_size: Questions answered at a time.
    """

    every: Annotated[int, Field(gt=0)]
    images: Annotated[int, Field(gt=0)] | None = 200
    tasks: tuple[Task, ...] | None = None
    batch_size: Annotated[int, Field(gt=0)] = 32


class TrainConfig(Config):
    """A whole run.

    Attributes:
        name: Stands in the checkpoint and in every prediction.
        train, val: JSONL files of conversations; images are found relative to each file's folder.
        start_from: A checkpoint folder to go on from, instead of a new model.
        precision: `bfloat16` computes in mixed precision; weights stay float32.
        evaluate_every, save_every, log_every: Optimiser steps between validation, saved states, log lines.
        val_images: At most this many validation images (seeded draw); None takes all.
        attention: How packed rows are attended: `groups` (dense products, for CPUs), `flex` (FlexAttention, for GPUs),
            `mask` (anywhere). `auto` takes, on a CPU, groups where rows differ much in
            length; on a GPU flex where a trial succeeds; and mask otherwise.
        workers: Processes that prepare batches; 0 prepares in the main process.
        gradient_checkpointing: Throw the blocks' activations away and work them out again in the backward pass: true,
            false, or `auto`, where a stage would not fit into memory otherwise.
        feature_cache: Folder that keeps what frozen towers said of images, for this run and later ones; left out,
            `feature-cache` beside the run's own folder.
        feature_cache_gb: Most GB (10^9 bytes) in that folder; what lay unused longest goes first. 0 keeps nothing.
        cached_views: With `augment` and a frozen tower, the views of each image that are drawn once and whose features
            are kept; every epoch shows one of them. 0 draws views anew, and the tower runs on each.
        image_memory_mb: Most MB (2^20 bytes) of decoded images in memory; those beyond are decoded again when needed.
        quantise: Round the frozen language model to `nf4` (4 bits) or `int8` while adapters learn (QLoRA); the
            checkpoint holds floats again. Needs the extra `quant`.
        trackers: Which of `tensorboard`, `wandb` and `mlflow` get losses and scores; each stage is a run of its own.
        tracking: Where they keep them.
        validate_answers: When the model answers validation questions in full, and which; None never does.
        licence: Of the weights, as the model card states it; None says that it is unknown.
        push_to_hub: Repository on the Hugging Face Hub, OWNER/NAME, that `gastrovl train --push` sends the checkpoint
            to, private; without that flag nothing is sent.
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
    max_length: Annotated[int, Field(gt=0)] = 2048
    gradient_checkpointing: Literal["auto"] | bool = "auto"
    feature_cache: str | None = None
    feature_cache_gb: Annotated[float, Field(ge=0)] = 20.0
    cached_views: Annotated[int, Field(ge=0)] = 0
    image_memory_mb: Annotated[int, Field(ge=0)] = 2048
    quantise: Quantisation | None = None
    trackers: tuple[TrackerName, ...] = ("tensorboard",)
    tracking: TrackingConfig = TrackingConfig()
    validate_answers: AnswerConfig | None = None
    licence: str | None = None
    push_to_hub: Annotated[str, Field(pattern=r"^[\w.-]+/[\w.-]+$")] | None = None

    @model_validator(mode="after")
    def _check(self) -> TrainConfig:
        names = [stage.name for stage in self.stages]
        if len(set(names)) != len(names):
            raise ValueError(f"stages share a name: {names}")
        has_lora = any(Part.LORA in stage.trains for stage in self.stages)
        whole = [{*stage.trains} - {*stage.layers} for stage in self.stages]
        if any({Part.LORA, Part.LANGUAGE} <= parts for parts in whole):
            raise ValueError(
                "a stage trains either `lora` or `language`, not both; with `layers` some blocks open beside lora"
            )
        if self.evaluate_every is None and any(stage.early_stop for stage in self.stages):
            raise ValueError("early_stop needs validations: set `evaluate_every` to a number of steps, and `val`")
        if self.quantise and any(Part.LANGUAGE in stage.trains for stage in self.stages):
            raise ValueError("quantise keeps the language model frozen; train `lora` in the place of `language`")
        if has_lora and self.model.preset is None and self.model.lora is None:
            raise ValueError("a stage trains `lora`, but the model describes none (model.lora)")
        if self.cached_views and not (self.augment and self.feature_cache_gb):
            raise ValueError("cached_views needs `augment`, which draws the views, and a feature_cache_gb to keep them")
        if self.validate_answers and self.validate_answers.tasks == ():
            raise ValueError("validate_answers.tasks is empty; name some, or leave it out for those of the stage")
        return self
