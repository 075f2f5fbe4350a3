"""Five ways to join image and text, at equal image tokens and equal parameters, on drawn frames: scores and speed.

    python benchmarks/fusion.py --json benchmarks/results/fusion.json

Token insertion (averaged cells, `pool`), the same with two towers whose channels are joined, gated cross-attention in
the language model, attention pooling and learned queries. Everything starts from random weights on the frames of
`configs/data/synthetic.yaml`. A language model that starts from nothing gives a tower almost no gradient, so the
towers learn first, by the grounding loss, once for all ways: one tower, and for the two-tower way two others that
together have as many parameters. Then the towers stay frozen, and each way trains its connector and its language model
from the same data in the same order, for the same steps, without grounding loss and without region tokens, which not
every way can have. The feed-forward layers of the language model make up for what a way needs besides, so that all
have as many parameters.

Scores come from real decoding of the validation questions. Times are CPU time of one thread, the best of several
rounds in which the ways take turns.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from gastrovl.clinical.taxonomy import Taxonomy
from gastrovl.core.config import load_config
from gastrovl.core.records import write_records
from gastrovl.core.types import Split, Task
from gastrovl.data.build import build_dataset
from gastrovl.data.config import BuildConfig
from gastrovl.evaluation.baselines.thumbnails import Thumbnails, read_thumbnails
from gastrovl.evaluation.evaluate import score_items
from gastrovl.evaluation.items import read_conversations, read_items
from gastrovl.evaluation.results import ALL, Results
from gastrovl.inference.batch import predict_file
from gastrovl.inference.predictor import Predictor
from gastrovl.model.checkpoint import build_model, load_checkpoint
from gastrovl.model.config import ConnectorConfig, ModelConfig, PartConfig
from gastrovl.model.presets import NANO
from gastrovl.training.config import TrainConfig
from gastrovl.training.rows.dataset import Collator, ImageStore, RowDataset, load_conversations
from gastrovl.training.train import train

REPOSITORY = Path(__file__).resolve().parents[1]
TASKS = (Task.CLS, Task.REC, Task.REG)
METRICS = (
    (Task.CLS, "accuracy"),
    (Task.CLS, "macro_f1"),
    (Task.REC, "acc@0.5"),
    (Task.REC, "mean_iou"),
    (Task.REC, "presence_balanced"),
    (Task.REG, "accuracy"),
)
WAYS = {
    "insert: pool": {"kind": "pool"},
    "insert: two towers, pool": {"kind": "pool"},
    "gated cross-attention": {"kind": "pool", "gated_every": 2},
    "insert: attention": {"kind": "attention"},
    "insert: queries": {"kind": "query"},
}
TWO_TOWERS = "insert: two towers, pool"
# A language model and towers of the kinds that `nano` has, smaller, so that five of them train in minutes. `first` and
# `second` have about as many parameters together as `whole`; all give the same 8 x 8 cells of a 128 px image.
LANGUAGE: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 128,
    "intermediate_size": 512,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 2048,
    "tie_word_embeddings": True,
}
RESNET: dict[str, Any] = {"model_type": "resnet", "depths": [2, 2, 2], "layer_type": "basic"}
CONVNEXT: dict[str, Any] = {"model_type": "convnext", "num_stages": 3, "depths": [2, 2, 2], "patch_size": 4}
TOWERS: dict[str, dict[str, Any]] = {
    "whole": RESNET | {"embedding_size": 32, "hidden_sizes": [32, 64, 128]},
    "first": RESNET | {"embedding_size": 24, "hidden_sizes": [24, 48, 96]},
    "second": CONVNEXT | {"hidden_sizes": [32, 56, 104]},
}
BATCH, ANSWERED, SAID = 16, 32, 16  # images of a timed step; images and tokens of timed answers


def make_data(folder: Path, images: int, questions: int) -> tuple[Path, Path]:
    """A dataset of drawn frames; the files of training and of validation questions, of the three tasks only.

    Args:
        questions: Validation questions of each task at most.
    """
    changes = (f"sources.0.synthetic.images={images}", "splits={train: 0.8, val: 0.15, test: 0.05}", "figures=false")
    config = load_config(REPOSITORY / "configs" / "data" / "synthetic.yaml", BuildConfig, changes)
    build_dataset(config, folder)
    files = folder / "bench_train.jsonl", folder / "bench_val.jsonl"
    for file, split in zip(files, (Split.TRAIN, Split.VAL), strict=True):
        said = load_conversations(folder / f"{split}.jsonl")
        most = questions if split is Split.VAL else len(said)
        write_records(file, (one for task in TASKS for one in [one for one in said if one.task == task][:most]))
    return files


def train_tower(name: str, data: Path, folder: Path, steps: int) -> Path:
    """A tower that has learnt by the grounding loss, as a folder with weights and preprocessing."""
    parts = {"vision": PartConfig(config=TOWERS[name]), "language": PartConfig(config=LANGUAGE)}
    model = NANO.model_copy(update=parts)
    stage = {"name": "see", "tasks": ["CLS", "REC"], "trains": ["vision", "projector"], "answer_weight": 0}
    stage |= {"grounding_weight": 1.0, "cutmix": 0.15, "learning_rate": 2e-3, "steps": steps, "images_per_step": 16}
    augment = {"flip": True, "smallest_crop": 0.7, "colour": 0.2}
    run = {"name": name, "model": model, "train": str(data), "stages": [stage], "augment": augment}
    train_quietly(run, folder / f"{name}-run")
    loaded, processor, _ = load_checkpoint(folder / f"{name}-run")
    place = folder / name
    loaded.model.vision_tower.save_pretrained(place)
    processor.image_processor.save_pretrained(place)
    return place


def train_quietly(run: dict[str, Any], output: Path) -> list[dict[str, Any]]:
    """Train; returns the log."""
    run = {"log_every": min(20, run["stages"][0]["steps"])} | run
    with contextlib.redirect_stdout(io.StringIO()):
        train(TrainConfig.model_validate(run), output, show_bar=False, say=lambda _: None)
    return [json.loads(line) for line in (output / "log.jsonl").read_text(encoding="utf-8").splitlines()]


def described(way: str, towers: dict[str, Path], tokens: int, feed_width: int) -> ModelConfig:
    """The model of a way; `feed_width` is that of the language model's feed-forward layers."""
    connector = ConnectorConfig.model_validate(
        {"grids": (round(tokens**0.5),), "queries": tokens, "regions": False} | WAYS[way]
    )
    language = PartConfig(config=LANGUAGE | {"intermediate_size": feed_width})
    changes: dict[str, Any] = {"connector": connector, "language": language}
    if way == TWO_TOWERS:
        changes |= {"vision": PartConfig(path=str(towers["first"])), "vision_2": PartConfig(path=str(towers["second"]))}
    else:
        changes["vision"] = PartConfig(path=str(towers["whole"]))
    return NANO.model_copy(update=changes)


