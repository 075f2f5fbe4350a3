"""The main job in one call: images to dataset, model, predictions, scores and a page to look at."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from gastrovl.core.config import Config
from gastrovl.core.errors import OutputError
from gastrovl.core.files import write_text
from gastrovl.core.manifest import write_manifest
from gastrovl.core.types import Split
from gastrovl.data.config import BuildConfig
from gastrovl.training.config import TrainConfig

MARK_NAME, MARK_SCHEMA = "gastrovl-run.json", "gastrovl/run/1"
Say = Callable[[str], None]
Progress = Callable[[str, int, int], None]


class PredictConfig(Config):
    """Which splits are answered, and how many questions at a time."""

    splits: tuple[Split, ...] = (Split.VAL, Split.TEST)
    batch_size: Annotated[int, Field(gt=0)] = 64


class EvaluateConfig(Config):
    """How many bootstrap resamples the intervals take, and their seed."""

    resamples: Annotated[int, Field(gt=0)] = 1000
    seed: int = 7


class RunConfig(Config):
    """All stages of a run; `train.train` and `train.val` are filled in from the dataset that is built."""

    data: BuildConfig
    train: TrainConfig
    predict: PredictConfig = PredictConfig()
    evaluate: EvaluateConfig = EvaluateConfig()


def run(
    config: RunConfig,
    output: Path,
    *,
    data_root: Path | None = None,
    is_replaced: bool = False,
    say: Say = print,
    progress: Progress | None = None,
) -> Path:
    """Chain all stages in `output`; an interrupted run goes on with the stage it was in.

    Leaves `data/`, `train/` (the checkpoint), `predictions/`, `evaluation/`, `timing.json` and `index.html`.

    Raises:
        OutputError: `output` holds something else, or a run of another config.
        GastroVLError: Whatever a stage raises.
    """
    output = Path(output)
    _claim(output, config, is_replaced)
    clock = _Clock(output / "timing.json", say)
    with clock.measured("data"):
        _build(config, output / "data", data_root, progress)
    with clock.measured("train"):
        _train(config, output, say, progress)
    for split in config.predict.splits:
        with clock.measured(f"predict {split}"):
            _predict(config, output, split, progress)
        with clock.measured(f"evaluate {split}"):
            _evaluate(config, output, split)
    write_manifest(output, stage="run", config=config.model_dump(mode="json"), seed=config.train.seed)
    from gastrovl.evaluation.page import write_run_page

    write_run_page(output)
    return output / "index.html"


def _claim(output: Path, config: RunConfig, is_replaced: bool) -> None:
    """Make `output` this run's folder; only a folder that carries our own mark is ever replaced."""
    said = {"schema": MARK_SCHEMA, "config": config.model_dump(mode="json")}
    mark = output / MARK_NAME
    if output.is_dir() and any(output.iterdir()):
        found = _mark(mark)
        if found.get("schema") != MARK_SCHEMA:
            raise OutputError(f"{output} holds files of something else; choose another -o")
        is_same = found == said
        if is_replaced:
            shutil.rmtree(output)
        elif not is_same:
            raise OutputError(f"{output} holds a run of another config; choose another -o, or pass --overwrite")
        elif (output / "index.html").is_file():
            raise OutputError(f"{output} holds this run, finished; choose another -o, or pass --overwrite")
    elif output.is_file():
        raise OutputError(f"{output} is a file; choose another -o")
    write_text(mark, json.dumps(said, indent=2) + "\n")


def _mark(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _build(config: RunConfig, folder: Path, data_root: Path | None, progress: Progress | None) -> None:
    from gastrovl.data.build import build_dataset
    from gastrovl.data.engines import Engine, usable_cores

    if not (folder / "manifest.json").is_file():
        engine = Engine(workers=usable_cores())
        build_dataset(config.data, folder, data_root=data_root, engine=engine, progress=progress)


def _train(config: RunConfig, output: Path, say: Say, progress: Progress | None) -> None:
    from gastrovl.training.train import train

    folder = output / "train"
    if (folder / "manifest.json").is_file():
        return
    places = {"train": str(output / "data" / "train.jsonl"), "val": str(output / "data" / "val.jsonl")}
    kept = config.train.feature_cache or str(output.parent / "feature-cache")  # outlives this run, for the next one
    settings = config.train.model_copy(update={**places, "feature_cache": kept})
    is_begun = (folder / "run.json").is_file()
    train(settings, folder, resume=is_begun, say=say, progress=progress)


def _predict(config: RunConfig, output: Path, split: Split, progress: Progress | None) -> None:
    from gastrovl.inference.batch import predict_file
    from gastrovl.inference.predictor import Predictor

    place = output / "predictions" / f"{split}.jsonl"
    if place.is_file():
        return
    predict_file(
        Predictor.load(output / "train"),
        output / "data" / f"{split}.jsonl",
        place,
        batch_size=config.predict.batch_size,
        progress=(lambda done, total: progress(f"answering {split} questions", done, total)) if progress else None,
    )


def _evaluate(config: RunConfig, output: Path, split: Split) -> None:
    from gastrovl.evaluation.evaluate import evaluate

    folder = output / "evaluation" / split
    if (folder / "manifest.json").is_file():
        return
    evaluate(
        output / "predictions" / f"{split}.jsonl",
        output / "data" / f"{split}.jsonl",
        folder,
        resamples=config.evaluate.resamples,
        seed=config.evaluate.seed,
    )


class _Clock:
    """Wall-clock seconds of each stage, kept in a file and said aloud; a resumed stage adds up."""

    def __init__(self, path: Path, say: Say) -> None:
        self.path, self.say = path, say
        self.seconds: dict[str, float] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}

    def measured(self, stage: str) -> _Lap:
        """A context that times `stage`."""
        return _Lap(self, stage)


class _Lap:
    def __init__(self, clock: _Clock, stage: str) -> None:
        self.clock, self.stage, self.begin = clock, stage, 0.0

    def __enter__(self) -> None:
        self.begin = time.perf_counter()
        self.clock.say(f"== {self.stage}")

    def __exit__(self, *_: object) -> None:
        took = time.perf_counter() - self.begin
        total = self.clock.seconds.get(self.stage, 0.0) + took
        self.clock.seconds[self.stage] = round(total, 1)
        write_text(self.clock.path, json.dumps(self.clock.seconds, indent=2) + "\n")
        self.clock.say(f"   {self.stage}: {took:.0f} s")
