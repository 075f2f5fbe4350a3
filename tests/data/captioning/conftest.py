"""A drawn dataset of a few records, and a server that captions its images as a good model would."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gastrovl.core.files import sha256_file
from gastrovl.core.records import write_records
from gastrovl.core.types import Box, Finding, ImageRef, Sample, Split

from ...modelserver import Served

SITES = ("antrum", "body", "fundus", "pylorus")


def honest(prompt: str) -> str:
    """A caption from the facts in a prompt, as a good model would write it."""
    views = re.findall("^- in view: (.+)$", prompt, re.MULTILINE)
    findings = [line.split(",")[0] for line in re.findall("^- finding: (.+)$", prompt, re.MULTILINE)]
    return f"This view of the {' and '.join(views)} shows {' and '.join(findings) or 'its surface'}."


@pytest.fixture
def served(served: Served) -> Served:
    """The server, answering as a good model would."""
    served.answer = honest
    return served


@pytest.fixture
def dataset(tmp_path: Path, draw: Callable[..., Path]) -> Callable[..., Path]:
    """`dataset(images=3)` writes a folder of records and images: each a site of the stomach with one ulcer or polyp."""

    def make(images: int = 3, **changes: Any) -> Path:
        folder = tmp_path / "set"
        samples = []
        for number in range(images):
            path = draw(folder / f"images/{number:03d}.png", seed=number)
            box = Box(x0=0.1, y0=0.1, x1=0.3, y1=0.3)
            term = "gastric_polyp" if number % 2 else "gastric_ulcer"
            image = ImageRef(path=f"images/{number:03d}.png", width_px=64, height_px=48, sha256=sha256_file(path))
            fields = {
                "id": f"own/{number:03d}",
                "image": image,
                "source": "own",
                "group": str(number),
                "split": Split.TRAIN,
                "findings": (Finding(term=SITES[number % 4]), Finding(term=term, boxes=(box,))),
            }
            samples.append(Sample.model_validate(fields | changes))
        write_records(folder / "records.jsonl", samples)
        return folder

    return make
