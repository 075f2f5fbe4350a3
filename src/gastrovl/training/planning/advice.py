"""A plan that does not fit to the smallest changes with which it does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from gastrovl.training.planning.plan import StagePlan, fits

Change = tuple[StagePlan, str]
_SHARDS = (2, 4, 8)


def size(count: float) -> str:
    """Bytes for people: 150 MB, 1.3 GB, 24 GB."""
    gigabytes = count / 1e9
    if gigabytes < 0.95:
        return f"{count / 1e6:.0f} MB"
    return f"{gigabytes:.0f} GB" if gigabytes >= 9.5 else f"{gigabytes:.1f} GB"


def advice(stage: StagePlan, device_bytes: int, devices: int = 1, *, is_sharded: bool = False) -> str:
    """What a stage needs, what there is, and the smallest changes of the config that make it fit.

    Args:
        device_bytes: Memory of one device.
        devices: How many the stage runs on; sharded by FSDP, or copied by DDP.
    """
    peak = stage.memory(devices, is_sharded=is_sharded).peak
    need = f"stage {stage.name} needs about {size(peak)}, the device has {size(device_bytes)}"
    if fits(stage, device_bytes, devices, is_sharded=is_sharded):
        return (
            f"{need}, so by the estimate it should fit: look for other programs in its memory, or take smaller "
            f"batches all the same ({_halved_words(stage)})"
        )
    for ways in (_single(stage), _pairs(stage), _triples(stage)):
        found = []
        for way in ways:
            fitting = (words for changed, words in way if fits(changed, device_bytes, devices, is_sharded=is_sharded))
            found += [words for words in [next(fitting, "")] if words]
        if found:
            return f"{need}; smallest changes that fit: " + "; or ".join(found)
    for count in _SHARDS:
        smallest = _smallest(stage)
        if fits(smallest, device_bytes, count, is_sharded=True):
            words = (
                f"FSDP over {count} such devices, with images_per_step: {smallest.images_per_step} and checkpointing"
            )
            return f"{need}; no setting of this stage fits on one device; what does: {words}"
    return f"{need}; no setting of this stage fits; take a larger device or a smaller language model"


def needs_checkpointing(stage: StagePlan, device_bytes: int, devices: int = 1, *, is_sharded: bool = False) -> bool:
    """Whether the stage fits with gradient checkpointing only; without need it costs a forward pass for nothing."""
    return not fits(stage.changed(is_checkpointed=False), device_bytes, devices, is_sharded=is_sharded)


def _single(stage: StagePlan) -> list[Iterator[Change]]:
    """Single changes, from the one that alters least; each tries its steps in order."""
    return [_smaller_batches(stage), _checkpointed(stage), _half(stage)]


def _pairs(stage: StagePlan) -> list[Iterator[Change]]:
    return [
        _both(_checkpointed(stage), _smaller_batches),
        _both(_half(stage), _smaller_batches),
        _adapters(stage),
    ]


def _triples(stage: StagePlan) -> list[Iterator[Change]]:
    return [
        _both(_both(_half(stage), _checkpointed), _smaller_batches),
        _both(_both(_adapters(stage), _checkpointed), _smaller_batches),
    ]


def _both(changes: Iterator[Change], way: Callable[[StagePlan], Iterator[Change]]) -> Iterator[Change]:
    for changed, words in changes:
        yield from ((further, f"{words} and {more}") for further, more in way(changed))


def _smaller_batches(stage: StagePlan) -> Iterator[Change]:
    """Halves of the batch with more accumulation, the largest first."""
    rows, times = stage.images_per_step, stage.accumulation
    while rows % 2 == 0:
        rows, times = rows // 2, times * 2
        same = "the same result" if stage.is_exact_split else "nearly the same result"
        added = "" if stage.global_images else f" with accumulation: {times}"  # else it follows by itself
        words = f"images_per_step: {stage.images_per_step} -> {rows}{added} ({same})"
        yield stage.changed(images_per_step=rows, accumulation=times), words


def _checkpointed(stage: StagePlan) -> Iterator[Change]:
    if not stage.is_checkpointed and stage.cost.layers:
        share = stage.changed(is_checkpointed=True).flops_per_step / max(1, stage.flops_per_step) - 1
        words = f"gradient_checkpointing: true (the same result, {share:.0%} more to compute)"
        yield stage.changed(is_checkpointed=True), words


def _half(stage: StagePlan) -> Iterator[Change]:
    """Mixed precision; what is kept falls to about two thirds (measured on three presets), copies come on top."""
    if not stage.is_mixed:
        cost = stage.cost
        halved = replace(
            cost,
            kept_bytes=cost.kept_bytes * 2 // 3,  # norms and the residual stream stay float32
            language_kept_bytes=cost.language_kept_bytes * 2 // 3,
            kept_once_bytes=cost.parameters * 2,
        )
        yield stage.changed(is_mixed=True, cost=halved), "precision: bfloat16"


def _adapters(stage: StagePlan) -> Iterator[Change]:
    """Adapters instead of the whole language model: gradients and moments of its weights go."""
    if "language" not in stage.trains:
        return
    parts = tuple(
        replace(part, trainable=part.parameters // 50) if part.part == "language" else part for part in stage.cost.parts
    )
    words = "trains: lora instead of language (another result; about a fiftieth of its weights learn)"
    yield stage.changed(cost=replace(stage.cost, parts=parts)), words


def _smallest(stage: StagePlan) -> StagePlan:
    """The stage in batches as small as they get by halving, with checkpointing."""
    batches = [changed for changed, _ in _smaller_batches(stage)]
    return (batches[-1] if batches else stage).changed(is_checkpointed=True)


def _halved_words(stage: StagePlan) -> str:
    return next((words for _, words in _smaller_batches(stage)), f"images_per_step: {stage.images_per_step} is one")
