"""Stages: what is open and at which rate, as counted and printed, and what never trains."""

from __future__ import annotations

import pytest
import torch

from gastrovl.core.errors import ConfigError
from gastrovl.core.types import Task
from gastrovl.model.adapters import add_lora
from gastrovl.model.checkpoint import build_model
from gastrovl.model.config import LoraConfig
from gastrovl.model.quantise import quantise
from gastrovl.training.config import Part, StageConfig
from gastrovl.training.stages import block_of, describe, frozen_modules, open_parts, parameter_groups, part_of

EVERYTHING = (Part.VISION, Part.PROJECTOR, Part.LANGUAGE)


def stage(*trains, **others):
    return StageConfig(name="s", tasks=(Task.CAP,), trains=trains, learning_rate=1e-3, steps=1, **others)


@pytest.fixture
def model(tiny_model):
    return build_model(tiny_model("mlp"), seed=1)[0]


def open_names(model):
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def test_a_stage_opens_its_parts_only(model):
    counts = open_parts(model, stage(Part.PROJECTOR))

    assert open_names(model) == {name for name, _ in model.named_parameters() if "multi_modal_projector" in name}
    # two layers 32 -> 32 with bias
    assert counts == {Part.PROJECTOR: 2 * (32 * 32 + 32)}


def test_opening_another_stage_closes_the_last_one(model):
    open_parts(model, stage(*EVERYTHING))
    open_parts(model, stage(Part.LANGUAGE))

    assert not any("vision_tower" in name or "projector" in name for name in open_names(model))


def test_the_unused_end_of_a_tower_never_trains(model):
    open_parts(model, stage(*EVERYTHING))
    closed = {name for name, _ in model.named_parameters()} - open_names(model)

    assert closed
    assert all("vision_tower" in name and ("head" in name or "post_layernorm" in name) for name in closed)


@pytest.mark.parametrize(
    ("connector", "tower", "layer"),
    [
        ("mlp", "siglip", -1),
        ("mlp", "siglip", -2),
        ("mlp", "clip", -2),
        ("linear", "clip", 1),
        ("pool", "resnet", -1),
        ("query", "siglip", -1),
    ],
)
def test_everything_that_is_open_gets_a_gradient(tiny_model, connector, tower, layer):
    model, processor = build_model(tiny_model(connector, tower, feature_layer=layer), seed=1)
    open_parts(model, stage(*EVERYTHING))
    dialogue = processor.encode_dialogue([("user", "Where?"), ("assistant", "[125,250,500,749]")])
    ids = torch.tensor([dialogue.ids])
    labels = torch.where(torch.tensor([dialogue.is_answer]), ids, -100)

    model(
        input_ids=ids,
        labels=labels,
        segments=torch.zeros_like(ids),
        position_ids=torch.arange(ids.shape[1])[None],
        pixel_values=torch.randn(1, 3, 32, 32),
    ).loss.backward()

    without = {name for name, p in model.named_parameters() if p.requires_grad and p.grad is None}
    assert without == set()  # distributed training waits for each of them


def test_the_identity_behind_a_linear_connector_never_trains(tiny_model):
    model = build_model(tiny_model("linear"), seed=1)[0]

    counts = open_parts(model, stage(Part.PROJECTOR))

    assert counts == {Part.PROJECTOR: 32 * 32 + 32}
    assert {name.split(".")[-2] for name in open_names(model)} == {"linear_1"}


def test_a_part_the_model_does_not_have_is_refused(model):
    with pytest.raises(ConfigError, match="stage 's': the model has no parameters of lora to train"):
        open_parts(model, stage(Part.LORA, Part.PROJECTOR))


def test_with_adapters_only_they_and_the_connector_train(model):
    wrapped = add_lora(model, LoraConfig(rank=4, alpha=8))

    counts = open_parts(wrapped, stage(Part.LORA, Part.PROJECTOR))

    names = open_names(wrapped)
    assert all("lora_" in name or "multi_modal_projector.modules_to_save" in name for name in names)
    assert counts[Part.PROJECTOR] == 2 * (32 * 32 + 32)
    # Llama block: four 32 x 32 layers and three of 32 x 64; rank 4 adds 4 * (in + out) each; two blocks
    assert counts[Part.LORA] == 2 * 4 * (4 * (32 + 32) + 3 * (32 + 64))


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ({}, set()),
        ({"contrastive_weight": 1.0}, {"contrast.log_scale"}),
        ({"contrastive_weight": 1.0, "contrastive": "sigmoid"}, {"contrast.log_scale", "contrast.bias"}),
    ],
)
def test_of_a_contrastive_head_opens_what_the_stage_uses(model, told, expected):
    model.add_contrastive_head()

    open_parts(model, stage(Part.PROJECTOR, **told))

    assert {name for name in open_names(model) if "projector" not in name} == expected


def test_the_table_counts_weights_and_not_bytes_of_a_rounded_model(model):
    pytest.importorskip("bitsandbytes")
    told = stage(Part.PROJECTOR)
    before = describe(told, open_parts(model, told), model)

    quantise(model, "nf4", torch.device("cpu"), torch.float32)

    assert describe(told, open_parts(model, told), model) == before


def blocks_open(model, part):
    return {block_of(name) for name in open_names(model) if part_of(name) == part}


