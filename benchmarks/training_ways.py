"""One model, one set of dialogues, several ways to train on them: ours, ours without one part, and two public trainers.

`benchmarks/training.py` runs each way in a process of its own through `measure`.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset
from transformers import Trainer, TrainerCallback, TrainingArguments

from gastrovl.core.images import open_image
from gastrovl.core.records import read_records
from gastrovl.core.types import Conversation, Task
from gastrovl.model import adapters, gastrovl
from gastrovl.model.checkpoint import build_model, save_checkpoint
from gastrovl.model.config import ModelConfig
from gastrovl.model.gastrovl import IGNORED
from gastrovl.model.packed import answerloss
from gastrovl.model.packed.rows import PADDING, SHARED
from gastrovl.model.packed.shared_prefix import Backend
from gastrovl.model.presets import resolve
from gastrovl.model.processor import Dialogue, GastroVLProcessor, region_boxes
from gastrovl.training.cache.features import FeatureFiller
from gastrovl.training.cache.store import FeatureCache
from gastrovl.training.config import Part, StageConfig
from gastrovl.training.rows.dataset import Collator, Row, RowDataset
from gastrovl.training.rows.images import ImageStore
from gastrovl.training.rows.packing import PackedRow
from gastrovl.training.stages import open_parts
from gastrovl.training.trainer import GastroTrainer

PRESETS = {"nano": "nano", "small": "small", "colongpt": "phi15-siglip"}
TASKS = (Task.CLS, Task.REC, Task.REG, Task.CAP)
OURS = "ours"
WITHOUT = {
    "without packing": "a row for each dialogue, the image anew in each",
    "without answer-only head": "the head runs on every position",
    "without chunks": "all answer logits exist at once",
    "without cached features": "the tower runs at every step, once per image",
    "without grouped attention": "padded rows under a dense mask, also where rows differ much in length",
    "without fused adapters": "adapters as PEFT computes them",
}
TRAINER, TRL = "transformers.Trainer", "TRL SFTTrainer"


@dataclass(frozen=True)
class Setting:
    """What all ways share.

    Attributes:
        images, dialogues: Images of an optimiser step, and dialogues of each.
        warmup, steps: Steps that are not timed, and steps that are.
        precision: `float32` or `bfloat16` (automatic mixed precision).
    """

    shape: str
    data: str
    images: int
    dialogues: int
    warmup: int
    steps: int
    precision: str

    @property
    def batch(self) -> int:
        return self.images * self.dialogues


@dataclass
class Made:
    """A model that is ready to be trained, and what it is trained on."""

    model: Any
    processor: GastroVLProcessor
    stage: StageConfig
    conversations: list[Conversation]
    images: ImageStore
    precision: str


def make(setting: Setting) -> Made:
    """The model with random weights, its parts opened as in the paper's second stage: tower frozen."""
    config = resolve(ModelConfig(preset=PRESETS[setting.shape]))
    model, processor = build_model(config, seed=1)
    trains = (Part.PROJECTOR, Part.LANGUAGE)
    if config.lora is not None:
        model = adapters.add_lora(model, config.lora.model_copy(update={"dropout": 0.0}))
        trains = (Part.PROJECTOR, Part.LORA)
    stage = StageConfig(
        name="bench",
        tasks=TASKS,
        trains=trains,
        learning_rate=1e-4,
        steps=setting.warmup + setting.steps,
        images_per_step=setting.images,
    )
    open_parts(model, stage)
    folder = Path(setting.data)
    conversations = first_dialogues(list(read_records(folder / "train.jsonl", Conversation)), setting.dialogues)
    images = ImageStore(folder, processor.image_size_px, processor)
    return Made(model.to(device()), processor, stage, conversations, images, setting.precision)


