"""Packed rows of another's model: loss and gradients are those of the family's own forward on each dialogue alone."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import torch

from gastrovl.core.errors import ConfigError, ModelInputError
from gastrovl.model import adapters
from gastrovl.model.checkpointing import keep_recomputing, set_checkpointing
from gastrovl.model.config import LoraConfig
from gastrovl.model.gastrovl import IGNORED
from gastrovl.model.published.answering import dialogue_places, family_of, packs
from gastrovl.model.published.snapshot import load_snapshot
from gastrovl.training.rows.packing import collate, pack

FAMILIES = ("llava", "qwen2_5_vl", "qwen2_vl", "gemma3", "smolvlm", "idefics3")
DIALOGUES = (  # of two images
    (
        [("user", "What does the image show?"), ("assistant", "polyp")],
        [("user", "Where is the polyp?"), ("assistant", "[125,250,500,750]")],
        [("user", "Name the region."), ("assistant", "polyp"), ("user", "Describe it."), ("assistant", "A red polyp.")],
    ),
    ([("user", "Describe the image."), ("assistant", "The image shows gastric ulcer.")],),
)


@pytest.fixture
def loaded(snapshot, side_of):
    """`loaded(family)`: a model that is being trained, and its processor."""

    def load(family):
        model, processor = load_snapshot(snapshot(family), side_of.get(family))
        return model.train(), processor

    return load


def squares_of(processor):
    side = processor.image_size_px
    return np.random.default_rng(7).integers(0, 256, (2, side, side, 3), dtype=np.uint8)


def packed_batch(processor):
    rows = [
        pack([processor.encode_dialogue(turns) for turns in group], [1.0] * len(group), 2048) for group in DIALOGUES
    ]
    batch = collate(rows, processor.tokenizer.pad_token_id)
    return batch | {"pixel_values": processor.pixels(squares_of(processor))}


def own_losses(model, processor):
    """The family's own loss of each dialogue alone, and how many answer tokens it is the mean of."""
    squares = squares_of(processor)
    for number, group in enumerate(DIALOGUES):
        for turns in group:
            dialogue = processor.encode_dialogue(turns)
            ids = torch.tensor([dialogue.ids])
            labels = ids.where(torch.tensor([dialogue.is_answer]), torch.tensor(IGNORED))
            pixels = processor.pixels(squares[number : number + 1])
            said = model(input_ids=ids, pixel_values=pixels, labels=labels, **processor.beside(ids))
            yield said.loss, sum(dialogue.is_answer)


def gradients(model):
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    model.zero_grad()
    return found


@pytest.mark.parametrize("family", FAMILIES)
def test_packed_rows_have_the_loss_and_gradients_of_the_familys_own_forward(loaded, family):
    model, processor = loaded(family)
    own = list(own_losses(model, processor))
    expected = sum(loss * count for loss, count in own) / sum(count for _, count in own)
    expected.backward()
    expected_gradients = gradients(model)

    found = model(**packed_batch(processor), with_guesses=True)
    found.loss.backward()
    found_gradients = gradients(model)

    assert found.token_losses.shape == found.guesses.shape == (sum(count for _, count in own),)
    torch.testing.assert_close(found.token_losses.mean(), expected.detach(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found.loss, expected, rtol=1e-5, atol=1e-6)
    assert found_gradients.keys() == expected_gradients.keys()
    for name, value in expected_gradients.items():
        assert (found_gradients[name] - value).norm() <= 1e-5 * value.norm() + 1e-7, name


@pytest.mark.parametrize("family", FAMILIES)
def test_activations_that_are_worked_out_again_give_the_same_gradients(loaded, family):
    model, processor = loaded(family)
    model(**packed_batch(processor)).loss.backward()
    expected = gradients(model)

    set_checkpointing(model, True)
    keep_recomputing(model)
    model(**packed_batch(processor)).loss.backward()
    found = gradients(model)

    assert found.keys() == expected.keys()
    assert all(torch.allclose(found[name], value, rtol=1e-5, atol=1e-7) for name, value in expected.items())


@pytest.mark.parametrize("family", FAMILIES)
def test_mixed_precision_has_nearly_the_same_loss(loaded, family):
    model, processor = loaded(family)
    expected = model(**packed_batch(processor)).loss

    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = model(**packed_batch(processor)).loss
    found.backward()

    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=0.02, atol=0.0)


@pytest.mark.parametrize("family", FAMILIES)
def test_rows_are_shared_where_positions_are_plain(loaded, family):
    assert packs(loaded(family)[0]) == (family in ("llava", "smolvlm", "idefics3"))


