"""Four tasks about an image: with a shared prefix and in batches, against `generate` one question at a time.

    OMP_NUM_THREADS=1 nice -n 19 python benchmarks/inference.py --preset small
    OMP_NUM_THREADS=1 nice -n 19 python benchmarks/inference.py --preset nano

The predecessor answers so: each question anew, the image seen again, a batch of one, plain `generate`. Ours is
`Predictor` with its constraints; both run the same untrained weights of a preset in one process, in turn. Untrained
weights never end a reply, so both sides write as many tokens as answers of real data have. CPU time is what is
compared, because a machine that others use as well stretches wall time; both are written down, the best of several
rounds. Peak memory is that of the process, PyTorch included. Results join benchmarks/results/inference.json.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from PIL import Image

from gastrovl.core.types import Box, Task
from gastrovl.inference import asking
from gastrovl.inference.decoding.generated import inputs_of
from gastrovl.inference.predictor import Predictor
from gastrovl.inference.question import Question
from gastrovl.model.checkpoint import CheckpointCard, build_model
from gastrovl.model.config import ModelConfig

RESULTS = Path(__file__).with_name("results") / "inference.json"
TOKENS = {Task.CLS: 4, Task.REC: 24, Task.REG: 4, Task.CAP: 40}  # of an answer in real data
TIMES, ONE_MS, FOUR_MS, MEMORY_MIB = 5.0, 150.0, 400.0, 1024.0  # aims: at least; at most
NEVER = -1  # no token's id, so that nothing ends a reply


def untrained(preset: str) -> Predictor:
    """A preset's model with random weights."""
    model, processor = build_model(ModelConfig(preset=preset), seed=7)
    card = CheckpointCard(name=preset, image_tokens=processor.image_tokens, image_size_px=processor.image_size_px)
    return Predictor(model.eval(), processor, card)


def four(image: Image.Image) -> list[Question]:
    """A question of each task."""
    box = Box(x0=0.25, y0=0.25, x1=0.75, y1=0.75)
    return [
        asking.classify(image),
        asking.locate(image, "gastric polyp"),
        asking.name_region(image, box),
        asking.describe(image),
    ]


def pictures(count: int, seed: int) -> list[Image.Image]:
    """Noise of the size of a frame."""
    random = np.random.default_rng(seed)
    return [Image.fromarray(random.integers(0, 256, (480, 640, 3), dtype=np.uint8)) for _ in range(count)]


def shared(predictor: Predictor, questions: list[Question]) -> None:
    """Ours: every question of every image together, nothing known from before."""
    words = predictor.words
    words.shared.clear()
    words.replies(questions, [TOKENS[one.task] for one in questions])


def one_by_one(predictor: Predictor, questions: list[Question]) -> None:
    """The predecessor's way."""
    for question in questions:
        count = TOKENS[question.task]
        inputs = inputs_of(predictor.processor, [question], predictor.model.device)
        end, pad = predictor.processor.tokenizer.eos_token_id, predictor.processor.tokenizer.pad_token_id
        predictor.model.generate(
            **inputs, max_new_tokens=count, min_new_tokens=count, do_sample=False, eos_token_id=end, pad_token_id=pad
        )


@torch.inference_mode()
def timed(call: Callable[[], object]) -> tuple[float, float]:
    """CPU and wall milliseconds of a call."""
    cpu, wall = time.process_time(), time.perf_counter()
    call()
    return (time.process_time() - cpu) * 1000, (time.perf_counter() - wall) * 1000


def measure(predictor: Predictor, images: int, alone: int, rounds: int) -> dict[str, Any]:
    """Times of a preset, the least of all rounds; `alone` images go one question at a time."""
    predictor.words.end = NEVER
    batch = [question for image in pictures(images, 1) for question in four(image)]
    few = [question for image in pictures(alone, 2) for question in four(image)]
    plain = [_without_probabilities(question) for question in batch]
    single = [_without_probabilities(question) for question in few[:4]]
    calls: dict[str, tuple[Callable[[], object], int]] = {
        "one_by_one": (lambda: one_by_one(predictor, few), alone),
        "shared": (lambda: shared(predictor, plain), images),
        "shared_with_probabilities": (lambda: shared(predictor, batch), images),
        "four_tasks_one_image": (lambda: shared(predictor, single), 1),
    }
    for question in single:
        calls[f"one_answer_{question.task}"] = (lambda question=question: shared(predictor, [question]), 1)
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, (call, count) in calls.items():
            cpu, wall = timed(call)
            found[name].append((cpu / count, wall / count))
    return {
        name: {"cpu_ms": round(min(cpu for cpu, _ in one), 1), "wall_ms": round(min(wall for _, wall in one), 1)}
        for name, one in found.items()
    }


def _without_probabilities(question: Question) -> Question:
    return Question(question.image, question.turns, question.task)


def row(preset: str, times: dict[str, Any], memory_mib: float) -> dict[str, Any]:
    """What is written down of a preset: milliseconds an image, how many times faster, and the aims; most are nano's."""
    slow, fast = times["one_by_one"], times["shared"]
    faster = {clock: round(slow[clock] / fast[clock], 2) for clock in ("cpu_ms", "wall_ms")}
    slowest = max(value["cpu_ms"] for name, value in times.items() if name.startswith("one_answer"))
    aims = {f"at least {TIMES:g} times faster": faster["cpu_ms"] >= TIMES}
    if preset == "nano":
        aims |= {
            f"slowest single answer within {ONE_MS:g} ms": slowest <= ONE_MS,
            f"four tasks within {FOUR_MS:g} ms": times["four_tasks_one_image"]["cpu_ms"] <= FOUR_MS,
            f"within {MEMORY_MIB:g} MiB": memory_mib <= MEMORY_MIB,
        }
    return {
        "times": times,
        "images_per_cpu_second": {name: round(1000 / times[name]["cpu_ms"], 2) for name in ("one_by_one", "shared")},
        "times_faster": {"cpu": faster["cpu_ms"], "wall": faster["wall_ms"]},
        "peak_rss_mib": round(memory_mib),
        "aims": aims,
    }


def main() -> None:
    """Measure one preset and print and keep its row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=("nano", "small"), default="small")
    parser.add_argument("--images", type=int, default=16, help="answered together")
    parser.add_argument("--alone", type=int, default=2, help="images answered one question at a time")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--date", required=True)
    parser.add_argument("--hardware", default="2-core CPU (Intel Xeon, shared)")
    parser.add_argument("--json", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    times = measure(untrained(options.preset), options.images, options.alone, options.rounds)
    found = row(options.preset, times, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    found["run"] = {
        "date": options.date,
        "hardware": options.hardware,
        "note": "the machine was shared with other heavy work, so wall times are stretched; CPU time is what counts",
        "threads": options.threads,
        "images": options.images,
        "rounds": options.rounds,
        "tokens": {str(task): count for task, count in TOKENS.items()},
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
    content = json.loads(options.json.read_text(encoding="utf-8")) if options.json.exists() else {}
    content[options.preset] = found
    options.json.write_text(json.dumps(dict(sorted(content.items())), indent=2) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
