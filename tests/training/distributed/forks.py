"""A launcher for tests: teams of processes forked from one that has imported everything already.

Reads one job a line: `arguments` of the command, how many `processes`, `output`, the file for what they print, and
`before`, a file of code that each runs first. Answers with their process ids and, when all have ended, their exit codes
(negative: the signal that ended one). As torchrun does, it ends the others when one has failed.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import traceback
from pathlib import Path
from typing import Any

import torch

import gastrovl.training.train
from gastrovl.cli.app import main


def member(job: dict[str, Any], rank: int, port: int) -> None:
    """What one process of a team does; never returns."""
    if job["processes"] > 1:
        os.environ.update(
            RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(job["processes"]), MASTER_ADDR="127.0.0.1"
        )
        os.environ.update(LOCAL_WORLD_SIZE=str(job["processes"]), MASTER_PORT=str(port))
    handle = os.open(job["output"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    code = 1
    try:
        if job.get("before"):
            sys.path.insert(0, str(Path(job["before"]).parent))
            __import__(Path(job["before"]).stem)
        main(job["arguments"])
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def run(job: dict[str, Any]) -> None:
    """Fork a team, tell its process ids, wait for it, tell its exit codes."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    pids = []
    for rank in range(job["processes"]):
        pid = os.fork()
        if not pid:
            member(job, rank, port)
        pids.append(pid)
    print(json.dumps(pids), flush=True)
    codes: dict[int, int] = {}
    while len(codes) < len(pids):
        pid, status = os.wait()
        codes[pid] = os.waitstatus_to_exitcode(status)
        if codes[pid]:
            for other in set(pids) - set(codes):
                os.kill(other, signal.SIGTERM)
    print(json.dumps([codes[pid] for pid in pids]), flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    assert gastrovl.training.train
    print("ready", flush=True)
    for line in sys.stdin:
        run(json.loads(line))
