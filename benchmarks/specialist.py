"""Frames of one lesion, with boxes or masks, to the boxes of a small U-shaped network that can do nothing else.

    python benchmarks/specialist.py --data DATA -o runs/specialist --minutes 8
    gastrovl evaluate runs/specialist/test_mask.jsonl --conversations runs/specialist/test_questions.jsonl \\
        --train DATA/train.jsonl -o runs/specialist/test_mask

DATA is a folder that `gastrovl data build` made. A multi-task model that loses to this specialist has not earned its
size. About 2.4 M parameters from random weights see the questions of the task REC about `--term` in `--source`: 160 px,
flips, quarter turns, crops and colour, a running average of the weights. Two answers come out: the tight box around the
largest connected part of the predicted mask, and the box of a head that never saw a mask. Where a question has a mask
(`target.mask`, a file relative to DATA), that is what the mask branch learns; elsewhere its boxes, filled.

Without `--data` a few drawn frames and steps show that it runs.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import queue
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor, nn
from torch.nn import functional as F

from gastrovl.core import geometry
from gastrovl.core.boxtext import encode_box
from gastrovl.core.config import load_config
from gastrovl.core.images import open_image
from gastrovl.core.records import write_records
from gastrovl.core.types import Box, Prediction
from gastrovl.data.build import build_dataset
from gastrovl.data.config import BuildConfig
from gastrovl.data.formats.masks import component_boxes

REPOSITORY = Path(__file__).resolve().parents[1]
STORED = 1.5  # side of the stored copies over that of the input, so that a crop still has detail
SMALLEST_CROP, LARGEST_CROP = 0.6, 1.15  # side of the window that is shown over that of the image
STRETCH = 1.2  # largest change of a window's width over its height
COLOUR = 0.25
BATCHES_AHEAD = 4


@dataclass(frozen=True)
class Frames:
    """Questions of one split: their lines as they stand in the file, and the pixels.

    Attributes:
        lines: JSON of each question.
        pixels: uint8, (questions, 3, stored, stored); every image is squeezed into a square.
        masks: uint8, 0 or 255, (questions, 1, stored, stored).
        boxes: The largest true box, corners in fractions, (questions, 4).
        n_masks: Questions that brought a mask of their own.
    """

    lines: list[str]
    pixels: Tensor
    masks: Tensor
    boxes: Tensor
    n_masks: int


def read_frames(data: Path, split: str, source: str, term: str, side: int, *, with_truth: bool) -> Frames:
    """The REC questions about `term` in a split; with `with_truth`, only those about a lesion that is there."""
    lines, pixels, masks, boxes, n_masks = [], [], [], [], 0
    for line in (data / f"{split}.jsonl").read_text(encoding="utf-8").splitlines():
        one = json.loads(line)
        target = one["target"]
        places = target.get("boxes", ())
        if one["task"] != "REC" or one["source"] != source or term not in target["terms"]:
            continue
        if with_truth and not places:
            continue
        image = open_image(data / one["image"]["path"]).resize((side, side), Image.Resampling.BILINEAR)
        corners = [tuple(box[name] for name in ("x0", "y0", "x1", "y1")) for box in places]
        mask, is_drawn = _mask(data, target.get("mask"), corners, side)
        lines.append(line)
        pixels.append(torch.from_numpy(np.array(image)).permute(2, 0, 1))
        masks.append(torch.from_numpy(np.array(mask))[None])
        boxes.append(max(corners, key=lambda box: (box[2] - box[0]) * (box[3] - box[1]), default=(0.0, 0.0, 1.0, 1.0)))
        n_masks += is_drawn
    if not lines:
        raise SystemExit(f"{data / split}.jsonl: no REC question about {term!r} in source {source!r}")
    return Frames(lines, torch.stack(pixels), torch.stack(masks), torch.tensor(boxes), n_masks)


def _mask(data: Path, name: str | None, boxes: list[tuple[float, ...]], side: int) -> tuple[Image.Image, bool]:
    """The stored mask, or the boxes filled; and which of the two it is."""
    if name:
        with Image.open(data / name) as stored:
            return stored.convert("L").resize((side, side), Image.Resampling.BILINEAR), True
    mask = Image.new("L", (side, side))
    for x0, y0, x1, y1 in boxes:
        ImageDraw.Draw(mask).rectangle((x0 * side, y0 * side, x1 * side - 1, y1 * side - 1), fill=255)
    return mask, False


class Specialist(nn.Module):
    """(batch, 3, side, side) in -1 to 1 -> mask logits, (batch, 1, side / 2, side / 2), and box corners, (batch, 4).

    Most of its parameters work on the coarsest map, where they cost least.
    """

    def __init__(self, side: int) -> None:
        super().__init__()
        self.stem = conv(3, 24, 5, stride=2)
        self.down2 = nn.Sequential(conv(24, 64, 3, stride=2), Residual(64))
        self.down3 = nn.Sequential(conv(64, 128, 3, stride=2), Residual(128))
        self.down4 = nn.Sequential(conv(128, 256, 3, stride=2), Residual(256), Residual(256))
        self.narrow3, self.up3 = conv(256, 128, 1), Residual(128)
        self.narrow2, self.up2 = conv(128, 64, 1), Residual(64)
        self.narrow1, self.up1 = conv(64, 24, 1), Residual(24)
        self.mask = nn.Conv2d(24, 1, 1)
        self.box = nn.Sequential(
            conv(256, 32, 1),
            nn.Flatten(),
            nn.Dropout(0.2),
            nn.Linear(32 * (side // 16) ** 2, 128),
            nn.ReLU(inplace=True),
            nn.Linear(128, 4),
        )

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        first = self.stem(pixels)
        second = self.down2(first)
        third = self.down3(second)
        last = self.down4(third)
        shown = self.up3(third + F.interpolate(self.narrow3(last), scale_factor=2.0))
        shown = self.up2(second + F.interpolate(self.narrow2(shown), scale_factor=2.0))
        shown = self.up1(first + F.interpolate(self.narrow1(shown), scale_factor=2.0))
        x, y, width, height = self.box(last).float().sigmoid().unbind(1)
        corners = torch.stack([x - width / 2, y - height / 2, x + width / 2, y + height / 2], dim=1)
        return self.mask(shown).float(), corners.clamp(0, 1)


class Residual(nn.Module):
    """A 3x3 convolution beside the identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = conv(width, width, 3)

    def forward(self, x: Tensor) -> Tensor:
        shown: Tensor = self.conv(x)
        return x + shown


