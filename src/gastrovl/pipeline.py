"""The main job in one call: images to dataset, model, predictions, scores and a page to look at."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from gastrovl.core.config import Config
from gastrovl.core.errors import OutputError
from gastrovl.core.files import write_text
from gastrovl.core.manifest import write_manifest
from gastrovl.core.types import Conversation, Prediction, Score, Split, Task
from gastrovl.data.config import BuildConfig
from gastrovl.training.config import TrainConfig

if TYPE_CHECKING:
    from gastrovl.evaluation.baselines.trivial import Baseline

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
    _complete_card(config, output)
    write_manifest(output, stage="run", config=config.model_dump(mode="json"), seed=config.train.seed)
    from gastrovl.evaluation.showing.page import write_run_page

    write_run_page(output)
    return output / "index.html"


class AnswerScorer:
    """Answers questions with a model in memory as `gastrovl predict` would, and scores them as `gastrovl evaluate`.

    Training takes it as its `score_answers`. Scores come without intervals and without the nearest neighbour, whose
    images would have to be opened; the other baselines are made once, for they do not change with the model.

    Args:
        name: Stands in the predictions.
        train: The training split, which the baselines know.
        seed: Of a baseline's draw of captions.

    Raises:
        MissingExtraError: A library of the extra "evaluate" is not installed.
    """

    def __init__(self, name: str, train: Path, seed: int) -> None:
        from gastrovl.evaluation.measures import language

        self.name, self.train, self.seed = name, Path(train), seed
        self._rivals: dict[tuple[Task, tuple[str, ...]], list[Baseline]] = {}
        language.measures([("a word",)], ["a word"])  # a missing library ends the run now, not after hours

    def __call__(
        self, model: Any, processor: Any, asked: Sequence[Conversation], images: Path, batch_size: int
    ) -> tuple[list[Prediction], list[Score]]:
        """Replies in the order of `asked`, and scores task by task, the task's main one first."""
        from gastrovl.inference.batch import answer_batch, batches
        from gastrovl.inference.predictor import Predictor
        from gastrovl.model.checkpoint import CheckpointCard

        card = CheckpointCard(
            name=self.name, image_tokens=processor.image_tokens, image_size_px=processor.image_size_px
        )
        predictor = Predictor(model, processor, card)
        replies = {
            reply.conversation_id: reply
            for batch in batches(asked, batch_size)
            for reply in answer_batch(predictor, batch, images)
        }
        return [replies[one.id] for one in asked], self._scores(asked, replies)

    def _scores(self, asked: Sequence[Conversation], replies: dict[str, Prediction]) -> list[Score]:
        from gastrovl.clinical.taxonomy import Taxonomy
        from gastrovl.evaluation.baselines.trivial import baselines
        from gastrovl.evaluation.items import pair
        from gastrovl.evaluation.questions import questions_of, read_questions
        from gastrovl.evaluation.results import ALL
        from gastrovl.evaluation.scoring import score_task
        from gastrovl.evaluation.tasks import HEADLINE

        found: list[Score] = []
        paired = pair(list(questions_of(asked)), replies, Taxonomy.load())
        for task in Task:
            items = [item for item in paired if item.question.task is task]
            if not items:
                continue
            questions, split = [item.question for item in items], items[0].question.split
            key = (task, tuple(one.id for one in questions))
            if key not in self._rivals:
                self._rivals[key] = baselines(task, questions, read_questions(self.train), None, seed=self.seed)
            scored = score_task(task, split, items, self._rivals[key], resamples=0, seed=self.seed).scores
            found += sorted(scored, key=lambda score: (score.dataset != ALL, score.metric != HEADLINE[score.task]))
            unread = sum(not item.is_parsed for item in items)
            found.append(
                Score(
                    task=task,
                    metric="unparsed",
                    dataset=ALL,
                    split=split,
                    value=unread / len(items),
                    n=len(items),
                    n_unparsed=unread,
                )
            )
        return found


def answer_scorer(config: TrainConfig) -> AnswerScorer | None:
    """What `validate_answers` of a training config needs; None where it asks for no answers."""
    if config.validate_answers is None or config.train is None:
        return None
    return AnswerScorer(config.name, Path(config.train), config.seed)


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
    train(settings, folder, resume=is_begun, say=say, progress=progress, score_answers=answer_scorer(settings))


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


def _complete_card(config: RunConfig, output: Path) -> None:
    """Write the model card again, with the scores of every evaluated split."""
    from gastrovl.core.manifest import read_manifest
    from gastrovl.evaluation.results import read_results
    from gastrovl.training.publishing.model_card import write_model_card

    folders = [output / "evaluation" / split for split in config.predict.splits]
    scores = [score for folder in folders for score in read_results(folder / "results.json").scores]
    dates = [datetime.fromisoformat(read_manifest(folder).created) for folder in folders]
    write_model_card(output / "train", scores, measured=max(dates, default=None))


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
