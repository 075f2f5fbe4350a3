"""Every way to join image and text trains: packed rows equal single ones, stages open what they should, runs end."""

from __future__ import annotations

import pytest
import torch
from PIL import Image

from gastrovl.core.types import Task
from gastrovl.inference.predictor import Predictor
from gastrovl.inference.question import Question
from gastrovl.model.adapters import add_lora
from gastrovl.model.checkpoint import build_model, load_checkpoint
from gastrovl.model.config import LoraConfig, PartConfig
from gastrovl.model.packed.shared_prefix import Backend
from gastrovl.training.cache.features import tower_meaning
from gastrovl.training.config import Part, StageConfig, TrainConfig
from gastrovl.training.rows.packing import collate, pack
from gastrovl.training.stages import open_parts, part_of
from gastrovl.training.train import train

FUSIONS = ("attention", "attention-7", "query-2", "gated", "gated-query", "two-towers", "two-towers-gated")
EVERYTHING = (Part.VISION, Part.PROJECTOR, Part.LANGUAGE)
# Two images, the first with three dialogues of different length.
TURNS = (
    (
        [("user", "What does the image show?"), ("assistant", "polyp")],
        [("user", "Where is the polyp?"), ("assistant", "[125,250,500,749]")],
        [("user", "Describe the image."), ("assistant", "The image shows polyp.")],
    ),
    ([("user", "Name every finding."), ("assistant", "gastric ulcer")],),
)


def everything(model):
    return (*EVERYTHING, Part.VISION_2) if hasattr(model.model, "vision_tower_2") else EVERYTHING


def stage(*trains, **others):
    return StageConfig(name="s", tasks=(Task.CAP,), trains=trains, learning_rate=1e-3, steps=1, **others)


