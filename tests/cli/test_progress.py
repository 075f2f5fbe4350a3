"""The bar of a command fits a line of 80 columns, also with the note of a training step."""

from __future__ import annotations

from rich.console import Console

from gastrovl.cli import progress


def test_a_training_step_fits_eighty_columns_and_shows_its_note(monkeypatch):
    console = Console(width=80, force_terminal=True, record=True, stderr=True)
    monkeypatch.setattr(progress, "Console", lambda **_: console)

    with progress.progress_bar() as show:
        show("2/3 instruct\nloss 1.234  15.2 img/s  0:12:30 left", 1200, 30000)
        show("2/3 instruct\nloss 1.230  15.3 img/s  0:12:29 left", 1201, 30000)

    frames = [f"2/3 instruct{frame}".rstrip() for frame in console.export_text().split("2/3 instruct")[1:]]
    assert frames[-1].endswith(" 1201/30000 loss 1.230  15.3 img/s  0:12:29 left")
    assert max(len(frame) for frame in frames) <= 80
