"""How long it takes, and how much memory, to find the planted copies among a million synthetic fingerprints.

The first `--drawn` fingerprints are those of drawn clouds (smooth random pictures, half of them round with black
corners as an endoscope shows them), and copies of some of them: the same cloud once more, cropped to 80 % of its area,
brightened, mirrored left-right or turned by 180 degrees, with noise. The others are put together at random from the
codes of the drawn ones, each bit flipped with probability 0.15, so they have the skewed bits of real codes and nothing
in common. All lie in one memory-mapped file. Only the search is timed, in a process that does nothing else.

    python benchmarks/near_duplicates.py --images 1000000 --json benchmarks/results/near_duplicates.json
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gastrovl.data.copies import CopyOptions, find_copies
from gastrovl.data.fingerprint import CODE_BITS, FINGERPRINT_BYTES, LAYOUT, PLACES, fingerprint_of_grey

KINDS = ("same, noisy", "brightened", "cropped to 80 %", "left-right", "180 degrees")
SIDE = 80  # px of a cloud
CHUNK = 4000  # pictures drawn at once
COPIES_PER_CHUNK = 100
FLIPPED = 0.15  # of the bits of recombined codes


def cloud(rng: np.random.Generator) -> NDArray[np.float64]:
    """A random picture with the spectrum of natural ones (amplitude falls with 1 / frequency), 0 to 255."""
    frequency = np.hypot(np.fft.fftfreq(SIDE)[:, None], np.fft.rfftfreq(SIDE))
    spectrum = np.fft.rfft2(rng.standard_normal((SIDE, SIDE))) / np.maximum(frequency, 1 / SIDE) ** 1.5
    picture = np.fft.irfft2(spectrum, s=(SIDE, SIDE))
    picture = np.clip(130 + 45 * (picture - picture.mean()) / picture.std(), 30, 255)
    if rng.random() < 0.5:
        axis = np.arange(SIDE) - (SIDE - 1) / 2
        picture[np.hypot(axis[:, None], axis) > SIDE * 0.56] = 0
    return picture


def altered(picture: NDArray[np.float64], kind: str, rng: np.random.Generator) -> NDArray[np.float64]:
    """A planted copy."""
    if kind == "brightened":
        picture = picture * 1.25
    elif kind == "cropped to 80 %":
        kept = round(SIDE * 0.8**0.5)
        top, left = rng.integers(0, SIDE - kept + 1, 2)
        picture = picture[top : top + kept, left : left + kept]
    elif kind == "left-right":
        picture = picture[:, ::-1]
    elif kind == "180 degrees":
        picture = picture[::-1, ::-1]
    return picture + rng.normal(0, 3, picture.shape)


def draw_chunk(seed: int, images: int) -> tuple[NDArray[np.uint8], list[tuple[int, int, str]]]:
    """Fingerprints, and the planted pairs (original, copy, kind) among them; copies stand at the end."""
    rng = np.random.default_rng(seed)
    copies = min(COPIES_PER_CHUNK, images // 2)
    prints = np.empty((images, FINGERPRINT_BYTES), dtype=np.uint8)
    planted = []
    for number in range(images - copies):
        picture = cloud(rng)
        prints[number] = _print(picture)
        if number < copies:
            kind = KINDS[number % len(KINDS)]
            prints[images - copies + number] = _print(altered(picture, kind, rng))
            planted.append((number, images - copies + number, kind))
    return prints, planted


def _print(picture: NDArray[np.float64]) -> NDArray[np.uint8]:
    return fingerprint_of_grey(Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8)))


def recombined(drawn: NDArray[np.uint8], images: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Fingerprints whose codes and places come from many drawn ones, with FLIPPED of the bits of codes flipped."""
    prints = drawn[rng.integers(0, len(drawn), images)]  # their small grey copies stay
    width = CODE_BITS // 8
    for part, size in ((LAYOUT.wide, width), (LAYOUT.narrow, width), (LAYOUT.places, 2)):
        pool = drawn[:, part].reshape(len(drawn), PLACES, size)
        sources = rng.integers(0, len(drawn), (images, PLACES))
        mixed = pool[sources, np.arange(PLACES)]
        if size == width:
            mixed = mixed ^ np.packbits(rng.random((images, PLACES, CODE_BITS), dtype=np.float32) < FLIPPED, axis=2)
        prints[:, part] = mixed.reshape(images, -1)
    return prints


