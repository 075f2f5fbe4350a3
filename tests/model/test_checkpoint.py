"""Checkpoint folders: whole, plain LLaVA where they can be, refused with a reason where they cannot be read."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoProcessor, LlavaForConditionalGeneration, LlavaProcessor

from gastrovl.core.errors import CheckpointError
from gastrovl.model.checkpoint import CheckpointCard, build_model, load_checkpoint, save_checkpoint
from gastrovl.model.config import GastroVLConfig, PartConfig

QUESTION = "Where is the polyp?"
EVERY_CONNECTOR = [("mlp", "siglip"), ("linear", "clip"), ("pool", "resnet"), ("query", "siglip")]
PREACTIVATION = {"embedding_size": 4, "hidden_sizes": [8, 12], "depths": [1, 2]}
PYRAMID = {
    "stem_size": 4,
    "hidden_sizes": [4, 6, 8, 10],
    "depths": [1, 1, 1, 1],
    "decoder_sizes": [6, 8],
    "output_size": 12,
}
PLAIN = [("mlp", "siglip"), ("linear", "siglip"), ("mlp", "clip")]


@pytest.fixture
def picture():
    pixels = np.random.default_rng(7).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((320, 240), Image.Resampling.BICUBIC)


@pytest.fixture
def saved(tiny_model, tmp_path):
    """A checkpoint folder with an mlp connector."""
    save_checkpoint(tmp_path / "mlp", *build_model(tiny_model("mlp"), seed=1), "tiny")
    return tmp_path / "mlp"


def inputs_of(processor, picture):
    ids = torch.tensor([processor.encode_prompt([("user", QUESTION)])])
    pixels = processor.pixels(np.stack([processor.square(picture)]))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": pixels}


@pytest.mark.parametrize(("connector", "tower"), EVERY_CONNECTOR)
def test_a_checkpoint_comes_back_with_equal_logits(tiny_model, picture, tmp_path, connector, tower):
    model, processor = build_model(tiny_model(connector, tower), seed=1)
    model.eval()

    save_checkpoint(tmp_path, model, processor, "tiny")
    loaded, loaded_processor, card = load_checkpoint(tmp_path)

    inputs, again = inputs_of(processor, picture), inputs_of(loaded_processor, picture)
    assert all(torch.equal(inputs[name], again[name]) for name in inputs)
    assert [p.stride() for p in loaded.parameters()] == [p.stride() for p in model.parameters()]
    assert torch.equal(model(**inputs).logits, loaded(**again).logits)
    assert card == CheckpointCard(name="tiny", image_tokens=processor.image_tokens, image_size_px=32)
    assert not loaded.training
    assert type(loaded.config) is type(model.config)
    assert type(loaded_processor.image_processor) is type(processor.image_processor)


@pytest.mark.parametrize(("connector", "tower"), PLAIN)
def test_linear_and_mlp_checkpoints_are_plain_llava(tiny_model, picture, tmp_path, connector, tower):
    model, processor = build_model(tiny_model(connector, tower, feature_layer=-2), seed=1)
    model.eval()
    save_checkpoint(tmp_path, model, processor, "tiny")

    plain = LlavaForConditionalGeneration.from_pretrained(tmp_path, local_files_only=True, use_safetensors=True).eval()
    plain_processor = LlavaProcessor.from_pretrained(tmp_path, local_files_only=True, backend="pil")
    messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": QUESTION}]}]
    prompt = plain_processor.apply_chat_template(messages, add_generation_prompt=True)
    foreign = plain_processor(images=picture, text=prompt, return_tensors="pt")

    own = inputs_of(processor, picture)
    assert foreign["input_ids"].tolist() == own["input_ids"].tolist()
    torch.testing.assert_close(foreign["pixel_values"], own["pixel_values"], rtol=0, atol=1e-6)
    torch.testing.assert_close(plain(**foreign).logits, model(**own).logits, rtol=1e-5, atol=1e-5)
    settings = {"max_new_tokens": 12, "do_sample": False, "suppress_tokens": [processor.image_token_id]}
    assert torch.equal(plain.generate(**foreign, **settings), model.generate(**own, **settings))


def test_auto_classes_pick_llava_for_a_plain_checkpoint(saved):
    config = json.loads((saved / "config.json").read_text(encoding="utf-8"))

    assert config["model_type"] == "llava"
    assert config["architectures"] == ["LlavaForConditionalGeneration"]
    assert isinstance(AutoProcessor.from_pretrained(saved, local_files_only=True, backend="pil"), LlavaProcessor)


def test_a_pooling_checkpoint_says_that_it_needs_this_package(tiny_model, tmp_path):
    save_checkpoint(tmp_path, *build_model(tiny_model("pool", "resnet"), seed=1), "tiny")

    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))

    assert config["model_type"] == GastroVLConfig.model_type == "gastrovl"
    assert config["connector_grids"] == [4, 1]
    assert config["image_seq_length"] == 17


def test_generation_stops_at_the_end_of_an_answer(saved):
    model, processor, _ = load_checkpoint(saved)

    assert model.generation_config.eos_token_id == processor.tokenizer.convert_tokens_to_ids("<|end|>")
    assert model.generation_config.pad_token_id == processor.tokenizer.pad_token_id


def test_tied_embeddings_stay_tied_and_equal(tiny_model, tmp_path):
    described = tiny_model("mlp")
    language = PartConfig(config=described.language.config | {"tie_word_embeddings": True})
    model, processor = build_model(described.model_copy(update={"language": language}), seed=1)

    save_checkpoint(tmp_path, model, processor, "tiny")
    loaded = load_checkpoint(tmp_path)[0]

    assert loaded.lm_head.weight is loaded.get_input_embeddings().weight
    assert torch.equal(loaded.lm_head.weight, model.lm_head.weight)


def test_a_checkpoint_holds_safetensors_and_no_pickle(saved):
    names = {path.name for path in saved.iterdir()}

    assert "model.safetensors" in names
    assert {path.suffix for path in saved.iterdir()} <= {".safetensors", ".json", ".jinja"}


def test_a_foreign_folder_is_no_checkpoint(tmp_path):
    with pytest.raises(CheckpointError, match=r"gastrovl\.json: no such file; expected a checkpoint folder written"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_an_incomplete_checkpoint_names_the_missing_file(saved, name):
    (saved / name).unlink()

    with pytest.raises(CheckpointError, match=rf"{name}: no such file; the checkpoint is incomplete"):
        load_checkpoint(saved)


@pytest.mark.parametrize("version", [0, 2, None])
def test_a_checkpoint_of_another_version_is_refused(saved, version):
    card = json.loads((saved / "gastrovl.json").read_text(encoding="utf-8"))
    (saved / "gastrovl.json").write_text(json.dumps(card | {"version": version}), encoding="utf-8")

    with pytest.raises(CheckpointError, match=f"layout version {version}, this gastrovl reads version 1; use the"):
        load_checkpoint(saved)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"version": 1}'])
def test_a_broken_card_is_refused(saved, text):
    (saved / "gastrovl.json").write_text(text, encoding="utf-8")

    with pytest.raises(CheckpointError, match=r"gastrovl\.json: not a checkpoint card"):
        load_checkpoint(saved)


def test_truncated_weights_are_refused(saved):
    weights = saved / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])

    with pytest.raises(CheckpointError, match=r"model\.safetensors is damaged .*copy or train the checkpoint again"):
        load_checkpoint(saved)


def test_weights_that_do_not_fit_the_config_are_refused(saved):
    path = saved / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["text_config"]["num_hidden_layers"] = 3
    path.write_text(json.dumps(config), encoding="utf-8")

    with pytest.raises(CheckpointError, match=r"the weights lack .*layers\.2.*copy or train the checkpoint again"):
        load_checkpoint(saved)


def test_a_config_of_another_model_is_refused(saved):
    (saved / "config.json").write_text(json.dumps({"model_type": "llama"}), encoding="utf-8")

    with pytest.raises(CheckpointError, match="model_type 'llama'; expected llava or gastrovl"):
        load_checkpoint(saved)


@pytest.mark.parametrize(
    "tower",
    [
        {"model_type": "gastrovl_preactivation", **PREACTIVATION},
        {"model_type": "gastrovl_pyramid", **PYRAMID},
    ],
    ids=lambda tower: tower["model_type"],
)
def test_a_model_with_a_tower_of_ours_is_written_and_read(tiny_model, tmp_path, tower):
    model, processor = build_model(tiny_model("pool", vision=PartConfig(config=tower)), seed=2)
    save_checkpoint(tmp_path, model, processor, "tiny")
    again, _, _ = load_checkpoint(tmp_path)
    pixels = torch.randn(1, 3, 32, 32)

    assert torch.equal(model.eval().model.tower_features(pixels), again.model.tower_features(pixels))
