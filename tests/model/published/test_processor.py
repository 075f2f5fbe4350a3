"""Another's template and pixels behind our interface: its own tokens and numbers, and boxes that stay in place."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

from gastrovl.core.boxtext import decode_box, encode_box
from gastrovl.core.errors import CheckpointError, ModelInputError
from gastrovl.core.types import Box
from gastrovl.model.published.processor import merged_patches
from gastrovl.model.published.snapshot import load_snapshot, save_snapshot

FAMILIES = ("llava", "qwen2_5_vl", "qwen2_vl", "gemma3", "smolvlm", "idefics3")
IMAGE_PROCESSORS = {
    "llava": transformers.CLIPImageProcessorPil,
    "qwen2_5_vl": transformers.Qwen2VLImageProcessorPil,
    "qwen2_vl": transformers.Qwen2VLImageProcessorPil,
    "gemma3": transformers.Gemma3ImageProcessorPil,
    "smolvlm": transformers.SmolVLMImageProcessorPil,
    "idefics3": transformers.Idefics3ImageProcessorPil,
}
TALK = (
    ("user", "Where is the polyp?"),
    ("assistant", "[125,250,500,750]"),
    ("user", "What lies in [001,002,003,004]?"),
    ("assistant", "gastric ulcer"),
)
BOX = Box(x0=0.125, y0=0.25, x1=0.5, y1=0.75)


@pytest.fixture
def processor_of(snapshot, side_of):
    """`processor_of(family)`: the processor of that family's tiny model."""
    return lambda family: load_snapshot(snapshot(family), side_of.get(family))[1]


@pytest.fixture
def changed(snapshot, tmp_path):
    """`changed(family, template)`: a copy of a snapshot with another chat template."""

    def change(family, template):
        folder = shutil.copytree(snapshot(family), tmp_path / family)
        (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
        return folder

    return change


def drawn(size_wh):
    """A grey picture with one red box."""
    width, height = size_wh
    pixels = np.full((height, width, 3), 128, dtype=np.uint8)
    rows = slice(round(BOX.y0 * height), round(BOX.y1 * height))
    pixels[rows, round(BOX.x0 * width) : round(BOX.x1 * width)] = (220, 0, 0)
    return Image.fromarray(pixels)


def words_of(processor, ids):
    return processor.tokenizer.decode(ids, clean_up_tokenization_spaces=False)


def own_image_processor(family, folder, **settings):
    try:
        return IMAGE_PROCESSORS[family].from_pretrained(folder, local_files_only=True, **settings)
    except ImportError:
        pytest.skip("transformers before 5.18 has this image processor with torchvision only")


@pytest.mark.parametrize("size_wh", [(640, 160), (96, 400), (200, 200)])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_box_stays_where_it_was_whatever_the_aspect_ratio(processor_of, family, size_wh):
    processor = processor_of(family)

    square = processor.square(drawn(size_wh)).astype(int)
    is_red = (square[..., 0] - square[..., 1]) > 110
    rows, columns = np.flatnonzero(is_red.any(axis=1)), np.flatnonzero(is_red.any(axis=0))
    dialogue = processor.encode_dialogue([("user", "Where is the polyp?"), ("assistant", encode_box(BOX))])
    said = processor.decode([token for token, flag in zip(dialogue.ids, dialogue.is_answer, strict=True) if flag])

    side = processor.image_size_px
    found = (columns[0] / side, rows[0] / side, (columns[-1] + 1) / side, (rows[-1] + 1) / side)
    assert found == pytest.approx(BOX.xyxy, abs=1.01 / side)
    assert said == "[125,250,500,749]"  # bins of 999 steps: 124.9, 249.8, 499.5 (to the even one), 749.3
    assert decode_box(said).xyxy == pytest.approx(BOX.xyxy, abs=1e-3)


@pytest.mark.parametrize("family", FAMILIES)
def test_pixels_are_those_of_the_familys_own_image_processor(tmp_path, snapshot, side_of, family):
    model, processor = load_snapshot(snapshot(family), side_of.get(family))
    picture = Image.fromarray(np.random.default_rng(7).integers(0, 256, (50, 170, 3), dtype=np.uint8))
    square = processor.square(picture)
    save_snapshot(tmp_path / "saved", model, processor)
    own = own_image_processor(family, tmp_path / "saved")

    # Qwen's keeps an image's aspect ratio, so it is given the square; the others are told to squash by what was saved
    expected = own(Image.fromarray(square) if family.startswith("qwen") else picture, return_tensors="pt")

    found = processor.pixels(np.stack([square]))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected["pixel_values"].float(), rtol=0, atol=1e-6)
    if family.startswith("qwen"):
        ids = torch.tensor([processor.encode_prompt([("user", "?")])])
        assert torch.equal(processor.beside(ids)["image_grid_thw"], expected["image_grid_thw"])


