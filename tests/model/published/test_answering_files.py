"""Models of others answer a file of conversations as they are: own class, own processor, own template."""

from __future__ import annotations

import json
import shutil

import pytest

from gastrovl.core.errors import ModelInputError
from gastrovl.core.records import read_records
from gastrovl.core.types import Conversation, Prediction
from gastrovl.inference.batch import predict_file
from gastrovl.inference.loading import answerer_of, load_answerer
from gastrovl.inference.others.description import ModelDescription
from gastrovl.inference.others.published import folder_hash
from gastrovl.inference.runrecord import read_run

ROOM = {"CLS": 4, "REC": 5, "REG": 4, "CAP": 4}


@pytest.fixture(scope="session")
def published(snapshot, tmp_path_factory):
    """`published("llava")`: as `snapshot`, with what the family's own processor needs to count image tokens."""
    settings = {
        "llava": {"patch_size": 8, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1},
        "gemma3": {"image_seq_length": 4},
        "qwen2_5_vl": {},
    }

    def folder_of(family):
        folder = shutil.copytree(snapshot(family), tmp_path_factory.mktemp("published") / family)
        named = json.loads((folder / "preprocessor_config.json").read_text(encoding="utf-8"))["processor_class"]
        content = {"processor_class": named, **settings[family]}
        (folder / "processor_config.json").write_text(json.dumps(content), encoding="utf-8")
        return folder

    return folder_of


def describe(folder, **fields):
    content = {"kind": "huggingface", "name": "theirs", "path": str(folder), "most_tokens": ROOM, "dtype": "float32"}
    return ModelDescription.model_validate(content | fields)


def answer(description, conversations, output):
    predict_file(answerer_of(description, conversations, "cpu"), conversations, output)
    return list(read_records(output, Prediction))


@pytest.mark.parametrize("family", ["llava", "qwen2_5_vl", "gemma3"])
def test_a_family_answers_every_question_alike_in_a_batch_and_alone(published, family, tiny_data, tmp_path):
    conversations = tiny_data(images=3)
    form, folder = {"boxes": {"scale": "0-1000", "syntax": "json"}}, published(family)

    alone = answer(describe(folder, form=form), conversations, tmp_path / "alone.jsonl")
    together = answer(describe(folder, form=form, batch_size=3), conversations, tmp_path / "together.jsonl")

    asked = list(read_records(conversations, Conversation))
    assert [one.conversation_id for one in alone] == [one.id for one in asked]
    assert [one.text for one in alone] == [one.text for one in together]
    assert {one.model for one in alone} == {"theirs"}
    assert all(one.form.boxes.scale == "0-1000" and one.image_wh is None for one in alone)
    assert all(0 < one.confidence <= 1 and one.stop_reason in ("end", "length") for one in alone)
    assert read_run(tmp_path / "alone.jsonl").description["path"] == str(folder)


def test_boxes_in_pixels_count_in_what_qwen_sees(snapshot, tiny_data, tmp_path):
    """A picture of 64 px becomes 56 px when it is shown in whole patches of 28, and 64 px would be seen as 56."""
    conversations, form = tiny_data(images=1), {"boxes": {"scale": "pixels"}}

    shown = describe(snapshot("qwen2_5_vl"), form=form, image={"multiple_px": 28})
    assert {one.image_wh for one in answer(shown, conversations, tmp_path / "fits.jsonl")} == {(56, 56)}
    with pytest.raises(ModelInputError, match=r"was shown 64x64 px and sees 56x56 px.*multiple_px"):
        answer(describe(snapshot("qwen2_5_vl"), form=form), conversations, tmp_path / "differs.jsonl")


def test_a_plain_folder_is_asked_for_our_own_answer_texts(snapshot, tiny_data):
    answerer = load_answerer(snapshot("llava"), tiny_data(), "cpu")
    assert answerer.name == snapshot("llava").name
    assert "whole numbers 0-999" in answerer.settings["prompts"]["REC"]
    assert "form" not in answerer.settings


def test_the_hash_of_a_folder_follows_weights_and_template(snapshot, tmp_path):
    copy = shutil.copytree(snapshot("llava"), tmp_path / "copy")
    same = folder_hash(copy)
    assert same == folder_hash(snapshot("llava"))
    weights = copy / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    changed = folder_hash(copy)
    (copy / "chat_template.jinja").write_text("{{ messages }}", encoding="utf-8")
    assert len({same, changed, folder_hash(copy)}) == 3
