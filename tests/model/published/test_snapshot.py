"""Snapshot folders: read by the real loading code, written as the family's own class, refused with a remedy."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
import transformers
from pydantic import ValidationError
from safetensors.torch import load_file, save_file

from gastrovl.core.errors import CheckpointError, ConfigError
from gastrovl.model import adapters
from gastrovl.model.checkpoint import build_model, load_checkpoint, save_checkpoint
from gastrovl.model.config import LoraConfig, ModelConfig
from gastrovl.model.published.snapshot import load_snapshot

CLASSES = {
    "llava": "LlavaForConditionalGeneration",
    "qwen2_5_vl": "Qwen2_5_VLForConditionalGeneration",
    "qwen2_vl": "Qwen2VLForConditionalGeneration",
    "gemma3": "Gemma3ForConditionalGeneration",
    "smolvlm": "SmolVLMForConditionalGeneration",
    "idefics3": "Idefics3ForConditionalGeneration",
}


@pytest.fixture
def copied(snapshot, tmp_path):
    """`copied(family, file=..., **changes)`: a copy of a snapshot with other values in one of its JSON files."""

    def copy(family="llava", file="config.json", **changes):
        folder = shutil.copytree(snapshot(family), tmp_path / f"copy of {family}")
        content = json.loads((folder / file).read_text(encoding="utf-8"))
        (folder / file).write_text(json.dumps(content | changes), encoding="utf-8")
        return folder

    return copy


def asked(processor):
    ids = torch.tensor([processor.encode_prompt([("user", "Where is the polyp?")])])
    side = processor.image_size_px
    pixels = processor.pixels(np.random.default_rng(7).integers(0, 256, (1, side, side, 3), dtype=np.uint8))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": pixels, **processor.beside(ids)}


@pytest.mark.parametrize("family", CLASSES)
def test_a_checkpoint_is_a_snapshot_of_the_familys_own_class_with_adapters_merged(snapshot, side_of, tmp_path, family):
    config = ModelConfig(
        huggingface=str(snapshot(family)),
        image_size_px=side_of.get(family),
        lora=LoraConfig(rank=2, alpha=4, dropout=0.0),
    )
    model, processor = build_model(config, seed=1)
    model = adapters.add_lora(model, config.lora)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name or "modules_to_save" in name:
                parameter.add_(0.05)
    trained = model.eval()(**asked(processor)).logits

    save_checkpoint(tmp_path / "saved", adapters.merge(model), processor, "mine")

    plain = transformers.AutoModelForImageTextToText.from_pretrained(
        tmp_path / "saved", local_files_only=True, use_safetensors=True
    )
    ours, own, card = load_checkpoint(tmp_path / "saved")
    assert type(plain) is getattr(transformers, CLASSES[family])
    assert (card.name, card.family, card.image_size_px) == ("mine", family, processor.image_size_px)
    torch.testing.assert_close(plain(**asked(own)).logits, trained, rtol=1e-4, atol=1e-5)
    assert torch.equal(ours(**asked(own)).logits, plain(**asked(own)).logits)
    published = {path.name for path in snapshot(family).iterdir()}
    assert published <= {path.name for path in (tmp_path / "saved").iterdir()}
    saved = json.loads((tmp_path / "saved" / "config.json").read_text(encoding="utf-8"))
    assert saved["architectures"] == [CLASSES[family]]
    names = set(load_file(snapshot(family) / "model.safetensors"))
    assert names == set(load_file(tmp_path / "saved" / "model.safetensors"))


def test_a_processor_in_one_file_is_told_to_squash_too(copied, tmp_path):
    folder = copied("gemma3")
    own = json.loads((folder / "preprocessor_config.json").read_text(encoding="utf-8"))
    (folder / "preprocessor_config.json").unlink()
    whole = {"image_processor": own | {"do_pan_and_scan": True}, "processor_class": "Gemma3Processor"}
    (folder / "processor_config.json").write_text(json.dumps(whole), encoding="utf-8")

    save_checkpoint(tmp_path / "saved", *load_snapshot(folder), "mine")

    saved = json.loads((tmp_path / "saved" / "processor_config.json").read_text(encoding="utf-8"))
    assert saved["processor_class"] == "Gemma3Processor"
    assert saved["image_processor"]["do_pan_and_scan"] is False
    assert saved["image_processor"]["size"] == {"height": 32, "width": 32}
    assert load_checkpoint(tmp_path / "saved")[1].image_size_px == 32


def test_weights_of_half_precision_are_trained_in_single_precision(snapshot, tmp_path):
    model, processor = load_snapshot(snapshot("smolvlm"))
    save_checkpoint(tmp_path / "half", model.to(torch.bfloat16), processor, "half")

    assert load_snapshot(tmp_path / "half")[0].dtype == torch.float32
    assert load_snapshot(tmp_path / "half", dtype=torch.bfloat16)[0].dtype == torch.bfloat16


def test_a_side_that_the_tower_cannot_see_is_refused(snapshot):
    with pytest.raises(ConfigError, match="image_size_px 64: this model's tower sees 32 px only; leave it out"):
        load_snapshot(snapshot("llava"), 64)
    with pytest.raises(ConfigError, match=r"image_size_px 100: this model needs a multiple of 28, e\.g\. 112"):
        load_snapshot(snapshot("qwen2_5_vl"), 100)
    assert load_snapshot(snapshot("qwen2_5_vl"))[1].image_size_px == 448


def test_a_missing_or_empty_folder_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"nowhere: has no config\.json; expected a local snapshot folder"):
        load_snapshot(tmp_path / "nowhere")
    (tmp_path / "config.json").write_text("[]", encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"config\.json: holds list, expected an object"):
        load_snapshot(tmp_path)
    (tmp_path / "config.json").write_text("{", encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"config\.json: is not JSON"):
        load_snapshot(tmp_path)


def test_weights_that_can_hold_code_are_not_read(copied):
    folder = copied()
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")

    with pytest.raises(CheckpointError, match=r"no weights as safetensors \(found only pytorch_model\.bin, which can"):
        load_snapshot(folder)
    (folder / "pytorch_model.bin").unlink()
    with pytest.raises(CheckpointError, match=r"no weights as safetensors \(found none\)"):
        load_snapshot(folder)


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json", "preprocessor_config.json"])
def test_a_folder_that_wants_its_own_code_run_is_refused(copied, file):
    with pytest.raises(
        CheckpointError, match=r"asks for code of its own \(auto_map\), and code from a folder is never"
    ):
        load_snapshot(copied(file=file, auto_map={"AutoModel": "modelling.Model"}))


def test_a_family_we_do_not_know_is_named_with_those_we_do(copied):
    with pytest.raises(
        CheckpointError, match="model_type 'llava_next'; families that can be fine-tuned: llava, qwen2_vl"
    ):
        load_snapshot(copied(model_type="llava_next"))


def test_another_layout_of_a_known_family_is_refused(copied):
    with pytest.raises(CheckpointError, match="architecture LlavaLlamaForCausalLM; expected LlavaForConditionalGen"):
        load_snapshot(copied(architectures=["LlavaLlamaForCausalLM"]))


def test_weights_that_lack_a_part_are_refused_instead_of_drawn_at_random(copied):
    folder = copied()
    weights = load_file(folder / "model.safetensors")
    lost = next(name for name in weights if "multi_modal_projector.linear_1.weight" in name)
    save_file({name: value for name, value in weights.items() if name != lost}, folder / "model.safetensors")

    with pytest.raises(CheckpointError, match=r"the weights lack model\.multi_modal_projector\.linear_1\.weight and 0"):
        load_snapshot(folder)


def test_a_damaged_file_of_weights_is_refused(copied):
    folder = copied()
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[: len(content) // 2])

    with pytest.raises(CheckpointError, match="the weights cannot be read"):
        load_snapshot(folder)


def test_a_tokenizer_without_the_image_token_is_refused(copied):
    with pytest.raises(
        CheckpointError, match=r"has image_token_id 9999, which the tokenizer lacks; copy the tokenizer"
    ):
        load_snapshot(copied(image_token_index=9999))


def test_a_tokenizer_with_more_words_than_the_model_embeds_is_refused(copied):
    folder = copied()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    tokenizer.add_tokens([f"new{number}" for number in range(9)])
    tokenizer.save_pretrained(folder)

    with pytest.raises(CheckpointError, match=r"has token \d+, the model embeds \d+ only; copy the tokenizer files"):
        load_snapshot(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"do_normalize": False}, "its image processor leaves pixels unscaled"),
        ({"rescale_factor": 1.0}, "its image processor scales by 1, expected 1/255"),
        ({"image_processor_type": None}, None),
    ],
)
def test_pixels_that_are_prepared_in_another_way_are_refused(copied, changes, message):
    folder = copied(file="preprocessor_config.json", **changes)
    if message is None:
        (folder / "preprocessor_config.json").unlink()
        message = "no file describes its image processor; expected a local snapshot folder"

    with pytest.raises(CheckpointError, match=message):
        load_snapshot(folder)


def test_a_folder_without_tokenizer_is_named(copied):
    folder = copied()
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").unlink()

    with pytest.raises(CheckpointError, match="tokenizer"):
        load_snapshot(folder)


def test_a_whole_model_goes_with_adapters_and_size_but_not_with_parts():
    ModelConfig(huggingface="folder", lora=LoraConfig(), image_size_px=448)
    with pytest.raises(ValidationError, match="names a whole model, so preset, chat_template cannot be chosen"):
        ModelConfig(huggingface="folder", preset="nano", chat_template="chatml")
