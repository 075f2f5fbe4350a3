"""The launcher's environment variables as which process this is of how many; nothing here needs PyTorch.

`torchrun` and `accelerate launch` start the same command several times and tell each process its place in the
variables RANK and WORLD_SIZE. A command that was started plainly is the only process.
"""

from __future__ import annotations

import os
import time

from gastrovl.core.errors import PeerError

_FIRST_WORD_SECONDS = 2.0  # launchers end the others well within this time
_STEP_SECONDS = 0.5
_LAST_WORD_SECONDS = 20.0


def rank() -> int:
    """This process's number, from 0."""
    return int(os.environ.get("RANK", "0"))


def size() -> int:
    """How many processes run this command together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def local_rank() -> int:
    """This process's number on its machine, from 0."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def let_others_speak(error: BaseException) -> None:
    """Wait for one's turn to report an error, so that one message stands for the whole run.

    A launcher ends all processes as soon as one has ended. So the first process speaks at once, the others, who mostly
    met the same error, a little later, and last who only noticed that another one is gone.
    """
    if size() > 1:
        wait = _FIRST_WORD_SECONDS + min(rank(), 16) * _STEP_SECONDS if rank() else 0.0
        time.sleep(_LAST_WORD_SECONDS if isinstance(error, PeerError) else wait)