def count(model: Any, word: str = "") -> int:
    """Parameters whose names hold `word`; a tied weight counts once."""
    return sum(parameter.numel() for name, parameter in model.named_parameters() if word in name)


def equal_models(towers: dict[str, Path], tokens: int) -> dict[str, ModelConfig]:
    """A description of each way with about as many parameters as plain token insertion has."""
    width, aim = LANGUAGE["intermediate_size"], 0
    each = 3 * LANGUAGE["hidden_size"] * LANGUAGE["num_hidden_layers"]  # parameters of one more feed-forward channel
    found = {}
    for way in WAYS:
        total = count(build_model(described(way, towers, tokens, width), 0)[0])
        aim = aim or total
        found[way] = described(way, towers, tokens, width + round((aim - total) / each))
    return found


def scored(run: Path, train_file: Path, val: Path, thumbnails: Thumbnails) -> Results:
    """Answers of a checkpoint to all validation questions, scored."""
    place, taxonomy = run / "predictions.jsonl", Taxonomy.load()
    predict_file(Predictor.load(run, "cpu"), val, place, batch_size=128)
    items = read_items(place, val, taxonomy)
    return score_items(items, read_conversations(train_file), thumbnails, taxonomy, resamples=0, seed=7)


def cpu_seconds(call: Callable[[], Any]) -> float:
    """CPU time of one call."""
    begin = time.process_time()
    call()
    return time.process_time() - begin


