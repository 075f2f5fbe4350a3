"""One command started N times as one team: who is first, who waits for whom, and one error for all.

The processes meet in PyTorch's default group: gloo for what lies on CPUs and NCCL for what lies on GPUs, so that our
own few words between processes never occupy a GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import distributed

from gastrovl.core import processes
from gastrovl.core.errors import PeerError

T = TypeVar("T")
_GONE = ("connection closed by peer", "connection reset by peer", "gloo", "nccl communicator was aborted")


@dataclass(frozen=True)
class Team:
    """This process among those that run the command together."""

    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes files and says what happens."""
        return self.rank == 0

    def first(self, work: Callable[[], T]) -> T:
        """What the first process gets from `work`, on every process; the others wait for it.

        Raises:
            PeerError: On the others, when `work` raises on the first, where that error goes on.
        """
        if self.size == 1:
            return work()
        said: list[Any] = [None, None]
        try:
            if self.is_first:
                said = [True, work()]
        finally:
            distributed.broadcast_object_list(said, src=0)
        if not said[0]:
            raise PeerError("the first process of this run has ended; its message says why")
        result: T = said[1]
        return result

    def wait(self) -> None:
        """Go on when every process has come here."""
        if self.size > 1:
            distributed.barrier()

    def gathered(self, value: T) -> list[T]:
        """Every process's value, in the order of their ranks, on every process."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        distributed.all_gather_object(values, value)
        return values

    def summed(self, numbers: Sequence[float]) -> list[float]:
        """The sums of the processes' numbers, on every process."""
        if self.size == 1:
            return list(numbers)
        total = torch.tensor(numbers, dtype=torch.float64)
        distributed.all_reduce(total)
        sums: list[float] = total.tolist()
        return sums


@contextmanager
def joined() -> Iterator[Team]:
    """The team of the processes that a launcher started, for as long as the block runs.

    Raises:
        PeerError: Another process has ended while this one waited for it.
    """
    team = Team(processes.rank(), processes.size())
    if team.size == 1:
        yield team
        return
    is_ours = not distributed.is_initialized()
    if is_ours:
        _meet()
    try:
        yield team
    except RuntimeError as error:
        if isinstance(error, distributed.DistError) or any(word in str(error).lower() for word in _GONE):
            raise PeerError(
                f"process {team.rank} of {team.size} lost the others ({str(error).splitlines()[0]}); the message of "
                "the one that ended says why. One that was killed says nothing: mostly memory ran out. Put it right, "
                "and start the same command with --resume"
            ) from error
        raise
    if is_ours:
        distributed.destroy_process_group()


def _meet() -> None:
    if torch.cuda.is_available():
        torch.cuda.set_device(processes.local_rank())
        distributed.init_process_group("cpu:gloo,cuda:nccl")
    else:
        distributed.init_process_group("gloo")
