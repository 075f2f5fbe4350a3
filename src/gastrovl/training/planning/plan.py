"""The arithmetic of a plan: what a stage costs per image to memory, time and disk for any number of devices.

All of it is an estimate. Bytes follow from shapes and are good to about a quarter; times hang on the share of a
device's peak that training reaches, which is assumed (`UTILISATION`).
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any

from gastrovl.training.planning.devices import Device
from gastrovl.training.planning.footprint import Footprint, PartSize
from gastrovl.training.planning.lengths import RowLengths, RowShape

FLOAT, HALF = 4, 2  # bytes
UTILISATION = 0.35  # share of the peak; 0.3-0.5 is usual for transformers of this size on one node
RESERVE = 0.1  # of a device's memory, left for what the allocator splits and the libraries hold
BATCH_SECONDS = 0.03  # at least, on a GPU: some thousand kernels are started one after the other
QUANTISED = {"nf4": 0.53, "int8": 1.02}  # bytes a weight, with the scales of its block


@dataclass(frozen=True)
class Memory:
    """Peak bytes on one device, by what they hold.

    Attributes:
        weights: float32; a shard and two whole blocks under FSDP.
        gradients: float32; under DDP twice, because its buckets are copies.
        optimiser: AdamW's two moments.
        copies: The weights in bfloat16.
        activations: What the backward pass needs from the forward pass.
        logits: Of answer positions, with their gradients.
        tower: Hidden states of the vision tower while it runs; gone before the rest is there.
        gradients_stay: Whether the gradients are there while activations are (accumulation, several devices).
    """

    weights: int
    gradients: int
    optimiser: int
    copies: int
    activations: int
    logits: int
    tower: int
    gradients_stay: bool

    @property
    def peak(self) -> int:
        """The most there is at once: gradients come while activations go, so that without accumulation they share."""
        forward = self.activations + self.logits
        moving = forward + self.gradients if self.gradients_stay else max(forward, self.gradients)
        return self.weights + self.optimiser + self.copies + max(moving, self.tower)


@dataclass(frozen=True)
class StagePlan:
    """One stage: its settings, as far as they cost something, what a row of it costs, and how many there are.

    Attributes:
        epochs, steps: How long; one of the two.
        is_tower_cached: Whether the tower runs once for each image instead of once a step.
        is_exact_split: Whether smaller batches with more accumulation give the same result (no contrast within a batch,
            no running statistics of an open tower).
        chunk: Answer positions whose logits exist at once; None for all.
        row: The row that was measured: padded, or laid out.
        quantised: How the language model's blocks are rounded (QLoRA), if they are.
        global_images: Images of a step over all devices, from which the accumulation on each follows.
    """

    name: str
    images_per_step: int
    accumulation: int
    epochs: float | None
    steps: int | None
    trains: tuple[str, ...]
    is_mixed: bool
    is_checkpointed: bool
    is_tower_cached: bool
    is_exact_split: bool
    is_answered: bool
    chunk: int | None
    lengths: RowLengths
    row: RowShape
    cost: Footprint
    quantised: str | None = None
    global_images: int | None = None

    def on(self, devices: int) -> StagePlan:
        """The stage as so many devices divide its steps."""
        if self.global_images is None:
            return self
        times = math.ceil(self.global_images / (self.images_per_step * devices))
        batch = math.ceil(self.global_images / (times * devices))
        return self.changed(images_per_step=batch, accumulation=times, global_images=None)

    def memory(self, devices: int = 1, *, is_sharded: bool = False) -> Memory:
        """Peak memory of one of `devices`; sharded by FSDP, or copied by DDP."""
        if self.global_images:
            return self.on(devices).memory(devices, is_sharded=is_sharded)
        cost, rows = self.cost, self.images_per_step
        share = devices if is_sharded else 1
        whole_blocks = 2 * cost.block_parameters if share > 1 else 0  # the one at work and the one being fetched
        rounded = cost.block_parameters * cost.layers if self.quantised else 0  # embeddings and head stay floats
        weights = ((cost.parameters - rounded) * FLOAT + int(rounded * QUANTISED.get(self.quantised or "", 0))) // share
        weights += whole_blocks * FLOAT
        buckets = 2 if devices > 1 and not is_sharded else 1
        answers = rows * self.lengths.mean.answers if self.is_answered else 0
        logit_bytes = 3 * FLOAT + (2 * HALF if self.is_mixed else 0)  # logits, their logarithms, their gradients
        head_copy = cost.vocabulary * cost.width * HALF if self.is_mixed and self.is_answered else 0
        return Memory(
            weights=weights,
            gradients=cost.trainable * FLOAT * buckets // share,
            optimiser=cost.trainable * 2 * FLOAT // share,
            copies=min(cost.kept_once_bytes, whole_blocks * HALF) if whole_blocks else cost.kept_once_bytes,
            activations=rows * self._kept_per_row(),
            logits=min(answers, self.chunk or answers) * cost.vocabulary * logit_bytes + head_copy,
            tower=rows * cost.tower_bytes,
            gradients_stay=self.accumulation > 1 or devices > 1,
        )

    def _kept_per_row(self) -> int:
        """Bytes, in a batch as long as the longest row that was looked at."""
        cost, length = self.cost, self.lengths.longest
        language = cost.language_kept_bytes
        if self.is_checkpointed and cost.layers:
            language = cost.layers * self.row.length * cost.width * FLOAT + language // cost.layers
        stretched = language * length // self.row.length
        return cost.kept_bytes - cost.language_kept_bytes + stretched

    @property
    def flops_per_step(self) -> int:
        """Operations of one optimiser step on one device."""
        again = self.cost.language_flops if self.is_checkpointed else 0
        rows = self.images_per_step * self.accumulation
        return rows * (self.cost.forward_flops + self.cost.backward_flops + again)

    def steps_in_all(self, devices: int = 1) -> int:
        """Optimiser steps of the stage; epochs are shared out among devices, `steps` are not."""
        if self.steps is not None:
            return self.steps
        assert self.epochs is not None
        if self.global_images:
            return math.ceil(math.ceil(self.lengths.rows / self.global_images) * self.epochs)
        batches = math.ceil(self.lengths.rows / (self.images_per_step * devices))
        return math.ceil(math.ceil(batches / self.accumulation) * self.epochs)

    def seconds(self, device: Device, devices: int = 1, *, is_sharded: bool = False) -> float:
        """Time of the stage without validation, reading images and saving."""
        stage = self.on(devices)
        speed = device.flops(self.is_mixed) * UTILISATION
        computing = stage.flops_per_step / speed
        backward = (
            self.cost.backward_flops * stage.images_per_step / speed
        )  # of the last batch: what traffic hides behind
        if not device.is_cpu:
            computing = max(computing, BATCH_SECONDS * stage.accumulation)
        step = computing + max(0.0, stage._traffic(devices, is_sharded) / device.link_bytes - backward)
        once = self.lengths.rows * self.cost.tower_flops / speed / devices if self.is_tower_cached else 0.0
        return self.steps_in_all(devices) * step + once

    def _traffic(self, devices: int, is_sharded: bool) -> float:
        """Bytes that a device sends for each optimiser step in a ring (Patarasuk and Yuan 2009)."""
        hops = (devices - 1) / devices
        if not is_sharded:
            return 2 * hops * self.cost.trainable * FLOAT  # gradients: reduced, then handed round
        width = HALF if self.is_mixed else FLOAT
        return hops * (self.accumulation * 2 * self.cost.parameters * width + self.cost.trainable * FLOAT)

    def changed(self, **settings: Any) -> StagePlan:
        """The same stage with other settings."""
        return replace(self, **settings)


@dataclass(frozen=True)
class Plan:
    """A whole run.

    Attributes:
        parts: Parameters of each part; what trains stands in the stages.
        image_tokens: Of one image.
        squares_bytes: Images in memory, decoded.
        features_bytes: The tower's features on disk, where they are kept.
        state_bytes: One saved state of the largest stage, on disk.
        result_bytes: All stages' weights and the checkpoint, on disk.
        assumptions: What was not measured, the weightiest first.
    """

    name: str
    precision: str
    parts: tuple[PartSize, ...]
    image_tokens: int
    image_size_px: int
    squares_bytes: int
    features_bytes: int
    state_bytes: int
    result_bytes: int
    stages: tuple[StagePlan, ...]
    assumptions: tuple[str, ...]

    def peak(self, devices: int = 1, *, is_sharded: bool = False) -> int:
        """Bytes of the stage that takes most."""
        return max(stage.memory(devices, is_sharded=is_sharded).peak for stage in self.stages)

    def seconds(self, device: Device, devices: int = 1, *, is_sharded: bool = False) -> float:
        """All stages one after the other."""
        return sum(stage.seconds(device, devices, is_sharded=is_sharded) for stage in self.stages)

    @property
    def parameters(self) -> int:
        """Of all parts."""
        return sum(part.parameters for part in self.parts)

    @property
    def disk_bytes(self) -> int:
        """What a run needs free at its start: a new state is whole before the old one goes."""
        return 2 * self.state_bytes + self.result_bytes


def fits(plan: Plan | StagePlan, device_bytes: int, devices: int = 1, *, is_sharded: bool = False) -> bool:
    """Whether a run, or a stage, stays within a device's memory less the reserve."""
    peak = (
        plan.peak(devices, is_sharded=is_sharded)
        if isinstance(plan, Plan)
        else plan.memory(devices, is_sharded=is_sharded).peak
    )
    return peak <= device_bytes * (1 - RESERVE)


def as_json(plan: Plan, devices: tuple[Device, ...], counts: tuple[int, ...]) -> dict[str, Any]:
    """The plan as plain values: bytes, seconds, operations."""
    content = asdict(plan)
    for shown, stage in zip(content["stages"], plan.stages, strict=True):
        shown["flops_per_step"] = stage.flops_per_step
        shown["memory"] = {
            name: asdict(memory) | {"peak": memory.peak}
            for name, memory in (
                ("plain", stage.changed(is_checkpointed=False).memory()),
                ("checkpointed", stage.changed(is_checkpointed=True).memory()),
            )
        }
    content["devices"] = [
        {
            "device": device.name,
            "memory_bytes": device.memory_bytes,
            "count": count,
            "strategy": strategy,
            "peak_bytes": plan.peak(count, is_sharded=strategy == "fsdp"),
            "fits": fits(plan, device.memory_bytes, count, is_sharded=strategy == "fsdp"),
            "seconds": plan.seconds(device, count, is_sharded=strategy == "fsdp"),
        }
        for device in devices
        for count in counts
        for strategy in (("ddp", "fsdp") if count > 1 else ("single",))
    ]
    return content | {"utilisation": UTILISATION, "reserve": RESERVE, "disk_bytes": plan.disk_bytes}
