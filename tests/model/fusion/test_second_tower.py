"""Two towers: each sees its own pixels, and the second one's channels stand on the first one's grid."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from transformers import CLIPImageProcessorPil, CLIPVisionConfig, CLIPVisionModel

from gastrovl.core.errors import ConfigError
from gastrovl.model.checkpoint import build_model, load_checkpoint, save_checkpoint
from gastrovl.model.config import ModelConfig, PartConfig
from gastrovl.model.vision import tower_tokens

CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
CLIP = {
    "hidden_size": 24,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 4,
}


@pytest.fixture
def clip_folder(tmp_path):
    """A tower with weights and CLIP's own normalisation."""
    folder = tmp_path / "clip"
    CLIPVisionModel(CLIPVisionConfig(**CLIP)).save_pretrained(folder)
    CLIPImageProcessorPil().save_pretrained(folder)
    return folder


def second_part(features):
    """The second tower's channels; the first, SigLIP's, has 32."""
    return features[:, :, 32:]


def test_channels_of_both_towers_stand_side_by_side(tiny_fusion):
    model, _ = build_model(tiny_fusion("two-towers"), seed=1)
    model.eval()
    pixels = torch.randn(2, 3, 32, 32)

    features = model.model.tower_features(pixels)

    assert features.shape == (2, 16, 32 + 32)
    assert model.model.shape.width == 64
    first = model.model.vision_tower(pixels, output_hidden_states=True).hidden_states[-1]
    own = model.model.vision_tower_2(pixels).last_hidden_state  # both normalise alike here, and both see 4 x 4 cells
    assert torch.equal(features[:, :, :32], first)
    assert torch.allclose(second_part(features), own.flatten(2).transpose(1, 2), atol=1e-6)


def test_the_second_tower_gets_its_weights_and_its_own_normalisation(tiny_fusion, clip_folder):
    config = tiny_fusion("two-towers").model_copy(update={"vision_2": PartConfig(path=str(clip_folder))})
    model, processor = build_model(config, seed=1)
    model.eval()
    square = np.random.default_rng(7).integers(0, 256, (1, 32, 32, 3), dtype=np.uint8)
    fractions = torch.from_numpy(square).permute(0, 3, 1, 2) / 255
    normalised = (fractions - torch.tensor(CLIP_MEAN).view(1, 3, 1, 1)) / torch.tensor(CLIP_STD).view(1, 3, 1, 1)

    found = second_part(model.model.tower_features(processor.pixels(square)))

    clip = CLIPVisionModel.from_pretrained(clip_folder).eval()
    expected = clip(normalised, output_hidden_states=True).hidden_states[-1][:, 1:]  # 8 x 8 patches
    means = expected.view(1, 4, 2, 4, 2, 24).mean(dim=(2, 4)).view(1, 16, 24)  # of each 2 x 2
    assert torch.allclose(found, means, atol=1e-5)


def test_a_coarser_map_is_interpolated(tiny_fusion):
    model, _ = build_model(tiny_fusion("two-towers").model_copy(update={"image_size_2_px": 16}), seed=1)
    model.eval()
    second, seen = model.model.second_tower, []
    tower = model.model.vision_tower_2
    tower.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    pixels = torch.randn(1, 3, 32, 32)

    found = second.features(tower, pixels, grid_side=4)

    assert seen[0].shape == (1, 3, 16, 16)
    coarse = tower_tokens(tower, second.shape, seen[0], -1)[0].view(2, 2, 32)
    grid = found[0].view(4, 4, 32)
    assert torch.allclose(grid[0, 0], coarse[0, 0], atol=1e-6)  # at the corners nothing is mixed in
    assert torch.allclose(grid[0, 1], 0.75 * coarse[0, 0] + 0.25 * coarse[0, 1], atol=1e-6)


def test_both_towers_come_back_with_their_own_weights(tiny_fusion, clip_folder, tmp_path):
    config = tiny_fusion("two-towers").model_copy(update={"vision_2": PartConfig(path=str(clip_folder))})
    model, processor = build_model(config, seed=1)
    model.eval()
    pixels = torch.randn(1, 3, 32, 32)

    save_checkpoint(tmp_path / "saved", model, processor, "tiny")
    loaded = load_checkpoint(tmp_path / "saved")[0]

    assert torch.equal(loaded.model.tower_features(pixels), model.model.tower_features(pixels))
    said = json.loads((tmp_path / "saved" / "config.json").read_text(encoding="utf-8"))["second_tower"]
    assert said["config"]["model_type"] == "clip_vision_model"
    assert said["scale"] == pytest.approx([0.5 / std for std in CLIP_STD])
    assert said["shift"] == pytest.approx([(0.5 - m) / std for m, std in zip(CLIP_MEAN, CLIP_STD, strict=True)])


def test_a_folder_that_does_not_say_how_it_normalises_is_refused(tiny_fusion, clip_folder):
    (clip_folder / "preprocessor_config.json").unlink()
    config = tiny_fusion("two-towers").model_copy(update={"vision_2": PartConfig(path=str(clip_folder))})

    with pytest.raises(ConfigError, match=r"clip'?.*no preprocessor_config\.json there"):
        build_model(config, seed=1)


@pytest.mark.parametrize("setting", [{"image_size_2_px": 16}, {"feature_layer_2": -2}])
def test_settings_of_a_second_tower_without_one_are_refused(setting):
    with pytest.raises(ValidationError, match="without `vision_2`"):
        ModelConfig.model_validate({"preset": "nano"} | setting)


@pytest.mark.parametrize("kind", ["linear", "mlp"])
def test_a_plain_llava_model_holds_no_second_tower(tiny_model, kind):
    config = tiny_model(kind).model_copy(update={"vision_2": tiny_model("pool", "resnet").vision})

    with pytest.raises(ConfigError, match=f"'{kind}' makes a plain LLaVA model, which cannot hold a second tower"):
        build_model(config, seed=1)


def test_a_second_convolutional_tower_gives_its_last_map_only(tiny_fusion):
    with pytest.raises(ConfigError, match="feature_layer_2 -2: a convolutional tower gives its last map only"):
        build_model(tiny_fusion("two-towers").model_copy(update={"feature_layer_2": -2}), seed=1)
