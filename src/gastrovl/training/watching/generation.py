"""Validation by generation: at chosen steps the model answers as it would after training, and its replies are scored.

How a model answers and how replies are scored belongs to later stages, so whoever starts the run passes both in as one
function (`gastrovl.pipeline.score_answers`). This file decides when it is called, on which questions, and keeps what it
gave: `validation/<stage>/step-000500/predictions.jsonl` can be scored again at any time.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from gastrovl.core.errors import ConfigError
from gastrovl.core.files import write_text
from gastrovl.core.records import write_records
from gastrovl.core.types import Conversation, Prediction, Score, Task
from gastrovl.model import adapters
from gastrovl.model.processor import GastroVLProcessor
from gastrovl.training.config import AnswerConfig, StageConfig

SCORES, PREDICTIONS, QUESTIONS = "scores.json", "predictions.jsonl", "questions.jsonl"
SECONDS = "eval_answers_seconds"
# (model, processor, questions, folder of their images, questions at a time) to replies and their scores.
ScoreAnswers = Callable[
    [Any, GastroVLProcessor, Sequence[Conversation], Path, int], tuple[list[Prediction], list[Score]]
]


@dataclass(frozen=True)
class AnswerSource:
    """What every validation by generation of a run needs.

    Attributes:
        conversations: The validation split.
        images: Folder that their images are named relative to.
        output: The run's folder.
        seed: Of the draw of images.
    """

    config: AnswerConfig
    score: ScoreAnswers
    conversations: Sequence[Conversation]
    images: Path
    output: Path
    seed: int
    say: Callable[[str], None]


class AnswerValidation(TrainerCallback):
    """Asks for a validation at every `every`-th step and at the stage's last one, and carries it out."""

    def __init__(self, source: AnswerSource, processor: GastroVLProcessor, stage: StageConfig, number: int) -> None:
        self.source, self.processor = source, processor
        self.folder = source.output / "validation" / f"{number}-{stage.name}"
        self.questions = chosen_questions(source, stage)
        self.is_due = False
        self.last_step = -1

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Called by the trainer behind every optimiser step; what is asked for here it evaluates at once."""
        del args
        if state.global_step % self.source.config.every == 0 or state.global_step >= state.max_steps:
            self.is_due = control.should_evaluate = True

    def metrics(self, model: Any, step: int) -> dict[str, float]:
        """The scores of `model` under the names `<task>/<metric>`, and `answers_seconds`, what they took."""
        self.is_due, self.last_step = False, step
        begin = time.perf_counter()
        replies, scores = self.source.score(
            adapters.inner(model), self.processor, self.questions, self.source.images, self.source.config.batch_size
        )
        seconds = time.perf_counter() - begin
        self._keep(step, replies, scores)
        self.source.say(f"  step {step}: {len(replies)} questions answered in {seconds:.1f} s; {headlines(scores)}")
        return {**metrics_of(scores), SECONDS.removeprefix("eval_"): seconds}

    def _keep(self, step: int, replies: Sequence[Prediction], scores: Sequence[Score]) -> None:
        place = self.folder / f"step-{step:06d}"
        place.mkdir(parents=True, exist_ok=True)
        write_records(self.folder / QUESTIONS, self.questions)
        write_records(place / PREDICTIONS, replies)
        write_text(place / SCORES, json.dumps([one.model_dump(mode="json") for one in scores], indent=1) + "\n")


def chosen_questions(source: AnswerSource, stage: StageConfig) -> list[Conversation]:
    """The questions of the wanted tasks about at most `images` images, drawn by the run's seed: the same at each step.

    Raises:
        ConfigError: The validation split holds no such question.
    """
    tasks = source.config.tasks or stage.tasks
    wanted = [one for one in source.conversations if one.task in tasks]
    if not wanted:
        raise ConfigError(
            f"validate_answers: the validation split holds no conversation of {', '.join(tasks)}; "
            "name other tasks, or another file under `val`"
        )
    paths = sorted({one.image.path for one in wanted})
    if source.config.images is not None and len(paths) > source.config.images:
        paths = random.Random(source.seed).sample(paths, source.config.images)
    kept = set(paths)
    return [one for one in wanted if one.image.path in kept]


def metrics_of(scores: Sequence[Score]) -> dict[str, float]:
    """Scores as the trainer's metrics, `cls/accuracy` and `cls/accuracy_baseline`; what is undefined is left out.

    A score over all questions of a task counts; those of single datasets stay in scores.json.
    """
    found: dict[str, float] = {}
    for score in scores:
        if score.dataset != "all":
            continue
        name = f"{score.task.lower()}/{score.metric}"
        if score.value is not None:
            found[name] = score.value
        if score.baseline is not None:
            found[f"{name}_baseline"] = score.baseline
    return found


def headlines(scores: Sequence[Score]) -> str:
    """The first score of each task beside its baseline, for a line in the terminal."""
    parts = []
    for task in Task:
        of_task = [one for one in scores if one.task is task and one.dataset == "all" and one.value is not None]
        if of_task:
            first = of_task[0]
            beside = "" if first.baseline is None else f" (baseline {100 * first.baseline:.1f})"
            parts.append(f"{task} {first.metric} {100 * (first.value or 0):.1f} %{beside}")
    return ", ".join(parts) or "no score is defined"


def last_scores(output: Path) -> tuple[int, list[Score]] | None:
    """Step and scores of the newest validation of the run's last stage that had one."""
    found = sorted((output / "validation").glob(f"*/step-*/{SCORES}"), key=_stage_and_step)
    if not found:
        return None
    content = json.loads(found[-1].read_text(encoding="utf-8"))
    return _stage_and_step(found[-1])[1], [Score.model_validate(one) for one in content]


def _stage_and_step(path: Path) -> tuple[int, int]:
    return int(path.parts[-3].split("-", 1)[0]), int(path.parts[-2].removeprefix("step-"))
