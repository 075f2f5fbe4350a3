"""The folder of a run: whether it is free or this run's own, its newest saved state, its log, its inputs."""

from __future__ import annotations

import json
from pathlib import Path

from gastrovl.core.errors import OutputError
from gastrovl.core.files import sha256_file, write_text
from gastrovl.training.config import TrainConfig
from gastrovl.training.distributed.steps import StepPlan

_STEP = "step.json"

DONE = "weights.safetensors"  # of a finished stage


def check_output(output: Path, config: TrainConfig, resume: bool) -> None:
    """Check that `output` is free for this run, or is this run's already and may go on."""
    said = config.model_dump_json(indent=2)
    mark = output / "run.json"
    if output.is_file():
        raise OutputError(f"{output} is a file; choose another -o")
    if not output.exists() or not any(output.iterdir()):
        if resume:
            raise OutputError(f"{output} holds no run to resume; leave --resume out to start one")
        return
    if not mark.is_file():
        raise OutputError(f"{output} holds files of something else; choose another -o")
    if (output / "manifest.json").is_file():
        raise OutputError(f"{output} holds a finished run; choose another -o")
    if not resume:
        raise OutputError(f"{output} holds an unfinished run; pass --resume to go on with it, or choose another -o")
    if json.loads(mark.read_text(encoding="utf-8")) != json.loads(said):
        raise OutputError(f"{mark} was written by another config; resume with the same one, or choose another -o")


def last_state(folder: Path) -> str | None:
    """The newest whole state of a stage; what was being written when the run died lacks its last file or its end."""
    states = [path.parent for path in folder.glob("checkpoint-*/trainer_state.json") if _is_whole(path)]
    return str(max(states, key=lambda path: int(path.name.rsplit("-", 1)[1]))) if states else None


def _is_whole(path: Path) -> bool:
    """Whether a JSON file was written to its end; a full disk cuts it."""
    try:
        json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return False
    return True


def what_is_kept(output: Path, config: TrainConfig) -> str:
    """What of an unfinished run is there to go on from, as sentences; empty where there is no run."""
    if not (output / "run.json").is_file():
        return ""
    done = [number for number in range(1, len(config.stages) + 1) if (_stage(output, config, number) / DONE).is_file()]
    names = ", ".join(config.stages[number - 1].name for number in done)
    finished = f"finished stages are kept ({names}). " if done else ""
    if len(done) == len(config.stages):
        return finished
    number = len(done) + 1
    last, name = last_state(_stage(output, config, number)), config.stages[number - 1].name
    if last is None:
        return f"{finished}stage {name} has no saved state yet and will begin anew. "
    return f"{finished}stage {name} is kept up to step {Path(last).name.rsplit('-', 1)[1]}. "


def _stage(output: Path, config: TrainConfig, number: int) -> Path:
    return output / "stages" / f"{number}-{config.stages[number - 1].name}"


def is_last_step(state: str) -> bool:
    """Whether a saved state is that of a stage's last step; the trainer would go one step too far from there."""
    content = json.loads((Path(state) / "trainer_state.json").read_text(encoding="utf-8"))
    return bool(content["global_step"] >= content["max_steps"])


def check_step(folder: Path, plan: StepPlan, state: str | None) -> None:
    """Note how many images a stage's optimiser steps have, or check that they have as many as in its saved state.

    Raises:
        OutputError: They have not: the steps of the rest of the stage would be others.
    """
    path = folder / _STEP
    if state and path.is_file():
        begun = json.loads(path.read_text(encoding="utf-8"))
        if begun["images"] != plan.images:
            raise OutputError(
                f"{folder}: the stage was begun on {begun['processes']} processes with {begun['images']} images an "
                f"optimiser step; {plan.processes} processes make that {plan.images}. Resume on {begun['processes']}; "
                "a stage with `global_images_per_step` can change their number"
            )
    write_text(path, json.dumps({"images": plan.images, "processes": plan.processes}) + "\n")


def cut_log(path: Path, stage: str, checkpoint: str | None) -> None:
    """Drop log lines of this stage that came after the state that is resumed, so that nothing is logged twice.

    Lines of the state's own step stay as far as the state knows them: a validation may have come after it was saved.
    """
    if not path.is_file():
        return
    step, known = 0, 0
    if checkpoint:
        step = int(checkpoint.rsplit("-", 1)[1])
        state = json.loads((Path(checkpoint) / "trainer_state.json").read_text(encoding="utf-8"))
        known = sum(entry.get("step") == step for entry in state["log_history"])
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.endswith("}"):
            continue
        entry = json.loads(line)
        is_here = entry["stage"] == stage and entry["step"] == step
        if entry["stage"] != stage or entry["step"] < step or (is_here and known > 0):
            kept.append(entry)
            known -= is_here
    write_text(path, "".join(json.dumps(line) + "\n" for line in kept))


def input_hashes(config: TrainConfig) -> dict[str, str]:
    """SHA-256 of the conversation files."""
    return {path: sha256_file(Path(path)) for path in (config.train, config.val) if path}
