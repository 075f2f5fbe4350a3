"""A local folder of a vision-language model describes an image; a broken folder says what it lacks."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from gastrovl.core.errors import CheckpointError
from gastrovl.inference.others.describe import load_describer, whole_sentences
from gastrovl.model.checkpoint import build_model, save_checkpoint

PICTURE = Image.fromarray(np.random.default_rng(7).integers(0, 256, (240, 320, 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def folder(tiny_model, tmp_path_factory):
    """A random LLaVA with 16 image tokens, as transformers stores it."""
    path = tmp_path_factory.mktemp("models") / "tiny-llava"
    save_checkpoint(path, *build_model(tiny_model("mlp"), seed=1), "tiny")
    return path


def test_a_model_describes_an_image_the_same_way_each_time(folder):
    describe = load_describer(folder, device="cpu", most_tokens=8)
    replies = {describe(PICTURE, "Describe the image.") for _ in range(2)}
    assert len(replies) == 1
    assert type(describe.model).__name__ == "LlavaForConditionalGeneration"


def test_the_reply_depends_on_the_image_through_its_tokens(folder):
    describe = load_describer(folder, device="cpu", most_tokens=4)
    seen = []
    generate = describe.model.generate

    def spy(**inputs):
        seen.append(inputs)
        return generate(**inputs)

    describe.model.generate = spy
    describe(PICTURE, "Describe the image.")
    (inputs,) = seen
    assert (inputs["input_ids"] == describe.model.config.image_token_id).sum() == 16
    assert inputs["pixel_values"].shape == (1, 3, 32, 32)
    assert inputs["do_sample"] is False


def test_the_name_changes_with_the_config_and_the_weights(folder, tmp_path):
    first = load_describer(folder, device="cpu").name
    assert first.startswith("tiny-llava@")
    other = shutil.copytree(folder, tmp_path / "tiny-llava")
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"note": "another"}))
    assert load_describer(other, device="cpu").name != first


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("config.json", "no config.json"),
        ("model.safetensors", "cannot be loaded"),
        ("chat_template.jinja", "chat template"),
    ],
)
def test_an_incomplete_folder_says_what_it_lacks(folder, tmp_path, missing, message):
    part = shutil.copytree(folder, tmp_path / "part")
    (part / missing).unlink()
    with pytest.raises(CheckpointError, match=message):
        load_describer(part, device="cpu")


def test_a_folder_of_another_kind_is_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(CheckpointError, match="image-text-to-text"):
        load_describer(tmp_path, device="cpu")


@pytest.mark.parametrize(
    ("text", "expected"),
    [("One. Two thr", "One."), ("One. Two. ", "One. Two."), ("Of 1.5 and", "Of 1.5 and"), ("", "")],
)
def test_a_cut_reply_ends_at_its_last_whole_sentence(text, expected):
    assert whole_sentences(text) == expected


def test_words_alone_are_answered_without_an_image(folder):
    describe = load_describer(folder, device="cpu", most_tokens=4)
    assert describe(None, "say something") == describe(None, "say something")
