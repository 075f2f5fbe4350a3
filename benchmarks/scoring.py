"""How fast and in how much memory `gastrovl evaluate` scores: replies to made-up questions, intervals and baselines.

    python benchmarks/scoring.py --sizes 100000 1000000 --json benchmarks/results/scoring.json

Tasks come in the shares of the paper's test rows (He et al. 2025, Table 1), ten questions a patient and 30 labels;
captions are almost all different, so that no cache makes them cheap. Every size runs in a process of its own, as the
command does: reading, joining, parsing, all measures, 1,000 clustered resamples by dataset and overall, the trivial
baselines that need no image, tables and plots. The report page of examples needs images, so it is left out.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

SHARES = {"CAP": 15_225, "CLS": 10_048, "REC": 2_585, "REG": 2_579}
SOURCES = ("a", "b", "c", "d")
A_PATIENT = 10  # questions
LABELS = 30
AIM_SECONDS, AIM_SIZE = 20.0, 100_000
AIM_BYTES, AIM_MEMORY_SIZE = 4 * 2**30, 1_000_000
WORDS = """a the small large reddish pale flat raised sessile polyp ulcer erosion mucosa antrum body fundus angle with
without bleeding margin clear base normal seen from afar near of in and upper lower left right lies shows surface"""


def write_files(folder: Path, size: int) -> None:
    """train.jsonl (a fifth of the size), test.jsonl and predictions.jsonl of `size` questions."""
    from gastrovl.clinical.taxonomy import Taxonomy

    terms = [(term.id, term.name) for term in Taxonomy.load().terms if term.level == 3][:LABELS]
    for split, count in (("train", size // 5), ("test", size)):
        generator = random.Random(f"7-{split}")
        with (
            (folder / f"{split}.jsonl").open("w", encoding="utf-8") as questions,
            (folder / f"{split}_replies.jsonl").open("w", encoding="utf-8") as replies,
        ):
            for number in range(count):
                question, reply = _question(generator, split, number, terms)
                questions.write(json.dumps(question) + "\n")
                replies.write(json.dumps(reply) + "\n")


def _question(generator: random.Random, split: str, number: int, terms: list[tuple[str, str]]) -> tuple[dict, dict]:
    task = generator.choices(list(SHARES), list(SHARES.values()))[0]
    term, name = generator.choices(terms, range(len(terms), 0, -1))[0]
    patient = number // A_PATIENT
    source = SOURCES[patient % len(SOURCES)]
    is_right = generator.random() < 0.7
    boxes = [_box(generator)] if task in ("REC", "REG") and (task == "REG" or generator.random() < 0.9) else []
    if task == "CAP":
        answer = _caption(generator, name)
        said = answer if generator.random() < 0.1 else _caption(generator, name)
    elif task == "REC":
        answer = _box_text(boxes)
        said = _box_text([_moved(generator, box) for box in boxes]) if is_right else _box_text([_box(generator)])
    else:
        answer, said = name, name if is_right else generator.choice(terms)[1]
    said = "I cannot say" if generator.random() < 0.01 else said
    key = f"{source}/{split}-{number}#{task}-0"
    question = {
        "schema": "gastrovl/conversation/1",
        "id": key,
        "sample_id": f"{source}/{split}-{number}",
        "task": task,
        "image": {
            "path": f"images/{source}/{split}-{number // 4}.jpg",
            "width_px": 640,
            "height_px": 480,
            "sha256": f"{number // 4:064x}",
        },
        "source": source,
        "group": f"{split}-{patient}",
        "split": split,
        "turns": [
            {"role": "user", "text": f"What is asked of {name}?" if task == "REC" else "What does this image show?"},
            {"role": "assistant", "text": answer},
        ],
        "target": {"terms": [term], **({"boxes": boxes} if boxes else {})},
    }
    reply = {
        "schema": "gastrovl/prediction/1",
        "conversation_id": key,
        "text": said,
        "confidence": round(generator.uniform(0.3, 1.0) if is_right else generator.uniform(0.1, 0.9), 4),
        "model": "made-up",
        "seconds": 0.01,
        "stop_reason": "end",
    }
    return question, reply


def _caption(generator: random.Random, name: str) -> str:
    return f"The view shows {name}, {' '.join(generator.choices(WORDS.split(), k=generator.randint(8, 28)))}."


def _box(generator: random.Random) -> dict[str, float]:
    x0, y0 = generator.uniform(0, 0.6), generator.uniform(0, 0.6)
    return {"x0": x0, "y0": y0, "x1": x0 + generator.uniform(0.05, 0.4), "y1": y0 + generator.uniform(0.05, 0.4)}


def _moved(generator: random.Random, box: dict[str, float]) -> dict[str, float]:
    shift = generator.uniform(-0.03, 0.03)
    return {key: min(1.0, max(0.0, value + shift)) for key, value in box.items()}


def _box_text(boxes: list[dict[str, float]]) -> str:
    bins = [[round(box[key] * 999) for key in ("x0", "y0", "x1", "y1")] for box in boxes]
    return " ".join("[" + ",".join(f"{value:03d}" for value in one) + "]" for one in bins) or "absent"


def measure(folder: Path, size: int, resamples: int, by_facts: bool) -> dict[str, float]:
    """One evaluation in a process of its own: seconds from start to end and its greatest memory."""
    output = folder / f"evaluation-{size}"
    arguments = [
        sys.executable, "-m", "gastrovl", "evaluate", str(folder / "test_replies.jsonl"),
        "--conversations", str(folder / "test.jsonl"), "-o", str(output), "--no-images",
        "--resamples", str(resamples), "--overwrite", *([] if by_facts else ["--no-facts"]),
    ]  # fmt: skip
    begin = time.perf_counter()
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - begin
    if status:
        raise SystemExit(f"the evaluation of {size:,} replies failed")
    return {
        "size": size,
        "resamples": resamples,
        "facts": by_facts,
        "seconds": round(seconds, 2),
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 2),
        "peak_bytes": usage.ru_maxrss * 1024,
    }


def tell(row: dict[str, float], size: int) -> None:
    """One line of what was measured, and whether an aim was met."""
    kind = "with facts" if row["facts"] else "words alone"
    print(f"{size:>9,} replies, {kind}: {row['seconds']:6.1f} s, {row['peak_bytes'] / 2**30:.2f} GiB", flush=True)
    if size == AIM_SIZE:
        print(f"          aim {AIM_SECONDS:g} s: {'met' if row['seconds'] <= AIM_SECONDS else 'MISSED'}")
    if size == AIM_MEMORY_SIZE:
        print(f"          aim {AIM_BYTES / 2**30:g} GiB: {'met' if row['peak_bytes'] <= AIM_BYTES else 'MISSED'}")


def main() -> None:
    """Time every size and say whether the aims are met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, AIM_SIZE])
    parser.add_argument("--resamples", type=int, default=1000)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows = []
    for size in options.sizes:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            write_files(folder, size)
            for by_facts in (False, True):
                row = measure(folder, size, options.resamples, by_facts)
                rows.append(row)
                tell(row, size)
    if options.json:
        machine = f"{os.cpu_count()}-core CPU, {platform.machine()}"
        about = {"date": datetime.now(UTC).date().isoformat(), "hardware": machine, "python": platform.python_version()}
        options.json.write_text(json.dumps({**about, "rows": rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