def test_patches_that_are_merged_stand_together():
    pixels = torch.arange(4 * 8).view(1, 1, 4, 8).repeat(1, 1, 2, 1)[:, :, :8]  # 8 x 8: value of a row's column

    rows = merged_patches(pixels, patch=2, merge=2, frames=1)

    # patches of 2 x 2 in the order top left, top right, bottom left, bottom right of each 4 x 4 cell
    assert rows[:4].tolist() == [[0, 1, 8, 9], [2, 3, 10, 11], [16, 17, 24, 25], [18, 19, 26, 27]]
    assert rows[4].tolist() == [4, 5, 12, 13]
    assert merged_patches(pixels, patch=2, merge=2, frames=2)[0].tolist() == [0, 1, 8, 9, 0, 1, 8, 9]


@pytest.mark.parametrize("family", ["llava", "gemma3", "idefics3"])  # the others' processors need video libraries
def test_prompts_are_those_of_the_familys_own_processor(processor_of, tokens_of, family):
    processor = processor_of(family)
    beside = {"llava": {"patch_size": 8, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1}}
    beside |= {"gemma3": {"image_seq_length": tokens_of[family]}, "idefics3": {"image_seq_len": tokens_of[family]}}
    settings = {"size": {"height": 32, "width": 32}} | processor.family.settings
    images = own_image_processor(family, processor.folder, **settings)
    own_class = {"llava": "Llava", "gemma3": "Gemma3", "idefics3": "Idefics3"}[family] + "Processor"
    own = getattr(transformers, own_class)(
        images, processor.tokenizer, chat_template=processor.template, **beside[family]
    )
    asked = [{"type": "image", "image": drawn((64, 32))}, {"type": "text", "text": "Where is the polyp?"}]

    expected = own.apply_chat_template(
        [{"role": "user", "content": asked}], add_generation_prompt=True, tokenize=True, return_dict=True
    )

    assert processor.encode_prompt(TALK[:1]) == list(expected["input_ids"][0])


def test_a_qwen_prompt_is_written_as_its_template_says(processor_of):
    processor = processor_of("qwen2_5_vl")

    assert words_of(processor, processor.encode_prompt(TALK[:1])) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n<|vision_start|>" + "<|image_pad|>" * 16 + ""
        "<|vision_end|>Where is the polyp?<|im_end|>\n<|im_start|>assistant\n"
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_answers_and_their_ends_are_learnt_and_nothing_else(processor_of, tokens_of, family):
    processor = processor_of(family)
    end = {
        "llava": "</s>",
        "gemma3": "<end_of_turn>",
        "smolvlm": "<end_of_utterance>",
        "idefics3": "<end_of_utterance>",
    }

    dialogue = processor.encode_dialogue(TALK)

    learnt = words_of(processor, [token for token, flag in zip(dialogue.ids, dialogue.is_answer, strict=True) if flag])
    mark = end.get(family, "<|im_end|>")
    assert [part.strip() for part in learnt.split(mark)] == ["[125,250,500,750]", "gastric ulcer", ""]
    assert processor.tokenizer.eos_token == mark
    assert dialogue.is_answer[-1]  # what a template writes behind the last answer is of no use
    assert dialogue.ids.count(processor.image_token_id) == processor.image_tokens == tokens_of[family]
    assert dialogue.ids[dialogue.prefix - 1] == processor.image_token_id
    assert processor.image_token_id not in dialogue.ids[dialogue.prefix :]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_prompt_is_the_beginning_of_the_dialogue_it_is_answered_in(processor_of, family):
    processor = processor_of(family)
    whole = processor.encode_dialogue(TALK)

    for turns in (1, 3):
        prompt = processor.encode_prompt(TALK[:turns])
        assert whole.ids[: len(prompt)] == prompt
        assert whole.is_answer[len(prompt)]
        assert not whole.is_answer[len(prompt) - 1]


