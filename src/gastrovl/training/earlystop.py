"""Validation scores to the weights worth keeping, and to the moment when training on is no use."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import nn
from transformers import TrainerCallback

from gastrovl.core.errors import ConfigError
from gastrovl.core.files import write_text
from gastrovl.training.config import EarlyStopConfig
from gastrovl.training.ema import fill
from gastrovl.training.stages import open_tensors

FILE = "early_stop.json"  # in a saved state: the scores so far


class EarlyStop(TrainerCallback):
    """Keeps what the best validation saw, and ends a stage after `patience` validations in a row that were no better.

    Weights lie in the stage's folder, one file a best validation; a saved state says which of them is its own, so that
    a run that goes on from it finds what it would have found. Once a state is saved, older ones go.
    """

    def __init__(self, rule: EarlyStopConfig, model: nn.Module, folder: Path, is_saving: bool) -> None:
        self.rule, self.model, self.folder, self.is_saving = rule, model, folder, is_saving
        self.best: float | None = None
        self.step, self.misses = 0, 0

    @property
    def is_over(self) -> bool:
        """Whether the last validations were all no better."""
        return self.misses >= self.rule.patience

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: dict[str, float], **_: Any) -> Any:
        """Note a validation; the model holds the weights that were validated."""
        del args
        score = metrics.get(f"eval_{self.rule.metric}")
        if score is None:
            known = sorted(name.removeprefix("eval_") for name in metrics if name.startswith("eval_"))
            raise ConfigError(
                f"early_stop.metric {self.rule.metric!r} is no validation score; known: {', '.join(known)}"
            )
        if self._is_better(score):
            self.best, self.step, self.misses = score, state.global_step, 0
            if state.is_world_process_zero:
                self.folder.mkdir(parents=True, exist_ok=True)
                save_file({name: value.contiguous() for name, value in open_tensors(self.model).items()}, self._file)
                if not self.is_saving:
                    self._tidy()
        else:
            self.misses += 1
        control.should_training_stop = control.should_training_stop or self.is_over
        return control

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """A state was saved whole: nobody goes back behind it."""
        del args, control
        if state.is_world_process_zero:
            self._tidy()

    def apply(self) -> None:
        """Put the best weights into the model; without any validation it stays as it is."""
        if self.best is not None:
            fill(self.model, load_file(self._file))

    def save(self, folder: Path) -> None:
        """Write the scores into a saved state."""
        said = {"best": self.best, "step": self.step, "misses": self.misses}
        write_text(folder / FILE, json.dumps(said) + "\n")

    def load(self, folder: Path) -> None:
        """Go on from a saved state."""
        said = json.loads((folder / FILE).read_text(encoding="utf-8"))
        self.best, self.step, self.misses = said["best"], said["step"], said["misses"]

    @property
    def _file(self) -> Path:
        return self.folder / f"best-{self.step}.safetensors"

    def _is_better(self, score: float) -> bool:
        if not math.isfinite(score):
            return False
        if self.best is None:
            return True
        gain = self.best - score if self.rule.metric.endswith("loss") else score - self.best
        return gain > self.rule.min_delta

    def _tidy(self) -> None:
        for path in self.folder.glob("best-*.safetensors"):
            if path != self._file:
                path.unlink()