def conv(inputs: int, outputs: int, size: int, stride: int = 1) -> nn.Sequential:
    """A convolution with batch norm and ReLU."""
    layer = nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


def drawn_batches(frames: Frames, size: int, side: int, seed: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Random views without end, prepared by a thread of its own: pixels, masks at half the side, boxes."""
    generator = torch.Generator().manual_seed(seed)
    ready: queue.Queue[tuple[Tensor, Tensor, Tensor]] = queue.Queue(BATCHES_AHEAD)
    is_over = threading.Event()

    def prepare() -> None:
        while not is_over.is_set():
            order = torch.randperm(len(frames.lines), generator=generator)
            for rows in order.split(size)[: max(1, len(order) // size)]:
                batch = random_views(frames, rows, side, generator)
                while not is_over.is_set():
                    try:
                        ready.put(batch, timeout=0.1)
                        break
                    except queue.Full:
                        continue

    thread = threading.Thread(target=prepare, daemon=True)
    thread.start()
    try:
        while True:
            yield ready.get()
    finally:
        is_over.set()
        thread.join()


def random_views(frames: Frames, rows: Tensor, side: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """A window of each image that holds the whole box, mirrored, turned and recoloured, with its mask and its box."""

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(len(rows), *shape, generator=generator)

    boxes = frames.boxes[rows].view(-1, 2, 2)  # image, corner, axis
    stretch = STRETCH ** uniform(-0.5, 0.5, 1)
    size = uniform(SMALLEST_CROP, LARGEST_CROP, 1) * torch.cat([stretch, 1 / stretch], dim=1)
    size = torch.maximum(size, 1.05 * (boxes[:, 1] - boxes[:, 0]))
    # a window larger than the image hangs over on both sides; a smaller one stays inside and holds the box
    lowest = torch.maximum(boxes[:, 1] - size, torch.minimum(torch.zeros(1), 1 - size))
    highest = torch.minimum(boxes[:, 0], torch.maximum(torch.zeros(1), 1 - size))
    start = lowest + (highest - lowest).clamp(min=0) * uniform(0, 1, 2)
    is_mirrored, is_turned = uniform(0, 1, 2) < 0.5, uniform(0, 1) < 0.5
    sign = 1 - 2 * is_mirrored.float()
    # Seen point p in [-1, 1]^2 shows the point scale * turn(p) + middle of the image.
    scale, middle = size * sign, 2 * start + size - 1
    matrix = torch.zeros(len(rows), 2, 3)
    straight = torch.diag_embed(scale)
    matrix[:, :, :2] = torch.where(is_turned[:, None, None], straight.flip(2), straight)
    matrix[:, :, 2] = middle
    pixels = sampled(frames.pixels[rows], matrix, side)
    masks = sampled(frames.masks[rows], matrix, side // 2)
    seen = ((2 * boxes - 1) - middle[:, None]) / scale[:, None]
    seen = torch.where(is_turned[:, None, None], seen.flip(2), seen)
    corners = (torch.cat([seen.amin(1), seen.amax(1)], dim=1) + 1) / 2
    return recoloured(pixels, uniform(-COLOUR, COLOUR, 5)), masks, corners.clamp(0, 1)


def sampled(images: Tensor, matrix: Tensor, side: int) -> Tensor:
    """The part of each uint8 image that an affine map shows, (images, channels, side, side) in 0 to 1."""
    grid = F.affine_grid(matrix, [len(images), 1, side, side], align_corners=False)
    return F.grid_sample(images.float() / 255, grid, mode="bilinear", align_corners=False)


def recoloured(pixels: Tensor, change: Tensor) -> Tensor:
    """Brightness, contrast and three channels changed by the five factors of each image; to -1 to 1."""
    change = change[:, :, None, None]
    middle = pixels.mean(dim=(1, 2, 3), keepdim=True)
    pixels = middle + (pixels - middle) * (1 + change[:, 1:2])
    return ((pixels * (1 + change[:, :1]) * (1 + change[:, 2:] / 2)).clamp(0, 1) - 0.5) * 2


def loss_of(logits: Tensor, corners: Tensor, masks: Tensor, boxes: Tensor) -> Tensor:
    """Cross-entropy and dice of the mask, distance and generalised IoU of the box."""
    said = logits.sigmoid()
    dice = 1 - (2 * (said * masks).sum((1, 2, 3)) + 1) / ((said + masks).sum((1, 2, 3)) + 1)
    mask = F.binary_cross_entropy_with_logits(logits, masks) + dice.mean()
    return mask + 2 * F.l1_loss(corners, boxes) + (1 - gious(corners, boxes)).mean()


def gious(first: Tensor, second: Tensor) -> Tensor:
    """Generalised IoU of boxes pair by pair (Rezatofighi et al., CVPR 2019), (boxes,)."""
    inner = (torch.minimum(first[:, 2:], second[:, 2:]) - torch.maximum(first[:, :2], second[:, :2])).clamp(min=0)
    outer = torch.maximum(first[:, 2:], second[:, 2:]) - torch.minimum(first[:, :2], second[:, :2])
    areas = [(box[:, 2:] - box[:, :2]).prod(1) for box in (first, second)]
    shared, around = inner.prod(1), outer.prod(1).clamp(min=1e-6)
    union = (areas[0] + areas[1] - shared).clamp(min=1e-6)
    return shared / union - (around - union) / around


def train(frames: Frames, options: argparse.Namespace) -> tuple[Specialist, dict[str, Any]]:
    """The averaged network after `minutes` of training, or `steps`; and how it went."""
    torch.manual_seed(options.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = Specialist(options.side).to(device, memory_format=torch.channels_last)
    kept = Specialist(options.side).to(device, memory_format=torch.channels_last).eval()
    optimiser = torch.optim.AdamW(model.parameters(), lr=options.rate, weight_decay=options.decay)
    precision = torch.bfloat16 if options.precision == "bfloat16" else torch.float32
    begin, cpu, step, total = time.perf_counter(), time.process_time(), 0, 0.0
    batches = drawn_batches(frames, options.batch, options.side, options.seed)
    while True:
        spent = time.perf_counter() - begin
        done = step / options.steps if options.steps else spent / (60 * options.minutes)
        if done >= 1:
            break
        for group in optimiser.param_groups:
            group["lr"] = options.rate * min(1.0, (done + 1e-3) / 0.05) * (1 + math.cos(math.pi * done)) / 2
        pixels, masks, boxes = (one.to(device, non_blocking=True) for one in next(batches))
        with torch.autocast(device.type, precision, enabled=precision is not torch.float32):
            logits, corners = model(pixels.contiguous(memory_format=torch.channels_last))
        loss = loss_of(logits, corners, masks, boxes)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimiser.step()
        step += 1
        follow(kept, model, min(options.average, step / (10 + step)))
        total += loss.item()
        if step % 50 == 0:
            print(f"{spent:6.0f} s  step {step}  loss {total / 50:.3f}", flush=True)
            total = 0.0
    batches.close()  # type: ignore[attr-defined]
    seconds = time.perf_counter() - begin
    about = {"steps": step, "epochs": round(step * options.batch / len(frames.lines), 1), "seconds": round(seconds, 1)}
    about |= {"images_per_s": round(step * options.batch / seconds, 1), "cpu_s": round(time.process_time() - cpu, 1)}
    return kept, about


@torch.no_grad()
def follow(average: nn.Module, model: nn.Module, share: float) -> None:
    """Move weights and running statistics of `average` towards those of `model`, keeping `share` of its own."""
    for old, new in zip(average.state_dict().values(), model.state_dict().values(), strict=True):
        if old.is_floating_point():
            old.lerp_(new, 1 - share)


@torch.no_grad()
def predict(model: Specialist, frames: Frames, options: argparse.Namespace) -> dict[str, list[Prediction]]:
    """A reply to every question by each of the two ways."""
    device = next(model.parameters()).device
    found: dict[str, list[Prediction]] = {"mask": [], "box": []}
    whole = torch.eye(2, 3)
    for rows in torch.arange(len(frames.lines)).split(options.batch):
        begin = time.perf_counter()
        pixels = (sampled(frames.pixels[rows], whole.expand(len(rows), 2, 3), options.side) - 0.5) * 2
        logits, corners = model(pixels.to(device).contiguous(memory_format=torch.channels_last))
        logits = F.interpolate(logits, scale_factor=2.0, mode="bilinear", align_corners=False)
        shares = logits.sigmoid()[:, 0].cpu().numpy()
        seconds = (time.perf_counter() - begin) / len(rows)
        for row, share, corner in zip(rows.tolist(), shares, corners.tolist(), strict=True):
            asked = json.loads(frames.lines[row])["id"]
            for way, box, sure in (("mask", box_of(share), float(share.max())), ("box", _ordered(corner), None)):
                found[way].append(
                    Prediction(
                        conversation_id=asked,
                        text=encode_box(box),
                        confidence=sure,
                        model=f"specialist-{way}",
                        seconds=seconds,
                        stop_reason="end",
                    )
                )
    return found


def box_of(share: np.ndarray) -> Box:
    """The tight box around the largest connected part above one half; of half the peak where nothing is above it.

    Args:
        share: Probability of each pixel to be lesion, (side, side).
    """
    marked = share > min(0.5, float(share.max()) / 2)
    boxes = component_boxes(marked, min_area=1.0)  # of parts below the whole image only the largest stays
    return boxes[0] if boxes else Box(x0=0.0, y0=0.0, x1=1.0, y1=1.0)


def _ordered(corners: list[float]) -> Box:
    """A box of corners that may have met."""
    x0, y0, x1, y1 = corners
    return geometry.clip(min(x0, 0.999), min(y0, 0.999), max(x1, x0 + 1e-3), max(y1, y0 + 1e-3))


def drawn_data(folder: Path) -> Path:
    """A small dataset of drawn frames."""
    changes = ("sources.0.synthetic.images=60", "splits={train: 0.6, val: 0.2, test: 0.2}", "figures=false")
    build_dataset(load_config(REPOSITORY / "configs" / "data" / "synthetic.yaml", BuildConfig, changes), folder)
    return folder


def run(options: argparse.Namespace, data: Path, output: Path) -> dict[str, Any]:
    """Train, answer and write; returns what run.json holds."""
    stored = round(STORED * options.side)
    wanted = data, options.source, options.term
    known = read_frames(data, "train", options.source, options.term, stored, with_truth=True)
    model, about = train(known, options)
    output.mkdir(parents=True, exist_ok=True)
    if not (output / "images").exists():  # so that an evaluation of the questions finds their images
        (output / "images").symlink_to((data / "images").resolve(), target_is_directory=True)
    asked = {}
    for split in options.splits:
        frames = read_frames(data, split, *wanted[1:], stored, with_truth=False)
        (output / f"{split}_questions.jsonl").write_text("\n".join(frames.lines) + "\n", encoding="utf-8")
        for way, replies in predict(model, frames, options).items():
            write_records(output / f"{split}_{way}.jsonl", replies)
        asked[split] = len(frames.lines)
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "hardware": f"{os.cpu_count()}-core CPU ({platform.machine()})",
        "torch": torch.__version__,
        "options": {key: value for key, value in vars(options).items() if key not in ("data", "output")},
        "parameters": sum(one.numel() for one in model.parameters()),
        "training_questions": len(known.lines),
        "with_a_mask": known.n_masks,
        "asked": asked,
        **about,
    }


def main() -> None:
    """Train the specialist and write its answers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="dataset folder with train.jsonl, val.jsonl and test.jsonl")
    parser.add_argument("-o", "--output", type=Path, help="folder for questions, replies and run.json")
    parser.add_argument("--source", default="hyperkvasir", help="dataset whose questions are learnt and answered")
    parser.add_argument("--term", default="polyp_unspecified", help="id of the term that is looked for")
    parser.add_argument("--splits", nargs="+", default=["val", "test"], help="splits to answer")
    parser.add_argument("--minutes", type=float, default=8.0, help="of training")
    parser.add_argument("--steps", type=int, help="of training, in place of --minutes")
    parser.add_argument("--side", type=int, default=160, help="of the input in px, a multiple of 16")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rate", type=float, default=2e-3, help="peak learning rate; a cosine takes it to zero")
    parser.add_argument("--decay", type=float, default=0.05, help="weight decay")
    parser.add_argument("--average", type=float, default=0.995, help="share of itself the averaged network keeps")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args()
    if options.side % 16:
        parser.error(f"--side {options.side}: expected a multiple of 16")
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        if options.data is None:
            options.source, options.term = "drawn", "gastric_polyp"
            options.steps, options.splits = options.steps or 3, ["test"]
        data = options.data or drawn_data(Path(folder) / "data")
        output = options.output or Path(folder) / "specialist"
        result = run(options, data, output)
        (output / "run.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    for name in ("parameters", "training_questions", "with_a_mask", "asked", "steps", "epochs", "images_per_s"):
        print(f"{name:20} {result[name]}")


if __name__ == "__main__":
    main()