@pytest.mark.parametrize(
    ("text", "blocks"), [("-1:", {1}), (":1", {0}), ("0:2", {0, 1}), (":", {0, 1}), ("-9:-1", {0})]
)
def test_a_slice_opens_these_blocks_and_nothing_around_them(model, text, blocks):
    told = stage(Part.VISION, Part.LANGUAGE, layers={Part.VISION: text, Part.LANGUAGE: text})

    counts = open_parts(model, told)

    assert blocks_open(model, Part.LANGUAGE) == blocks_open(model, Part.VISION) == blocks
    # a Llama block: four 32 x 32 and three 32 x 64 matrices, two norms of 32
    assert counts[Part.LANGUAGE] == len(blocks) * (4 * 32 * 32 + 3 * 32 * 64 + 2 * 32)
    # a SigLIP block: four 32 x 32 and two 32 x 64 matrices with biases, two norms of 2 x 32
    assert counts[Part.VISION] == len(blocks) * (4 * (32 * 32 + 32) + 32 * 64 + 64 + 64 * 32 + 32 + 4 * 32)


def test_slices_count_among_the_blocks_whose_output_is_used(tiny_model):
    model = build_model(tiny_model("mlp", feature_layer=-2), seed=1)[0]  # the second of two blocks is not used

    open_parts(model, stage(Part.VISION, layers={Part.VISION: "-1:"}))

    assert blocks_open(model, Part.VISION) == {0}


def test_of_a_convolutional_tower_stages_are_counted(tiny_model):
    model = build_model(tiny_model("pool", "resnet"), seed=1)[0]

    open_parts(model, stage(Part.VISION, layers={Part.VISION: "-1:"}))

    assert open_names(model)
    assert all(".encoder.stages.1." in name for name in open_names(model))


def test_some_blocks_open_beside_adapters(model):
    wrapped = add_lora(model, LoraConfig(rank=4, alpha=8))

    open_parts(wrapped, stage(Part.LORA, Part.LANGUAGE, layers={Part.LANGUAGE: "-1:"}))

    assert blocks_open(wrapped, Part.LANGUAGE) == {1}
    assert blocks_open(wrapped, Part.LORA) == {0, 1}


def test_a_slice_without_any_block_is_refused(model):
    with pytest.raises(ConfigError, match=r"no parameters of language\[5:\] to train"):
        open_parts(model, stage(Part.LANGUAGE, layers={Part.LANGUAGE: "5:"}))


def test_chosen_blocks_learn_at_the_rate_of_their_part_and_stand_in_the_table(model):
    told = stage(*EVERYTHING, layers={Part.LANGUAGE: "-1:"}, rates={Part.LANGUAGE: 2e-5})
    counts = open_parts(model, told)

    groups = parameter_groups(model, told)

    assert sum(p.numel() for g in groups if g["lr"] == 2e-5 for p in g["params"]) == counts[Part.LANGUAGE]
    language = sum(p.numel() for n, p in model.named_parameters() if part_of(n) == Part.LANGUAGE)
    rows = describe(told, counts, model)
    assert ("language[-1:]", f"{counts[Part.LANGUAGE]:,} of {language:,}", "2.0e-05") in rows


def test_rates_of_parts_reach_the_optimiser_groups(model):
    told = stage(*EVERYTHING, rates={Part.VISION: 1e-5, Part.PROJECTOR: 2e-3}, weight_decay=0.1)
    open_parts(model, told)

    groups = parameter_groups(model, told)

    rate_of = {id(p): group["lr"] for group in groups for p in group["params"]}
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    expected = {Part.VISION: 1e-5, Part.PROJECTOR: 2e-3, Part.LANGUAGE: 1e-3}
    assert {name: rate_of[id(p)] for name, p in named.items()} == {name: expected[part_of(name)] for name in named}


def test_only_matrices_decay(model):
    told = stage(*EVERYTHING, weight_decay=0.1)
    open_parts(model, told)

    decayed = {id(p) for group in parameter_groups(model, told) if group["weight_decay"] for p in group["params"]}

    names = {name for name, p in model.named_parameters() if id(p) in decayed}
    assert "model.language_model.layers.0.mlp.up_proj.weight" in names
    assert "model.vision_tower.encoder.layers.0.mlp.fc1.weight" in names
    assert not any(word in name for name in names for word in ("norm", "bias", "embed"))


def test_frozen_modules_are_those_without_any_open_parameter(tiny_model):
    model = build_model(tiny_model("pool", "resnet"), seed=1)[0]
    open_parts(model, stage(Part.PROJECTOR))

    frozen = set(map(id, frozen_modules(model)))

    assert all(id(m) in frozen for m in model.model.vision_tower.modules() if list(m.parameters()))
    assert id(model.model.multi_modal_projector) not in frozen
    assert id(model) not in frozen


def test_the_table_says_what_trains_how_much_and_how_fast(model):
    told = stage(Part.VISION, Part.PROJECTOR, rates={Part.VISION: 2e-5})
    rows = {part: (count, rate) for part, count, rate in describe(told, open_parts(model, told), model)}

    projector = 2 * (32 * 32 + 32)
    language = sum(p.numel() for n, p in model.named_parameters() if part_of(n) == Part.LANGUAGE)
    assert rows["projector"] == (f"{projector:,} of {projector:,}", "1.0e-03")
    assert rows["language"] == (f"0 of {language:,}", "frozen")
    assert rows["vision"][1] == "2.0e-05"