def draw(path: Path, images: int, drawn: int, workers: int) -> list[tuple[int, int, str]]:
    """Write the fingerprints; returns the planted pairs."""
    prints = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=(images, FINGERPRINT_BYTES))
    drawn = min(drawn, images)
    starts = range(0, drawn, CHUNK)
    sizes = [min(CHUNK, drawn - start) for start in starts]
    planted = []
    with ProcessPoolExecutor(workers) as pool:
        for start, (chunk, pairs) in zip(starts, pool.map(draw_chunk, range(len(sizes)), sizes), strict=True):
            prints[start : start + len(chunk)] = chunk
            planted += [(start + i, start + j, kind) for i, j, kind in pairs]
    originals = np.array(prints[:drawn])
    for start in range(drawn, images, CHUNK):
        rng = np.random.default_rng((images, start))
        prints[start : start + CHUNK] = recombined(originals, min(CHUNK, images - start), rng)
    prints.flush()
    return planted


def peak_kb() -> int:
    """Peak of this program's resident memory; unlike `ru_maxrss` it does not start at that of the parent process."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1])
    raise SystemExit("/proc/self/status has no VmHWM; run this on Linux")


def search(path: Path, planted_path: Path) -> dict[str, object]:
    """Find the copies; what a fresh process measures of itself."""
    prints = np.load(path, mmap_mode="r")
    before = peak_kb()
    wall, cpu = time.perf_counter(), time.process_time()
    found = {(copy.i, copy.j): copy for copy in find_copies(prints, CopyOptions())}
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    planted = json.loads(planted_path.read_text(encoding="utf-8"))
    recall = {}
    for kind in KINDS:
        pairs = [(i, j) for i, j, name in planted if name == kind]
        recall[kind] = sum(pair in found for pair in pairs) / len(pairs)
    right = {(i, j) for i, j, _ in planted}
    return {
        "images": len(prints),
        "wall_seconds": round(wall, 1),
        "cpu_seconds": round(cpu, 1),
        "peak_rss_mb": round(peak_kb() / 1024),
        "rss_before_mb": round(before / 1024),
        "planted": len(right),
        "recall": round(sum(pair in found for pair in right) / len(right), 4),
        "recall_by_kind": {kind: round(value, 4) for kind, value in recall.items()},
        "found": len(found),
        "precision": round(len(right & set(found)) / max(1, len(found)), 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=int, nargs="+", default=[1_000_000], help="sizes of the collections")
    parser.add_argument("--drawn", type=int, default=40_000, help="how many are drawn; the rest is recombined")
    parser.add_argument("--workers", type=int, default=2, help="processes that draw; the search uses one")
    parser.add_argument("--folder", type=Path, help="keep the drawn fingerprints here, and use those that are there")
    parser.add_argument("--hardware", default=f"{os.cpu_count()}-core {platform.machine()}", help="named in the result")
    parser.add_argument("--date", default=time.strftime("%Y-%m-%d"), help="named in the result")
    parser.add_argument("--json", type=Path, help="write the result here")
    parser.add_argument("--search", type=Path, nargs=2, metavar=("PRINTS", "PLANTED"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.search:
        print(json.dumps(search(*options.search)))
        return
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for images in options.images:
            path, planted_path = folder / f"{images}.npy", folder / f"{images}.json"
            if not planted_path.exists():
                planted_path.write_text(
                    json.dumps(draw(path, images, options.drawn, options.workers)), encoding="utf-8"
                )
            command = [sys.executable, __file__, "--search", str(path), str(planted_path)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            rows.append(json.loads(done.stdout))
            print("\n".join(f"{key:16} {value}" for key, value in rows[-1].items()), end="\n\n")
    if options.json:
        result = {"date": options.date, "hardware": options.hardware, "numpy": np.__version__, "runs": rows}
        options.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