def loss_and_gradients(model, batch, pixels):
    model.zero_grad()
    loss = model(pixel_values=pixels, **batch).loss
    loss.backward()
    return loss.item(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("backend", [Backend.GROUPS, Backend.MASK])
@pytest.mark.parametrize("name", FUSIONS)
def test_packed_rows_have_the_loss_and_gradients_of_single_rows(open_fusion, name, backend):
    model, processor = open_fusion(name)
    model.packed_attention = backend
    said = [[processor.encode_dialogue(turns) for turns in image] for image in TURNS]
    pixels = torch.randn(2, 3, 32, 32)
    rows = [pack(image, [1.0, 3.0, 0.5][: len(image)], 512) for image in said]
    singles = [pack([one], [(1.0, 3.0, 0.5)[number]], 512) for image in said for number, one in enumerate(image)]

    packed_loss, packed = loss_and_gradients(model, collate(rows, 0), pixels)
    model.packed_attention = Backend.MASK
    single_loss, single = loss_and_gradients(model, collate(singles, 0), pixels[[0, 0, 0, 1]])

    assert packed_loss == pytest.approx(single_loss, rel=1e-5)
    assert packed.keys() == single.keys()
    for parameter, gradient in single.items():
        assert torch.linalg.norm(packed[parameter] - gradient) <= 1e-5 * max(float(gradient.norm()), 1e-3), parameter


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@torch.no_grad()
def test_rows_laid_out_for_flex_attention_look_at_their_own_images(open_fusion):
    model, processor = open_fusion("gated")
    said = [[processor.encode_dialogue(turns) for turns in image] for image in TURNS]
    batch = collate([pack(image, [1.0] * len(image), 512) for image in said], 0)
    pixels = torch.randn(2, 3, 32, 32)
    losses = {}
    for backend in (Backend.FLEX, Backend.MASK):
        model.packed_attention = backend
        losses[backend] = model(pixel_values=pixels, **batch).loss.item()

    assert losses[Backend.FLEX] == pytest.approx(losses[Backend.MASK], rel=1e-5)


@pytest.mark.parametrize("name", FUSIONS)
def test_features_of_a_frozen_tower_stand_for_its_pixels(open_fusion, name):
    model, processor = open_fusion(name)
    batch = collate([pack([processor.encode_dialogue(TURNS[1][0])], [1.0], 512)], 0)
    pixels = torch.randn(1, 3, 32, 32)

    features = model.model.tower_features(pixels)

    assert torch.equal(model(pixel_values=pixels, **batch).loss, model(tower_features=features, **batch).loss)
    assert features.shape == (1, model.model.shape.tokens, model.model.shape.width)  # what the cache reckons with


@pytest.mark.parametrize("name", FUSIONS)
def test_everything_that_is_open_gets_a_gradient(open_fusion, name):
    model, processor = open_fusion(name)
    open_parts(model, stage(*everything(model)))
    batch = collate([pack([processor.encode_dialogue(TURNS[0][1])], [1.0], 512)], 0)

    model(pixel_values=torch.randn(1, 3, 32, 32), **batch).loss.backward()

    without = {name for name, p in model.named_parameters() if p.requires_grad and p.grad is None}
    assert without == set()


def test_a_second_tower_is_a_part_of_its_own_and_gated_blocks_are_the_connector(open_fusion):
    model, _ = open_fusion("two-towers-gated")

    counts = open_parts(model, stage(Part.VISION, Part.PROJECTOR))

    names = [name for name, _ in model.named_parameters()]
    found = {part: {name.split(".")[1] for name in names if part_of(name) == part} for part in Part}
    assert found[Part.VISION] == {"vision_tower"}
    assert found[Part.VISION_2] == {"vision_tower_2"}
    assert found[Part.PROJECTOR] == {"multi_modal_projector", "gated_blocks"}
    blocks = sum(p.numel() for p in model.model.gated_blocks.parameters())
    # of width 32: q, k, v, o; a feed-forward layer of four times the width; three norms and two gates
    assert blocks == 4 * 32 * 32 + 2 * 4 * 32 * 32 + 3 * 2 * 32 + 2
    projector = sum(p.numel() for p in model.model.multi_modal_projector.parameters())
    assert counts[Part.PROJECTOR] == blocks + projector
    assert any(p.requires_grad for p in model.model.vision_tower.parameters())
    assert not any(p.requires_grad for p in model.model.vision_tower_2.parameters())


def test_a_stage_opens_the_last_blocks_of_the_second_tower_alone(open_fusion):
    model, _ = open_fusion("two-towers")

    open_parts(model, stage(Part.VISION_2, layers={Part.VISION_2: "-1:"}))

    names = {name for name, p in model.named_parameters() if p.requires_grad}
    assert names
    assert all("vision_tower_2.encoder.stages.1." in name for name in names)  # of two stages, 0 and 1


def test_blocks_behind_the_second_towers_features_never_train(tiny_fusion, tiny_model):
    clip = tiny_model("mlp", "clip").vision
    config = tiny_fusion("two-towers").model_copy(update={"vision_2": clip, "feature_layer_2": -2})
    model, _ = build_model(config, seed=1)

    open_parts(model, stage(Part.VISION_2))

    open_layers = {
        name.split(".layers.")[1][0]
        for name, p in model.named_parameters()
        if "vision_tower_2.encoder.layers" in name and p.requires_grad
    }
    assert open_layers == {"0"}
    assert not any(p.requires_grad for n, p in model.named_parameters() if "vision_tower_2" in n and "post_layer" in n)


def test_the_unused_end_of_a_second_convolutional_tower_never_trains(tiny_fusion):
    shape = {"model_type": "convnext", "num_stages": 2, "hidden_sizes": [8, 16], "depths": [1, 1], "patch_size": 4}
    model, processor = build_model(
        tiny_fusion("two-towers").model_copy(update={"vision_2": PartConfig(config=shape)}), seed=1
    )
    open_parts(model, stage(*everything(model)))
    batch = collate([pack([processor.encode_dialogue(TURNS[0][1])], [1.0], 512)], 0)

    model(pixel_values=torch.randn(1, 3, 32, 32), **batch).loss.backward()

    assert {name for name, p in model.named_parameters() if p.requires_grad and p.grad is None} == set()
    assert not any(p.requires_grad for n, p in model.named_parameters() if "vision_tower_2.layernorm" in n)


def test_kept_features_are_of_both_towers_and_how_the_second_sees(open_fusion):
    model, processor = open_fusion("two-towers")
    before = tower_meaning(model, processor)

    model.config.second_tower = model.config.second_tower | {"shift": (0.5, 0.5, 0.5)}
    seen_otherwise = tower_meaning(model, processor)
    with torch.no_grad():
        next(model.model.vision_tower_2.parameters()).add_(1.0)
    of_other_weights = tower_meaning(model, processor)

    assert {name for name in before if before[name] != seen_otherwise[name]} == {"second_tower"}
    assert {name for name in before if seen_otherwise[name] != of_other_weights[name]} == {"weights"}


def test_adapters_train_beside_the_gated_blocks(open_fusion):
    model, processor = open_fusion("gated")
    wrapped = add_lora(model, LoraConfig(rank=2, alpha=4))
    open_parts(wrapped, stage(Part.LORA, Part.PROJECTOR))
    batch = collate([pack([processor.encode_dialogue(TURNS[0][1])], [1.0], 512)], 0)

    wrapped(pixel_values=torch.randn(1, 3, 32, 32), **batch).loss.backward()

    moved = {name for name, p in wrapped.named_parameters() if p.grad is not None}
    assert moved == {name for name, p in wrapped.named_parameters() if p.requires_grad}
    assert any("gated_blocks.0.gate_attention" in name for name in moved)


@pytest.mark.parametrize("name", ["attention", "gated", "two-towers-gated"])
def test_a_run_moves_every_gate_and_ends_in_a_checkpoint(tiny_fusion, tiny_data, tmp_path, name):
    see = {"name": "see", "tasks": ["CLS", "REC"], "trains": ["vision", "projector"], "answer_weight": 0}
    see |= {"grounding_weight": 1.0, "learning_rate": 1e-3, "steps": 1, "images_per_step": 2}
    instruct = {"name": "instruct", "tasks": ["CLS", "REC"], "trains": ["projector", "language"]}
    instruct |= {"learning_rate": 1e-3, "steps": 2, "images_per_step": 2}
    stages = [instruct] if name == "two-towers-gated" else [see, instruct]
    content = {"name": "tiny", "model": tiny_fusion(name), "train": str(tiny_data(2)), "stages": stages}

    train(TrainConfig.model_validate(content), tmp_path / "run", show_bar=False, say=lambda _: None)

    model, _, _ = load_checkpoint(tmp_path / "run")
    gates = [p for n, p in model.named_parameters() if "gate_attention" in n or "gate_feed" in n]
    assert all(bool(gate.detach().abs() > 0) for gate in gates)
    assert bool(gates) == ("gated" in name)
    assert model.grounding is None
    questions = [Question(Image.new("RGB", (40, 30), colour), (("user", "Where?"),)) for colour in ("red", "blue")]
    assert len(Predictor.load(tmp_path / "run", "cpu").answer(questions, max_new_tokens=4)) == 2


def test_a_described_model_comes_from_plain_settings(tiny_fusion):
    described = tiny_fusion("two-towers-gated").model_dump(mode="json")

    again = type(tiny_fusion("gated")).model_validate(described)

    assert again == tiny_fusion("two-towers-gated")
    assert isinstance(again.vision_2, PartConfig)
