"""What goes wrong in the middle of a stage, as errors that say where, with which records, what is kept and what to do.

Losses and the gradients' norm are looked at once before each optimiser step, so that weights that are not numbers never
come to be and never reach a saved state; the batches of the step wait on the device until then, one wait for all.
"""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor
from transformers import TrainerCallback

from gastrovl.core.errors import DiskFullError, DivergedError, GastroVLError, OutOfMemoryError
from gastrovl.training.config import TrainConfig
from gastrovl.training.rows.dataset import Row
from gastrovl.training.runfolder import last_state
from gastrovl.training.stages import part_of

RECORDS = "records"  # key of a batch that the model never sees
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# How libraries written in other languages say it: safetensors (Rust), torch's zip writer (C++).
_FULL_WORDS = (
    "no space left",
    "disk quota exceeded",
    "file too large",
    "pytorchstreamwriter failed",
    "inline_container",
)
_MEMORY_WORDS = ("out of memory", "can't allocate memory", "cannot allocate memory")
_SHOWN = 6  # records of a batch that a message names


class NamedCollator:
    """A collator whose batches also name their records, as (image path, conversation ids) of each row."""

    def __init__(self, collate: Callable[[Sequence[Row]], dict[str, Any]]) -> None:
        self.collate = collate

    def __call__(self, rows: Sequence[Row]) -> dict[str, Any]:
        return self.collate(rows) | {RECORDS: [(row.image, row.ids) for row in rows]}


@dataclass
class StepWatch:
    """What is known of the optimiser step at work: the records of its batches, their losses, the size of the last."""

    records: list[Any] = field(default_factory=list)
    losses: list[Tensor] = field(default_factory=list)
    shape: tuple[int, int] = (0, 0)

    def begin(self, batches: Sequence[dict[str, Any]]) -> None:
        """A new optimiser step; takes the records out of its batches."""
        self.records = [batch.pop(RECORDS, []) for batch in batches]
        self.losses = []

    def is_sound(self, model: Any) -> bool:
        """Whether every loss and every gradient of the step is finite; waits for the device once."""
        gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
        values = [*self.losses, *(_whole(norm) for norm in (torch._foreach_norm(gradients) if gradients else ()))]
        if not values:
            return True
        place = values[0].device
        return bool(torch.stack([value.detach().to(place).float().reshape(()) for value in values]).isfinite().all())

    def broken(self) -> list[int]:
        """Which batches of the step have a loss that is no number, counted from 0."""
        return [place for place, loss in enumerate(self.losses) if not bool(loss.isfinite())]

    def named(self, places: Sequence[int]) -> str:
        """The records of some batches, for a message."""
        rows = [row for place in places if place < len(self.records) for row in self.records[place]]
        words = [f"{image} ({', '.join(ids)})" for image, ids in rows[:_SHOWN]]
        return "; ".join(words) + (f"; and {len(rows) - _SHOWN} more images" if len(rows) > _SHOWN else "")


class StopAtNoNumber(TrainerCallback):
    """Ends a stage before an optimiser step whose losses or gradients are not finite."""

    def __init__(self, watch: StepWatch, stage: str, folder: Path) -> None:
        self.watch, self.stage, self.folder = watch, stage, folder

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **known: Any) -> None:
        """Look at the losses of all batches and at the gradients' norm.

        Raises:
            DivergedError: One of them is not finite.
        """
        del control
        if self.watch.is_sound(known["model"]):
            return
        broken = self.watch.broken()
        step = state.global_step + 1
        count = len(self.watch.records)
        if broken:
            which = f"micro-batch {broken[0] + 1} of {count}" if count > 1 else "the batch"
            what = f"the loss of {which} is not a number"
        else:
            broken = list(range(count))
            what = "a gradient is not a number, though every loss here is"
        rates = sorted({group["lr"] for group in known["optimizer"].param_groups})
        last = last_state(self.folder)
        kept = f"the last good state is {last}" if last else "no state of this stage was saved yet"
        others = " (or in the batch of another process)" if args.world_size > 1 else ""
        raise DivergedError(
            f"stage {self.stage}, step {step}: {what}{others}; learning rate "
            f"{', '.join(f'{rate:.2e}' for rate in rates)}. "
            f"Records: {self.watch.named(broken)}. The step was not taken, and {kept}. Look at these records; if "
            "they are "
            "sound, lower learning_rate, lengthen warmup, or compute with precision: float32, and begin a new run in "
            "another -o. --resume repeats the same steps from the last good state"
        )


def _whole(norm: Any) -> Tensor:
    """A norm of a sharded gradient as a plain tensor."""
    return norm.full_tensor() if hasattr(norm, "full_tensor") else norm


