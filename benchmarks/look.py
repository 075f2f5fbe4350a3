"""Frames to the CPU time that each part of looking at one takes, in ms of one core.

    python benchmarks/look.py --data-root ../shared/data --json look.json

Every frame is brought to SIDE x SIDE px and stored as JPEG of quality 87 first. The parts of one frame run one after
the other, as in a build, so that its pixels are still in the processor's caches; the best of several rounds counts.
Without a data root, frames are drawn: an octagon of textured pink on black, with a square and with text.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import platform
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from gastrovl.data.colours import colour_histogram, overlap
from gastrovl.data.measures import measure, small_copies
from gastrovl.data.metadata import without_metadata

SIDE = 512


def drawn(count: int, side: int) -> Iterator[Image.Image]:
    """Frames that look a little like endoscopy: the same for every run."""
    rng = np.random.default_rng(7)
    cut = side // 6
    aperture = Image.new("L", (side, side), 255)
    for x, y in ((0, 0), (side, 0), (0, side), (side, side)):
        ImageDraw.Draw(aperture).polygon([(x, y), (abs(x - cut), y), (x, abs(y - cut))], fill=0)
    for index in range(count):
        blocks = rng.integers(60, 220, (side // 16, side // 16, 3), dtype=np.uint8)
        blocks[..., 1:] //= 2
        frame = Image.fromarray(blocks).resize((side, side), Image.Resampling.BICUBIC)
        frame = Image.composite(frame, Image.new("RGB", (side, side)), aperture)
        draw = ImageDraw.Draw(frame)
        if index % 2:
            draw.rectangle((0, side * 2 // 3, side // 4, side), fill=(0, 0, 0))
        draw.multiline_text((8, side // 3), "Name:\n12/04/2012\n00:24:59", fill=(235, 235, 235))
        yield frame


def real(root: Path, count: int, side: int) -> Iterator[Image.Image]:
    """Frames spread evenly over all JPEG files below `root`."""
    paths = sorted(root.rglob("*.jpg"))
    for place in range(min(count, len(paths))):
        with Image.open(paths[place * len(paths) // min(count, len(paths))]) as picture:
            yield picture.convert("RGB").resize((side, side), Image.Resampling.LANCZOS)


def time_parts(path: Path, spent: dict[str, float]) -> None:
    """Look at one file and add the seconds of each part to `spent`."""

    def part(name: str, work: Callable[[], Any]) -> Any:
        start = time.process_time()
        result = work()
        spent[name] += time.process_time() - start
        return result

    content = part("read", path.read_bytes)
    part("sha256", lambda: hashlib.sha256(content).hexdigest())
    picture = part("decode", lambda: _decoded(content))
    copies = part("small copies", lambda: small_copies(picture))
    part("measures", lambda: measure(copies))
    colours = part("colours", lambda: colour_histogram(copies.thumbnail))
    part("overlap of colours", lambda: overlap(colours, colours))
    part("without metadata", lambda: without_metadata(content, path.name))


def _decoded(content: bytes) -> Image.Image:
    with Image.open(io.BytesIO(content)) as picture:
        picture.load()
        return picture


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", type=Path, help="folder with JPEG files; without it frames are drawn")
    parser.add_argument("--images", type=int, default=120)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--json", type=Path, help="write the result there, too")
    options = parser.parse_args()
    frames = real(options.data_root, options.images, SIDE) if options.data_root else drawn(options.images, SIDE)
    best: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for index, frame in enumerate(frames):
            paths.append(Path(folder) / f"{index}.jpg")
            frame.save(paths[-1], quality=87)
        for _ in range(options.rounds):
            spent: dict[str, float] = defaultdict(float)
            for path in paths:
                time_parts(path, spent)
            for name, seconds in spent.items():
                best[name] = min(best.get(name, seconds), seconds)
    result = {
        "frames": "real" if options.data_root else "drawn",
        "images": len(paths),
        "side_px": SIDE,
        "rounds": options.rounds,
        "cpu_ms_per_image": {name: round(1000 * seconds / len(paths), 3) for name, seconds in best.items()},
        "python": platform.python_version(),
        "machine": platform.machine(),
    }
    for name, ms in result["cpu_ms_per_image"].items():
        print(f"{name:20} {ms:7.3f} ms")
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
