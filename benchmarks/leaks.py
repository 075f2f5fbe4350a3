"""How many planted copies of real frames the leak gate finds, by kind, and how many of its finds are right.

Half of the frames of EDD2020 and HyperKvasir (every second one by name; the other half served to choose the options)
and `--copies` altered copies of each make one pool. A found pair is right if both pictures come from one frame, or from
two frames that are natural near-duplicates: frames of one video that show the same place. No list of those exists, so
they are judged by eye: `--sheet` draws the pairs of different frames that were found with the least likeness, and those
that turn out to be different are written into a file for `--different`, which counts them as wrong.

    python benchmarks/leaks.py --data-root ../shared/data --json benchmarks/results/leaks.json
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from gastrovl.data.copies import Copy, CopyOptions, find_copies
from gastrovl.data.fingerprint import fingerprint
from gastrovl.data.synthetic.planting import KINDS

ORIGINAL = "original"


def frames(root: Path) -> list[Path]:
    """All frames of both sets, sorted."""
    found = sorted((root / "edd2020" / "images").glob("*.jpg")) + sorted(root.glob("hyperkvasir/images/*/*.jpg"))
    if not found:
        raise SystemExit(f"{root}: no frames of EDD2020 or HyperKvasir here; pass their folder as --data-root")
    return found


def plant(path: Path, number: int, copies: int, seed: int) -> list[tuple[str, NDArray[np.uint8]]]:
    """(kind, fingerprint) of a frame and of its copies; kinds take turns."""
    with Image.open(path) as stored:
        picture = stored.convert("RGB")
    rng = np.random.default_rng((seed, number))
    rows = [(ORIGINAL, fingerprint(picture))]
    names = list(KINDS)
    for copy in range(copies):
        name = names[(number * copies + copy) % len(names)]
        altered = picture
        for step in KINDS[name]:
            altered = step(altered, rng)
        rows.append((name, fingerprint(altered)))
    return rows


def measure(
    source: NDArray[np.int64], kinds: list[str], found: list[Copy], wrong_frames: set[tuple[int, int]]
) -> dict[str, object]:
    """Recall by kind and precision; `wrong_frames` are pairs of frames judged to be different."""
    original = {int(source[row]): row for row, kind in enumerate(kinds) if kind == ORIGINAL}
    pairs = {(copy.i, copy.j) for copy in found}
    hits: dict[str, list[bool]] = defaultdict(list)
    for row, kind in enumerate(kinds):
        if kind != ORIGINAL:
            hits[kind].append((original[int(source[row])], row) in pairs)
    of_frames = {(copy.i, copy.j): tuple(sorted((int(source[copy.i]), int(source[copy.j])))) for copy in found}
    right = sum(a == b or (a, b) not in wrong_frames for a, b in of_frames.values())
    natural = {(a, b) for a, b in of_frames.values() if a != b}
    every = [hit for some in hits.values() for hit in some]
    return {
        "frames": len(original),
        "pictures": len(kinds),
        "planted": len(every),
        "recall": round(float(np.mean(every)), 4),
        "found": len(found),
        "precision": round(right / max(1, len(found)), 4),
        "found_between_frames": sum(a != b for a, b in of_frames.values()),
        "pairs_of_frames": len(natural),
        "pairs_of_frames_judged_different": len(natural & wrong_frames),
        "precision_without_natural_pairs": round(
            sum(a == b for a, b in of_frames.values())
            / max(1, sum(a == b or (a, b) in wrong_frames for a, b in of_frames.values())),
            4,
        ),
        "recall_by_kind": {kind: [round(float(np.mean(hits[kind])), 4), len(hits[kind])] for kind in KINDS},
    }


def weakest(source: NDArray[np.int64], found: list[Copy]) -> list[tuple[float, int, int]]:
    """Pairs of different frames with the best likeness found for them, the weakest first."""
    best: dict[tuple[int, int], float] = {}
    for copy in found:
        a, b = sorted((int(source[copy.i]), int(source[copy.j])))
        if a != b:
            best[a, b] = max(copy.likeness, best.get((a, b), 0.0))
    return sorted((likeness, a, b) for (a, b), likeness in best.items())


def draw_sheet(path: Path, files: list[Path], pairs: list[tuple[float, int, int]], width: int = 180) -> None:
    """A contact sheet of pairs of frames, six a row."""
    height = width * 3 // 4
    sheet = Image.new("RGB", (6 * (2 * width + 10), (height + 14) * -(-len(pairs) // 6)), "white")
    draw = ImageDraw.Draw(sheet)
    for number, (likeness, a, b) in enumerate(pairs):
        left, top = number % 6 * (2 * width + 10), number // 6 * (height + 14)
        for side, frame in enumerate((a, b)):
            with Image.open(files[frame]) as stored:
                sheet.paste(stored.convert("RGB").resize((width, height)), (left + side * width, top))
        draw.text((left, top + height), f"{likeness:.3f} {files[a].stem[-22:]} {files[b].stem[-22:]}", fill="black")
    sheet.save(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data-root", type=Path, default=Path("../shared/data"))
    parser.add_argument("--half", choices=("tune", "test"), default="test", help="every second frame, from 0 or from 1")
    parser.add_argument("--copies", type=int, default=4, help="copies planted of each frame")
    parser.add_argument("--seed", type=int, default=2026)
    parser.add_argument("--likeness", type=float, default=CopyOptions().likeness)
    parser.add_argument("--different", type=Path, help="lines `stem stem`: frames that are no near-duplicates")
    parser.add_argument("--sheet", type=Path, help="draw the weakest pairs of different frames here (PNG)")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--hardware", default=f"{os.cpu_count()}-core {platform.machine()}", help="named in the result")
    parser.add_argument("--date", default=time.strftime("%Y-%m-%d"), help="named in the result")
    parser.add_argument("--json", type=Path, help="write the result here")
    options = parser.parse_args()
    files = frames(options.data_root)[options.half == "test" :: 2]
    jobs = (files, range(len(files)), [options.copies] * len(files), [options.seed] * len(files))
    with ProcessPoolExecutor(options.workers) as pool:
        rows = [(n, kind, one) for n, some in enumerate(pool.map(plant, *jobs, chunksize=8)) for kind, one in some]
    source = np.array([row[0] for row in rows])
    started = time.process_time()
    found = find_copies(np.stack([row[2] for row in rows]), CopyOptions(likeness=options.likeness))
    seconds = time.process_time() - started
    between = weakest(source, found)
    number_of = {path.stem: number for number, path in enumerate(files)}
    lines = options.different.read_text(encoding="utf-8").splitlines() if options.different else []
    named = [tuple(number_of[stem] for stem in line.split() if stem in number_of) for line in lines]
    wrong = {(min(pair), max(pair)) for pair in named if len(pair) == 2}
    result = measure(source, [row[1] for row in rows], found, wrong)
    result |= {"half": options.half, "seed": options.seed, "likeness": options.likeness}
    result |= {"search_cpu_seconds": round(seconds, 1), "date": options.date, "hardware": options.hardware}
    if options.sheet:
        draw_sheet(options.sheet, files, between[:60])
    for key, value in result.items():
        if key != "recall_by_kind":
            print(f"{key:34} {value}")
    for kind, (recall, count) in result["recall_by_kind"].items():
        print(f"  {kind:32} {recall:.3f} of {count}")
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
