"""What calibration, checks, label sets and abstention are worth over the folds of a cross-validation.

    python benchmarks/confidence_folds.py --checkpoint runs/fold1/train --data runs/fold1/data \\
        --checkpoint runs/fold2/train --data runs/fold2/data --leave-out drawn --date 2026-11-25

Every image is answered by a model that was trained without it. What is said of an answer was fitted without its group
("groups", ten parts), or without all answers of its model ("models": what another model of the recipe may expect). Each
is told three ways: "one for all" knows of no sources, "source not said" and "source said" are `fit_task`'s.
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
from gastrovl.inference.belief.fitting import Case, fit_task
from gastrovl.inference.belief.scaling import folds, numbered
from gastrovl.inference.predictor import Predictor

WAYS = ("one for all", "source not said", "source said")


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


def crossed(
    task: Task, cases: Sequence[Case], parts: Sequence[np.ndarray], level: float, risk: float
) -> dict[str, Fitted]:
    """Each case with what was fitted without its part, in the three ways."""
    found: dict[str, list[Any]] = {way: [] for way in WAYS}
    plain = [replace(one, source=None) for one in cases]
    for part in parts:
        out = np.flatnonzero(part)
        known = fit_task(task, [cases[row] for row in np.flatnonzero(~part)], level=level, risk=risk)
        blind = fit_task(task, [plain[row] for row in np.flatnonzero(~part)], level=level, risk=risk)
        found["one for all"] += [(cases[row], blind) for row in out]
        found["source not said"] += [(cases[row], known) for row in out]
        found["source said"] += [(cases[row], known.of(cases[row].source)) for row in out]
    return dict(found)


def tables(task: Task, numbered_cases: Sequence[tuple[int, Case]], options: argparse.Namespace) -> dict[str, Any]:
    """Everything about one task; the last fold, judged by the others, once more on its own."""
    fold_of, cases = np.array([number for number, _ in numbered_cases]), [one for _, one in numbered_cases]
    sources = {one.group: str(one.source) for one in cases}
    divisions = {
        "groups": folds(numbered([one.group for one in cases])),
        "models": [fold_of == number for number in sorted(set(fold_of.tolist()))],
    }
    found: dict[str, Any] = {}
    for name, parts in divisions.items():
        fitted = {level: crossed(task, cases, parts, level, options.risk) for level in options.level}
        for way in WAYS:
            title = f"{name}, {way}"
            found[title] = one_table(task, fitted[options.level[0]][way], sources, options.risk)
            show(f"{task}: {title}", found[title])
            for level in options.level[1:]:
                for source, part in found[title].items():
                    pairs = [one for one in fitted[level][way] if source in ("all", one[0].source)]
                    part[f"sets at {level:g}"] = of_sets(pairs)
                    print(f"  {source:12} sets at {level:g}: {json.dumps(rounded(part[f'sets at {level:g}']))}")
    last = crossed(task, cases, divisions["models"][-1:], options.level[0], options.risk)["source said"]
    found["last fold by the others, source said"] = one_table(task, last, sources, options.risk)
    show(f"{task}: last fold", found["last fold by the others, source said"])
    return found


def main() -> None:
    """Print every table and put them beside what the results file has of one checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, action="append", required=True)
    parser.add_argument(
        "--data", type=Path, action="append", required=True, help="its dataset folder, with a test split"
    )
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
    told |= {task.value: tables(task, some, options) for task, some in cases.items()}
    known = json.loads(options.output.read_text(encoding="utf-8")) if options.output.exists() else {}
    write_text(options.output, json.dumps({**known, "folds": rounded(told)}, indent=1) + "\n")


if __name__ == "__main__":
    main()
