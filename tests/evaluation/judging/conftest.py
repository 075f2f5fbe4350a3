"""Captions of two models about drawn images, and judges that follow a rule in sight."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from gastrovl.core.files import sha256_file
from gastrovl.core.records import write_records
from gastrovl.core.types import Conversation, ImageRef, Prediction, Split, Target, Task, Turn

_BLOCK = re.compile(r"^<<<(?!END)(.+?) ([0-9a-f]{16})>>>\n(.*?)\n<<<END \2>>>$", re.MULTILINE | re.DOTALL)


def blocks_of(prompt: str) -> dict[str, str]:
    """What stands between the fences of a prompt, in order of place."""
    return {name: text for name, _, text in _BLOCK.findall(prompt)}


def honest(prompt: str) -> str:
    """A judge that compares the reply with the reference, letter by letter, and the same in either order."""
    blocks = blocks_of(prompt)
    truth = blocks["REFERENCE"].splitlines()[0].removeprefix("True answer: ")
    if "FIRST REPLY" in blocks:
        first, second = (blocks[name] == truth for name in ("FIRST REPLY", "SECOND REPLY"))
        better = "tie" if first == second else "first" if first else "second"
        return json.dumps({"reason": "compared", "better": better})
    is_right = blocks["REPLY"] == truth
    levels = {"correct": 4, "complete": 4, "harmful": 0} if is_right else {"correct": 0, "complete": 1, "harmful": 2}
    return json.dumps({"reason": "compared", **levels})


@pytest.fixture
def honest_judge() -> Callable[[str], str]:
    return honest


@pytest.fixture
def blocks() -> Callable[[str], dict[str, str]]:
    return blocks_of


@pytest.fixture
def captions(tmp_path: Path) -> Callable[..., Path]:
    """`captions(8)` writes eight CAP questions, two an exam, with images, and returns their JSONL file."""

    def write(count: int = 8, tasks: Sequence[Task] = (Task.CAP,), sources: Sequence[str] = ("drawn",)) -> Path:
        folder = tmp_path / "data"
        rows = []
        for number in range(count):
            path = folder / "images" / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (64, 48), (number * 7 % 256, 90, 80)).save(path)
            source = sources[number % len(sources)]
            for task in tasks:
                rows.append(
                    Conversation(
                        id=f"{source}/{number}#{task}",
                        sample_id=f"{source}/{number}",
                        task=task,
                        image=ImageRef(
                            path=f"images/{number}.png", width_px=64, height_px=48, sha256=sha256_file(path)
                        ),
                        source=source,
                        group=f"exam-{number // 2}",
                        split=Split.TEST,
                        turns=(
                            Turn(role="user", text="Describe the image."),
                            Turn(role="assistant", text=f"Gastric polyp, picture {number}."),
                        ),
                        target=Target(terms=("gastric_polyp",)),
                    )
                )
        write_records(folder / "test.jsonl", rows)
        return folder / "test.jsonl"

    return write


@pytest.fixture
def replies(tmp_path: Path) -> Callable[..., Path]:
    """`replies(conversations, "model", reply)` writes what `reply(number, truth)` says to each question."""

    def write(conversations: Path, model: str, reply: Callable[[int, str], str], name: str | None = None) -> Path:
        path = tmp_path / f"{name or model.replace('/', '-')}.jsonl"
        lines: list[dict[str, Any]] = [json.loads(line) for line in conversations.read_text("utf-8").splitlines()]
        write_records(
            path,
            [
                Prediction(
                    conversation_id=one["id"],
                    text=reply(number, one["turns"][-1]["text"]),
                    model=model,
                    seconds=0.1,
                    stop_reason="end",
                )
                for number, one in enumerate(lines)
            ],
        )
        return path

    return write
