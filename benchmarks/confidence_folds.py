"""What calibration, checks, label sets and abstention are worth over the folds of a cross-validation.

    python benchmarks/confidence_folds.py --checkpoint runs/fold1/train --data runs/fold1/data \\
        --checkpoint runs/fold2/train --data runs/fold2/data --leave-out drawn --date 2026-11-25

Every image is answered by a model that was trained without it. What is said of an answer was fitted without its group
("groups", ten parts), or without all answers of its model ("models": what another model of the recipe may expect). "One
for all" knows of no sources, "source not said" and "source said" are what `fit_task` has for either case.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from confidence import Fitted, answered, of_sets, one_table, rounded, show
from gastrovl.cli.calibrate import judge
from gastrovl.core.files import write_text
from gastrovl.core.types import Task
from gastrovl.inference.belief.calibrating import cases_of
from gastrovl.inference.belief.calibration import TaskCalibration
from gastrovl.inference.belief.fitting import Case, fit_task
from gastrovl.inference.belief.scaling import folds, numbered
from gastrovl.inference.predictor import Predictor

Crossed = list[tuple[Case, TaskCalibration]]


def cases_of_folds(options: argparse.Namespace) -> dict[Task, list[tuple[int, Case]]]:
    """The test answers of every fold by task, each with the number of its fold."""
    found: dict[Task, list[tuple[int, Case]]] = {}
    for number, (checkpoint, data) in enumerate(zip(options.checkpoint, options.data, strict=True), 1):
        work = options.work / f"fold{number}"
        asked, checks = answered(Predictor.load(checkpoint, "cpu"), data, work, "test")
        kept = [pair for pair in asked if pair[0].source not in options.leave_out]
        verdicts = judge(work / "test.jsonl", data / "test.jsonl")
        for task, some in cases_of(kept, verdicts, checks).items():
            found.setdefault(task, []).extend((number, one) for one in some)
    return found


def crossed(task: Task, cases: Sequence[Case], parts: Sequence[np.ndarray], level: float, risk: float) -> Crossed:
    """Each case with what was fitted without its part."""
    found = []
    for part in parts:
        known = fit_task(task, [cases[row] for row in np.flatnonzero(~part)], level=level, risk=risk)
        found += [(cases[row], known) for row in np.flatnonzero(part)]
    return found


def said(fitted: Crossed) -> Fitted:
    """The same where questions say which source they are from."""
    return [(one, known.of(one.source)) for one, known in fitted]


def tables(task: Task, numbered_cases: Sequence[tuple[int, Case]], options: argparse.Namespace) -> dict[str, Any]:
    """Everything about one task; the last fold, judged by the others, once more on its own."""
    fold_of, cases = np.array([number for number, _ in numbered_cases]), [one for _, one in numbered_cases]
    source_of, (level, *others) = {one.group: str(one.source) for one in cases}, options.level
    by_group = folds(numbered([one.group for one in cases]))
    by_model = [fold_of == number for number in sorted(set(fold_of.tolist()))]
    blind = crossed(task, [replace(one, source=None) for one in cases], by_group, level, options.risk)
    over_groups = crossed(task, cases, by_group, level, options.risk)
    over_models = crossed(task, cases, by_model, level, options.risk)
    ways = {
        "groups, one for all": blind,
        "groups, source not said": over_groups,
        "groups, source said": said(over_groups),
        "models, source said": said(over_models),
        "last fold by the others, source said": said(over_models[-int(by_model[-1].sum()) :]),
    }
    found: dict[str, Any] = {}
    for name, fitted in ways.items():
        found[name] = one_table(task, fitted, source_of, options.risk)
        show(f"{task}: {name}", found[name])
    for other in others if task is not Task.REC else []:
        fitted = said(crossed(task, cases, by_group, other, options.risk))
        for source, part in found["groups, source said"].items():
            part[f"sets at {other:g}"] = of_sets([one for one in fitted if source in ("all", one[0].source)])
            print(f"  {source:12} sets at {other:g}: {json.dumps(rounded(part[f'sets at {other:g}']))}", flush=True)
    return found


def main() -> None:
    """Print every table and put them beside what the results file has of one checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, action="append", required=True)
    parser.add_argument(
        "--data", type=Path, action="append", required=True, help="its dataset folder, with a test split"
    )
    parser.add_argument("--task", type=Task, action="append", help="only this one; what the results have stays")
    parser.add_argument("--leave-out", action="append", default=[], help="a source that is not to count")
    parser.add_argument("--work", type=Path, default=Path("runs/confidence"), help="where answers are kept")
    parser.add_argument("--level", type=float, nargs="+", default=[0.9, 0.8])
    parser.add_argument("--risk", type=float, default=0.1)
    parser.add_argument("--date", required=True)
    parser.add_argument("--hardware", default="2-core CPU (Intel Xeon, shared)")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/confidence.json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    cases = cases_of_folds(options)
    told: dict[str, Any] = {"date": options.date, "hardware": options.hardware, "folds": len(options.data)}
    for task, some in cases.items():
        if options.task and task not in options.task:
            continue
        told[task.value] = tables(task, some, options)
        known = json.loads(options.output.read_text(encoding="utf-8")) if options.output.exists() else {}
        write_text(
            options.output, json.dumps({**known, "folds": {**known.get("folds", {}), **rounded(told)}}, indent=1) + "\n"
        )


if __name__ == "__main__":
    main()
