"""A plan to the tables that `gastrovl train --plan` prints, readable at 80 columns."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

COUNTS = (1, 2, 4, 8)
_WIDTHS = (80, 100)


def show_plan(settings: Any, path: Path | None) -> None:
    """Estimate a TrainConfig, print it, and write it as JSON where `path` names a file."""
    from gastrovl.core.files import write_text
    from gastrovl.training.planning.devices import DEVICES, this_machine
    from gastrovl.training.planning.estimate import estimate
    from gastrovl.training.planning.plan import as_json

    here = this_machine()
    plan = estimate(settings, is_cpu=False)
    devices = (*DEVICES, here)
    print_plan(plan, devices, Console())
    if path is not None:
        write_text(path, json.dumps(as_json(plan, devices, COUNTS), indent=2) + "\n")


def print_plan(plan: Any, devices: Sequence[Any], console: Console) -> None:
    """What a run needs, on which devices it fits, how long it takes, and what all that rests on."""
    console.width = min(max(console.width, _WIDTHS[0]), _WIDTHS[1])
    console.print(f"Plan of {plan.name}: an estimate; nothing was downloaded, no weights were read.", style="bold")
    console.print(
        f"{_count(plan.parameters)} parameters; {plan.precision}; an image of {plan.image_size_px} px is "
        f"{plan.image_tokens} tokens.\n"
    )
    console.print(_parts(plan))
    console.print(_costs(plan))
    console.print(_memory(plan))
    kept = f", beside the tower's features {_size(plan.features_bytes)}" if plan.features_bytes else ""
    console.print(
        f"Main memory: images {_size(plan.squares_bytes)}. Disk: a saved state {_size(plan.state_bytes)}; the run "
        f"needs {_size(plan.disk_bytes)} free{kept}.\n"
    )
    console.print(_times(plan, devices))
    console.print("What this rests on, the weightiest first:")
    for number, assumption in enumerate(plan.assumptions, start=1):
        console.print(f" {number}. {assumption}.")


def _table(title: str, columns: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left", title_style="", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(columns[0], no_wrap=True)
    for column in columns[1:]:
        table.add_column(column, justify="right")
    return table


def _parts(plan: Any) -> Table:
    names = [stage.name for stage in plan.stages]
    table = _table("Parameters, and the share that trains", ["part", "parameters", *names])
    for part in plan.parts:
        shares = []
        for stage in plan.stages:
            mine = next((one for one in stage.cost.parts if one.part == part.part), None)
            shares.append(f"{mine.trainable / mine.parameters:.0%}" if mine and mine.trainable else "frozen")
        table.add_row(part.part.value, _count(part.parameters), *shares)
    trainable = [_count(stage.cost.trainable) for stage in plan.stages]
    table.add_row("all", _count(plan.parameters), *trainable)
    return _spaced(table)


def _costs(plan: Any) -> Table:
    table = _table("Work of one optimiser step on one device", ["", *(stage.name for stage in plan.stages)])
    rows: dict[str, Callable[[Any], str]] = {
        "images": lambda s: f"{s.images_per_step} x {s.accumulation}" if s.accumulation > 1 else f"{s.images_per_step}",
        "tokens in a row (mean)": lambda s: f"{s.lengths.mean.length}",
        "  as long as its batch": lambda s: f"{s.lengths.padded.length}",
        "  of these answered": lambda s: f"{s.lengths.mean.answers}" if s.is_answered else "none",
        "dialogues in a row": lambda s: f"{s.lengths.mean.dialogues}",
        "rows in an epoch": lambda s: f"{s.lengths.rows:,}",
        "steps": lambda s: f"{s.steps_in_all():,}",
        "vision tower": lambda s: "runs once" if s.is_tower_cached else "each step",
        "TFLOP forward": lambda s: _tera(s.images_per_step * s.accumulation * s.cost.forward_flops),
        "TFLOP backward": lambda s: _tera(s.images_per_step * s.accumulation * s.cost.backward_flops),
    }
    for name, value in rows.items():
        table.add_row(name, *(value(stage) for stage in plan.stages))
    return _spaced(table)


def _memory(plan: Any) -> Table:
    table = _table("Peak memory of one device", ["", *(stage.name for stage in plan.stages)])
    names = {
        "weights": "weights",
        "gradients": "gradients",
        "optimiser": "optimiser",
        "weights in bfloat16": "copies",
        "activations": "activations",
        "logits": "logits",
        "vision tower at work": "tower",
    }
    plain = [stage.changed(is_checkpointed=False).memory() for stage in plan.stages]
    again = [stage.changed(is_checkpointed=True).memory() for stage in plan.stages]
    for shown, name in names.items():
        table.add_row(shown, *(_size(getattr(memory, name)) for memory in plain))
    table.add_row("together at the peak", *(_size(memory.peak) for memory in plain), style="bold")
    table.add_row("  gradient checkpointing", *(_size(memory.peak) for memory in again))
    return _spaced(table)


def _times(plan: Any, devices: Sequence[Any]) -> Table:
    from gastrovl.training.planning.plan import RESERVE

    title = (
        f"Time of all stages; {RESERVE:.0%} of the memory is kept free\n"
        "c: with gradient checkpointing, s: sharded (FSDP), -: batches do not fit"
    )
    counts = [f"{count} device{'s' * (count > 1)}" for count in COUNTS]
    table = _table(title, ["device", "memory", "TFLOP/s", *counts])
    for device in devices:
        cells = [_cell(plan, device, count) for count in COUNTS]
        rate = device.flops(plan.precision == "bfloat16") / 1e12
        if device.is_cpu:
            cells[1:] = [""] * (len(COUNTS) - 1)
        table.add_row(device.name, _size(device.memory_bytes), f"{rate:.3g}", *cells)
    return _spaced(table)


def _cell(plan: Any, device: Any, count: int) -> str:
    """Time on `count` devices in the plainest way that fits."""
    from dataclasses import replace

    from gastrovl.training.planning.plan import fits

    checkpointed = replace(plan, stages=tuple(stage.changed(is_checkpointed=True) for stage in plan.stages))
    ways = [(plan, False, ""), (checkpointed, False, " c"), (plan, True, " s"), (checkpointed, True, " cs")]
    for shape, is_sharded, mark in ways:
        is_possible = count > 1 or not is_sharded
        if is_possible and fits(shape, device.memory_bytes, count, is_sharded=is_sharded):
            return _time(shape.seconds(device, count, is_sharded=is_sharded)) + mark
    return "-"


def _spaced(table: Table) -> Table:
    table.add_row()
    return table


def _time(seconds: float) -> str:
    for limit, unit, factor in ((90, "s", 1), (5400, "min", 60), (172_800, "h", 3600)):
        if seconds < limit:
            return f"{seconds / factor:.2g} {unit}" if seconds / factor < 10 else f"{seconds / factor:.0f} {unit}"
    return f"{seconds / 86_400:.0f} days"


def _size(count: float) -> str:
    gigabytes = count / 1e9
    if gigabytes < 0.1:
        return f"{count / 1e6:.0f} MB"
    return f"{gigabytes:.1f} GB" if gigabytes < 99.5 else f"{gigabytes:.0f} GB"


def _count(parameters: float) -> str:
    return f"{parameters / 1e9:.2f} B" if parameters >= 1e9 else f"{parameters / 1e6:.1f} M"


def _tera(operations: float) -> str:
    return f"{operations / 1e12:.3g}"
