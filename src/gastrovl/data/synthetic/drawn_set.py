"""A folder of drawn examinations in the form of a public dataset: images, labels.csv, boxes.json and masks."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gastrovl.core.geometry import to_pixels
from gastrovl.core.parallel import in_order
from gastrovl.core.types import Box
from gastrovl.data.synthetic.camera import draw_camera
from gastrovl.data.synthetic.drawing import SITES, DrawnImage, draw_image

LESION_COUNT_SHARES = (0.36, 0.54, 0.10)  # of frames with no, one and two lesions


def write_drawn_set(folder: Path, images: int, seed: int, progress: Callable[[int, int], None] | None = None) -> Path:
    """Draw `images` frames; an examination is one camera led through all sites, and never parts across splits.

    Writes `folder/images/*.jpg`, `folder/masks/*.png` (one for each kind of lesion of a frame), `folder/labels.csv`
    (file, label, video: one row for each label of a frame) and `folder/boxes.json` (stem -> height, width,
    bbox: [{label, xmin, ymin, xmax, ymax}] in pixels).

    Args:
        progress: Called with (frames done, frames in all) after each frame.

    Returns:
        `folder`.
    """
    folder = Path(folder)
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    rows: list[tuple[str, str, str]] = []
    boxes: dict[str, dict[str, object]] = {}
    for index, drawn in enumerate(_drawn(folder, images, seed)):
        video = index // len(SITES)
        stem = f"drawn-{index:05d}"
        labels = dict.fromkeys((drawn.site, *(term for term, _ in drawn.lesions)))
        rows.extend((f"{stem}.jpg", label, f"video-{video:04d}") for label in labels)
        if drawn.lesions:
            boxes[stem] = _box_entry(drawn)
        if progress:
            progress(index + 1, images)
    with (folder / "labels.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(("file", "label", "video"))
        writer.writerows(rows)
    (folder / "boxes.json").write_text(json.dumps(boxes, indent=1), encoding="utf-8")
    return folder


def _drawn(folder: Path, images: int, seed: int) -> Iterator[DrawnImage]:
    """Frames in their order, drawn and saved by several threads; each is the same whoever draws it."""

    def draw(index: int) -> DrawnImage:
        drawn = draw_frame(seed, index)
        stem = f"drawn-{index:05d}"
        Image.fromarray(drawn.pixels).save(folder / f"images/{stem}.jpg", quality=90)
        for kind, mask in _masks_by_kind(drawn).items():
            Image.fromarray(mask.astype(np.uint8) * 255).save(folder / f"masks/{stem}_{kind}.png", compress_level=1)
        return drawn

    return in_order(draw, range(images))


def _masks_by_kind(drawn: DrawnImage) -> dict[str, NDArray[np.bool_]]:
    """Everything of each kind of lesion in a frame."""
    found: dict[str, NDArray[np.bool_]] = {}
    for (term, _), mask in zip(drawn.lesions, drawn.masks, strict=True):
        found[term] = found[term] | mask if term in found else mask
    return found


def draw_frame(seed: int, index: int) -> DrawnImage:
    """Frame `index` of the set with `seed`, whatever the size of the set."""
    video, step = divmod(index, len(SITES))
    camera = draw_camera(np.random.default_rng((seed, video)))
    rng = np.random.default_rng((seed, video, step))
    site = list(SITES)[step]
    count = int(rng.choice(len(LESION_COUNT_SHARES), p=LESION_COUNT_SHARES))
    lesions = [str(term) for term in rng.choice(SITES[site], size=count, p=_shares(SITES[site]))]
    return draw_image(rng, site, lesions, camera=camera)


def _shares(terms: tuple[str, ...]) -> list[float]:
    """Share of each lesion at a site: the fewer sites it can be drawn at, the larger, so that none is rare."""
    weights = [1 / sum(term in other for other in SITES.values()) for term in terms]
    return [weight / sum(weights) for weight in weights]


def _box_entry(drawn: DrawnImage) -> dict[str, object]:
    height, width = drawn.pixels.shape[:2]

    def row(term: str, box: Box) -> dict[str, object]:
        x0, y0, x1, y1 = (round(value) for value in to_pixels(box, (width, height)))
        return {"label": term, "xmin": x0, "ymin": y0, "xmax": x1, "ymax": y1}

    return {"height": height, "width": width, "bbox": [row(term, box) for term, box in drawn.lesions]}