def test_a_template_file_is_preferred_to_the_tokenizers_own(snapshot, changed):
    published = json.loads((snapshot("qwen2_5_vl") / "chat_template.json").read_text(encoding="utf-8"))["chat_template"]
    other = changed("qwen2_5_vl", published.replace("Be brief.", "Be exact."))

    from_jinja = load_snapshot(other)[1].template
    (other / "chat_template.jinja").unlink()
    from_json = load_snapshot(other)[1].template
    (other / "chat_template.json").unlink()
    config = json.loads((other / "tokenizer_config.json").read_text(encoding="utf-8"))
    config["chat_template"] = published.replace("Be brief.", "Be kind.")
    (other / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")

    assert "Be exact." in from_jinja
    assert from_json == published
    assert "Be kind." in load_snapshot(other)[1].template


def test_the_mark_behind_an_answer_ends_it_though_the_snapshot_does_not_say_so(snapshot, tmp_path):
    folder = shutil.copytree(snapshot("idefics3"), tmp_path / "idefics3")
    (folder / "generation_config.json").unlink()

    model, processor = load_snapshot(folder)
    save_snapshot(tmp_path / "saved", model, processor)

    assert processor.tokenizer.eos_token == "<end_of_utterance>"
    saved = json.loads((tmp_path / "saved" / "generation_config.json").read_text(encoding="utf-8"))
    assert processor.tokenizer.eos_token_id in saved["eos_token_id"]


def test_a_folder_without_template_is_named(snapshot, tmp_path):
    folder = shutil.copytree(snapshot("llava"), tmp_path / "llava")
    (folder / "chat_template.json").unlink()

    with pytest.raises(CheckpointError, match=r"llava: has no chat template; add the model's chat_template\.jinja"):
        load_snapshot(folder)


def test_a_template_whose_prompt_changes_once_it_is_answered_is_refused(changed):
    # thinks aloud before an answer, and forgets what it thought once the answer stands there
    template = (
        "{% for said in messages %}<|im_start|>{{ said.role }} {% for part in said.content %}"
        "{% if part.type == 'image' %}<|image_pad|>{% else %}{{ part.text }}{% endif %}{% endfor %}<|im_end|>"
        "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant <|vision_start|>{% endif %}"
    )
    processor = load_snapshot(changed("qwen2_5_vl", template))[1]

    with pytest.raises(ModelInputError, match="writes a prompt differently once an answer follows"):
        processor.encode_dialogue(TALK)


def test_a_template_that_ends_some_answers_only_is_refused(changed):
    template = (
        "{% for said in messages %}<|im_start|>{{ said.role }}{{ '\\n' }}{% for part in said.content %}"
        "{% if part.type == 'image' %}<|image_pad|>{% else %}{{ part.text }}{% endif %}{% endfor %}"
        "{% if said.role == 'assistant' and messages | length == 2 %}<|im_end|>{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant{{ '\\n' }}{% endif %}"
    )
    processor = load_snapshot(changed("qwen2_5_vl", template))[1]

    with pytest.raises(ModelInputError, match=r"writes no '<\|im_end\|>' behind an answer, as it does elsewhere"):
        processor.encode_dialogue(TALK)


def test_a_template_that_shows_no_image_is_refused(changed):
    template = "{% for said in messages %}{{ said.content[-1].text }}<|im_end|>{% endfor %}"

    with pytest.raises(CheckpointError, match=r"writes '<\|image_pad\|>' 0 times for one image, expected once"):
        load_snapshot(changed("qwen2_5_vl", template))


def test_words_that_stand_for_an_image_are_refused_in_a_turn(processor_of):
    with pytest.raises(ModelInputError, match="a turn holds '<start_of_image>'"):
        processor_of("gemma3").encode_prompt([("user", "What is <start_of_image>?")])
    with pytest.raises(ModelInputError, match="a dialogue starts with a user turn; found assistant"):
        processor_of("gemma3").encode_prompt([("assistant", "polyp")])
    with pytest.raises(ModelInputError, match="needs an answer; found user turns only"):
        processor_of("gemma3").encode_dialogue([("user", "?")])
