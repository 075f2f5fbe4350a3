"""How fast the training engine is against public trainers: dialogues a second, useful positions, peak memory.

    python benchmarks/training.py --shape small --dialogues 4 2 --json benchmarks/results/training.json

Ours, the same model in a plain transformers.Trainer with LLaVA's padded collator, and TRL's SFTTrainer take turns, each
in a process of its own, with the same dialogues, the same number of them a step, the same parts open (tower frozen;
connector and adapters train, at `nano` connector and language model). Then ours without each of its parts. Loss and
gradients are compared in float32, and the step is set against what this machine's matrix products and memory allow.
Runs on a GPU unchanged where PyTorch finds one, then in bfloat16; no GPU has been tried yet.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

IMAGES = {"nano": 16, "small": 16, "colongpt": 16}  # a step
DRAWN = 400  # frames, of which about one in four has four dialogues


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=tuple(IMAGES), default="small")
    parser.add_argument("--dialogues", type=int, nargs="+", default=[4, 2], help="of each image; the first counts")
    parser.add_argument("--images", type=int, help="of each step")
    parser.add_argument("--steps", type=int, default=4, help="timed steps of each process")
    parser.add_argument("--rounds", type=int, default=2, help="turns of ours and its rivals")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), help="float32 on a CPU, bfloat16 on a GPU")
    parser.add_argument("--no-ablation", action="store_true")
    parser.add_argument("--no-trl", action="store_true")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--profile", type=Path, help="write what takes the time of a step of ours to this file")
    parser.add_argument("--child", nargs=3, metavar=("WHAT", "SETTING", "RESULT"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(*options.child)
        return
    with tempfile.TemporaryDirectory() as folder:
        draw_data(Path(folder) / "data")
        report = compare(options, Path(folder))
    show(report)
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def draw_data(folder: Path) -> None:
    """A small drawn dataset by our own data engine."""
    from gastrovl.core.config import load_config
    from gastrovl.data.build import build_dataset
    from gastrovl.data.config import BuildConfig

    overrides = (f"sources.0.synthetic.images={DRAWN}", "splits={train: 1.0}", "figures=false")
    build_dataset(load_config(Path("configs/data/synthetic.yaml"), BuildConfig, overrides), folder)


def child(what: str, setting: str, result: str) -> None:
    """One way, in this process; the outcome goes to a file."""
    import training_limits
    from training_ways import Setting, measure, profiled

    chosen = Setting(**json.loads(setting))
    work = {"limits": training_limits.limits, "equality": training_limits.equality, "profile": profiled}
    found = work[what](chosen) if what in work else measure(what, chosen)
    Path(result).write_text(json.dumps(found), encoding="utf-8")


def compare(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """All measurements."""
    import torch

    from training_ways import OURS, TRAINER, TRL, WITHOUT, Setting

    is_gpu = torch.cuda.is_available()
    setting = Setting(
        shape=options.shape,
        data=str(folder / "data"),
        images=options.images or IMAGES[options.shape],
        dialogues=options.dialogues[0],
        warmup=3 if is_gpu else 1,
        steps=options.steps,
        precision=options.precision or ("bfloat16" if is_gpu else "float32"),
    )

    def run(what: str, chosen: Setting) -> dict[str, Any]:
        print(f"  {what}, {chosen.dialogues} dialogues an image ...", file=sys.stderr, flush=True)
        result = folder / "result.json"
        result.unlink(missing_ok=True)
        command = [sys.executable, __file__, "--child", what, json.dumps(asdict(chosen)), str(result)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if not result.is_file():
            return {"way": what, "failed": done.stderr.strip().splitlines()[-1] if done.stderr else "no word"}
        return dict(json.loads(result.read_text(encoding="utf-8")))

    rivals = [TRAINER] + ([TRL] if options.shape == "small" and not options.no_trl else [])
    report: dict[str, Any] = {
        "date": datetime.now(UTC).date().isoformat(),
        "hardware": torch.cuda.get_device_name() if is_gpu else f"{torch.get_num_threads()}-core CPU",
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "setting": {name: value for name, value in asdict(setting).items() if name != "data"},
        "by_dialogues": [],
    }
    for dialogues in options.dialogues:
        chosen = replace(setting, dialogues=dialogues)
        turns = [run(way, chosen) for _ in range(options.rounds) for way in (OURS, *rivals)]
        report["by_dialogues"].append(summed(chosen, turns, [OURS, *rivals]))
    first = report["by_dialogues"][0]
    report["speedup_over_trainer"] = first["ways"][TRAINER].get("slower")
    report["memory_of_trainer"] = first["ways"][TRAINER].get("memory_share")
    report["equality"] = run("equality", replace(setting, precision="float32"))
    report["limits"] = limit_of(run("limits", setting), first["ways"][OURS]["seconds"])
    if not options.no_ablation:
        turns = [run(way, setting) for _ in range(options.rounds) for way in (OURS, *WITHOUT)]
        report["ablation"] = summed(setting, turns, [OURS, *WITHOUT])["ways"]
    if options.profile:
        options.profile.write_text(run("profile", setting)["table"], encoding="utf-8")
    return report


def summed(setting: Any, turns: list[dict[str, Any]], ways: list[str]) -> dict[str, Any]:
    """Medians of each way over its turns, and how they stand to the first way."""
    found: dict[str, dict[str, Any]] = {}
    for way in ways:
        mine = [turn for turn in turns if turn["way"] == way]
        if failed := [turn["failed"] for turn in mine if "failed" in turn]:
            found[way] = {"failed": failed[0]}
            continue
        seconds = statistics.median(second for turn in mine for second in turn["seconds"])
        found[way] = {
            "seconds": seconds,
            "fastest": min(second for turn in mine for second in turn["seconds"]),
            "dialogues_per_s": setting.batch / seconds,
            "positions": mine[0]["positions"],
            "peak_bytes": max(turn["peak_bytes"] for turn in mine),
            "step_bytes": max(turn["peak_bytes"] - turn["loaded_bytes"] for turn in mine),
        }
    ours = found[ways[0]]
    for values in found.values():
        if "failed" not in values and "failed" not in ours:
            values["slower"] = values["seconds"] / ours["seconds"]
            values["memory_share"] = ours["peak_bytes"] / values["peak_bytes"]
            values["step_memory_share"] = ours["step_bytes"] / values["step_bytes"]
    return {"dialogues": setting.dialogues, "ways": found}


def limit_of(counts: dict[str, Any], seconds: float) -> dict[str, Any]:
    """The least time a step of ours can take here, and the share of it that is reached."""
    if "failed" in counts:
        return counts
    ours, trainer = counts["ours"], counts["trainer"]
    products = ours["flops"] / counts["peak_flops"]
    rest = ours["bytes"] / counts["peak_bytes_per_s"]
    return counts | {
        "product_seconds": products,
        "traffic_seconds": rest,
        "limit_seconds": products + rest,
        "achieved_share": (products + rest) / seconds,
        "achieved_share_of_products": products / seconds,
        "flops_trainer_over_ours": trainer["flops"] / ours["flops"],
    }


def show(report: dict[str, Any]) -> None:
    """The report as tables."""
    from rich.console import Console
    from rich.table import Table

    console, setting = Console(), report["setting"]

    def table(title: str, ways: dict[str, dict[str, Any]]) -> Table:
        drawn = Table(title=title, title_justify="left")
        for name in ("way", "ms a step", "dialogues/s", "LM positions", "peak MB", "time / ours"):
            drawn.add_column(name, justify="left" if name == "way" else "right")
        for way, values in ways.items():
            if "failed" in values:
                drawn.add_row(way, "failed", values["failed"][:60])
                continue
            drawn.add_row(
                way,
                f"{values['seconds'] * 1e3:,.0f}",
                f"{values['dialogues_per_s']:.1f}",
                f"{values['positions']:,.0f}",
                f"{values['peak_bytes'] / 2**20:,.0f}",
                f"{values['slower']:.2f}",
            )
        return drawn

    console.print(
        f"{report['date']}, {report['hardware']}, {setting['precision']}, shape {setting['shape']}, "
        f"{setting['images']} images a step"
    )
    for one in report["by_dialogues"]:
        console.print(table(f"{one['dialogues']} dialogues an image", one["ways"]))
    if "ablation" in report:
        console.print(
            table(f"{setting['dialogues']} dialogues an image, ours and ours without a part", report["ablation"])
        )
    console.print("equality of loss and gradients with the plain way:", report["equality"])
    limits = report["limits"]
    if "failed" in limits:
        console.print("limit: failed,", limits["failed"])
        return
    console.print(
        f"limit: {limits['ours']['flops'] / 1e9:,.0f} GFLOP a step at {limits['peak_flops'] / 1e9:,.0f} GFLOP/s take "
        f"{limits['product_seconds'] * 1e3:,.0f} ms, {limits['ours']['bytes'] / 1e9:.2f} GB of other traffic at "
        f"{limits['peak_bytes_per_s'] / 1e9:.1f} GB/s take {limits['traffic_seconds'] * 1e3:,.0f} ms; "
        f"{limits['achieved_share']:.0%} of that limit is reached ({limits['achieved_share_of_products']:.0%} of "
        f"matrix products alone). The plain way needs at least {limits['flops_trainer_over_ours']:.1f} times the FLOPs."
    )


if __name__ == "__main__":
    main()
