"""Tasks to their results, in order: in this process, by several processes of this machine, or by Ray on many.

A task must be picklable and must write what it makes to the folder that all workers share; results are small. Which
engine ran is no part of what a build holds: the same tasks leave the same files.
"""

from __future__ import annotations

import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import TypeVar

from gastrovl.core.errors import ConfigError, OutputError

Task = TypeVar("Task")
Result = TypeVar("Result")
ENGINES = ("local", "ray")
FEWEST_TASKS = 4  # below it, starting processes costs more than they save


@dataclass(frozen=True)
class Engine:
    """Who does the work.

    Attributes:
        name: "local", or "ray": Ray Data, on the cluster that RAY_ADDRESS names or else on this machine.
        workers: Processes at a time; with RAY_ADDRESS the cluster decides.

    Raises:
        ConfigError: Another name, or fewer than one worker.
    """

    name: str = "local"
    workers: int = 1

    def __post_init__(self) -> None:
        if self.name not in ENGINES:
            raise ConfigError(f"engine {self.name!r} is not known; expected one of {', '.join(ENGINES)}")
        if self.workers < 1:
            raise ConfigError(f"workers: found {self.workers}, expected at least 1")


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_tasks(function: Callable[[Task], Result], tasks: Sequence[Task], engine: Engine) -> Iterator[Result]:
    """`map` by an engine, results in the order of the tasks.

    Args:
        function: A function of a module, so that other processes find it.

    Raises:
        MissingExtraError: Ray is asked for and not installed.
        OutputError: A worker was killed.
        Whatever `function` raises.
    """
    if engine.name == "ray" and tasks:
        from gastrovl.data.rayengine import ray_results

        yield from ray_results(function, tasks, engine.workers)
    elif engine.workers == 1 or len(tasks) < FEWEST_TASKS:
        yield from map(function, tasks)
    else:
        yield from _by_processes(function, tasks, engine.workers)


def _by_processes(function: Callable[[Task], Result], tasks: Sequence[Task], workers: int) -> Iterator[Result]:
    # processes are started anew, not forked: threads of libraries in this one would be torn
    pool = ProcessPoolExecutor(min(workers, len(tasks)), mp_context=multiprocessing.get_context("spawn"))
    begun: deque[Future[Result]] = deque()
    try:
        for task in tasks:
            begun.append(pool.submit(function, task))
            if len(begun) > 3 * workers:
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()
    except BrokenProcessPool as error:
        raise OutputError(
            f"one of {workers} workers died, probably for want of memory; what is done is kept. Run the same command "
            "again to go on, with fewer workers"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
