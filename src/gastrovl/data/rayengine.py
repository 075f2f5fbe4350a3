"""Tasks to their results by Ray Data, on this machine or on the cluster that RAY_ADDRESS names."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from gastrovl.core.errors import GastroVLError, MissingExtraError

Task = TypeVar("Task")
Result = TypeVar("Result")


def ray_results(function: Callable[[Task], Result], tasks: Sequence[Task], workers: int) -> Iterator[Result]:
    """`map` over a Ray dataset of the tasks, one core each, results in the order of the tasks.

    All machines of a cluster must see the same files under the same paths and have this package installed. Ray's usage
    reports are off.

    Raises:
        MissingExtraError: Ray is not installed.
        Whatever `function` raises, when it is one of our errors, after the other tasks are done; Ray's own error with
            its text otherwise.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # no telemetry, whatever the caller's environment says
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise MissingExtraError(
            'ray is not installed; it builds on many machines. Install it with `pip install "gastrovl[scale]"`, or '
            "leave out --engine ray"
        ) from error
    is_ours = not ray.is_initialized()
    if is_ours:
        _start(ray, workers)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context.execution_options.preserve_order = True
    refused: GastroVLError | None = None
    rows = [{"task": task} for task in tasks]
    done = ray.data.from_items(rows, override_num_blocks=len(rows)).map(_Call(function), num_cpus=1)
    for row in done.iter_rows():
        if "error" in row:
            refused = refused or row["error"]
        elif refused is None:
            yield row["result"]
    # Only here, behind the last row: Ray ends the process when it is shut down while rows are under way. Whoever stops
    # earlier leaves that to the end of the process.
    if is_ours:
        ray.shutdown()
    if refused is not None:
        raise refused


class _Call:
    """A row with a task to a row with its result, or with an error of ours, of which Ray would keep the text only."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self.function = function

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        try:
            return {"result": self.function(row["task"])}
        except GastroVLError as error:
            return {"error": error}


def _start(ray: Any, workers: int) -> None:
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if os.environ.get("RAY_ADDRESS"):
        ray.init(**quiet)
    else:
        # ports of Ray's own processes on this machine, closed to others
        ray.init(num_cpus=workers, include_dashboard=False, _node_ip_address="127.0.0.1", **quiet)
