"""How often each paired test finds a difference between two equally good models, where a patient's frames share a fate.

    python benchmarks/paired_null.py --json benchmarks/results/paired_null.json

Both models are right or wrong on all questions of a group alike, each with the same chance, so a test at 5 % should
reject in 5 of 100 test sets. `gastrovl compare` makes 9,999 swaps and 2,000 resamples; here there are fewer of each.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

CHANCE = 0.6  # of being right on a group
LEVEL = 0.05
SHAPES = ((8, 30), (30, 8), (200, 5))  # groups, questions of each
BOOTSTRAPPED = ((10, 4), (40, 4))
DRAWS = 499


def test_set(generator: np.random.Generator, groups: int, size: int) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Right and wrong of both models, and the group of each question."""
    first, second = (np.repeat(generator.random(groups) < CHANCE, size) for _ in range(2))
    return first, second, [f"p{index}" for index in range(groups) for _ in range(size)]


def by_tests(groups: int, size: int, sets: int, seed: int) -> dict[str, float]:
    """Rejections in percent of McNemar's exact test, Obuchowski's, and swaps of whole groups."""
    from gastrovl.evaluation.statistics.paired import mcnemar, sign_flip_p

    generator = np.random.default_rng(seed)
    rejected = {"mcnemar_exact": 0, "obuchowski": 0, "swaps": 0}
    for number in range(sets):
        first, second, names = test_set(generator, groups, size)
        found = mcnemar(first, second, names)
        swapped = sign_flip_p(second.astype(float) - first, names, seed=number, flips=DRAWS)
        for name, p in (("mcnemar_exact", found.exact), ("obuchowski", found.clustered), ("swaps", swapped)):
            rejected[name] += p is not None and p <= LEVEL
    return {name: round(100 * count / sets, 1) for name, count in rejected.items()}


def by_bootstrap(groups: int, size: int, sets: int, seed: int) -> float:
    """Rejections in percent of the paired bootstrap."""
    from gastrovl.evaluation.measures.measure import mean_measure
    from gastrovl.evaluation.statistics.paired import differences

    generator = np.random.default_rng(seed)
    rejected = 0
    for number in range(sets):
        *both, names = test_set(generator, groups, size)
        first, second = (
            [mean_measure("share", right.astype(float), np.ones(len(right), dtype=bool), "")] for right in both
        )
        [found] = differences(first, second, names, resamples=DRAWS, seed=number)
        rejected += found.p is not None and found.p <= LEVEL
    return round(100 * rejected / sets, 1)


def main() -> None:
    """Simulate every shape and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=int, default=2000, help="Test sets a shape; half as many for the bootstrap.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows: list[dict[str, float | str]] = []
    for groups, size in SHAPES:
        rows.append({"shape": f"{groups} x {size}", **by_tests(groups, size, options.sets, options.seed)})
        print(rows[-1], flush=True)
    for groups, size in BOOTSTRAPPED:
        share = by_bootstrap(groups, size, options.sets // 2, options.seed)
        rows.append({"shape": f"{groups} x {size}", "bootstrap": share})
        print(rows[-1], flush=True)
    if options.json:
        machine = f"{os.cpu_count()}-core CPU, {platform.machine()}"
        about = {"date": datetime.now(UTC).date().isoformat(), "hardware": machine, "seed": options.seed}
        about |= {"sets": options.sets, "draws": DRAWS}
        options.json.write_text(json.dumps({**about, "rows": rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
