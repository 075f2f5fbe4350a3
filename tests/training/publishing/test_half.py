"""A copy in half precision: half the bytes, the same answers, nothing of the run, and refused where it would lie."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from gastrovl.core.errors import CheckpointError, OutputError
from gastrovl.core.images import open_image
from gastrovl.inference.predictor import Predictor
from gastrovl.model.checkpoint import build_model, save_checkpoint
from gastrovl.model.config import PerceptionConfig
from gastrovl.training.publishing.half import write_half


@pytest.fixture
def run(tiny_model, tmp_path):
    """An untrained checkpoint with a head that says of everything that it is there, and what a run leaves beside it."""
    model, processor = build_model(tiny_model("pool", "resnet", perception=PerceptionConfig(width=16, upscale=4)), 5)
    model.perception.is_there[-1].bias.data.fill_(5.0)
    folder = tmp_path / "run"
    save_checkpoint(folder, model.eval(), processor, "tiny", recognised={"polyp_unspecified": "polyp"}, locates=True)
    (folder / "README.md").write_text("---\nlicense: cc-by-4.0\n---\n", encoding="utf-8")
    (folder / "log.jsonl").write_text("{}\n", encoding="utf-8")
    (folder / "tensorboard").mkdir()
    (folder / "tensorboard" / "events").write_bytes(b"x")
    return folder


def test_weights_take_half_and_the_run_stays_behind(run, tmp_path):
    size = write_half(run, tmp_path / "half")

    names = {file.name for file in (tmp_path / "half").iterdir()}
    assert names == {file.name for file in run.iterdir()} - {"log.jsonl", "tensorboard"}
    assert size == sum(file.stat().st_size for file in (tmp_path / "half").iterdir())
    whole, half = load_file(run / "model.safetensors"), load_file(tmp_path / "half" / "model.safetensors")
    floats = {name for name, tensor in whole.items() if tensor.is_floating_point()}
    assert floats < whole.keys()  # batch norm counts its batches
    assert {half[name].dtype for name in floats} == {torch.float16}
    assert all(torch.equal(whole[name], half[name]) for name in whole.keys() - floats)
    with safe_open(tmp_path / "half" / "model.safetensors", framework="pt") as file:
        assert file.metadata() == {"format": "pt"}
    assert json.loads((tmp_path / "half" / "config.json").read_text(encoding="utf-8"))["dtype"] == "float16"


def test_the_copy_answers_in_float32_and_its_boxes_are_those_of_the_whole(run, tmp_path):
    write_half(run, tmp_path / "half")
    whole, half = Predictor.load(run, "cpu"), Predictor.load(tmp_path / "half", "cpu")

    assert {parameter.dtype for parameter in half.model.parameters()} == {torch.float32}
    for number in range(4):
        pixels = np.random.default_rng(number).integers(0, 256, (48, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "frame.png")
        image = open_image(tmp_path / "frame.png")
        one, other = whole.locate(image, "polyp"), half.locate(image, "polyp")
        assert len(one.boxes) == len(other.boxes) > 0
        for box, near in zip(one.boxes, other.boxes, strict=True):
            assert near.xyxy == pytest.approx(box.xyxy, abs=1e-3)
        assert other.presence == pytest.approx(one.presence, abs=1e-3)


def test_a_weight_that_float16_cannot_hold_is_named(run, tmp_path):
    tensors = load_file(run / "model.safetensors")
    tensors["perception.mask_bias"] = torch.tensor(1e5)
    save_file(tensors, run / "model.safetensors", metadata={"format": "pt"})

    with pytest.raises(CheckpointError, match=r"perception\.mask_bias holds 1e\+05, and float16 ends at 65504"):
        write_half(run, tmp_path / "half")
    assert not (tmp_path / "half").exists()


def test_a_copy_above_its_limit_is_not_written(run, tmp_path):
    with pytest.raises(OutputError, match="bytes, and 1,000 are allowed; train a smaller model"):
        write_half(run, tmp_path / "half", most_bytes=1000)
    assert not (tmp_path / "half").exists()


def test_a_folder_that_is_filled_is_left_as_it_is(run, tmp_path):
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "mine.txt").write_text("mine", encoding="utf-8")

    with pytest.raises(OutputError, match="already holds files"):
        write_half(run, tmp_path / "half")
    assert [file.name for file in (tmp_path / "half").iterdir()] == ["mine.txt"]
