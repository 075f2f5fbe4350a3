"""Tasks come back in order, whoever does them, and a worker's end is told with what to do."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from gastrovl.core.errors import ConfigError, ImageError, OutputError
from gastrovl.data.engines import Engine, run_tasks, usable_cores

TWO = Engine(workers=2)


def square(number):
    return number * number


def process_of(_):
    return os.getpid()


def refuse_three(number):
    if number == 3:
        raise ImageError("three: cannot be used; leave it out")
    return number


def die(number):
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


@pytest.mark.parametrize("engine", [Engine(), TWO], ids=["this process", "two processes"])
def test_results_come_in_the_order_of_the_tasks(engine):
    assert list(run_tasks(square, range(20), engine)) == [number * number for number in range(20)]


def test_no_tasks_have_no_results():
    assert list(run_tasks(square, [], TWO)) == []


def test_several_workers_are_several_processes_and_few_tasks_stay_in_this_one():
    many = set(run_tasks(process_of, range(20), TWO))
    assert os.getpid() not in many
    assert set(run_tasks(process_of, range(3), TWO)) == {os.getpid()}


@pytest.mark.parametrize("engine", [Engine(), TWO], ids=["this process", "two processes"])
def test_an_error_of_ours_arrives_as_itself(engine):
    with pytest.raises(ImageError, match="three: cannot be used; leave it out"):
        list(run_tasks(refuse_three, range(8), engine))


def test_a_killed_worker_is_told_with_what_to_do():
    with pytest.raises(OutputError, match=r"workers died.*what is done is kept\. Run the same command again"):
        list(run_tasks(die, range(8), TWO))


def test_unknown_engines_and_no_workers_are_refused():
    with pytest.raises(ConfigError, match="engine 'spark' is not known; expected one of local, ray"):
        Engine("spark")
    with pytest.raises(ConfigError, match="workers: found 0, expected at least 1"):
        Engine(workers=0)


def test_this_machine_has_a_core():
    assert 1 <= usable_cores() <= (os.cpu_count() or 1)


def test_without_ray_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ImportError, match=r'pip install "gastrovl\[scale\]"'):
        list(run_tasks(square, range(2), Engine("ray")))


def test_ray_gives_results_in_order_and_errors_of_ours_as_themselves():
    """In a process of its own: Ray opens sockets, which tests do not."""
    pytest.importorskip("ray")
    done = subprocess.run([sys.executable, __file__], capture_output=True, text=True, timeout=240, check=False)
    assert done.stdout.splitlines() == ["0 1 4 9 16 25 36 49", "three: cannot be used; leave it out"], done.stderr


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    os.environ["PYTHONPATH"] = f"{Path(__file__).parent}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    from test_engines import refuse_three, square  # by name, as workers find them

    print(*run_tasks(square, range(8), Engine("ray", 2)))
    try:
        list(run_tasks(refuse_three, range(8), Engine("ray", 2)))
    except ImageError as error:
        print(error)