def device() -> str:
    """Where everything runs."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def first_dialogues(conversations: Sequence[Conversation], count: int) -> list[Conversation]:
    """Exactly `count` dialogues of each image that has as many, tasks in turn, each in its first wording."""
    by_image: dict[str, list[Conversation]] = {}
    for conversation in conversations:
        if conversation.task in TASKS:
            by_image.setdefault(conversation.image.path, []).append(conversation)
    kept = []
    for group in by_image.values():
        ranks = dict.fromkeys(TASKS, 0)
        places = {}
        for conversation in group:
            places[conversation.id] = (ranks[conversation.task], TASKS.index(conversation.task))
            ranks[conversation.task] += 1
        chosen = sorted(group, key=lambda conversation: places[conversation.id])[:count]
        if len(chosen) == count:
            kept += [_plain(conversation) for conversation in chosen]
    return kept


def _plain(conversation: Conversation) -> Conversation:
    turns = tuple(turn.model_copy(update={"alternatives": ()}) for turn in conversation.turns)
    return conversation.model_copy(update={"turns": turns})


def rows_of(made: Made, cache: Path | None) -> RowDataset:
    """Our dataset, a row for each image; with a folder for it, what the frozen tower says is kept there first."""
    rows = RowDataset(
        made.conversations,
        made.images,
        made.processor,
        made.stage,
        seed=7,
        max_length=4096,
        augment=None,
        is_training=True,
    )
    if cache is not None:
        is_mixed = made.precision == "bfloat16"
        filler = FeatureFiller(
            adapters.inner(made.model),
            made.processor,
            FeatureCache(cache, 10**11),
            precision=torch.autocast(device(), dtype=torch.bfloat16, enabled=is_mixed),
            dtype=torch.bfloat16 if is_mixed else torch.float32,
            device=device(),
            say=lambda _: None,
        )
        rows.features = filler.fill(rows, "images")
    return rows


def unpacked(collate: Callable[[Sequence[Row]], dict[str, Any]], rows: Sequence[Row]) -> dict[str, Any]:
    """The batch of rows that hold one dialogue each, the image's pixels or features repeated."""
    return collate([replace(row, packed=one) for row in rows for one in split(row.packed)])


def split(row: PackedRow) -> list[PackedRow]:
    """A row for each dialogue of a row; regions are those whose placeholders it holds."""
    found, regions = [], list(row.regions)
    for number in range(1, max(row.segments) + 1):
        places = [place for place, segment in enumerate(row.segments) if segment in (SHARED, number)]
        part = {name: [getattr(row, name)[place] for place in places] for name in ("ids", "positions", "labels")}
        own = sum(row.segments[place] == number and row.ids[place] == row.ids[_image_place(row)] for place in places)
        taken, regions = regions[:own], regions[own:]
        segments = [min(row.segments[place], 1) for place in places]
        weights = [row.weights[place] for place in places]
        found.append(PackedRow(**part, segments=segments, weights=weights, regions=tuple(taken)))
    return found


def _image_place(row: PackedRow) -> int:
    """The place of an image token: the prefix ends with one."""
    return row.segments.count(SHARED) - 1


def every_position(collate: Callable[[Sequence[Row]], dict[str, Any]], rows: Sequence[Row]) -> dict[str, Any]:
    """The batch with a label of weight zero at each position without one: the head runs everywhere, the loss stays."""
    batch = collate(rows)
    is_held = batch["segments"] != PADDING
    return batch | {"labels": torch.where(is_held, batch["input_ids"], batch["labels"])}


class Dialogues(Dataset[tuple[Dialogue, Any]]):
    """The same dialogues one by one, tokenised when asked for, as LLaVA's own data loader does."""

    def __init__(self, made: Made) -> None:
        self.made = made

    def __len__(self) -> int:
        return len(self.made.conversations)

    def __getitem__(self, index: int) -> tuple[Dialogue, Any]:
        conversation = self.made.conversations[index]
        turns = [(turn.role, turn.text) for turn in conversation.turns]
        return self.made.processor.encode_dialogue(turns), self.made.images.square(conversation.image.path)


