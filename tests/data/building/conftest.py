"""A hand-made source of twelve frames, and builds of it."""

from __future__ import annotations

import pytest
import yaml

from gastrovl.core.config import parse_config
from gastrovl.data.build import BuildConfig, build_dataset

PATIENTS = 6


@pytest.fixture
def source(tmp_path, draw):
    """A folder of 12 frames of 6 patients in two class folders, every frame with one boxed polyp."""
    root = tmp_path / "data/own"
    (root / "bbox").mkdir(parents=True)
    for n in range(2 * PATIENTS):
        name = f"P{n // 2}_{n}"
        draw(root / f"images/{'antrum' if n % 2 else 'pylorus'}/{name}.png", n, (100, 50))
        (root / f"bbox/{name}.txt").write_text("10 5 60 45 polyp\n", encoding="utf-8")
    draw(root / "images/stool/S0_0.png", 99)
    draw(root / "images/stool/S0_1.png", 98)
    return root


@pytest.fixture
def config(tmp_path, source):
    """`config(description={...}, **settings)`: a build config of the source, both changed at will."""

    def make(description=None, **settings):
        content = {
            "name": "own",
            "title": "Own frames",
            "licence": "CC BY 4.0",
            "citation": "nobody",
            "images": ["images/**/*.*"],
            "annotations": [{"format": "class_folders"}, {"format": "box_text", "folder": "bbox"}],
            "labels": {
                "antrum": "antrum",
                "pylorus": "pylorus",
                "polyp": "gastric_polyp",
                "stool": {"exclude": "lower GI tract"},
            },
            "exhaustive": ["polyp"],
            "group": {"pattern": "^[a-z]+/([PS][0-9]+)_"},
            **(description or {}),
        }
        path = tmp_path / "own.yaml"
        path.write_text(yaml.safe_dump(content), encoding="utf-8")
        chosen = {"sources": [{"description": str(path), "root": source.name}], "figures": False, **settings}
        return parse_config(chosen, BuildConfig, where="test")

    return make


@pytest.fixture
def build(tmp_path, source):
    """`build(config, name="out")` builds into a folder of its own."""

    def run(settings, name="out", **more):
        return build_dataset(settings, tmp_path / "built" / name, data_root=source.parent, **more)

    return run
