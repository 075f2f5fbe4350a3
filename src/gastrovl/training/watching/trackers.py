"""A stage of a run to one run in each tracker that the config names: TensorBoard, Weights & Biases, MLflow.

The trainer's own callbacks write the numbers. This file opens their runs, keeps them on this machine unless the config
says otherwise, and switches off what the libraries collect or send by themselves: telemetry, error reports, code, git
state, host and user names, console output. Numbers and settings go to a tracker; paths, images and words never do.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from transformers import TrainingArguments

from gastrovl.core.config import Config
from gastrovl.core.errors import MissingExtraError

TrackerName = Literal["tensorboard", "wandb", "mlflow"]
_NEEDED = {"tensorboard": "tensorboard", "wandb": "wandb", "mlflow": "sqlalchemy"}  # skinny MLflow lacks a database
# Read by the two libraries when they are imported or a run begins.
_QUIET = {
    "DO_NOT_TRACK": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING": "false",
    "HF_MLFLOW_LOG_ARTIFACTS": "false",
    "WANDB_ERROR_REPORTING": "false",
    "WANDB_LOG_MODEL": "false",
    "WANDB_WATCH": "false",
    "WANDB_SILENT": "true",
}
_NOBODY = {"mlflow.user": "-", "mlflow.source.name": "gastrovl"}  # in place of the login and the script's path
_PRIVATE = ("_dir", "_token", "path", "hub_", "run_name", "resume_from", "deepspeed", "fsdp_config", "logging_dir")


class TrackingConfig(Config):
    """Where trackers keep their runs.

    Attributes:
        project: W&B project and MLflow experiment.
        wandb: `offline` writes to the run's folder, to be sent by `wandb sync` when you want it; `online` sends numbers
            to the W&B server you are logged in to while the run goes on.
        mlflow_uri: Address of an MLflow server or database; None takes a SQLite file in the run's folder.
    """

    project: str = "gastrovl"
    wandb: Literal["offline", "online"] = "offline"
    mlflow_uri: str | None = None


class StageArguments(TrainingArguments):
    """Trainer arguments that show a tracker no path, address or token of this machine."""

    def to_dict(self) -> dict[str, Any]:
        """The arguments as trackers get them; None values say nothing and are left out."""
        return {
            name: value
            for name, value in super().to_dict().items()
            if value is not None and not any(part in name for part in _PRIVATE)
        }


def check_trackers(names: tuple[TrackerName, ...]) -> None:
    """Check that every tracker's library is installed, before anything else is done.

    Raises:
        MissingExtraError: One is not; the message names the extra.
    """
    for name in names:
        for library in (name, _NEEDED[name]):
            if importlib.util.find_spec(library) is None:
                extra = "train" if name == "tensorboard" else name
                raise MissingExtraError(
                    f'trackers: {name} needs {library}, which is not installed: pip install "gastrovl[{extra}]", '
                    f"or take {name} out of `trackers`"
                )


@contextmanager
def tracked(
    names: tuple[TrackerName, ...], config: TrackingConfig, output: Path, *, run: str, stage: str
) -> Iterator[None]:
    """One run of each tracker for one stage, open within the block; a stage that is resumed goes on in its own run.

    Args:
        output: The run's folder; what stays on this machine is written there.
        run: Name of the whole run, which its stages share: a folder, a W&B group, an MLflow tag.
        stage: Name of the stage.
    """
    os.environ.update(_QUIET)
    os.environ["TENSORBOARD_LOGGING_DIR"] = str(output / "tensorboard" / stage)
    if os.environ.get("RANK", "0") != "0":  # of several processes the first one speaks for all
        yield
        return
    # The same folder and stage make the same id, so that a resumed stage finds its run; a hash tells nothing else.
    key = hashlib.sha256(f"{output.resolve()}\n{run}\n{stage}".encode()).hexdigest()[:16]
    opened = []
    try:
        if "wandb" in names:
            opened.append(_open_wandb(config, output, run, stage, key))
        if "mlflow" in names:
            opened.append(_open_mlflow(config, output, run, stage, key))
        yield
    finally:
        for close in reversed(opened):
            close()


def _open_wandb(config: TrackingConfig, output: Path, run: str, stage: str, key: str) -> Any:
    import wandb

    wandb.init(
        project=config.project,
        group=run,
        name=f"{run} {stage}",
        id=key,
        resume="allow" if config.wandb == "online" else None,
        dir=str(output),
        mode=config.wandb,
        settings=wandb.Settings(
            console="off",
            disable_code=True,
            disable_git=True,
            disable_job_creation=True,
            save_code=False,
            silent=True,
            host="-",
            x_disable_machine_info=True,
            x_disable_meta=True,
            x_save_requirements=False,
        ),
    )
    return wandb.finish


def _open_mlflow(config: TrackingConfig, output: Path, run: str, stage: str, key: str) -> Any:
    import mlflow

    output.mkdir(parents=True, exist_ok=True)
    mlflow.set_tracking_uri(config.mlflow_uri or f"sqlite:///{(output / 'mlflow.db').resolve()}")
    experiment = mlflow.get_experiment_by_name(config.project)
    number = experiment.experiment_id if experiment else mlflow.create_experiment(config.project)
    found = mlflow.search_runs([number], f"tags.gastrovl_stage_id = '{key}'", max_results=1, output_format="list")
    if found:
        mlflow.start_run(run_id=found[0].info.run_id)
    else:
        own = {"gastrovl_stage_id": key, "gastrovl_run": run, "gastrovl_stage": stage, **_NOBODY}
        mlflow.start_run(experiment_id=number, run_name=f"{run} {stage}", tags=own)
    return _close_mlflow


def _close_mlflow() -> None:
    import mlflow

    mlflow.flush_async_logging()
    mlflow.end_run()
