"""A dataset folder with everything that a record can hold, written as `data build` would."""

from __future__ import annotations

import hashlib

import pytest
from PIL import Image

from gastrovl.core.records import write_records
from gastrovl.core.types import (
    Box,
    Conversation,
    Dialogue,
    Finding,
    ImageRef,
    Kind,
    Sample,
    Split,
    Status,
    Target,
    Task,
    Turn,
)

SPLITS = (Split.TRAIN, Split.TRAIN, Split.TRAIN, Split.TRAIN, Split.VAL, Split.TEST)
LEFT, SMALL = Box(x0=0, y0=0, x1=0.5, y1=1), Box(x0=1 / 3, y0=0.1, x1=2 / 3, y1=0.7)


@pytest.fixture
def whole_dataset(tmp_path, draw):
    """Six images in two formats, one scaled down; findings of each status; conversations in five files."""
    root = tmp_path / "built"
    samples, conversations = [], {"train": [], "val": [], "test": [], "val_reworded": [], "test_dialogues": []}
    for n, split in enumerate(SPLITS):
        path = f"images/own/p{n}/frame.{'jpg' if n % 2 else 'png'}"
        draw(root / path, n, (100, 50))
        sha256 = hashlib.sha256((root / path).read_bytes()).hexdigest()
        image = ImageRef(path=path, width_px=200 if n == 0 else 100, height_px=100 if n == 0 else 50, sha256=sha256)
        samples.append(
            Sample(
                id=f"own/p{n}/frame",
                image=image,
                source="own" if n < 4 else "other",
                group=f"g{n}",
                split=split,
                licence="CC BY 4.0" if n < 4 else "CC0",
                text="An ulcer; „healing“." if n == 1 else "",
                findings=(
                    Finding(term="gastric_ulcer", site="antrum", boxes=(LEFT, SMALL), origin="Ulkus"),
                    Finding(term="esophagitis", grade="B", status=Status.UNCERTAIN, confidence=0.25),
                    Finding(term="gastric_polyp", status=Status.ABSENT),
                ),
                dialogues=(
                    Dialogue(turns=(Turn(role="user", text="Clean?"), Turn(role="assistant", text="Yes.")), kind=None),
                )
                if n == 2
                else (),
            )
        )
        conversations[split.value] += about(samples[-1], Task.REC, (LEFT, SMALL)) + about(samples[-1], Task.CLS)
        if split is Split.VAL:
            conversations["val_reworded"] += about(samples[-1], Task.REG, (SMALL,))
        if split is Split.TEST:
            conversations["test_dialogues"] += about(samples[-1], Task.VQA, turns=4, kind=Kind.COUNT)
    write_records(root / "records.jsonl", samples)
    for name, items in conversations.items():
        write_records(root / f"{name}.jsonl", items)
    (root / "README.md").write_text("---\nlicense: mit\n---\n\n# Dataset card\n\nOf six frames.\n", encoding="utf-8")
    (root / "figures").mkdir()
    with Image.new("RGB", (2, 2)) as picture:
        picture.save(root / "figures/tasks.png")
    return root


def about(sample, task, boxes=(), turns=2, kind=None):
    words = [
        Turn(role="assistant", text=f"No, {n}.")
        if n % 2
        else Turn(role="user", text=f"Is it, {n}?", alternatives=("Or?", "And?") if n == 0 else ())
        for n in range(turns)
    ]
    return [
        Conversation(
            id=f"{sample.id}#{task}-0",
            sample_id=sample.id,
            task=task,
            kind=kind,
            image=sample.image,
            source=sample.source,
            group=sample.group,
            split=sample.split,
            turns=tuple(words),
            target=Target(terms=("gastric_ulcer",), boxes=boxes),
        )
    ]
