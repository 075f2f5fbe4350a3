"""The composed model: merging, losses by hand, cached against uncached, what it refuses."""

from __future__ import annotations

import math

import pytest
import torch

from gastrovl.core.errors import ConfigError, ModelInputError
from gastrovl.model.checkpoint import build_model
from gastrovl.model.gastrovl import IGNORED, masked_mean, merge_image_features

CONNECTORS = [("mlp", "siglip"), ("linear", "clip"), ("pool", "resnet"), ("query", "siglip")]


def a_batch(processor, turns=(("user", "Where is the polyp?"), ("assistant", "[125,250,500,749]"))):
    dialogue = processor.encode_dialogue(turns)
    ids = torch.tensor([dialogue.ids])
    is_answer = torch.tensor([dialogue.is_answer])
    return {
        "input_ids": ids,
        "pixel_values": torch.randn(1, 3, 32, 32),
        "segments": torch.zeros_like(ids),
        "position_ids": torch.arange(ids.shape[1])[None],
        "labels": torch.where(is_answer, ids, IGNORED),
    }


def test_image_features_stand_at_the_placeholders_in_order():
    tokens = torch.zeros(2, 4, 1)
    is_image = torch.tensor([[True, True, False, False], [False, True, True, False]])
    features = torch.tensor([[1.0], [2.0], [3.0], [4.0]])

    merged = merge_image_features(tokens, features, is_image)

    assert merged.squeeze(-1).tolist() == [[1, 2, 0, 0], [0, 3, 4, 0]]
    assert tokens.sum() == 0


def test_a_count_of_placeholders_that_does_not_fit_the_images_is_refused():
    with pytest.raises(ModelInputError, match="1 image placeholders in the text, 2 image tokens"):
        merge_image_features(torch.zeros(1, 2, 1), torch.ones(2, 1), torch.tensor([[True, False]]))


def test_each_image_is_followed_by_the_regions_asked_about(tiny_model):
    model, _ = build_model(tiny_model("pool", "resnet"), seed=1)
    images = torch.arange(2 * 17, dtype=torch.float32).reshape(2, 17, 1)
    cell = [0.25, 0.0, 0.5, 0.25]  # the second of the 4 x 4 grid
    nothing = [math.nan] * 4

    found = model.model.with_regions(images, torch.tensor([[cell, [0.0, 0.0, 1.0, 1.0]], [cell, nothing]]))

    assert found.squeeze(-1).tolist() == pytest.approx([*range(17), 1.0, 7.5, *range(17, 34), 18.0])
    assert model.model.with_regions(images, None).squeeze(-1).tolist() == [*range(34)]


def test_regions_of_other_images_or_for_another_connector_are_refused(tiny_model):
    box = torch.tensor([[[0.0, 0.0, 1.0, 1.0]]])
    pooled, plain = (build_model(tiny_model(*parts), seed=1)[0] for parts in (("pool", "resnet"), ("mlp", "siglip")))

    with pytest.raises(ModelInputError, match="of 1 images are given for 2"):
        pooled.model.with_regions(torch.zeros(2, 17, 32), box)
    with pytest.raises(ModelInputError, match="was built without `regions`"):
        plain.model.with_regions(torch.zeros(1, 16, 32), box)


def test_a_batch_without_answers_is_refused_instead_of_giving_nan(tiny_model):
    model, processor = build_model(tiny_model("mlp"), seed=1)
    batch = a_batch(processor)

    with pytest.raises(ModelInputError, match="no position of the batch is marked as answer"):
        model(**batch | {"labels": torch.full_like(batch["labels"], IGNORED)})


def test_labels_need_pixels_beside_them(tiny_model):
    model, processor = build_model(tiny_model("mlp"), seed=1)
    batch = a_batch(processor)
    del batch["pixel_values"]

    with pytest.raises(ModelInputError, match="labels need pixel_values or tower_features"):
        model(**batch)


def test_an_argument_that_training_does_not_know_is_refused(tiny_model):
    model, processor = build_model(tiny_model("mlp"), seed=1)
    with pytest.raises(ModelInputError, match="labels do not go with image_sizes"):
        model(**a_batch(processor), image_sizes=torch.ones(1, 2))


def test_a_masked_mean_leaves_padding_out():
    hidden = torch.tensor([[[2.0], [4.0], [100.0]], [[7.0], [8.0], [9.0]]])

    assert masked_mean(hidden, torch.tensor([[1, 1, 0], [0, 0, 0]])).tolist() == [[3.0], [0.0]]


@pytest.mark.parametrize(("connector", "tower"), CONNECTORS)
def test_training_and_inference_paths_say_the_same(tiny_model, connector, tower):
    model, processor = build_model(tiny_model(connector, tower), seed=1)
    model.eval()
    batch = a_batch(processor)

    trained = model(**batch, with_guesses=True)
    labels = batch.pop("labels")
    is_answer = labels[:, 1:] != IGNORED
    logits, targets = model(**batch).logits[:, :-1][is_answer], labels[:, 1:][is_answer]

    expected = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
    torch.testing.assert_close(trained.token_losses, expected, rtol=1e-5, atol=1e-6)
    assert torch.equal(trained.guesses, logits.argmax(dim=-1))
    assert trained.loss.item() == pytest.approx(expected.mean().item(), rel=1e-5)


