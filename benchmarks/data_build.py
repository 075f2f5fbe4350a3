"""How fast `gastrovl data build` is: images a second and core at 512 px, how that changes with size, and its memory.

    python benchmarks/data_build.py --sizes 1000 10000 100000 --json benchmarks/results/data_build.json

Frames are drawn once and repeated with noise of low frequency and another brightness, so that no two of them are alike
and each costs what a photograph of its size costs. Every build runs in a process of its own, by one worker, with
everything that a build does by default: reading, hashing, decoding, measures, search for copies, splits, stored images,
conversations, statistics, card and audit page. Only figures are left out: they cost the same whatever the size.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from PIL import Image

SIDE_PX = 512
BASES = 48  # frames that are drawn; all others are made from them
JPEG_QUALITY = 90
FRAMES_A_VIDEO = 20
AIM = 300  # images a second and core
FLAT = 0.2  # most that the time an image may grow over sizes

DESCRIPTION = """\
# Drawn frames repeated with noise, for timing.
name: bench
title: Drawn frames for timing
licence: Apache-2.0
citation: Drawn by gastrovl.data.synthetic
images: ["images/**/*.jpg"]
annotations:
  - {format: csv_labels, file: labels.csv, image: file, label: label, group: video}
  - {format: csv_labels, file: boxes.csv, image: file, label: label, box: [x0, y0, x1, y1]}
labels:
"""


def draw_bases() -> list[tuple[Image.Image, str, list[tuple[str, tuple[int, int, int, int]]]]]:
    """Frames of 512 px with their site and boxes in pixels."""
    from gastrovl.core.geometry import to_pixels
    from gastrovl.data.synthetic.camera import draw_camera
    from gastrovl.data.synthetic.drawing import SITES, draw_image

    bases = []
    for number in range(BASES):
        rng = np.random.default_rng((11, number))
        site = list(SITES)[number % len(SITES)]
        lesions = [str(term) for term in rng.choice(SITES[site], size=number % 3)]
        drawn = draw_image(rng, site, lesions, camera=draw_camera(rng, (SIDE_PX, SIDE_PX)))
        boxes = [(term, tuple(round(v) for v in to_pixels(box, (SIDE_PX, SIDE_PX)))) for term, box in drawn.lesions]
        bases.append((Image.fromarray(drawn.pixels), drawn.site, boxes))
    return bases


def make_source(folder: Path, images: int) -> None:
    """Write a source of `images` frames; an earlier, smaller one is grown."""
    bases = draw_bases()
    labels, boxes, terms = ["file,label,video"], ["file,label,x0,y0,x1,y1"], set()
    for index in range(images):
        picture, site, lesions = bases[index % BASES]
        name = f"{index // 1000:04d}/frame-{index:07d}.jpg"
        path = folder / "images" / name
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            vary(picture, index).save(path, quality=JPEG_QUALITY)
        video = f"v{index // FRAMES_A_VIDEO:06d}"
        terms |= {site, *(term for term, _ in lesions)}
        labels += [f"{name},{label},{video}" for label in dict.fromkeys((site, *(term for term, _ in lesions)))]
        boxes += [f"{name},{term},{','.join(str(value) for value in box)}" for term, box in lesions]
    (folder / "labels.csv").write_text("\n".join(labels) + "\n", encoding="utf-8")
    (folder / "boxes.csv").write_text("\n".join(boxes) + "\n", encoding="utf-8")
    rules = "".join(f"  {term}: {term}\n" for term in sorted(terms))
    (folder / "source.yaml").write_text(DESCRIPTION + rules, encoding="utf-8")


def vary(picture: Image.Image, index: int) -> Image.Image:
    """The frame with smooth noise of its own: another picture to a reader of hashes."""
    rng = np.random.default_rng((12, index))
    noise = rng.integers(0, 256, (12, 12, 3), dtype=np.uint8)
    cloud = Image.fromarray(noise).resize(picture.size, Image.Resampling.BICUBIC)
    return Image.blend(picture, cloud, float(rng.uniform(0.35, 0.6)))


def measure_build(source: Path, output: Path) -> dict[str, float]:
    """Build in this process; seconds and peak memory."""
    from gastrovl.core.config import parse_config
    from gastrovl.data.build import BuildConfig, build_dataset

    content = {"sources": [{"description": str(source / "source.yaml"), "root": str(source)}], "figures": False}
    config = parse_config(content, BuildConfig, where="benchmark")
    wall, cpu = time.perf_counter(), time.process_time()
    build_dataset(config, output)
    seconds = {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}
    return {**seconds, "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[1000, 10_000])
    parser.add_argument("--folder", type=Path, help="where frames are kept for another run; default: a temporary one")
    parser.add_argument("--json", type=Path, help="results file")
    parser.add_argument("--hardware", default=f"{os.cpu_count()}-core {platform.machine()}", help="named in the result")
    parser.add_argument("--one", type=Path, nargs=2, metavar=("SOURCE", "OUTPUT"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure_build(*options.one)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        rows = [run(options.folder or Path(temporary) / "frames", size) for size in options.sizes]
    report(rows, options.json, options.hardware)


def run(folder: Path, images: int) -> dict[str, float]:
    """Make the frames and build them in a process of its own."""
    from gastrovl.core.files import partial_folder

    source = folder / f"{images}"
    make_source(source, images)
    output = folder / f"built-{images}"
    for old in (output, partial_folder(output)):  # what an interrupted run left would be taken up
        shutil.rmtree(old, ignore_errors=True)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, __file__, "--one", str(source), str(output)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    row = {"images": images, **json.loads(done.stdout.splitlines()[-1])}
    row |= {"images_per_s": images / row["wall_s"], "ms_per_image": 1000 * row["wall_s"] / images}
    row["cpu_ms"] = 1000 * row["cpu_s"] / images
    shutil.rmtree(output)
    speed = f"{row['images_per_s']:6.0f} a second  {row['ms_per_image']:5.2f} ms ({row['cpu_ms']:.2f} ms CPU)"
    print(f"{images:>9,} images  {speed}  {row['peak_mb']:6.0f} MB", flush=True)
    return row


def report(rows: list[dict[str, float]], place: Path | None, hardware: str) -> None:
    """Say whether the aims are met, and keep the numbers."""
    times = [row["ms_per_image"] for row in rows]
    spread = max(times) / min(times) - 1
    print(f"slowest: {min(row['images_per_s'] for row in rows):.0f} images/s on one core; aim {AIM}")
    print(f"time an image differs by {spread:.0%} over sizes; aim {FLAT:.0%}")
    if place:
        place.parent.mkdir(parents=True, exist_ok=True)
        made = {"date": datetime.now(UTC).date().isoformat(), "hardware": hardware, "workers": 1}
        facts = {**made, "python": platform.python_version(), "side_px": SIDE_PX, "aim": AIM, "rows": rows}
        place.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