def test_a_language_model_that_looks_back_a_short_way_gets_a_row_for_each_dialogue(loaded):
    model, processor = loaded("llava")
    packed = model(**packed_batch(processor)).loss
    model.config.text_config.sliding_window = 4096  # longer than any row here, so that the loss stays

    assert not packs(model)
    torch.testing.assert_close(model(**packed_batch(processor)).loss, packed, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("family", ["llava", "qwen2_5_vl"])
def test_weights_and_the_divisor_of_the_loss_are_those_of_composed_models(loaded, family):
    model, processor = loaded(family)
    batch = packed_batch(processor)
    losses = model(**batch, with_guesses=True).token_losses
    weights = batch["label_weights"] * torch.rand(batch["label_weights"].shape)
    expected = (losses * weights[:, 1:][batch["labels"][:, 1:] != IGNORED]).sum() / 5 * 0.25

    found = model(**batch | {"label_weights": weights}, num_items_in_batch=5, answer_weight=0.25).loss

    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("family", ["llava", "qwen2_5_vl", "gemma3"])
def test_captions_can_be_contrasted_without_answers(loaded, family):
    model, processor = loaded(family)
    text = processor.tokenizer(["A red polyp"], add_special_tokens=False)["input_ids"] * 2
    captions = torch.tensor(text)
    batch = packed_batch(processor) | {"caption_ids": captions, "caption_mask": torch.ones_like(captions)}
    differing = batch | {"caption_ids": torch.stack([captions[0], captions[0].flip(0)])}
    with pytest.raises(ModelInputError, match=r"contrastive_weight needs add_contrastive_head\(\) first"):
        model(**batch, answer_weight=0.0, contrastive_weight=2.0)
    model.add_contrastive_head()
    model.contrast.start("infonce")

    of_equal = model(**batch, answer_weight=0.0, contrastive_weight=2.0)
    of_differing = model(**differing, answer_weight=0.0, contrastive_weight=2.0)
    of_first = model(**differing, answer_weight=0.0, contrastive_weight=2.0, caption_rows=torch.tensor([0]))
    of_differing.loss.backward()

    assert of_equal.guesses is None
    assert of_equal.loss.item() == of_first.loss.item() == 0.0  # equal captions, or one, can be told from no other
    assert of_differing.loss.item() > 0
    names = gradients(model).keys()
    assert any(family_of(model).projector in name for name in names)
    assert any(name.endswith("layers.1.mlp.down_proj.weight") and "vis" not in name for name in names)


def test_dialogues_are_taken_out_of_their_rows_with_what_they_share():
    segments = torch.tensor([[0, 0, 1, 1, 2], [0, 0, 1, -1, -1]])

    rows, places = dialogue_places(segments)

    assert rows[:, 0].tolist() == [0, 0, 1]
    assert places.tolist() == [[0, 1, 2, 3], [0, 1, 4, -1], [0, 1, 2, -1]]


def test_grounding_is_refused_with_a_remedy(loaded):
    model, processor = loaded("llava")

    with pytest.raises(ConfigError, match="LlavaForConditionalGeneration has no grounding head; leave the weight out"):
        model(**packed_batch(processor), grounding_weight=1.0)
    with pytest.raises(ConfigError, match="has no grounding head"):
        model.add_grounding_head()


def test_text_and_images_of_different_models_are_refused(loaded):
    model, processor = loaded("llava")
    batch = packed_batch(processor)
    batch["input_ids"][0, 0] = processor.image_token_id

    with pytest.raises(ModelInputError, match="33 image placeholders in the text, 2 images of 16 tokens"):
        model(**batch)


def test_the_forward_keeps_the_signature_that_generate_reads(loaded):
    model, _ = loaded("qwen2_5_vl")

    assert {"pixel_values", "image_grid_thw", "mm_token_type_ids"} <= inspect.signature(model.forward).parameters.keys()


@pytest.mark.parametrize("family", FAMILIES)
def test_adapters_sit_on_the_language_model_and_the_projector_stays_whole(loaded, family):
    model, processor = loaded(family)
    names = set(model.state_dict())
    before = model(**packed_batch(processor)).loss.item()

    wrapped = adapters.add_lora(model, LoraConfig(rank=2, alpha=4, dropout=0.0))

    adapted = {
        name.split(".lora_A")[0].rsplit(".", 1)[-1] for name, _ in wrapped.named_parameters() if "lora_A" in name
    }
    assert adapted == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    assert all(
        "language_model" in name or "text_model" in name for name, _ in wrapped.named_parameters() if "lora_" in name
    )
    assert any("modules_to_save" in name for name, _ in wrapped.named_parameters())
    assert wrapped(**packed_batch(processor)).loss.item() == pytest.approx(before, rel=1e-5)
    merged = adapters.merge(wrapped)
    assert set(merged.state_dict()) == names
