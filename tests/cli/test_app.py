"""The command line as a whole: quick to answer, free of tracebacks, honest about what it is."""

from __future__ import annotations

import errno
import subprocess
import sys
import time

import pytest
from typer.testing import CliRunner

import gastrovl
from gastrovl.cli import app as command_line
from gastrovl.core.errors import ConfigError, GastroVLError

COMMANDS = (
    "data",
    "demo",
    "run",
    "train",
    "predict",
    "ask",
    "evaluate",
    "compare",
    "gate",
    "judge",
    "rate",
    "tokenizer",
)


def raising(error):
    def run_app(**_arguments):
        raise error

    return run_app


def test_help_lists_every_command_and_says_what_this_is_not():
    shown = CliRunner().invoke(command_line.app, ["--help"], env={"COLUMNS": "200"}).stdout
    assert [name for name in COMMANDS if f" {name} " not in shown] == []
    assert "not a medical device" in shown


@pytest.mark.parametrize("command", [*((name,) for name in COMMANDS), ("data", "build")], ids=" ".join)
def test_the_help_of_every_command_says_that_a_physician_decides(command):
    shown = CliRunner().invoke(command_line.app, [*command, "--help"], env={"COLUMNS": "200"})
    assert shown.exit_code == 0
    assert "a physician decides" in shown.stdout


def test_help_answers_within_a_second_and_without_torch():
    script = (
        "import sys, time; begin = time.perf_counter(); sys.argv = ['gastrovl', '--help']\n"
        "from gastrovl.cli.app import main\n"
        "try:\n    main()\nexcept SystemExit as stop:\n    assert stop.code == 0\n"
        "heavy = {'torch', 'transformers', 'matplotlib'} & set(sys.modules)\n"
        "print(heavy or 'light', time.process_time(), file=sys.stderr)\n"
    )
    begin = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    verdict, cpu_seconds = done.stderr.split()
    assert verdict == "light"
    assert float(cpu_seconds) < 1.0, f"{time.perf_counter() - begin:.2f} s of wall clock"


def test_version_is_printed_alone():
    shown = CliRunner().invoke(command_line.app, ["--version"])
    assert (shown.exit_code, shown.stdout) == (0, f"gastrovl {gastrovl.__version__}\n")


def test_our_error_becomes_a_message_on_stderr_without_a_traceback(monkeypatch, capsys):
    monkeypatch.setattr(command_line, "app", raising(ConfigError("a.yaml:3: unknown key 'sede'; did you mean 'seed'?")))
    with pytest.raises(SystemExit) as stop:
        command_line.main(["train"])
    out, err = capsys.readouterr()
    assert stop.value.code == 2
    assert out == ""
    assert err == "error: a.yaml:3: unknown key 'sede'; did you mean 'seed'?\n"


def test_brackets_and_long_paths_in_a_message_reach_the_reader_unchanged(monkeypatch, capsys):
    message = "/".join(["folder"] * 60) + ": [045,120,310,400] [red]x[/red]"
    monkeypatch.setattr(command_line, "app", raising(GastroVLError(message)))
    with pytest.raises(SystemExit):
        command_line.main(["train"])
    assert capsys.readouterr().err == f"error: {message}\n"


def test_the_message_is_red_on_a_terminal(monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(command_line, "app", raising(GastroVLError("no")))
    with pytest.raises(SystemExit):
        command_line.main(["train"])
    assert "\x1b[31m" in capsys.readouterr().err


def test_a_full_disk_is_a_message_too(monkeypatch, capsys):
    full = OSError(errno.ENOSPC, "No space left on device", "runs/demo/records.jsonl")
    monkeypatch.setattr(command_line, "app", raising(full))
    with pytest.raises(SystemExit) as stop:
        command_line.main(["demo"])
    assert stop.value.code == 2
    assert capsys.readouterr().err.startswith("error: runs/demo/records.jsonl: No space left on device;")


def test_a_mistake_of_the_program_keeps_its_traceback(monkeypatch):
    monkeypatch.setattr(command_line, "app", raising(ZeroDivisionError("ours")))
    with pytest.raises(ZeroDivisionError):
        command_line.main(["demo"])


def test_an_unknown_command_is_a_user_error():
    with pytest.raises(SystemExit) as stop:
        command_line.main(["trian"])
    assert stop.value.code == 2
