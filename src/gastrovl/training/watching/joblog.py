"""Every log line of the trainer as one JSON object in a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from transformers import TrainerCallback


class JsonlLog(TrainerCallback):
    """Every log line of the trainer as one JSON object in a file, marked with the stage."""

    def __init__(self, path: Path, stage: str) -> None:
        self.path, self.stage = path, stage

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        """Append one line; called on every process, written by the first."""
        del args, control
        if state.is_world_process_zero and logs:
            kept = {name: value for name, value in logs.items() if name != "train_loss"}  # wrong after a resume
            line = {"stage": self.stage, "step": state.global_step, "epoch": state.epoch, **kept}
            with self.path.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(line) + "\n")
