"""Towers: their token geometry, the features that are taken, the preprocessing that leaves boxes true."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoConfig, AutoModel

from gastrovl.core.errors import ConfigError, ModelInputError
from gastrovl.model.vision import image_processor, tower_shape, tower_tokens

VIT = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 32}
RESNET = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"}
TOWERS = [
    ("siglip_vision_model", VIT | {"patch_size": 8}, 4, 0),
    ("clip_vision_model", VIT | {"patch_size": 8}, 4, 1),
    ("dinov2", VIT | {"patch_size": 8}, 4, 1),
    ("dinov3_vit", VIT | {"patch_size": 8, "num_register_tokens": 4}, 4, 5),
    ("vit", VIT | {"patch_size": 8}, 4, 1),
    ("resnet", RESNET, 4, 0),
    ("resnet", RESNET | {"downsample_in_first_stage": True}, 2, 0),
    ("convnext", {"patch_size": 4, "num_stages": 2, "hidden_sizes": [8, 16], "depths": [1, 1]}, 4, 0),
]


@pytest.mark.parametrize(("kind", "fields", "side", "prefix"), TOWERS)
def test_a_tower_gives_the_grid_its_config_promises(kind, fields, side, prefix):
    config = AutoConfig.for_model(kind, **fields)
    shape = tower_shape(config, 32)
    tower = AutoModel.from_config(config).eval()

    features = tower_tokens(tower, shape, torch.randn(2, 3, 32, 32), layer=-1)

    assert (shape.grid_side, shape.prefix) == (side, prefix)
    assert features.shape == (2, side * side, shape.width)


def test_class_tokens_are_left_out_and_patches_stay_in_order():
    config = AutoConfig.for_model("clip_vision_model", **VIT, patch_size=8)
    tower, pixels = AutoModel.from_config(config).eval(), torch.randn(1, 3, 32, 32)

    features = tower_tokens(tower, tower_shape(config, 32), pixels, layer=-2)

    hidden = tower(pixels, output_hidden_states=True).hidden_states[-2]
    assert torch.equal(features, hidden[:, 1:])


def test_a_map_is_read_row_by_row_from_the_top_left():
    config = AutoConfig.for_model("resnet", **RESNET)
    tower, pixels = AutoModel.from_config(config).eval(), torch.randn(1, 3, 32, 32)

    features = tower_tokens(tower, tower_shape(config, 32), pixels, layer=-1)

    feature_map = tower(pixels, output_hidden_states=True).hidden_states[-1]  # (1, channels, 4, 4)
    assert torch.equal(features[0, 1], feature_map[0, :, 0, 1])
    assert torch.equal(features[0, 4], feature_map[0, :, 1, 0])


def test_images_of_another_size_are_refused():
    config = AutoConfig.for_model("resnet", **RESNET)

    with pytest.raises(ModelInputError, match=r"gave 64 tokens for pixels \(1, 3, 64, 64\), expected 16"):
        tower_tokens(AutoModel.from_config(config), tower_shape(config, 32), torch.randn(1, 3, 64, 64), layer=-1)


def test_a_size_that_no_patch_grid_fits_is_refused():
    config = AutoConfig.for_model("siglip_vision_model", **VIT, patch_size=14)

    with pytest.raises(ConfigError, match="image_size_px 32 is no multiple of the tower's patch size 14"):
        tower_shape(config, 32)


def test_a_tower_of_unknown_layout_is_refused():
    with pytest.raises(ConfigError, match="'llama': its token layout is not known here; known: clip_vision_model"):
        tower_shape(AutoConfig.for_model("llama"), 32)


@pytest.mark.parametrize("kind", ["siglip_vision_model", "clip_vision_model", "dinov2", "vit", "resnet"])
def test_the_image_processor_squashes_and_never_crops(kind):
    processor = image_processor(None, AutoConfig.for_model(kind), 48)

    assert dict(processor.size) == {"height": 48, "width": 48}
    assert processor.do_center_crop is False
    assert type(processor).__name__.endswith("Pil")


def test_a_tower_without_its_normalisation_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"no preprocessor_config.json there"):
        image_processor(str(tmp_path), AutoConfig.for_model("siglip_vision_model"), 48)
