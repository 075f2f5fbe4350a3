"""Presets: sizes as published, every one builds, and a part can be replaced by real weights in a folder."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    LlamaConfig,
    LlamaForCausalLM,
    LlavaConfig,
    LlavaForConditionalGeneration,
    PhiConfig,
    PhiForCausalLM,
    SiglipConfig,
    SiglipImageProcessorPil,
    SiglipModel,
    SiglipVisionConfig,
    SiglipVisionModel,
)

from gastrovl.core.errors import ConfigError
from gastrovl.model.checkpoint import build_model, load_checkpoint, save_checkpoint
from gastrovl.model.compose import compose
from gastrovl.model.config import ConnectorConfig, ModelConfig, PartConfig
from gastrovl.model.presets import PRESETS, resolve

SMALL = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
VISION = SMALL | {"image_size": 32, "patch_size": 8}
TEXT = SMALL | {"vocab_size": 100, "max_position_embeddings": 16}
# Parameters of tower and language model as their authors publish them, in millions, and image tokens.
PUBLISHED = {
    "phi15-siglip": (428, 1418, 246),  # SigLIP-so400m: 428 M with its pooling head; Phi-1.5: 1.42 B; 14^2 + 7^2 + 1
    "phi15-siglip2": (93, 1418, 81),  # SigLIP 2 base: 93 M; 8^2 + 4^2 + 1
    "qwen3-siglip2": (93, 596, 256),  # Qwen3-0.6B: 596 M; (256 / 16)^2
    "qwen3-clip": (304, 596, 576),
    "llama-clip": (304, 1236, 576),  # CLIP ViT-L/14: 304 M; Llama 3.2 1B: 1.236 B; (336 / 14)^2
}


def on_meta(name):
    """A preset with the vocabulary of its own language model, without memory for its weights."""
    preset = PRESETS[name]
    with torch.device("meta"):
        return compose(
            preset.vision,
            preset.language,
            preset.connector,
            vocabulary=preset.language.config["vocab_size"],
            image_token_id=5,
            image_size_px=preset.image_size_px,
            feature_layer=preset.feature_layer,
            pad_token_id=0,
            eos_token_id=1,
        )


def millions(module, *others):
    return round(sum(p.numel() for part in (module, *others) for p in part.parameters()) / 1e6)


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_preset_has_the_published_size(name):
    vision, language, tokens = PUBLISHED[name]
    model = on_meta(name)
    head = [] if model.config.tie_word_embeddings else [model.lm_head]

    assert millions(model.model.vision_tower) == vision
    assert millions(model.model.language_model, *head) == language
    assert model.config.image_seq_length == tokens


def test_phi15_siglip_has_the_shapes_of_colongpt():
    shapes = {name: tuple(p.shape) for name, p in on_meta("phi15-siglip").named_parameters()}

    assert shapes["model.vision_tower.embeddings.patch_embedding.weight"] == (1152, 3, 14, 14)
    assert shapes["model.vision_tower.embeddings.position_embedding.weight"] == (729, 1152)
    assert shapes["model.vision_tower.encoder.layers.26.mlp.fc1.weight"] == (4304, 1152)
    assert shapes["model.multi_modal_projector.linear_1.weight"] == (2048, 1152)
    assert shapes["model.language_model.layers.23.mlp.fc1.weight"] == (8192, 2048)
    assert shapes["model.language_model.embed_tokens.weight"] == (51200, 2048)
    assert shapes["lm_head.bias"] == (51200,)


def test_nano_has_at_most_30_million_parameters_and_builds_as_it_is_shipped():
    model, processor = build_model(ModelConfig(preset="nano"), seed=1)
    ids = torch.tensor([processor.encode_prompt([("user", "Where is the polyp?")])])
    side = processor.image_size_px

    logits = model(
        input_ids=ids, attention_mask=torch.ones_like(ids), pixel_values=torch.randn(1, 3, side, side)
    ).logits

    assert sum(p.numel() for p in model.parameters()) <= 30_000_000
    assert logits.shape == (1, ids.shape[1], len(processor.tokenizer))


def test_small_has_the_sizes_that_benchmarks_name():
    model = on_meta("small")
    tower = 3 * 16 * 16 * 192 + 192 + 196 * 192 + 12 * (4 * (192 * 192 + 192) + 2 * 192 * 768 + 768 + 192 + 4 * 192)
    tower += 2 * 192  # the norm behind the last block
    pooling = 4 * (192 * 192 + 192) + 2 * 192 * 768 + 768 + 192 + 3 * 192  # SigLIP's pooling head, which is not used
    language = 32000 * 256 + 6 * (4 * 256 * 256 + 3 * 256 * 768 + 2 * 256) + 256
    projector = 192 * 256 + 256 + 256 * 256 + 256

    assert model.config.image_seq_length == 196
    assert sum(p.numel() for p in model.parameters()) == tower + pooling + language + projector
    assert PRESETS["small"].lora.rank == 16


def test_what_a_config_says_replaces_the_preset_and_the_rest_stays():
    resolved = resolve(
        ModelConfig(preset="nano", image_size_px=160, connector=ConnectorConfig(kind="pool", grids=(10,)))
    )

    assert (resolved.image_size_px, resolved.connector.grids) == (160, (10,))
    assert resolved.vision == PRESETS["nano"].vision


def test_an_unknown_preset_names_the_known_ones():
    with pytest.raises(
        ConfigError, match="'nanoo' is unknown; known: llama-clip, nano, phi15-siglip, phi15-siglip2, qwen3-clip"
    ):
        resolve(ModelConfig(preset="nanoo"))


def test_a_model_without_preset_needs_every_part():
    with pytest.raises(ConfigError, match="model: vision, connector, feature_layer, tokenizer, chat_template"):
        resolve(ModelConfig(language=PartConfig(config={"model_type": "llama"})))


def test_a_pretrained_language_model_brings_its_own_tokenizer():
    said = {"preset": "qwen3-siglip2", "language": PartConfig(path="weights")}

    assert resolve(ModelConfig(**said)).tokenizer == "weights"
    assert resolve(ModelConfig(**said, tokenizer="gastrovl")).tokenizer == "gastrovl"


def test_a_part_is_either_a_folder_or_a_shape():
    with pytest.raises(ValueError, match="not both"):
        PartConfig(path="weights", config={"model_type": "llama"})
    with pytest.raises(ValueError, match="needs `model_type`"):
        PartConfig(config={"hidden_size": 32})


def siglip_pair(folder):
    model = SiglipModel(SiglipConfig(vision_config=VISION, text_config=TEXT))
    SiglipImageProcessorPil(image_mean=[0.4] * 3).save_pretrained(folder)
    return model, model.vision_model


def siglip_tower(folder):
    model = SiglipVisionModel(SiglipVisionConfig(**VISION))
    SiglipImageProcessorPil(image_mean=[0.4] * 3).save_pretrained(folder)
    return model, model


def clip_pair(folder):
    model = CLIPModel(CLIPConfig(vision_config=VISION, text_config=TEXT, projection_dim=32))
    CLIPImageProcessorPil(image_mean=[0.4] * 3).save_pretrained(folder)
    return model, model.vision_model


def llava_tower(folder):
    config = LlavaConfig(vision_config=SiglipVisionConfig(**VISION), text_config=LlamaConfig(**TEXT))
    model = LlavaForConditionalGeneration(config)
    SiglipImageProcessorPil(image_mean=[0.4] * 3).save_pretrained(folder)
    return model, model.model.vision_tower


@pytest.mark.parametrize("make", [siglip_pair, siglip_tower, clip_pair, llava_tower])
def test_the_tower_of_a_folder_is_taken_with_its_weights_and_normalisation(tiny_model, tmp_path, make):
    donor, tower = make(tmp_path)
    donor.save_pretrained(tmp_path)
    pixels = torch.randn(1, 3, 32, 32)

    model, processor = build_model(tiny_model("mlp", vision=PartConfig(path=str(tmp_path))), seed=1)

    expected = tower.eval()(pixels, output_hidden_states=True).hidden_states[-1]
    found = model.model.vision_tower.eval()(pixels, output_hidden_states=True).hidden_states[-1]
    assert torch.equal(found, expected)
    assert list(processor.image_processor.image_mean) == [0.4] * 3
    assert processor.image_size_px == 32


def test_a_tower_whose_names_begin_as_on_the_hub_is_taken(tiny_model, tmp_path):
    donor, _ = siglip_tower(tmp_path)
    donor.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    published = {f"vision_model.{name.removeprefix('vision_model.')}": value for name, value in weights.items()}
    save_file(published, tmp_path / "model.safetensors", metadata={"format": "pt"})

    model, _ = build_model(tiny_model("mlp", vision=PartConfig(path=str(tmp_path))), seed=1)

    found = model.model.vision_tower.state_dict()
    assert all(torch.equal(found[name], value) for name, value in donor.state_dict().items())


@pytest.mark.parametrize("is_tied", [False, True])
def test_the_language_model_of_a_folder_is_taken_with_its_head(tiny_model, tiny_tokenizer, tmp_path, is_tied):
    donor = LlamaForCausalLM(LlamaConfig(**SMALL, vocab_size=700, tie_word_embeddings=is_tied)).to(torch.bfloat16)
    donor.save_pretrained(tmp_path)

    part = {"language": PartConfig(path=str(tmp_path)), "tokenizer": str(tiny_tokenizer)}
    model, _ = build_model(tiny_model("mlp", **part), seed=1)

    ids = torch.tensor([[1, 2, 3]])
    expected = donor.float().eval()(ids).logits
    torch.testing.assert_close(model.eval()(input_ids=ids).logits, expected, rtol=1e-5, atol=1e-6)
    assert model.dtype == torch.float32
    assert (model.lm_head.weight is model.get_input_embeddings().weight) == is_tied


def test_words_that_a_language_model_lacks_are_added(tiny_model, tiny_tokenizer, tmp_path):
    donor = LlamaForCausalLM(LlamaConfig(**SMALL, vocab_size=50))
    donor.save_pretrained(tmp_path)

    part = {"language": PartConfig(path=str(tmp_path)), "tokenizer": str(tiny_tokenizer)}
    model, processor = build_model(tiny_model("mlp", **part), seed=1)

    assert model.lm_head.out_features == len(processor.tokenizer) > 50
    assert torch.equal(model.get_input_embeddings().weight[:50], donor.get_input_embeddings().weight)


def test_phi_keeps_the_bias_of_its_head_through_a_checkpoint(tiny_model, tiny_tokenizer, tmp_path):
    donor = PhiForCausalLM(PhiConfig(**SMALL, vocab_size=700))
    torch.nn.init.normal_(donor.lm_head.bias)
    donor.save_pretrained(tmp_path / "phi")
    part = {"language": PartConfig(path=str(tmp_path / "phi")), "tokenizer": str(tiny_tokenizer)}
    ids = torch.tensor([[1, 2, 3]])

    save_checkpoint(tmp_path / "whole", *build_model(tiny_model("pool", "resnet", **part), seed=1), "tiny")
    loaded = load_checkpoint(tmp_path / "whole")[0]

    torch.testing.assert_close(loaded(input_ids=ids).logits, donor.eval()(ids).logits, rtol=1e-5, atol=1e-6)
    with pytest.raises(ConfigError, match="'phi' model: the bias of its output layer would be lost; use connector"):
        build_model(tiny_model("mlp", **part), seed=1)


def test_a_folder_without_a_model_is_named(tiny_model, tmp_path):
    with pytest.raises(ConfigError, match=r"no config\.json there; give a local Hugging Face model folder"):
        build_model(tiny_model("mlp", vision=PartConfig(path=str(tmp_path))), seed=1)


def test_an_unknown_model_type_is_named(tiny_model):
    with pytest.raises(ConfigError, match="model_type 'llamaa' is not known to the installed transformers"):
        build_model(tiny_model("mlp", language=PartConfig(config={"model_type": "llamaa"})), seed=1)


def test_a_misspelt_shape_of_a_part_is_refused(tiny_model):
    part = PartConfig(config={"model_type": "llama", "hidden_sise": 32})

    with pytest.raises(ConfigError, match="model_type 'llama' knows no 'hidden_sise'; did you mean 'hidden_size'"):
        build_model(tiny_model("mlp", language=part), seed=1)


def test_every_preset_is_data_that_yaml_can_hold():
    for preset in PRESETS.values():
        assert ModelConfig.model_validate(json.loads(preset.model_dump_json(exclude_none=True))) == preset