def padded(made: Made, items: Sequence[tuple[Dialogue, Any]]) -> dict[str, Tensor]:
    """LLaVA's collator: a row for each dialogue, padded to the longest, with its own copy of the image."""
    import numpy as np

    length = max(len(dialogue.ids) for dialogue, _ in items)
    pad = int(made.processor.tokenizer.pad_token_id)
    ids, labels, mask = [], [], []
    for dialogue, _ in items:
        fill = length - len(dialogue.ids)
        ids.append(dialogue.ids + [pad] * fill)
        said = [token if flag else IGNORED for token, flag in zip(dialogue.ids, dialogue.is_answer, strict=True)]
        labels.append(said + [IGNORED] * fill)
        mask.append([1] * len(dialogue.ids) + [0] * fill)
    regions = region_boxes([dialogue.regions for dialogue, _ in items])
    return ({} if regions is None else {"region_boxes": regions}) | {
        "input_ids": torch.tensor(ids),
        "labels": torch.tensor(labels),
        "attention_mask": torch.tensor(mask),
        "pixel_values": made.processor.pixels(np.stack([square for _, square in items])),
    }


class Plain(nn.Module):
    """The model as transformers trains any: logits of all positions, then its causal loss."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self.config = adapters.inner(model).config

    def forward(
        self,
        input_ids: Tensor,
        pixel_values: Tensor,
        attention_mask: Tensor,
        labels: Tensor,
        region_boxes: Tensor | None = None,
        num_items_in_batch: Tensor | None = None,
    ) -> dict[str, Tensor]:
        from transformers.loss.loss_utils import ForCausalLMLoss

        given = {} if region_boxes is None else {"region_boxes": region_boxes}
        logits = self.model(
            input_ids=input_ids, pixel_values=pixel_values, attention_mask=attention_mask, use_cache=False, **given
        ).logits
        loss = ForCausalLMLoss(logits, labels, logits.shape[-1], num_items_in_batch=num_items_in_batch)
        return {"loss": loss, "logits": logits}


def arguments(setting: Setting, folder: str, batch: int) -> dict[str, Any]:
    """What every trainer is told alike."""
    return {
        "output_dir": folder,
        "per_device_train_batch_size": batch,
        "max_steps": setting.warmup + setting.steps,
        "learning_rate": 1e-4,
        "bf16": setting.precision == "bfloat16",
        "use_cpu": device() == "cpu",
        "save_strategy": "no",
        "logging_strategy": "steps",
        "logging_steps": 1,
        "report_to": [],
        "remove_unused_columns": False,
        "dataloader_pin_memory": device() == "cuda",
        "disable_tqdm": True,
        "seed": 7,
    }


def trainer_of(way: str, setting: Setting, made: Made, folder: str) -> Trainer:
    """The trainer of one way."""
    if way == TRAINER:
        settings = TrainingArguments(**arguments(setting, folder, setting.batch))
        data = Dialogues(made)
        return Trainer(Plain(made.model), settings, train_dataset=data, data_collator=partial(padded, made))
    if way == TRL:
        return _trl(setting, made, folder)
    cache = None if way == "without cached features" else Path(folder) / "features"
    settings = TrainingArguments(**arguments(setting, folder, setting.images))
    trainer = GastroTrainer(made.model, settings, made.stage, rows_of(made, cache), None)
    collate = Collator(made.processor, None)
    if way == "without packing":
        trainer.data_collator = partial(unpacked, collate)
    if way == "without answer-only head":
        trainer.data_collator = partial(every_position, collate)
    if way == "without chunks":
        gastrovl.answer_loss = partial(answerloss.answer_loss, chunk_bytes=2**62)
    if way == "without fused adapters":
        for module in made.model.modules():
            module.__dict__.pop("forward", None)
    if way == "without grouped attention":
        adapters.inner(made.model).packed_attention = Backend.MASK
    return trainer


def _trl(setting: Setting, made: Made, folder: str) -> Trainer:
    """TRL on the checkpoint of the same model, which plain LLaVA reads."""
    from datasets import Dataset as Table
    from peft import LoraConfig
    from transformers import LlavaForConditionalGeneration, LlavaProcessor
    from trl import SFTConfig, SFTTrainer

    lora = resolve(ModelConfig(preset=PRESETS[setting.shape])).lora
    assert lora is not None, "only shapes with adapters are given to TRL"
    checkpoint = Path(folder) / "checkpoint"
    save_checkpoint(checkpoint, adapters.merge(made.model), made.processor, "bench")
    processor = LlavaProcessor.from_pretrained(checkpoint, local_files_only=True)
    tokenizer = made.processor.tokenizer
    rows = []
    for conversation in made.conversations:
        turns = [{"role": turn.role, "content": turn.text} for turn in conversation.turns]
        turns[0]["content"] = f"<image>\n{turns[0]['content']}"
        prompt = tokenizer.apply_chat_template(turns[:-1], tokenize=False, add_generation_prompt=True)
        whole = tokenizer.apply_chat_template(turns, tokenize=False)
        rows.append({"prompt": prompt, "completion": whole.removeprefix(prompt), "image": conversation.image.path})
    opened = {path: open_image(made.images.folder / path) for path in {row["image"] for row in rows}}
    table = Table.from_list(rows)
    table.set_transform(
        lambda batch: {
            "prompt": batch["prompt"],
            "completion": batch["completion"],
            "images": [[opened[path]] for path in batch["image"]],
        }
    )
    settings = SFTConfig(
        **arguments(setting, folder, setting.batch),
        max_length=None,
        gradient_checkpointing=False,  # its default would cost another forward pass
        completion_only_loss=True,
        dataset_kwargs={"skip_prepare_dataset": True},
    )
    return SFTTrainer(
        LlavaForConditionalGeneration.from_pretrained(checkpoint, local_files_only=True),
        settings,
        train_dataset=table,
        processing_class=processor,
        peft_config=LoraConfig(
            r=lora.rank, lora_alpha=lora.alpha, target_modules=lora.target, modules_to_save=["multi_modal_projector"]
        ),
    )


class Clock(TrainerCallback):
    """The time at the end of every step."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.times.append(time.perf_counter())

    def on_step_end(self, *_: Any, **__: Any) -> None:
        if device() == "cuda":
            torch.cuda.synchronize()
        self.times.append(time.perf_counter())