def test_tokens_are_scored_when_asked_only(tiny_model):
    model, processor = build_model(tiny_model("mlp"), seed=1)
    assert model(**a_batch(processor)).token_losses is None


@pytest.mark.parametrize(("connector", "tower"), CONNECTORS)
def test_cached_generation_equals_uncached(tiny_model, connector, tower):
    model, processor = build_model(tiny_model(connector, tower), seed=2)
    model.eval()
    prompt = torch.tensor([processor.encode_prompt([("user", "Describe the image.")])])
    inputs = {"input_ids": prompt, "attention_mask": torch.ones_like(prompt), "pixel_values": torch.randn(1, 3, 32, 32)}
    settings = {"max_new_tokens": 12, "do_sample": False, "eos_token_id": None, "output_logits": True}
    settings["suppress_tokens"] = [processor.image_token_id]  # said by chance, it would ask for a second image

    cached, uncached = (
        model.generate(**inputs, **settings, use_cache=flag, return_dict_in_generate=True) for flag in (True, False)
    )

    assert cached.sequences.shape[1] == prompt.shape[1] + 12
    assert torch.equal(cached.sequences, uncached.sequences)
    torch.testing.assert_close(torch.stack(cached.logits), torch.stack(uncached.logits), rtol=1e-4, atol=1e-5)


def test_the_image_matters_to_the_loss(tiny_model):
    model, processor = build_model(tiny_model("mlp"), seed=1)
    batch = a_batch(processor)
    one = model(**batch).loss

    other = model(**batch | {"pixel_values": batch["pixel_values"] + 1.0}).loss

    assert abs((one - other).item()) > 1e-4


def test_without_answer_weight_the_language_model_does_not_run(tiny_model, monkeypatch):
    model, processor = build_model(tiny_model("mlp"), seed=1)
    monkeypatch.setattr(model.model.language_model, "forward", lambda *_, **__: pytest.fail("it ran"))

    output = model(**a_batch(processor), answer_weight=0.0)

    assert output.token_losses is None
    assert output.loss.item() == 0.0


def test_the_contrastive_term_is_added_with_its_weight(tiny_model):
    model, processor = build_model(tiny_model("mlp"), seed=1)
    row = a_batch(processor)
    batch = {name: value.repeat(2, *[1] * (value.ndim - 1)) for name, value in row.items()}
    batch["pixel_values"] = torch.randn(2, 3, 32, 32)
    captions = {
        "caption_ids": torch.tensor([[5, 6, 7], [8, 9, 0]]),
        "caption_mask": torch.tensor([[1, 1, 1], [1, 1, 0]]),
    }
    images = torch.stack(model.model.get_image_features(batch["pixel_values"]).pooler_output).mean(dim=1)
    hidden = model.model.language_model(captions["caption_ids"], captions["caption_mask"]).last_hidden_state
    texts = torch.stack([hidden[0].mean(dim=0), hidden[1, :2].mean(dim=0)])

    without = model(**batch, **captions).loss
    model.add_contrastive_head()
    with_it = model(**batch, **captions, contrastive_weight=0.5).loss

    assert (with_it - without).item() == pytest.approx(
        0.5 * model.contrast(images, texts, torch.arange(2)[:, None]).item(), rel=1e-4
    )


@pytest.mark.parametrize("connector", ["linear", "mlp"])
def test_a_convolutional_tower_needs_a_connector_with_positions(tiny_model, connector):
    with pytest.raises(ConfigError, match=f"'{connector}' makes a plain LLaVA model.*'resnet'.*`pool`, `query` or"):
        build_model(tiny_model(connector, "resnet"), seed=1)


def test_a_convolutional_tower_gives_its_last_map_only(tiny_model):
    with pytest.raises(ConfigError, match="feature_layer -2: a convolutional tower gives its last map only"):
        build_model(tiny_model("pool", "resnet", feature_layer=-2), seed=1)


def test_the_second_layer_of_a_linear_connector_is_an_exact_identity(tiny_model):
    model, _ = build_model(tiny_model("linear"), seed=1)
    projector, features = model.model.multi_modal_projector, torch.randn(2, 16, 32)

    assert torch.equal(projector.linear_2.weight, torch.eye(32))
    assert not projector.linear_2.bias.any()
    torch.testing.assert_close(projector(features), projector.linear_1(features), rtol=0, atol=1e-6)


def test_the_same_seed_gives_the_same_weights_and_another_one_others(tiny_model):
    first, again, other = (build_model(tiny_model("mlp"), seed)[0].state_dict() for seed in (1, 1, 2))

    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["lm_head.weight"], other["lm_head.weight"])
