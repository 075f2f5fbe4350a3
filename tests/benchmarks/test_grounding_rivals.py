"""The rivals of our grounding: views keep box and mask together, tables tell priors, tests keep to shared questions."""

from __future__ import annotations

import importlib.util
import json
import sys

import numpy as np
import pytest
import torch

from gastrovl.core.records import write_records
from gastrovl.core.types import Box, Conversation, ImageRef, Prediction, Split, Target, Task, Turn

BOX = Box(x0=0.2, y0=0.2, x1=0.6, y1=0.6)


def script(repository, name):
    """A benchmark as a module."""
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", repository / "benchmarks" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look themselves up there
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def specialist(repository):
    return script(repository, "specialist")


@pytest.fixture(scope="module")
def grounding(repository):
    return script(repository, "grounding")


def test_the_specialist_has_2_4_million_parameters(specialist):
    assert sum(one.numel() for one in specialist.Specialist(160).parameters()) == pytest.approx(2.4e6, rel=0.02)


def test_a_view_of_the_specialist_keeps_the_whole_box_and_its_mask_on_the_same_place(specialist):
    side, count = 96, 40
    left, top, right, bottom = 10, 40, 50, 60
    masks = torch.zeros(count, 1, side, side, dtype=torch.uint8)
    masks[:, :, top:bottom, left:right] = 255
    corners = torch.tensor([[left, top, right, bottom]], dtype=torch.float32) / side
    frames = specialist.Frames([""] * count, masks.repeat(1, 3, 1, 1), masks, corners.repeat(count, 1), count)

    _, shown, boxes = specialist.random_views(frames, torch.arange(count), 96, torch.Generator().manual_seed(3))

    seen = [specialist.component_boxes((one[0] > 0.5).numpy(), 1.0)[0].xyxy for one in shown]
    # The mask is 48 px a side here, so an edge may be off by a pixel.
    assert np.abs(np.array(seen) - boxes.numpy()).max() < 1.5 / 48
    shapes = (boxes[:, 2] - boxes[:, 0]) / (boxes[:, 3] - boxes[:, 1])
    assert shapes.min() < 1 < shapes.max()  # some are turned by a quarter


def test_the_box_of_a_mask_is_that_of_its_largest_part(specialist):
    share = np.zeros((10, 10))
    share[1:3, 1:3], share[5:9, 4:8] = 0.9, 0.6
    assert specialist.box_of(share).xyxy == (0.4, 0.5, 0.8, 0.9)


def test_a_mask_that_is_sure_of_nothing_still_answers(specialist):
    share = np.full((10, 10), 0.1)
    share[2:4, 2:6] = 0.4
    assert specialist.box_of(share).xyxy == (0.2, 0.2, 0.6, 0.4)


def asked(number):
    return Conversation(
        id=f"q{number}",
        sample_id=f"s{number}",
        task=Task.REC,
        image=ImageRef(path=f"{number}.png", width_px=10, height_px=10, sha256="0" * 64),
        source="hyperkvasir",
        group=f"g{number}",
        split=Split.TEST,
        turns=(Turn(role="user", text="Where?"), Turn(role="assistant", text="[200,200,599,599]")),
        target=Target(terms=("polyp_unspecified",), boxes=(BOX,)),
    )


def said(number, *, is_right):
    text = "[200,200,599,599]" if is_right else "[700,700,900,900]"
    return Prediction(conversation_id=f"q{number}", text=text, model="m", seconds=0.0, stop_reason="end")


def test_models_are_tested_on_the_questions_that_all_of_them_answered(grounding, tmp_path):
    questions = tmp_path / "test.jsonl"
    write_records(questions, [asked(number) for number in range(12)])
    for name, numbers in (("all", range(12)), ("some", range(2, 12)), ("seed", range(12))):
        right = {"all": range(12, 12), "some": range(2, 12), "seed": range(2, 7)}[name]
        write_records(tmp_path / f"{name}.jsonl", [said(one, is_right=one in right) for one in numbers])
    replies = {"first": [tmp_path / "all.jsonl"], "second": [tmp_path / "some.jsonl", tmp_path / "seed.jsonl"]}

    found = {one["score"]: one for one in grounding.paired(replies, questions, resamples=50, seed=1)}

    row = found["polyps: acc@0.5"]
    assert (row["n"], row["groups"]) == (10, 10)
    # Of ten shared questions the seeds of the second have ten and five right, the first none.
    assert row["values"] == pytest.approx((0.0, 0.75))
    # All ten differ in one direction: only it and its mirror image are as extreme, of 2^10 swaps.
    assert row["p"] == pytest.approx(2 / 1024)


def test_a_prior_is_the_best_of_those_who_never_look(grounding, tmp_path):
    def line(kind, name, value):
        content = {"task": "REC", "metric": "acc@0.5", "dataset": "hyperkvasir", "split": "test", "n": 10}
        if kind == "score":
            content |= {"value": value, "low": value - 0.1, "high": value + 0.1, "n_unparsed": 0, "baseline": None}
            return content | {"baseline_name": None}
        return content | {"name": name, "value": value}

    files = []
    for number, value in enumerate((0.5, 0.7)):
        files.append(tmp_path / f"{number}.json")
        rivals = [line("baseline", *one) for one in (("mean box", 0.1), ("fixed", 0.2), ("nearest neighbour", 0.4))]
        content = {"schema": "gastrovl/results/1", "models": ["m"], "taxonomy": "1", "resamples": 9, "seed": 1}
        content |= {"level": 0.95, "bleu": None, "scores": [line("score", "", value)], "baselines": rivals}
        content |= {"replies": [], "per_class": [], "confusion": [], "iou_curves": []}
        files[-1].write_text(json.dumps(content), encoding="utf-8")

    row = grounding.row(files, Split.TEST, None)
    text = grounding.table({"rows": {"change": row}, "paired": []})

    assert row["scores"]["polyps: acc@0.5"]["prior"] == {"name": "fixed", "value": 0.2}
    assert "| change | test | 2 | 60.0 (50.0 to 70.0) [50.0 to 70.0]; prior 20.0 | - |" in text
