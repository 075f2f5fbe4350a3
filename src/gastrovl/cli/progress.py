"""The progress bar that every command shows for work longer than two seconds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, Task, TextColumn, TimeRemainingColumn
from rich.text import Text


class _Note(TimeRemainingColumn):
    """The note of a step that brings one, which tells the time left itself; else the time left."""

    def render(self, task: Task) -> Text:
        note = str(task.fields["note"])
        return Text(note, style="cyan", no_wrap=True) if note else super().render(task)


@contextmanager
def progress_bar() -> Iterator[Callable[[str, int, int], None]]:
    """A bar on standard error that vanishes at the end; call it with (what is done, done, all).

    What stands behind a line break in "what is done" is a note that may change from call to call.
    """
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=16), MofNCompleteColumn(), _Note())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        tasks = {}

        def show(step: str, done: int, total: int) -> None:
            name, _, note = step.partition("\n")
            if name not in tasks:
                tasks[name] = bar.add_task(name, total=total, note="")
            bar.update(tasks[name], completed=done, total=total, note=note)
            if done >= total:  # finished work makes room for what comes
                bar.update(tasks[name], visible=False)

        yield show
