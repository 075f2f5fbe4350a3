"""The processor: prompts are what training saw, answers are marked, images are squashed."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from gastrovl.core.boxtext import encode_box
from gastrovl.core.errors import BoxTextError, ConfigError, ModelInputError
from gastrovl.core.types import Box
from gastrovl.model.checkpoint import build_model
from gastrovl.model.processor import region_boxes
from gastrovl.model.tokenizer import IMAGE_TOKEN, load_tokenizer

TEMPLATES = ("gastrovl", "vicuna", "chatml", "llama3")
TWO_QUESTIONS = [
    ("user", "Where is the polyp?"),
    ("assistant", "[125,250,500,749]"),
    ("user", "What lies in [125,250,500,749]?"),
    ("assistant", "polyp"),
]


@pytest.fixture(scope="module", params=TEMPLATES)
def processor(request, tiny_model):
    return build_model(tiny_model("mlp", chat_template=request.param), seed=1)[1]


@pytest.mark.parametrize("answered", [1, 3])
def test_a_prompt_is_exactly_what_stands_before_the_answer_in_training(processor, answered):
    dialogue = processor.encode_dialogue(TWO_QUESTIONS[: answered + 1])
    start = max(place for place, flag in enumerate(dialogue.is_answer) if not flag) + 1  # of the last answer

    assert processor.encode_prompt(TWO_QUESTIONS[:answered]) == dialogue.ids[:start]


def test_answers_and_their_end_are_marked_and_nothing_else_is(processor):
    dialogue = processor.encode_dialogue(TWO_QUESTIONS)
    marked = [token for token, flag in zip(dialogue.ids, dialogue.is_answer, strict=True) if flag]

    assert processor.decode(marked).replace(" ", "") == "[125,250,500,749]polyp"
    assert marked.count(processor.tokenizer.eos_token_id) == 2
    assert marked[-1] == processor.tokenizer.eos_token_id


def test_the_image_stands_once_before_the_first_question(processor):
    dialogue = processor.encode_dialogue(TWO_QUESTIONS)
    places = [place for place, token in enumerate(dialogue.ids) if token == processor.image_token_id]

    assert len(places) == processor.image_tokens == 16
    assert places == list(range(places[0], places[0] + 16))
    assert dialogue.prefix == places[-1] + 1


def test_an_image_token_in_the_text_is_refused(processor):
    with pytest.raises(ModelInputError, match="a turn holds '<image>'; the image's place is set here"):
        processor.encode_prompt([("user", f"Look {IMAGE_TOKEN} here")])


def test_a_dialogue_starts_with_the_user(processor):
    with pytest.raises(ModelInputError, match="starts with a user turn; found assistant"):
        processor.encode_prompt([("assistant", "polyp")])
    with pytest.raises(ModelInputError, match="starts with a user turn; found none"):
        processor.encode_prompt([])


def test_a_template_without_generation_marks_is_refused(tiny_model):
    processor = build_model(tiny_model("mlp"), seed=1)[1]
    processor.tokenizer.chat_template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"

    with pytest.raises(ModelInputError, match=r"marks no answer tokens; put the assistant's words between `\{% gen"):
        processor.encode_dialogue(TWO_QUESTIONS)


def test_an_unknown_template_or_tokenizer_is_named(tiny_tokenizer, tmp_path):
    with pytest.raises(ConfigError, match="'alpaca' does not exist; known: chatml, gastrovl, llama3, vicuna"):
        load_tokenizer(str(tiny_tokenizer), "alpaca")
    with pytest.raises(ConfigError, match="no such folder"):
        load_tokenizer(str(tmp_path / "none"), "gastrovl")


def test_an_image_is_squashed_whole_and_normalised(tiny_model):
    processor = build_model(tiny_model("mlp"), seed=1)[1]
    pixels = np.zeros((40, 80, 3), dtype=np.uint8)
    pixels[:, 40:] = 255

    square = processor.square(Image.fromarray(pixels))
    tensor = processor.pixels(np.stack([square]))

    assert square.shape == (32, 32, 3)
    assert tensor.shape == (1, 3, 32, 32)
    assert np.all(square[:, :12] == 0)  # nothing is cropped away: left half black, right half white
    assert np.all(square[:, 20:] == 255)
    assert tensor[0, :, 0, 0].tolist() == [-1.0, -1.0, -1.0]  # (0 - 0.5) / 0.5
    assert tensor[0, :, 0, 31].tolist() == [1.0, 1.0, 1.0]


def test_a_box_in_a_question_is_followed_by_one_more_image_token_when_the_model_takes_regions(tiny_model):
    processor = build_model(tiny_model("pool", "resnet"), seed=1)[1]
    turns = [
        ("user", "Compare [000,000,499,499] with [500,000,999,999]."),
        ("assistant", "[100,100,200,200]"),
        ("user", "And [125,250,500,749]?"),
        ("assistant", "polyp"),
    ]

    image = processor.image_token_id
    dialogue = processor.encode_dialogue(turns)
    behind = dialogue.ids[dialogue.prefix :]
    before = [processor.decode(behind[:place])[-1] for place, token in enumerate(behind) if token == image]

    assert dialogue.ids[dialogue.prefix - 17 : dialogue.prefix] == [image] * 17
    assert before == ["]", "]", "]"]
    assert [encode_box(box) for box in dialogue.regions] == [
        "[000,000,499,499]",
        "[500,000,999,999]",
        "[125,250,500,749]",
    ]
    assert processor.encode_prompt(turns[:3]) == dialogue.ids[: len(processor.encode_prompt(turns[:3]))]


def test_a_question_about_a_box_that_is_none_is_refused(tiny_model):
    processor = build_model(tiny_model("pool", "resnet"), seed=1)[1]

    with pytest.raises(BoxTextError, match="900"):
        processor.regions([("user", "What lies in [900,000,100,999]?")])


def test_regions_of_several_images_are_padded():
    box = Box(x0=0.0, y0=0.25, x1=0.5, y1=1.0)

    found = region_boxes([(), (box, box), (box,)])

    assert found.shape == (3, 2, 4)
    assert found.isnan().all(dim=-1).tolist() == [[True, True], [False, False], [False, True]]
    assert found[2, 0].tolist() == list(box.xyxy)
    assert region_boxes([(), ()]) is None
