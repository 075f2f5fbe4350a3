"""The plots of an evaluation folder to pictures inside a page, in reading order, each with words."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from gastrovl.core.types import Split, Task

Width = Literal["normal", "wide", "own"]  # one of several in a row; a row of its own; scrolled in its own size
OVERVIEW = "Main score of each task with its 95 % interval, the best trivial baseline and the paper's number"
KINDS: dict[str, tuple[str, Width]] = {  # first part of a file's name, in reading order
    "overview": (OVERVIEW, "normal"),
    "iou": ("Share of questions about present objects answered rightly, over the overlap that is asked for", "normal"),
    "datasets": ("Main score of each task by dataset, with 95 % intervals and best trivial baselines", "wide"),
    "reliability": ("Share right over confidence, with the number of replies below", "wide"),
    "risk": ("Share of wrong replies among the surest, over the share that is kept", "wide"),
    "radar": ("Model and best trivial baselines on some metrics of every task; areas mean nothing", "normal"),
    "scores": (
        "Every metric but counts over all questions, with its 95 % interval and the best trivial baseline",
        "normal",
    ),
    "classes": ("Recall and precision of each label", "normal"),
    "groups": ("Confusion matrix of the groups of the vocabulary: truth in rows, answers in columns", "normal"),
    "confusion": ("Confusion matrix: truth in rows, answers in columns", "own"),
}


_DETAILS = ("scores", "classes", "groups", "confusion")


@dataclass(frozen=True)
class Picture:
    """A plot inside a `data:` address, with the words for who cannot see it, and the room it takes.

    `is_detail` is for who wants to know more than the main result.
    """

    address: str
    words: str
    width: Width = "normal"
    is_detail: bool = False


def pictures(folder: Path) -> list[Picture]:
    """The plots that `save_plots` wrote into a folder; other files there are left out."""
    return [
        Picture(png_uri(path.read_bytes()), f"{words} ({_about(path)})", width, kind in _DETAILS)
        for kind, (words, width) in KINDS.items()
        for path in sorted(Path(folder).glob(f"{kind}_*.png"), key=_place)
    ]


def figure_picture(figure: Any, words: str) -> Picture:
    """A figure that is in no file."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png", metadata={"Software": None})
    return Picture(png_uri(stream.getvalue()), words)


def png_uri(content: bytes) -> str:
    """A PNG file as a `data:` address."""
    return "data:image/png;base64," + base64.b64encode(content).decode("ascii")


def _place(path: Path) -> tuple[int, int, str]:
    """Splits and tasks in the order of their enumerations."""
    words = path.stem.split("_")
    splits = [place for place, split in enumerate(Split) if split.value in words]
    tasks = [place for place, task in enumerate(Task) if task.value in words]
    return (splits or [-1])[0], (tasks or [-1])[0], path.stem


def _about(path: Path) -> str:
    return ", ".join(path.stem.split("_")[1:])
