"""Steps of the trainer to what a person sees: a bar with a note in a terminal, now and then a line elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from transformers import TrainerCallback

Say = Callable[[str], None]
Progress = Callable[[str, int, int], None]


class StepReport(TrainerCallback):
    """Tells loss, speed and time left of a stage.

    Speed is that of training alone; the time left counts validations and saved states as they came so far. The first
    step of a session is left out of both: it pays for what happens once.

    Args:
        title: The stage.
        images_per_step: On all devices together.
        say: Told a line at every log, or with a bar at validations only.
        progress: Told (title, line break, note), steps done and in all behind every step; None where there is no bar.
        clock: Seconds, as time.monotonic gives them.
    """

    def __init__(
        self,
        title: str,
        images_per_step: int,
        say: Say,
        progress: Progress | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.title, self.images_per_step, self.say, self.progress, self.clock = (
            title,
            images_per_step,
            say,
            progress,
            clock,
        )
        self.loss: float | None = None
        self.reward: float | None = None  # of a stage that learns from one
        self.begin: tuple[int, float] | None = None  # step and time behind the session's first step
        self.mark = self.paused = 0.0

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Behind every optimiser step."""
        del args, control
        self.mark = self.clock()
        if self.begin is None:
            self.begin, self.paused = (state.global_step, self.mark), 0.0
        if self.progress and state.is_world_process_zero:
            self.progress(f"{self.title}\n{self._note(state)}", state.global_step, state.max_steps)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        """At every log of the trainer."""
        del args, control
        if not logs or not state.is_world_process_zero:
            return
        if "loss" in logs:
            self.loss, self.reward = logs["loss"], logs.get("reward")
            if self.progress is None:
                rate = f"rate {logs.get('learning_rate', 0.0):.1e}"
                self.say(f"  step {state.global_step:>5}/{state.max_steps}  {rate}  {self._note(state)}")
        elif line := _validation(logs):
            self.say(f"  step {state.global_step}: {line}")

    def on_evaluate(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Behind a validation."""
        del args, state, control
        self._pause()

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Behind a saved state."""
        del args, state, control
        self._pause()

    def _pause(self) -> None:
        now = self.clock()
        self.paused += now - self.mark
        self.mark = now

    def _note(self, state: Any) -> str:
        parts = [] if self.loss is None else [f"loss {self.loss:.3f}"]
        parts += [] if self.reward is None else [f"reward {self.reward:.3f}"]
        if self.begin is not None and state.global_step > self.begin[0]:
            steps, seconds = state.global_step - self.begin[0], self.clock() - self.begin[1]
            if seconds > self.paused:
                speed = self.images_per_step * steps / (seconds - self.paused)
                parts.append(f"{speed:.3g} img/s" if speed < 1000 else f"{speed:.0f} img/s")
            parts.append(f"{_duration(seconds / steps * (state.max_steps - state.global_step))} left")
        return "  ".join(parts)


def _validation(logs: dict[str, float]) -> str:
    """What teacher forcing says, in one line; validation by generation has a line of its own."""
    if "eval_loss" not in logs:
        return ""
    exact = [
        f"{name.removeprefix('eval_').removesuffix('_exact').upper()} {100 * value:.1f}"
        for name, value in logs.items()
        if name.endswith("_exact")
    ]
    shares = f", exact answers in %: {', '.join(exact)}" if exact else ""
    return f"validation loss {logs['eval_loss']:.3f}{shares}"


def _duration(seconds: float) -> str:
    """Hours, minutes and seconds, "1:02:03"."""
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"