def speeds(runs: dict[str, Path], data: Path, rounds: int) -> dict[str, dict[str, float]]:
    """Of each way: ms of a step with frozen tower and with all open, images a second of answering."""
    tasks: dict[str, dict[str, Callable[[], Any]]] = {}
    said = load_conversations(data)
    for way, run in runs.items():
        model, processor, _ = load_checkpoint(run)
        stage = TrainConfig.model_validate(stage_of("time", 1) | {"model": NANO}).stages[0]
        images = ImageStore(data.parent, processor.image_size_px, processor)
        rows = RowDataset(said, images, processor, stage, seed=7, max_length=2048, augment=None, is_training=True)
        batch = Collator(processor, None)([rows[number] for number in range(BATCH)])
        with torch.no_grad():
            features = model.model.tower_features(batch["pixel_values"])
        kept = {name: value for name, value in batch.items() if name != "pixel_values"} | {"tower_features": features}
        prompt = torch.tensor([processor.encode_prompt([("user", "What does the image show?")])] * ANSWERED)
        pixels = batch["pixel_values"].repeat(ANSWERED // BATCH, 1, 1, 1)
        settings = {"max_new_tokens": SAID, "min_new_tokens": SAID, "do_sample": False}
        asked = {"input_ids": prompt, "attention_mask": torch.ones_like(prompt), "pixel_values": pixels}
        tasks[way] = {
            "step_frozen_ms": lambda model=model, kept=kept: step(model, kept),
            "step_open_ms": lambda model=model, batch=batch: step(model, batch),
            "answer_s": lambda model=model, asked=asked, settings=settings: model.generate(**asked, **settings),
        }
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    best: dict[str, dict[str, float]] = {way: {} for way in tasks}
    for _ in range(rounds):
        for way, some in tasks.items():
            for name, call in some.items():
                best[way][name] = min(best[way].get(name, float("inf")), cpu_seconds(call))
    torch.set_num_threads(threads)
    return {
        way: {
            "step_frozen_ms": round(found["step_frozen_ms"] * 1000, 1),
            "step_open_ms": round(found["step_open_ms"] * 1000, 1),
            "answered_images_per_s": round(ANSWERED / found["answer_s"], 1),
        }
        for way, found in best.items()
    }


def step(model: Any, batch: dict[str, Any]) -> None:
    """Forward and backward pass in training mode, running statistics of the tower apart."""
    model.zero_grad(set_to_none=True)
    model(**batch).loss.backward()


def stage_of(name: str, steps: int) -> dict[str, Any]:
    """The part of a run that all ways share."""
    stage = {"name": "instruct", "tasks": [task.value for task in TASKS], "trains": ["projector", "language"]}
    stage |= {"learning_rate": 2e-3, "steps": steps, "images_per_step": BATCH, "dialogues_per_image": 3}
    return {"name": name, "stages": [stage | {"digit_weights": [1.0, 0.7, 0.1]}]}


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Everything, as the JSON file holds it."""
    begin = time.perf_counter()
    data, val = make_data(folder / "data", options.images, options.questions)
    print(f"{time.perf_counter() - begin:5.0f} s  data", flush=True)
    thumbnails = read_thumbnails([(read_conversations(file), file.parent) for file in (val, data)])
    towers = {}
    for name in TOWERS:
        towers[name] = train_tower(name, data, folder / "towers", options.see_steps)
        print(f"{time.perf_counter() - begin:5.0f} s  tower {name}", flush=True)
    models = equal_models(towers, options.tokens)
    rows: dict[str, dict[str, Any]] = {}
    runs: dict[str, Path] = {}
    baselines: dict[str, dict[str, Any]] = {}
    for seed in range(7, 7 + options.seeds):
        for way, model in models.items():
            run = folder / f"{way}-{seed}".replace(" ", "_").replace(":", "").replace(",", "")
            log = train_quietly(stage_of(way, options.steps) | {"model": model, "train": str(data), "seed": seed}, run)
            results = scored(run, data, val, thumbnails)
            row = rows.setdefault(way, {"scores": {}, "last_loss": [], **sizes(run, model)})
            row["last_loss"].append(round([line["loss"] for line in log if "loss" in line][-1], 3))
            for score in results.scores:
                if (score.task, score.metric) in METRICS and score.dataset == ALL and score.value is not None:
                    name = f"{score.task} {score.metric}"
                    row["scores"].setdefault(name, []).append(round(score.value, 4))
                    baselines[name] = {"value": score.baseline, "name": score.baseline_name, "n": score.n}
            runs.setdefault(way, run)
            said = ", ".join(f"{name} {values[-1] * 100:.1f}" for name, values in row["scores"].items())
            said = f"loss {row['last_loss'][-1]}, {said}"
            print(f"{time.perf_counter() - begin:5.0f} s  {way}, seed {seed}: {said}", flush=True)
    for way, found in speeds(runs, data, options.rounds).items():
        rows[way] |= found
    return {"rows": rows, "baselines": baselines, "seconds": round(time.perf_counter() - begin)}


def sizes(run: Path, model: ModelConfig) -> dict[str, Any]:
    """Parameters of a checkpoint by part, and image tokens in the text and outside it."""
    loaded, processor, _ = load_checkpoint(run)
    assert model.language is not None
    return {
        "parameters": count(loaded),
        "towers": count(loaded, "vision_tower"),
        "connector": count(loaded, "multi_modal_projector") + count(loaded, "gated_blocks"),
        "feed_width": (model.language.config or {})["intermediate_size"],
        "image_tokens": loaded.model.multi_modal_projector.tokens,
        "tokens_in_text": processor.image_tokens,
    }


def table(content: dict[str, Any]) -> str:
    """The rows as a Markdown table; scores in percent, the mean over seeds and their range."""
    names = [f"{task} {metric}" for task, metric in METRICS]
    heads = [
        "way",
        "M parameters",
        "image tokens",
        *names,
        "step, frozen (ms)",
        "step, open (ms)",
        "answers (images/s)",
    ]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for way, row in content["rows"].items():
        inside = "" if row["tokens_in_text"] == row["image_tokens"] else f" ({row['tokens_in_text']} in the text)"
        cells = [way, f"{row['parameters'] / 1e6:.2f}", f"{row['image_tokens']}{inside}"]
        cells += [_percent(row["scores"].get(name, [])) for name in names]
        cells += [str(row[name]) for name in ("step_frozen_ms", "step_open_ms", "answered_images_per_s")]
        lines.append("| " + " | ".join(cells) + " |")
    known = [content["baselines"].get(name, {}) for name in names]
    best = [f"{one['value'] * 100:.1f} ({one['name']})" if one.get("value") is not None else "-" for one in known]
    lines.append("| " + " | ".join(["best trivial baseline", "-", "-", *best, "-", "-", "-"]) + " |")
    return "\n".join(lines)


def _percent(values: list[float]) -> str:
    if not values:
        return "-"
    spread = f" ({min(values) * 100:.1f} to {max(values) * 100:.1f})" if len(values) > 1 else ""
    return f"{np.mean(values) * 100:.1f}{spread}"


def main() -> None:
    """Measure, print the table, and write the file if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures there")
    parser.add_argument("--smoke", action="store_true", help="a few steps: shows that it runs, not that it learns")
    parser.add_argument("--images", type=int, default=1200, help="drawn frames, of which four fifths train")
    parser.add_argument("--see-steps", type=int, default=400, help="steps of each tower before all else")
    parser.add_argument("--steps", type=int, default=800, help="steps of each way")
    parser.add_argument("--tokens", type=int, default=16, help="image tokens of each way, a square number")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--questions", type=int, default=1000, help="validation questions of each task at most")
    parser.add_argument("--rounds", type=int, default=3, help="of the timing")
    options = parser.parse_args()
    if options.smoke:
        options.images, options.see_steps, options.steps, options.questions, options.rounds = 40, 1, 1, 2, 1
    if round(options.tokens**0.5) ** 2 != options.tokens:
        parser.error(f"--tokens {options.tokens}: `pool` makes a square grid, so expected a square number, e.g. 16")
    transformers.utils.logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as folder:
        content = measure(options, Path(folder))
    print(table(content))
    print(f"{content['seconds']} s in all")
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        made = {
            "date": datetime.now(UTC).date().isoformat(),
            "hardware": f"{os.cpu_count()}-core CPU ({platform.machine()})",
            "torch": torch.__version__,
        }
        asked = {name: value for name, value in vars(options).items() if name not in ("json", "smoke")}
        options.json.write_text(json.dumps({**made, "options": asked, **content}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