@contextmanager
def named_failures(
    stage: str, folder: Path, watch: StepWatch, step: Callable[[], int], advise: Callable[[], str]
) -> Iterator[None]:
    """Turn what a stage dies of into our errors; what it left half written in `folder` goes.

    Args:
        step: The optimiser steps taken so far.
        advise: What needs less memory; called only when memory ran out.

    Raises:
        OutOfMemoryError, DiskFullError: In the place of what torch and the system say.
    """
    try:
        yield
    except GastroVLError:
        raise
    except (RuntimeError, OSError, SafetensorError, MemoryError) as error:
        if is_memory(error):
            images, length = watch.shape
            raise OutOfMemoryError(
                f"stage {stage}, step {step() + 1}: memory ran out at a batch of {images} images, {images * length:,} "
                f"tokens; {advise()}. {_kept(folder)} With a changed config begin a new run in another -o"
            ) from error
        if is_disk_full(error):
            raise _disk_full(f"stage {stage}, step {step()}", folder, error) from error
        raise


def _disk_full(where: str, folder: Path, error: BaseException) -> DiskFullError:
    """The error of a full disk; half-written states in `folder` are deleted, which also frees some space."""
    half = drop_half_states(folder)
    written = f"; of the state that was being written, {half / 1e9:.2f} GB had been" if half else ""
    return DiskFullError(
        f"{where}: the disk (or a quota) is full ({error}). {free_bytes(folder) / 1e9:.2f} GB are free at {folder}"
        f"{written}. {_kept(folder)} Free some space and go on with --resume"
    )


def drop_half_states(folder: Path) -> int:
    """Delete states that lack their last file; returns their bytes."""
    count = 0
    whole = last_state(folder)
    for state in folder.glob("checkpoint-*"):
        is_newest = whole is None or int(state.name.rsplit("-", 1)[1]) > int(Path(whole).name.rsplit("-", 1)[1])
        if is_newest:
            count += sum(file.stat().st_size for file in state.rglob("*") if file.is_file())
            shutil.rmtree(state, ignore_errors=True)
    return count


def free_bytes(path: Path) -> int:
    """Free space of the file system a path lies on, or will lie on."""
    place = Path(path).resolve()
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free


@contextmanager
def writing_checkpoint(output: Path) -> Iterator[None]:
    """Name a full disk while the finished checkpoint is written; finished stages stay for the next attempt.

    Raises:
        DiskFullError: In the place of what libraries and the system say.
    """
    try:
        yield
    except (RuntimeError, OSError, SafetensorError) as error:
        if not is_disk_full(error):
            raise
        for half in (*output.glob("model*.safetensors"), *output.glob(".*.safetensors*")):
            half.unlink(missing_ok=True)
        raise DiskFullError(
            f"{output}: the disk (or a quota) is full while the checkpoint is written ({error}); "
            f"{free_bytes(output) / 1e9:.2f} GB are free there. All stages are finished and kept. Free some space "
            "and go on "
            "with --resume, which only writes the checkpoint"
        ) from error


def space_needed(config: TrainConfig, model: Any) -> int:
    """Bytes a run writes at most at one time: two states of the largest stage, each stage's weights, the checkpoint."""
    sizes = [
        (part_of(name), parameter.numel() * parameter.element_size()) for name, parameter in model.named_parameters()
    ]
    weights = sum(count for _, count in sizes)
    moments = max(2 * sum(count for part, count in sizes if part in stage.trains) for stage in config.stages)
    return (2 * (weights + moments) if config.save_every else 0) + (len(config.stages) + 1) * weights


def check_space(output: Path, needed: int) -> None:
    """Refuse to begin or go on with a run whose states and checkpoint cannot be written.

    Raises:
        DiskFullError: Less is free than the run will need; it would die at its first state.
    """
    free = free_bytes(output)
    there = sum(file.stat().st_size for file in output.rglob("*") if file.is_file())  # of a run that is resumed
    if free + there < needed:
        raise DiskFullError(
            f"{output}: the run needs {needed / 1e9:.2f} GB of disk (two saved states, each finished stage's "
            "weights, the "
            f"checkpoint), and {free / 1e9:.2f} GB are free there; free some space, choose another -o, or leave "
            "save_every "
            "out, so that no states are saved"
        )


def is_disk_full(error: BaseException) -> bool:
    """Whether an error, or one that it came from, says that nothing more can be written."""
    return any(
        (isinstance(one, OSError) and one.errno in _FULL) or any(word in str(one).lower() for word in _FULL_WORDS)
        for one in _chain(error)
    )


def is_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on a GPU or in the machine."""
    return any(
        isinstance(one, torch.OutOfMemoryError | MemoryError)
        or (isinstance(one, RuntimeError) and any(word in str(one).lower() for word in _MEMORY_WORDS))
        for one in _chain(error)
    )


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _kept(folder: Path) -> str:
    last = last_state(folder)
    return (
        f"The last whole state is kept: {last}."
        if last
        else "No state of this stage was saved yet; earlier stages are kept."
    )
