"""A test set of 60 exams and replies of made-up quality, all drawn from a seed in sight."""

from __future__ import annotations

import random

import pytest

from gastrovl.core.boxtext import encode_boxes
from gastrovl.core.records import write_records
from gastrovl.core.types import Box, Prediction, Task

TERMS = ("esophagitis", "gastric_polyp", "gastric_ulcer")
TRUE = Box(x0=0.2, y0=0.2, x1=0.5, y1=0.5)
WRONG = Box(x0=0.6, y0=0.6, x1=0.9, y1=0.9)


@pytest.fixture
def test_set(conversation, tmp_path):
    """Conversations of two sources, two images an exam: CLS and REC of each image."""
    rows = []
    for image in range(120):
        common = {
            "terms": [TERMS[image % 3]],
            "source": "drawn" if image % 4 < 2 else "sketched",
            "group": f"exam-{image // 2}",
        }
        rows.append(conversation(Task.CLS, f"{image}#CLS", **common))
        rows.append(conversation(Task.REC, f"{image}#REC", boxes=[TRUE], **common))
    path = tmp_path / "test.jsonl"
    write_records(path, rows)
    return path, rows


@pytest.fixture
def replies(test_set, tmp_path):
    """Writes the replies of a model that is right with a chance of its own in each task."""

    def write(name, chances, *, seed=1, unread=0, model=None, leave_out=0):
        _, rows = test_set
        generator = random.Random(seed)
        found = []
        for place, one in enumerate(rows):
            is_right = generator.random() < chances.get(one.task, 1.0)
            wrong = encode_boxes([WRONG]) if one.task is Task.REC else "normal stomach"
            text = "??" if place < unread else one.answer if is_right else wrong
            found.append(
                Prediction(conversation_id=one.id, text=text, model=model or name, seconds=0.1, stop_reason="end")
            )
        path = tmp_path / f"{name}.jsonl"
        write_records(path, found[leave_out:])
        return path

    return write