def measure(way: str, setting: Setting) -> dict[str, Any]:
    """Seconds of each timed step, positions the language model ran on, bytes at the peak, first loss."""
    made = make(setting)
    with tempfile.TemporaryDirectory() as folder:
        trainer = trainer_of(way, setting, made, folder)
        model = trainer.model.model if isinstance(trainer.model, Plain) else trainer.model
        language = adapters.inner(model).model.language_model
        positions: list[int] = []
        language.register_forward_pre_hook(
            lambda _, __, given: positions.append(given["inputs_embeds"].shape[:2].numel()), with_kwargs=True
        )
        clock = Clock()
        trainer.add_callback(clock)
        before = reset_peak()
        trainer.train()
        seconds = [end - start for start, end in zip(clock.times, clock.times[1:], strict=False)]
    return {
        "way": way,
        "seconds": seconds[setting.warmup :],
        "positions": sum(positions[setting.warmup :]) / setting.steps,
        "peak_bytes": peak(),
        "loaded_bytes": before,
        "first_loss": trainer.state.log_history[0]["loss"],
    }


def reset_peak() -> int:
    """Bytes held now; the peak counts from here."""
    if device() == "cuda":
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return _status("VmRSS")


def peak() -> int:
    """Most bytes held since `reset_peak`: of the device's memory, or of this process."""
    return torch.cuda.max_memory_allocated() if device() == "cuda" else _status("VmHWM")


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


def profiled(setting: Setting) -> dict[str, Any]:
    """What takes the time of a step of ours: the profiler's table."""
    made = make(setting)
    kinds = [torch.profiler.ProfilerActivity.CPU]
    kinds += [torch.profiler.ProfilerActivity.CUDA] if device() == "cuda" else []
    with tempfile.TemporaryDirectory() as folder:
        trainer = trainer_of(OURS, setting, made, folder)
        with torch.profiler.profile(activities=kinds) as profile:
            trainer.train()
    key = "self_cuda_time_total" if device() == "cuda" else "self_cpu_time_total"
    return {"table": profile.key_averages().table(sort_by=key, row_limit=40)}
